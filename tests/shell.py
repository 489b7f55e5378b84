"""What tests share: running scripts as a user does, and small made-up data."""

import csv
import json
import os
import resource
import subprocess
import sys
import time
import zipfile
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from utils.command import InputError, hold_back_stderr
from utils.data.dataset import SPLITS, Split
from utils.data.pictures import cv2, decode_image, read_bytes, reduce_picture, tells_damage
from utils.files import file_sha256
from utils.prediction.predictors import enlarge
from utils.scoring.properties import PROPERTIES

ROOT = Path(__file__).parents[1]
TINY = ["--filters", "8", "--epochs", "3", "2"]


def command(script, *arguments):
    return [sys.executable, str(ROOT / script), *map(str, arguments)]


def run_script(script, *arguments, **options):
    """Run a script as a user does, but without a network: see conftest.py."""
    return subprocess.run(
        command(script, *arguments), capture_output=True, text=True, check=False, **options
    )


def wait_for(process, reached, seconds=120):
    """Wait until `reached()` is true of what a process in the background does."""
    deadline = time.monotonic() + seconds
    while not reached():
        assert process.poll() is None, "it ended before it could be stopped"
        assert time.monotonic() < deadline
        time.sleep(0.02)


def assert_mistake(done, *words):
    """One line of the script's own, after the usage if argparse refuses; status 2."""
    assert done.returncode == 2, done.stderr
    *usage, line = done.stderr.splitlines()
    assert not usage or usage[0].startswith("usage: "), done.stderr
    assert all(word in line for word in words), line


def read_rows(path):
    if not path.exists():
        return []
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def make_pair(number, height=40, width=50):
    """Return a picture in RGB and its mask, 0 and 255."""
    random = np.random.default_rng(number)
    mask = np.zeros((height, width), np.uint8)
    mask[5 : 15 + number, 10 : 20 + number] = 255
    return random.integers(0, 256, (height, width, 3), np.uint8), mask


def segment_picture(predict, picture, size, threshold):
    """Segment a picture at its own size, as evaluation.py should; (height, width) uint8, 0, 255.

    picture: (height, width, 3) uint8, RGB.
    """
    probability = enlarge(predict(reduce_picture(picture, size)[None])[0], picture.shape)
    return (probability >= threshold).astype(np.uint8) * np.uint8(255)


def read_picture(path):
    """Read a picture: (height, width, 3) uint8 RGB, turned as its EXIF orientation shows it.

    Raises InputError for what cannot be read or decoded, wholly. Not for threads: see
    `hold_back_stderr`.
    """
    data = read_bytes(path)
    with hold_back_stderr() as held_back:
        picture = decode_image(data, path, cv2.IMREAD_COLOR_RGB)
        damaged = tells_damage(held_back())
    if damaged:
        raise InputError(f"{path}: a damaged JPEG, only a part of it is there; replace it")
    return picture


def zip_folders(folders, path):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for folder in folders:
            for file in folder.rglob("*"):
                archive.write(file, f"top/{folder.name}/{file.relative_to(folder).as_posix()}")
    return path


def save_data_set(folder, masks, size=16):
    """Leave a prepared data set: the masks' pairs to test, one to train, one to validate."""
    folder.mkdir()
    splits = ["train", "validation"] + ["test"] * len(masks)
    np.save(folder / "images.npy", make_pictures(len(splits), size, size, 3))
    np.save(folder / "masks.npy", np.concatenate([np.ones((2, size, size, 1), np.uint8), masks]))
    lines = [f"n{row},{row},{split},{min(row, 2)}" for row, split in enumerate(splits)]
    summary = {"source": "demo", "sha256": "abc", "image_size": size}
    summary |= {key: dict.fromkeys(SPLITS, 1) for key in ("pairs", "polyp_fraction")}
    (folder / "dataset.json").write_text(json.dumps(summary))
    save_splits(folder, lines)
    return folder


def save_splits(folder, lines, **change):
    """Leave splits.csv of these lines, and what dataset.json says of it, and what shall change."""
    path = folder / "splits.csv"
    path.write_text("\n".join(["name,group,split,fold", *lines]) + "\n")
    summary = json.loads((folder / "dataset.json").read_text())
    summary |= {"splits_sha256": file_sha256(path), **change}
    (folder / "dataset.json").write_text(json.dumps(summary))


def save_folds(folder, count=2, size=16):
    """Leave a data set of three pictures a fold, prepared for each fold; return the folders."""
    rows, folders = range(3 * count), [folder / f"fold{fold}" for fold in range(count)]
    masks = (make_pictures(len(rows), size, size, 1) < 80).astype(np.uint8)
    for tested, each in enumerate(folders):
        each.parent.mkdir(exist_ok=True)
        save_data_set(each, masks[2:], size)
        np.save(each / "masks.npy", masks)
        splits = ["test" if row // 3 == tested else "train" for row in rows]
        splits[splits.index("train")] = "validation"
        lines = [f"n{row},{row},{split},{row // 3}" for row, split in enumerate(splits)]
        save_splits(each, lines, sha256=f"abc{tested}")
    return folders


def make_pictures(*shape):
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def array_split(count=11, size=32):
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (count, size, size, 3), np.uint8)
    masks = (random.random((count, size, size, 1)) < 0.3).astype(np.uint8)
    return Split(images, masks, [f"{n:02d}" for n in range(count)], np.arange(count))


def make_rows(scores, phase=1, fraction=0.1, loss=0.5):
    common = {"phase": phase, "loss": loss, "dice_score": 0.5, "predicted_fraction": 0.1}
    common |= {"val_loss": 0.6, "val_predicted_fraction": fraction, "seconds": 1.5}
    return [
        common | {"epoch": epoch + 1, "val_dice_score": score} for epoch, score in enumerate(scores)
    ]


def property_rows(**columns):
    """Return properties of pictures, those that are not named all 1."""
    count = len(next(iter(columns.values())))
    values = dict.fromkeys(PROPERTIES, [1.0] * count) | columns
    return [dict(zip(values, row, strict=True)) for row in zip(*values.values(), strict=True)]


@contextmanager
def full_disk(size):
    """Let no file grow beyond `size` bytes meanwhile: the system refuses it as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@contextmanager
def no_rights():
    """Be nobody meanwhile, if one is root, whom no right of a file would stop."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)
