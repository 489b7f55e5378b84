"""evaluation.py as a user runs it: refused at once, of several networks, of the shipped one."""

import json
import shutil
import signal
import subprocess
import sys

import cv2
import numpy as np
import pytest

from shell import ROOT, assert_mistake, command, read_rows, run_script


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (["-h"], 0),
        (["--wrong"], 2),
        ([], 2),  # no data set there yet
        (["none.jpg"], 2),
        (["picture.png", "--checkpoints", "empty"], 2),
        (["--data", "DEMO", "--checkpoints", "empty"], 2),
        (["--data", "DEMO", "--checkpoints", "damaged"], 2),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_needs_no_tensorflow_is_answered_without_it(arguments, status, demo, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged/unet.keras").touch()
    (tmp_path / "damaged/config.json").write_text("{")
    cv2.imwrite(str(tmp_path / "picture.png"), np.zeros((8, 8, 3), np.uint8))
    code = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
import evaluation
try:
    evaluation.run(evaluation.main)
finally:
    print(*sorted({{"tensorflow", "keras", "model"}} & set(sys.modules)), "loaded")
"""
    arguments = [str(demo) if argument == "DEMO" else argument for argument in arguments]
    line = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == status, done.stderr
    assert done.stdout.splitlines()[-1].strip() == "loaded", done.stdout
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "results").exists()


def test_an_interruption_while_tensorflow_loads_is_one_line(demo, trained):
    line = command("evaluation.py", "--data", demo, "--checkpoints", trained)
    process = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout.readline().startswith("TensorFlow starts")
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors == "evaluation.py: interrupted\n"


def test_several_networks_and_views_are_scored_and_written_down(demo, trained, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(trained, other, ignore=shutil.ignore_patterns("trained_on.txt"))
    config = json.loads((other / "config.json").read_text())
    config["settings"] |= {"data_sha256": "another", "seed": 7}
    (other / "config.json").write_text(json.dumps(config))
    options = ["--data", demo, "--results", tmp_path / "results", "--tta"]
    done = run_script("evaluation.py", *options, "--checkpoints", trained, other)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    report = json.loads((tmp_path / "results/metrics.json").read_text())
    assert report["tta"] is True
    assert [network["checkpoints"] for network in report["networks"]] == [str(trained), str(other)]
    assert [network["training"]["settings"]["seed"] for network in report["networks"]] == [42, 7]
    assert report["prediction"].startswith(
        "a pixel is called polyp if its probability, the mean over 2 networks, which equivar"
    )
    assert f"Prediction: {report['prediction']}" in done.stdout
    assert report["trained_on_this_data"] is False
    beware = [line for line in done.stdout.splitlines() if line.startswith("Beware")]
    assert len(beware) == 1
    assert str(other) in beware[0]

    one = ["--data", demo, "--results", tmp_path / "one", "--tta", "--checkpoints", trained]
    done = run_script("evaluation.py", *one)
    assert done.returncode == 0, done.stderr
    alone = json.loads((tmp_path / "one/metrics.json").read_text())
    assert alone["trained_on_this_data"] is True
    assert alone["metrics"] == report["metrics"]  # the mean of a network and its copy
    assert read_rows(tmp_path / "one/per_image.csv") == read_rows(
        tmp_path / "results/per_image.csv"
    )


def test_pictures_are_segmented_by_the_shipped_network_until_there_is_ones_own(trained, tmp_path):
    picture = np.random.default_rng(0).integers(0, 256, (90, 120, 3), np.uint8)
    cv2.imwrite(str(tmp_path / "息肉.png"), picture)
    done = run_script("evaluation.py", "息肉.png", "--tta", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "checkpoints: holds no network yet; " in done.stdout
    assert "equivariant kernels make the same for the 8 flips and quarter turns" in done.stdout
    mask = cv2.imdecode(np.fromfile(tmp_path / "results/masks/息肉.png", np.uint8), -1)
    assert mask.shape == (90, 120)
    shutil.copytree(trained, tmp_path / "checkpoints")
    done = run_script("evaluation.py", "息肉.png", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "no network yet" not in done.stdout


def test_a_picture_after_checkpoints_is_told_apart(trained, tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((8, 8, 3), np.uint8))
    done = run_script("evaluation.py", "--checkpoints", trained, tmp_path / "a.png")
    assert_mistake(done, "a.png", "is a file", "write pictures before --checkpoints")
