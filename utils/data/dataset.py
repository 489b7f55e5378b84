"""Reading a prepared data set: its rows from disk, split by split, and its summary."""

import json
import shlex
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from utils.command import InputError
from utils.data.splits import SPLITS, read_splits
from utils.files import PART, file_sha256, read_whole, reading, write_beside

PREPARE = "prepare the data set again"
TRAINED_ON = "trained_on.txt"  # beside a network: a fingerprint a line, in hex digits
SAME_PICTURE = 28  # bits of 256 that fingerprints of one picture may differ in
FILES = ("images.npy", "masks.npy", "splits.csv", "preview.png", "dataset.json")


def prepare_again(path, problem):
    """Return the InputError for a file of a prepared data set."""
    return InputError(f"{path}: {problem}; {PREPARE}")


class Rows:
    """Chosen rows of an .npy file of uint8, read when they are indexed.

    Nothing stays in the process's memory: a data set larger than it can be trained on. Raises
    InputError for a file that is damaged or ends too early, and for a value above `most` where it
    is read. whole_shape: of all the file's rows.
    """

    dtype = np.dtype(np.uint8)

    def __init__(self, path, rows, most=255):
        self.path, self.rows, self.most = Path(path), np.asarray(rows, int), most
        whole = self.map()
        if whole.dtype != self.dtype or not whole.flags.c_contiguous:
            raise prepare_again(self.path, f"holds {whole.dtype} instead of uint8 row by row")
        self.whole_shape, self.shape = whole.shape, (len(self.rows), *whole.shape[1:])

    def map(self):
        """Return the whole file as a memory map.

        It is to be dropped soon: what was read through it stays in memory as long, Windows replaces
        no file that is mapped, and a map of a file that is cut meanwhile kills the process.
        """
        with reading(self.path, PREPARE):
            return np.lib.format.open_memmap(self.path, mode="r")

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, positions):
        result = np.array(self.map()[self.rows[positions]])
        if result.max(initial=0) > self.most:
            raise prepare_again(self.path, f"holds values above {self.most}")
        return result

    def __array__(self, dtype=None, copy=None):
        return self[:].astype(dtype or self.dtype, copy=False)


class Split(NamedTuple):
    """One split of the prepared data set, in the order of its names.

    images: (n, size, size, 3) uint8, RGB; masks: (n, size, size, 1) uint8, 0 or 1; both read from
    disk when indexed. names: n strings. groups: (n,) int, the same for frames of the same scene.
    """

    images: Rows
    masks: Rows
    names: list
    groups: np.ndarray


def load_split(split, data_dir):
    """Return one Split, "train", "validation" or "test", of a prepared data set; "all" is of all.

    Raises InputError if the folder holds no data set, a file of it is damaged or does not fit the
    others, its splits.csv was edited, or the split is unknown.
    """
    if split not in (*SPLITS, "all"):
        raise InputError(f"split {split!r}: none of {', '.join(SPLITS)}, all")
    summary = load_summary(data_dir)
    size = summary["image_size"]
    folder = Path(data_dir)
    path = folder / "splits.csv"
    if not path.exists():
        raise prepare_again(path, "is missing")
    try:
        splits = read_splits(path)
    except InputError as error:
        raise InputError(f"{error}; {PREPARE}") from error
    if file_sha256(path) != summary["splits_sha256"]:  # its lines are those of the arrays' rows
        raise InputError(
            f"{path}: was edited since the data set was prepared; {PREPARE}, with --splits FILE for"
            " a split of your own"
        )
    rows = np.flatnonzero((splits.split == split) | (split == "all"))
    arrays = []
    for name, channels, most in (("images.npy", 3, 255), ("masks.npy", 1, 1)):
        array, shape = Rows(folder / name, rows, most), (len(splits.names), size, size, channels)
        if array.whole_shape != shape:
            raise prepare_again(array.path, f"is of shape {array.whole_shape}, not {shape}")
        arrays.append(array)
    return Split(*arrays, [splits.names[row] for row in rows], splits.groups[rows])


