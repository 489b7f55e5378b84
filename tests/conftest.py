"""The demo data set and a network trained on it, made once for all tests as a user makes them."""

import fcntl
import os
import shutil
import signal
import tempfile
import warnings
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from shell import ROOT, TINY, make_pair, run_script
from utils import drawing
from utils.data.pictures import cv2
from utils.reporting import cases, plots


@pytest.fixture(scope="session", autouse=True)
def offline():
    """Let every Python that a test starts end where it turns to the network.

    It loads tests/offline/sitecustomize.py first. pytest's own workers, which have begun by now, do
    not: they are servers to what is downloaded.
    """
    paths = [str(ROOT / "tests/offline"), os.environ.get("PYTHONPATH")]
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, paths))


@pytest.fixture(scope="session", autouse=True)
def answer_signals():
    """Let what tests start answer signals, even under nohup or `pytest &`, which ignore some."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture
def folders(tmp_path):
    """Return folders of 20 pictures and their masks, all PNG."""
    images, masks = tmp_path / "images", tmp_path / "masks"
    for folder in (images, masks):
        folder.mkdir()
    for number in range(20):
        picture, mask = make_pair(number)
        for folder, image in ((images, picture[..., ::-1]), (masks, mask)):
            (folder / f"{number:02d}.png").write_bytes(cv2.imencode(".png", image)[1])
    return images, masks


def pytest_collection_modifyitems(items):
    """Let tests that start scripts come first, so that no worker waits for another's at the end."""
    items.sort(key=lambda item: not {"demo", "trained"} & set(item.fixturenames))


def made_once(tmp_path_factory, name, make):
    """Return this worker's own copy of a folder that `make` leaves, for all of pytest's workers.

    The first to ask has it made; the others wait for that.
    """
    own = tmp_path_factory.mktemp(name) / "copy"
    common = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        common = common.parent
    made = common / f"{name}-made"
    with open(common / f"{name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists():
            make(common / f"{name}-beside")
            (common / f"{name}-beside").rename(made)
    shutil.copytree(made, own)
    return own


@pytest.fixture(scope="session")
def demo(tmp_path_factory):
    def make(folder):
        done = run_script("data_preprocessing.py", "--demo", "--data", folder)
        assert done.returncode == 0, done.stderr
        assert "120 pairs" in done.stdout

    return made_once(tmp_path_factory, "demo", make)


@pytest.fixture(scope="session")
def trained(demo, tmp_path_factory):
    def make(folder):
        done = run_script("train.py", *TINY, "--data", demo, "--checkpoints", folder)
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""  # TensorFlow's noise is held back
        assert "8 filters" in done.stdout
        assert "validation Dice" in done.stdout
        assert f"/evaluation.py --data {demo} --checkpoints {folder}" in done.stdout

    return made_once(tmp_path_factory, "trained", make)


@pytest.fixture
def strangers_folder():
    """Return a folder that others may read, and its owner alone may write."""
    folder = Path(tempfile.mkdtemp())  # not in tmp_path, into which others cannot look
    folder.chmod(0o555)
    yield folder
    folder.chmod(0o755)
    shutil.rmtree(folder)


@pytest.fixture
def drawn(monkeypatch):
    """The Figures that are made during a test, in order; whatever warns meanwhile is an error."""
    made = []

    class Kept(Figure):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            made.append(self)

    for room in (cases, drawing, plots):
        monkeypatch.setattr(room, "Figure", Kept)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield made
