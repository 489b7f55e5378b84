"""Reading a prepared data set: splits files, rows, summaries, good and bad."""

import csv
import io
import json
import os
import pickle
import shutil

import numpy as np
import pytest

from data_preprocessing import SPLITS_PATH
from utils.command import InputError
from utils.data import dataset
from utils.data.scenes import split_by_fold
from utils.files import file_sha256


def write_splits(path, lines, header="name,group,split,fold"):
    path.write_text("\n".join([header, *lines]) + "\n")
    return path


GOOD_LINES = ["a,0,train,1", "b,0,train,1", "c,1,validation,2", "d,2,test,0"]


def test_a_splits_file_is_read_in_the_order_of_the_names(tmp_path):
    path = write_splits(tmp_path / "mine.csv", [*GOOD_LINES[::-1], "", ""])
    groups, split, folds = dataset.read_splits(path, ["a", "b", "c", "d"])
    assert groups.tolist() == [0, 0, 1, 2]
    assert split.tolist() == ["train", "train", "validation", "test"]
    assert folds.tolist() == [1, 1, 2, 0]


BAD_SPLITS = {
    "unknown name": ([*GOOD_LINES, "e,3,test,0"], "'e' is unknown"),
    "missing name": ([*GOOD_LINES[:3], "x,2,test,0"], "'d' is missing"),
    "doubled name": ([*GOOD_LINES, "a,0,train,1"], "line 6: 'a' stands there twice"),
    "unknown split": ([*GOOD_LINES[:3], "d,2,testing,0"], "line 5: split 'testing'"),
    "no number": ([*GOOD_LINES[:3], "d,two,test,0"], "line 5: group and fold"),
    "short line": ([*GOOD_LINES[:3], "d,2,test"], "line 5: has 3 values"),
    "long line": ([*GOOD_LINES[:3], "d,2,test,0,9"], "line 5: has 5 values"),
    "huge number": ([*GOOD_LINES[:3], f"d,{10**30},test,0"], "line 5: group and fold"),
    "NUL byte": ([*GOOD_LINES, "\0,3,test,0"], ""),
    "broken quote": ([*GOOD_LINES[:2], '"c,1,validation,2', GOOD_LINES[3]], "no CSV file in UTF-8"),
    "endless quoted name": ([*GOOD_LINES, '"' + "e\n" * 70_000], "no CSV file in UTF-8"),
    "line feed in a name": ([*GOOD_LINES, '"e\nf",3,test,0'], "'e\\nf' is unknown"),
    "parted group": (["a,0,train,1", "b,0,test,0"], "line 3: group 0 stands in two splits"),
    "no test split": ([*GOOD_LINES[:3], "d,2,train,1"], "no pair is in the split test"),
    "empty": ([], "'a' is missing"),
}


@pytest.mark.parametrize(("lines", "words"), BAD_SPLITS.values(), ids=BAD_SPLITS)
def test_bad_splits_files_are_refused_in_a_line(lines, words, tmp_path):
    path = write_splits(tmp_path / "mine.csv", lines)
    with pytest.raises(InputError) as error:
        dataset.read_splits(path, ["a", "b", "c", "d"])
    assert str(error.value).startswith(f"{path}")
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_a_splits_file_that_excel_saved_is_read(tmp_path):
    path = write_splits(tmp_path / "mine.csv", GOOD_LINES, "\ufeffname,group,split,fold")
    assert dataset.names_in(path) == {"a", "b", "c", "d"}
    assert dataset.read_splits(path, ["d", "a", "b", "c"])[0].tolist() == [2, 0, 0, 1]


def test_a_splits_file_with_another_header_or_none_is_refused(tmp_path):
    path = write_splits(tmp_path / "mine.csv", GOOD_LINES, header="name,split")
    with pytest.raises(InputError, match="first line must be name,group,split,fold"):
        dataset.read_splits(path, ["a", "b", "c", "d"])
    with pytest.raises(
        InputError, match=r"none\.csv: cannot be read \(No such file.*; name another"
    ):
        dataset.read_splits(tmp_path / "none.csv", ["a"])


def test_the_splits_of_hyperkvasir_leak_nothing():
    with open(SPLITS_PATH, newline="") as file:
        lines = list(csv.DictReader(file))
    names = [line["name"] for line in lines]
    assert len(set(names)) == 1000
    assert names == sorted(names)
    groups, split, folds = dataset.read_splits(SPLITS_PATH, names)  # parts no group
    assert [(split == name).sum() for name in dataset.SPLITS] == [720, 80, 200]
    np.testing.assert_array_equal(split == "test", folds == 0)
    assert all(len(set(folds[groups == group])) == 1 for group in np.unique(groups))
    group_of = dict(zip(names, groups, strict=True))
    for first, second in (
        ("cju30bmab08bi0835mvlr6e0r", "cju77k828z46w0871r0avuoo9"),
        ("cju3tp94kfstl08181awh6z49", "cjyzk8qieoboa0848ogj51wwm"),
    ):
        assert group_of[first] == group_of[second]


def test_every_fold_of_hyperkvasir_can_be_tested_without_a_leak():
    names = sorted(dataset.names_in(SPLITS_PATH))
    groups, split, folds = dataset.read_splits(SPLITS_PATH, names)
    assert dataset.tested_fold(split, folds) == 0
    fractions, tested = np.random.default_rng(0).random(1000), np.zeros(1000, int)
    for fold in range(5):
        dataset.check_folds(SPLITS_PATH, groups, folds, fold)
        split = split_by_fold(groups, fractions, folds, fold, validation_parts=10, seed=42)
        assert dataset.tested_fold(split, folds) == fold
        assert all(len(set(split[groups == group])) == 1 for group in np.unique(groups))
        counts = [(split == name).sum() for name in dataset.SPLITS]
        assert counts == pytest.approx([720, 80, 200], abs=5)
        tested += split == "test"
    np.testing.assert_array_equal(tested, 1)


def test_a_fold_that_is_not_held_or_parts_a_group_is_refused():
    groups, folds = np.array([0, 0, 1, 2]), np.array([3, 4, 4, 6])
    with pytest.raises(InputError, match=r"--fold 2: a\.csv holds the folds 3, 4, 6 only"):
        dataset.check_folds("a.csv", groups, folds, 2)
    with pytest.raises(InputError, match=r"--fold 5: a\.csv holds the folds 3, 4, 6 only"):
        dataset.check_folds("a.csv", groups, folds, 5)
    with pytest.raises(InputError, match=r"a\.csv: group 0 stands in the folds 3 and 4"):
        dataset.check_folds("a.csv", groups, folds, 4)


def test_a_test_split_of_parts_of_folds_is_no_fold():
    folds = np.array([0, 0, 1, 2])
    for split, fold in (("TTtv", 0), ("Tttv", None), ("TTTv", None), ("tvtT", 2)):
        words = np.array([{"T": "test", "t": "train", "v": "validation"}[x] for x in split], object)
        assert dataset.tested_fold(words, folds) == fold


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
    write_splits(tmp_path / "splits.csv", GOOD_LINES)
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
    "no group": ("splits.csv", b"name,group,split,fold\na,x,train,0\n", "line 2: group and fold"),
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
    "a folder of splits": ("splits.csv", "folder", "Is a directory"),
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