def check_unchanged(data_dir, sha256, way_out="run the same command again"):
    """Raise InputError if a data set has been prepared anew since its `sha256` was read.

    Its rows are read from disk as they are needed, and would come from both. way_out: what that
    line says to do then.
    """
    if load_summary(data_dir)["sha256"] != sha256:
        raise InputError(f"{data_dir}: was prepared anew while it was read; {way_out}")


def load_summary(data_dir):
    """Return dataset.json of a prepared data set, a dictionary.

    Raises InputError where there is none, or it is damaged.
    """
    path = Path(data_dir) / "dataset.json"
    if not path.exists() and path.with_name(PART).is_dir():
        raise InputError(
            f"{data_dir}: the data set is unfinished; run data_preprocessing.py again as before"
        )
    if not path.exists():
        run = "python data_preprocessing.py"
        run += "" if str(data_dir) == "data/processed" else f" --data {shlex.quote(str(data_dir))}"
        raise InputError(f"{data_dir}: no data set there yet; run {run} (or with --demo)")
    with reading(path, PREPARE):
        summary = json.loads(read_whole(path))
        size, pairs, fractions = (summary[key] for key in ("image_size", "pairs", "polyp_fraction"))
        texts = (summary[key] for key in ("source", "sha256", "splits_sha256"))
        whole = all(isinstance(text, str) for text in texts)
        if not (whole and isinstance(size, int) and size > 0):
            raise ValueError
        for split in SPLITS:
            if not (isinstance(pairs[split], int) and 0 <= fractions[split] <= 1):
                raise ValueError
    return summary


# Which pictures a network has seen


def fingerprints(images):
    """Return (n, 32) uint8 for (n, size, size, 3) uint8 pictures: by them one is known again.

    Each bit tells whether it grows lighter from one cell of a grid of 17 x 16 to the next (dHash,
    Krawetz 2013). Of HyperKvasir's pictures, stored again as JPEG at half or twice the size, up to
    25 bits change; 37 or more are different between two pictures, but for doubled frames.
    """
    bits = []
    for image in (images[row] for row in range(len(images))):  # one at a time, if they are Rows
        grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32)
        grid = cv2.resize(grey, (17, 16), interpolation=cv2.INTER_AREA)
        bits.append(np.diff(grid, axis=1).ravel() > 0)
    return np.packbits(np.reshape(bits, (-1, 256)), axis=1)


def write_trained_on(folder, splits, start=None):
    """Leave with the network of `folder` the fingerprints of what it is trained on.

    splits: each a Split; start: the folder of the network that it begins with, or None.
    """
    known = [read_trained_on(start)] if start and (Path(start) / TRAINED_ON).is_file() else []
    known += [fingerprints(split.images) for split in splits]
    lines = sorted({bits.tobytes().hex() for bits in np.concatenate(known)})
    with write_beside(Path(folder) / TRAINED_ON) as beside:
        beside.write_text("".join(f"{line}\n" for line in lines))


def read_trained_on(folder):
    """Return the fingerprints that `write_trained_on` has left in a folder, (n, 32) uint8.

    Raises InputError for a file that is damaged or missing.
    """
    path = Path(folder) / TRAINED_ON
    with reading(path, "copy it again from where the network comes from, or remove it"):
        data = bytes.fromhex(read_whole(path).decode("ascii"))
        return np.frombuffer(data, np.uint8).reshape(-1, 32)


def are_among(prints, known):
    """Return (n,) bool: which of the fingerprints, (n, 32) uint8, are of a picture among `known`.

    known: (m, 32) uint8.
    """
    bits, known = (
        np.unpackbits(some, axis=1).astype(np.float32) * 2 - 1 for some in (prints, known)
    )
    alike = 256 - 2 * SAME_PICTURE  # equal bits less others
    return np.array([(known @ each).max(initial=0) >= alike for each in bits], bool)
