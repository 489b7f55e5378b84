"""The demo data set, made once for all tests as a user makes it."""

import pytest

from shell import run_script


@pytest.fixture(scope="session")
def demo(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo") / "processed"
    done = run_script("data_preprocessing.py", "--demo", "--data", folder)
    assert done.returncode == 0, done.stderr
    assert "120 pairs" in done.stdout
    return folder
