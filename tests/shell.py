"""What tests share: running scripts as a user does, and small made-up data."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np

from utils.dataset import Split

ROOT = Path(__file__).parents[1]
TINY = ["--filters", "2", "--epochs", "3", "2"]


def command(script, *arguments):
    return [sys.executable, str(ROOT / script), *map(str, arguments)]


def run_script(script, *arguments, **options):
    return subprocess.run(
        command(script, *arguments), capture_output=True, text=True, check=False, **options
    )


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


def save_data_set(folder, masks, size=16):
    """Leave a prepared data set: the masks' pairs to test, one to train, one to validate."""
    folder.mkdir()
    splits = ["train", "validation"] + ["test"] * len(masks)
    np.save(folder / "images.npy", make_pictures(len(splits), size, size, 3))
    np.save(folder / "masks.npy", np.concatenate([np.ones((2, size, size, 1), np.uint8), masks]))
    lines = [f"n{row},{row},{split},{min(row, 2)}" for row, split in enumerate(splits)]
    (folder / "splits.csv").write_text("\n".join(["name,group,split,fold", *lines]) + "\n")
    summary = {"source": "demo", "sha256": "abc", "image_size": size}
    summary |= {"pairs": {"test": len(masks)}, "polyp_fraction": {"train": 1.0}}
    (folder / "dataset.json").write_text(json.dumps(summary))
    return folder


def make_pictures(*shape):
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def array_split(count=11, size=32):
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (count, size, size, 3), np.uint8)
    masks = (random.random((count, size, size, 1)) < 0.3).astype(np.uint8)
    return Split(images, masks, [f"{n:02d}" for n in range(count)], np.arange(count))


def make_rows(scores, phase="bce", fraction=0.1, loss=0.5):
    common = {"phase": phase, "loss": loss, "dice_score": 0.5, "predicted_fraction": 0.1}
    common |= {"val_loss": 0.6, "val_predicted_fraction": fraction, "seconds": 1.5}
    return [
        common | {"epoch": epoch + 1, "val_dice_score": score} for epoch, score in enumerate(scores)
    ]
