"""evaluation.py as a user runs it: what is refused at once, and what an interruption leaves."""

import signal
import subprocess
import sys

import cv2
import numpy as np
import pytest

from shell import ROOT, command


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
