"""The scripts as a user runs them, from the shell, on the demo data and a tiny network."""

import json
import os
import shutil
import signal
import subprocess
import sys

import cv2
import keras
import numpy as np
import pytest

import data_preprocessing
import evaluation
import train
from shell import ROOT, TINY, assert_mistake, command, read_rows, run_script, wait_for
from utils.scoring.registry import FIRST


def scores_of(folder):
    return [
        {key: value for key, value in row.items() if key != "seconds"}
        for row in read_rows(folder / "history.csv")
    ]


def test_training_leaves_what_the_readme_lists(trained, demo):
    names = {path.name for path in trained.iterdir()}
    drawn = {"curves.png", "augmented.png"}
    assert names == drawn | {"unet.keras", "history.csv", "config.json", "trained_on.txt"}
    config = json.loads((trained / "config.json").read_text())
    assert config["settings"]["filters"] == 8
    assert (
        config["settings"]["data_sha256"]
        == json.loads((demo / "dataset.json").read_text())["sha256"]
    )
    assert config["machine"]["keras"] == keras.__version__
    rows = read_rows(trained / "history.csv")
    assert [(row["phase"], float(row["epoch"])) for row in rows] == [
        *(("1", 1), ("1", 2), ("1", 3), ("2", 1), ("2", 2))
    ]


