"""Reading a prepared data set: rows, summaries, good and bad."""

import csv
import io
import json
import os
import pickle
import shutil

import numpy as np
import pytest

from utils.command import InputError
from utils.data import dataset
from utils.files import file_sha256

GOOD_LINES = ["a,0,train,1", "b,0,train,1", "c,1,validation,2", "d,2,test,0"]


def test_a_split_comes_as_it_was_stored(demo):
    images, masks = (np.load(demo / f"{kind}.npy") for kind in ("images", "masks"))
    with open(demo / "splits.csv", newline="") as file:
        lines = list(csv.DictReader(file))
    for name in dataset.SPLITS:
        split = dataset.load_split(name, demo)
        rows = [row for row, line in enumerate(lines) if line["split"] == name]
        assert split.names == [lines[row]["name"] for row in rows]
        assert split.groups.tolist() == [int(lines[row]["group"]) for row in rows]
        assert split.images.shape == (len(rows), 128, 128, 3)
        np.testing.assert_array_equal(split.images[:], images[rows])
        np.testing.assert_array_equal(np.asarray(split.masks), masks[rows])
        np.testing.assert_array_equal(split.images[2], images[rows[2]])
        np.testing.assert_array_equal(split.masks[[3, 1]], masks[[rows[3], rows[1]]])


def test_arrays_that_end_too_early_are_named(demo, tmp_path):
    shutil.copytree(demo, tmp_path / "cut")
    file = tmp_path / "cut/images.npy"
    rows = dataset.Rows(file, [119])
    os.truncate(file, file.stat().st_size - 1)
    with pytest.raises(InputError, match=r"images\.npy: is damaged; prepare the data set again"):
        rows[:]
    with pytest.raises(InputError, match=r"images\.npy: is damaged; prepare the data set again"):
        dataset.load_split("test", tmp_path / "cut")


SUMMARY = {
    "source": "made up",
    "sha256": "0",
    "splits_sha256": "0",
    "image_size": 16,
    "pairs": {"train": 2, "validation": 1, "test": 1},
    "polyp_fraction": {"train": 0.0, "validation": 0.0, "test": 0.0},
}


@pytest.fixture
def small(tmp_path):
    """Return a folder with a data set of four pairs of 16 x 16."""
    lines = ["name,group,split,fold", *GOOD_LINES]
    (tmp_path / "splits.csv").write_text("\n".join(lines) + "\n")
    np.save(tmp_path / "images.npy", np.zeros((4, 16, 16, 3), np.uint8))
    np.save(tmp_path / "masks.npy", np.zeros((4, 16, 16, 1), np.uint8))
    splits = file_sha256(tmp_path / "splits.csv")
    (tmp_path / "dataset.json").write_bytes(summary_with(splits_sha256=splits))
    assert dataset.load_split("train", tmp_path).names == ["a", "b"]
    return tmp_path


def zeros(*shape, dtype=np.uint8):
    file = io.BytesIO()
    np.save(file, np.zeros(shape, dtype))
    return file.getvalue()


def summary_with(**change):
    return json.dumps(SUMMARY | change).encode()


