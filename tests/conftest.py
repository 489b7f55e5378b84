"""The demo data set and a network trained on it, made once for all tests as a user makes them."""

import pytest

from shell import TINY, run_script


@pytest.fixture(scope="session")
def demo(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo") / "processed"
    done = run_script("data_preprocessing.py", "--demo", "--data", folder)
    assert done.returncode == 0, done.stderr
    assert "120 pairs" in done.stdout
    return folder


@pytest.fixture(scope="session")
def trained(demo, tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained") / "checkpoints"
    done = run_script("train.py", *TINY, "--data", demo, "--checkpoints", folder)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""  # TensorFlow's noise is held back
    assert "2 filters" in done.stdout
    assert "validation Dice" in done.stdout
    assert f"python evaluation.py --data {demo} --checkpoints {folder}" in done.stdout
    return folder