def test_the_trained_model_loads_without_the_project(trained, tmp_path):
    code = "import sys, keras; print(keras.models.load_model(sys.argv[1]).output_shape)"
    load = [sys.executable, "-c", code, str(trained / "unet.keras")]
    done = subprocess.run(load, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "(None, 128, 128, 1)" in done.stdout


def wait_for_rows(process, folder, count):
    wait_for(process, lambda: len(read_rows(folder / "history.csv")) >= count)


def test_a_killed_training_goes_on_as_if_it_had_not_been(demo, trained, tmp_path):
    """After --fresh has replaced another in its folder."""
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    training = command("train.py", *TINY, "--data", demo, "--checkpoints", tmp_path)
    (tmp_path / "history.csv").unlink()  # another training's; what comes is the new one's
    for rows_before_the_kill, fresh in ((2, ["--fresh"]), (4, [])):  # one kill in each phase
        process = subprocess.Popen(
            training + fresh, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        wait_for_rows(process, tmp_path, rows_before_the_kill)
        process.kill()
        process.wait()
    done = subprocess.run(training, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert scores_of(tmp_path) == scores_of(trained)
    for ours, theirs in zip(
        keras.models.load_model(tmp_path / "unet.keras").get_weights(),
        keras.models.load_model(trained / "unet.keras").get_weights(),
        strict=True,
    ):
        np.testing.assert_array_equal(ours, theirs)


def test_an_interrupted_training_says_that_it_can_go_on(demo, tmp_path):
    training = command("train.py", *TINY, "--data", demo, "--checkpoints", tmp_path)
    process = subprocess.Popen(
        training, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    wait_for_rows(process, tmp_path, 1)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors.splitlines()[-1].endswith("goes on after the last whole epoch, if one has ended")
    assert "Traceback" not in errors


def test_a_finished_training_is_neither_repeated_nor_replaced_unasked(demo, trained):
    same = run_script("train.py", *TINY, "--data", demo, "--checkpoints", trained)
    assert same.returncode == 0
    assert "finished" in same.stdout
    before = (trained / "unet.keras").read_bytes()
    other = ["--data", demo, "--checkpoints", trained, "--seed", 7]
    done = run_script("train.py", *TINY, *other)
    assert_mistake(done, str(trained), "seed 42, not 7", "--fresh")
    assert (trained / "unet.keras").read_bytes() == before


def test_training_without_data_says_what_to_run(tmp_path):
    done = run_script("train.py", cwd=tmp_path)
    assert_mistake(done, "data/processed", "run python data_preprocessing.py")
    assert list(tmp_path.iterdir()) == []


def test_training_takes_the_size_from_the_data_set(tmp_path):
    code = "import data_preprocessing as d; d.IMAGE_SIZE = 32; d.DEMO_PAIRS = 20; d.run(d.main)"
    line = [sys.executable, "-c", code, "--demo", "--data", str(tmp_path / "data")]
    subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=True)
    options = ["--data", tmp_path / "data", "--checkpoints", tmp_path / "checkpoints"]
    done = run_script("train.py", "--filters", 8, "--epochs", 1, 0, *options)
    assert done.returncode == 0, done.stderr
    saved = keras.models.load_model(tmp_path / "checkpoints/unet.keras")
    assert saved.input_shape == (None, 32, 32, 3)


def test_a_diverging_training_stops_with_a_line(demo, tmp_path):
    code = "import train; train.PHASES[0]['learning_rate'] = 1e30; train.run(train.main)"
    arguments = [*TINY, "--data", str(demo), "--checkpoints", str(tmp_path)]
    line = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "is not finite; try a lower learning rate" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    "arguments", [["--filters", "0"], ["--epochs", "0", "0"], ["--seed", "-1"]], ids=" ".join
)
def test_impossible_numbers_are_refused(arguments):
    done = run_script("train.py", *arguments)
    assert done.returncode == 2
    assert arguments[0].lstrip("-") in done.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("script", "flags"),
    [
        (data_preprocessing, ["--archive", "--images", "--masks", "--splits", "--data"]),
        (train, ["--data", "--checkpoints", "--from"]),
        (evaluation, ["--list", "--images", "--masks", "--archive", "--checkpoints", "--compare"]),
        (evaluation, ["--data", "--results", "PICTURE_OR_FOLDER"]),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_an_empty_path_is_refused(script, flags, monkeypatch, capsys):
    for flag in flags:
        given = [flag, ""] if flag.startswith("--") else [""]
        monkeypatch.setattr(sys, "argv", [script.__name__, *given])
        with pytest.raises(SystemExit):
            script.parse_arguments()
        assert f"argument {flag}: is empty" in capsys.readouterr().err


def test_evaluation_scores_the_test_split(demo, trained, tmp_path):
    options = ["--data", demo, "--checkpoints", trained, "--results", tmp_path]
    done = run_script("evaluation.py", *options)
    assert done.returncode == 0, done.stderr
    assert "Beware" not in done.stdout
    report = json.loads((tmp_path / "metrics.json").read_text())
    assert report["images"] == json.loads((demo / "dataset.json").read_text())["pairs"]["test"]
    for name, metric in report["metrics"].items():
        assert 0 <= metric["value"] <= 1, name
        if name in FIRST:
            assert f"{metric['value']:.3f} [" in done.stdout
        assert f"{metric['value']:.3f}" in (tmp_path / "metrics.md").read_text()
    rows = read_rows(tmp_path / "per_image.csv")
    assert list(rows[0]) == [
        *("name", "scene", "dice", "iou", "precision", "recall", "sureness", "alarms"),
        *("polyps_found", "false_regions"),
        *("hausdorff_95", "boundary_f1", "polyp_fraction", "polyps", "distance", "edge"),
        *("brightness", "sharpness"),
    ]
    mean = np.mean([float(row["dice"]) for row in rows])
    assert mean == pytest.approx(report["metrics"]["image_dice"]["value"], abs=1e-5)
    figures = ["predictions", "precision_recall", "dice_histogram", "dice_by_size"]
    figures += ["sensitivity_by_size", "reliability", "failures", "worst"]
    for name in figures:
        assert cv2.imread(str(tmp_path / f"{name}.png")) is not None, name


def test_evaluation_warns_of_data_that_the_model_was_not_trained_on(demo, trained, tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    for name in ("images.npy", "masks.npy", "splits.csv"):
        os.link(demo / name, data / name)
    summary = json.loads((demo / "dataset.json").read_text())
    (data / "dataset.json").write_text(json.dumps(summary | {"sha256": "another"}))
    network = tmp_path / "network"
    shutil.copytree(trained, network, ignore=shutil.ignore_patterns("trained_on.txt"))
    options = ["--data", data, "--checkpoints", network, "--results", tmp_path / "results"]
    done = run_script("evaluation.py", *options)
    assert done.returncode == 0, done.stderr
    assert "Beware" in done.stdout


def test_ones_own_pictures_are_segmented_at_their_own_size(trained, tmp_path):
    random = np.random.default_rng(0)
    folder = tmp_path / "pictures"
    folder.mkdir()
    cv2.imwrite(str(folder / "wide.jpg"), random.integers(0, 256, (90, 200, 3), np.uint8))
    cv2.imwrite(str(tmp_path / "tall.png"), random.integers(0, 256, (300, 150, 3), np.uint8))
    options = ["--checkpoints", trained, "--results", tmp_path / "results"]
    done = run_script("evaluation.py", folder, tmp_path / "tall.png", *options)
    assert done.returncode == 0, done.stderr
    assert "2 masks" in done.stdout
    for name, shape in (("pictures/wide", (90, 200)), ("tall", (300, 150))):
        mask = cv2.imread(str(tmp_path / "results/masks" / f"{name}.png"), cv2.IMREAD_UNCHANGED)
        assert mask.shape == shape
        assert set(np.unique(mask)) <= {0, 255}
        overlay = cv2.imread(str(tmp_path / "results/overlays" / f"{name}.jpg"))
        assert overlay.shape == (*shape, 3)


def test_evaluation_names_what_is_missing(demo, trained, tmp_path):
    (tmp_path / "empty").mkdir()
    no_model = run_script("evaluation.py", "--data", demo, "--checkpoints", tmp_path / "none")
    assert_mistake(no_model, "unet.keras", "run python train.py")
    no_picture = run_script("evaluation.py", tmp_path / "none.jpg", "--checkpoints", trained)
    assert_mistake(no_picture, "none.jpg", "no such file")
    no_pictures = run_script("evaluation.py", tmp_path / "empty", "--checkpoints", trained)
    assert_mistake(no_pictures, "empty", "holds no picture")


def test_two_devices_make_the_step_of_one():
    """The same batch on one device and on two: the same weights after a step, to rounding.

    By plain descent, since Adam makes whole steps of gradients that are rounding alone; by Muon,
    as train.py has it, the same loss and scores.
    """
    code = """
import numpy as np, keras, tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
from model import build_unet, dice_loss
from train import compile_unet, make_optimizer
from utils.training.kernels import to_train
from utils.devices import make_strategy
settings = {"phases": [{"epochs": 1, "learning_rate": 1e-3}], "decay": True, "warm_up": 0}
settings |= {"optimizer": "muon", "clip_norm": 1.0}
random = np.random.default_rng(0)
batch = random.integers(0, 256, (8, 32, 32, 3), np.uint8), random.integers(0, 2, (8, 32, 32, 1))
weights, logs = [], []
for devices in (["CPU:0"], ["CPU:0", "CPU:1"]):
    keras.utils.set_random_seed(1)
    strategy = make_strategy(devices)
    assert strategy.num_replicas_in_sync == len(devices)
    with strategy.scope():
        network = to_train(build_unet(size=32, filters=2), "standardized")
        network.compile(keras.optimizers.SGD(0.1), dice_loss)
    network.fit(tf.data.Dataset.from_tensors(batch), verbose=0)
    weights.append(network.get_weights())
    with strategy.scope():
        compile_unet(network, dice_loss, make_optimizer(settings, 1, 9), 0.5)
    history = network.fit(tf.data.Dataset.from_tensors(batch).repeat(2), verbose=0).history
    logs.append([history[key][0] for key in ("loss", "dice_score", "predicted_fraction")])
moved = max(np.abs(w).max() for w in weights[0])
gap = max(np.abs(a - b).max() for a, b in zip(*weights))
assert moved > 0 and gap < 1e-5, (moved, gap)
np.testing.assert_allclose(*logs, rtol=1e-3)
print("same")
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.stdout.strip().endswith("same"), done.stderr