WHOLE = zeros(4, 16, 16, 3)
DAMAGES = {
    "float images": ("images.npy", zeros(4, 16, 16, 3, dtype=np.float32), "float32 instead of"),
    "too few images": ("images.npy", zeros(3, 16, 16, 3), "is of shape (3, 16, 16, 3), not (4,"),
    "larger images": ("images.npy", zeros(4, 32, 32, 3), "not (4, 16, 16, 3)"),
    "masks in colour": ("masks.npy", WHOLE, "not (4, 16, 16, 1)"),
    "objects": ("images.npy", zeros(4, dtype=object), "is damaged"),
    "columns first": ("images.npy", WHOLE.replace(b"False", b"True "), "row by row"),
    "cut off": ("images.npy", WHOLE[:-1], "is damaged"),
    "cut off early": ("images.npy", WHOLE[:50], "is damaged"),
    "empty images": ("images.npy", b"", "is damaged"),
    "no array": ("images.npy", b"PK" * 99, "is damaged"),
    "no header": ("images.npy", WHOLE[:10] + b"(" * 200, "is damaged"),
    "no images": ("images.npy", None, "No such file"),
    "no splits": ("splits.csv", None, "is missing; prepare the data set again"),
    "splits of two files": ("splits.csv", b"name,group,split,fold\n<<<<<<<\n", "has 1 values"),
    "NUL bytes in splits": ("splits.csv", bytes(500), "first line must be"),
    "binary splits": ("splits.csv", b"\xff\xfe" * 9, "no CSV file"),
    "no group": ("splits.csv", b"name,group,split,fold\na,0,train,x\n", "line 2: fold must"),
    "half a summary": ("dataset.json", b'{"source": "made', "is damaged"),
    "another summary": ("dataset.json", b"[1, 2]", "is damaged"),
    "a short summary": ("dataset.json", b'{"image_size": 16}', "is damaged"),
    "a binary summary": ("dataset.json", b"\xff\xfe", "is damaged"),
    "a summary of an older version": ("dataset.json", summary_with(pairs={"all": 4}), "is damaged"),
    "a size in words": ("dataset.json", summary_with(image_size="16"), "is damaged"),
    "no size": ("dataset.json", summary_with(image_size=0), "is damaged"),
    "a fraction in words": ("dataset.json", summary_with(polyp_fraction="all"), "is damaged"),
    "no fraction": ("dataset.json", summary_with(polyp_fraction={}), "is damaged"),
    "a hash of another kind": ("dataset.json", summary_with(sha256=None), "is damaged"),
    "no hash of the splits": ("dataset.json", summary_with(splits_sha256=0), "is damaged"),
    "a pickled summary": ("dataset.json", pickle.dumps(SUMMARY), "is damaged"),
    "a folder of images": ("images.npy", "folder", "cannot be read (Is a directory)"),
    "a folder of splits": ("splits.csv", "folder", "holds no train.txt"),
    "a folder for a summary": ("dataset.json", "folder", "cannot be read (Is a directory)"),
}


def test_a_split_that_was_edited_after_the_data_were_prepared_is_refused(small):
    path = small / "splits.csv"
    header, *lines = path.read_text().splitlines()
    path.write_text("\n".join([header, *lines[::-1]]) + "\n")  # as a spreadsheet sorts them
    with pytest.raises(InputError, match=r"splits\.csv: was edited since .* with --splits FILE"):
        dataset.load_split("train", small)


@pytest.mark.parametrize(("name", "content", "words"), DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_data_set_is_refused_in_a_line(name, content, words, small):
    (small / name).unlink()
    if content == "folder":
        (small / name).mkdir()
    elif content is not None:
        (small / name).write_bytes(content)
    with pytest.raises(InputError) as error:
        dataset.load_split("train", small)
    assert str(error.value).startswith(f"{small / name}")
    assert words in str(error.value)
    assert str(error.value).endswith("; prepare the data set again")
    assert "\n" not in str(error.value)


def test_without_a_data_set_the_message_says_what_to_run(tmp_path):
    with pytest.raises(InputError, match=r"no data set there yet; run python data_preproc"):
        dataset.load_split("train", tmp_path)


def test_an_unknown_split_is_refused(demo):
    with pytest.raises(InputError, match="'val': none of train, validation, test, all"):
        dataset.load_split("val", demo)


def test_masks_of_0_and_255_are_refused_when_they_are_read(small):
    """As an older version or another program may have left them."""
    np.save(small / "masks.npy", np.full((4, 16, 16, 1), 255, np.uint8))
    masks = dataset.load_split("train", small).masks
    with pytest.raises(InputError, match=r"masks\.npy: holds values above 1; prepare the data"):
        masks[:1]
