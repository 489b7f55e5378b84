"""Splits as people have them: tables and lists, good and bad."""

import csv

import numpy as np
import pytest

from data_preprocessing import SPLITS_PATH
from utils.command import InputError
from utils.data import splits
from utils.data.folds import split_by_fold


def write_splits(path, lines, header="name,group,split,fold"):
    path.write_text("\n".join([header, *lines]) + "\n")
    return path


GOOD_LINES = ["a,0,train,1", "b,0,train,1", "c,1,validation,2", "d,2,test,0"]


def test_a_splits_file_is_read_in_the_order_of_the_names(tmp_path):
    path = write_splits(tmp_path / "mine.csv", [*GOOD_LINES[::-1], "", ""])
    names, groups, split, folds, notes = splits.read_splits(path, list("abcd"))
    assert names == list("abcd")
    assert groups.tolist() == [0, 0, 1, 2]
    assert split.tolist() == ["train", "train", "validation", "test"]
    assert folds.tolist() == [1, 1, 2, 0]
    assert notes == []


BAD_SPLITS = {
    "unknown name": ([*GOOD_LINES, "e,3,test,0"], "'e' is unknown"),
    "missing name": (GOOD_LINES[:3], "'d' is missing (1 such names in all)"),
    "doubled name": ([*GOOD_LINES, "a,0,train,1"], "line 6: 'a' stands there twice"),
    "unknown split": ([*GOOD_LINES[:3], "d,2,tested,0"], "line 5: split 'tested'"),
    "no number": ([*GOOD_LINES[:3], "d,2,test,two"], "line 5: fold must be a number, not 'two'"),
    "no group": ([*GOOD_LINES[:3], "d, ,test,0"], "line 5: has no group"),
    "short line": ([*GOOD_LINES[:3], "d,2,test"], "line 5: has 3 values"),
    "long line": ([*GOOD_LINES[:3], "d,2,test,0,9"], "line 5: has 5 values"),
    "huge number": ([*GOOD_LINES[:3], f"d,2,test,{10**30}"], "line 5: fold must be a number"),
    "NUL byte": ([*GOOD_LINES, "\0,3,test,0"], ""),
    "broken quote": ([*GOOD_LINES[:2], '"c,1,validation,2', GOOD_LINES[3]], "no CSV file in UTF-8"),
    "endless quoted name": ([*GOOD_LINES, '"' + "e\n" * 70_000], "no CSV file in UTF-8"),
    "line feed in a name": ([*GOOD_LINES, '"e\nf",3,test,0'], "'e\\nf' is unknown"),
    "parted group": (["a,0,train,1", "b,0,test,0"], "line 3: group 0 stands in two splits"),
    "no test split": (
        [*GOOD_LINES[:3], "d,2,train,1"],
        "no pair is in the split test, but in train, validation; if that is the one to test on,"
        " call it test, or its list test.txt; where validation lacks, a part of train becomes it",
    ),
    "empty": ([], "'a' is missing"),
}


@pytest.mark.parametrize(("lines", "words"), BAD_SPLITS.values(), ids=BAD_SPLITS)
def test_bad_splits_files_are_refused_in_a_line(lines, words, tmp_path):
    path = write_splits(tmp_path / "mine.csv", lines)
    with pytest.raises(InputError) as error:
        splits.read_splits(path, ["a", "b", "c", "d"])
    assert str(error.value).startswith(f"{path}")
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_a_splits_file_that_excel_saved_is_read(tmp_path):
    path = write_splits(tmp_path / "mine.csv", GOOD_LINES, "\ufeffname,group,split,fold")
    assert splits.read_splits(path).names == ["a", "b", "c", "d"]
    assert splits.read_splits(path, ["d", "a", "b", "c"]).groups.tolist() == [2, 0, 0, 1]


OTHER_TABLES = {  # text, groups, whether it has the splits of GOOD_LINES
    "patients alone": ("Patient ID,Image\nAnn,a\nAnn,b\nBob,c\nCem,d\n", [0, 0, 1, 2], False),
    "semicolons": ("name;group;set\na;7;Train\nb;7;TRAIN\nc;8;val\nd;9;Test\n", [7, 7, 8, 9], True),
    "tabs": ("set\tage\tid\ntrain\t\ta.png\ntrain\t9\tb\nvalid\t9\tc\ntest\t9\td\n", None, True),
    "empty lines": ("name,split\n\na,train\n,\nb,train\nc,dev\nd,test\n,\n", None, True),
    "paths": ("image,split\nx/a.jpg,train\nx\\b,train\n./c.bmp,val\nD,test\n", None, True),
    "leading zeros in groups": ("name,group\na,01\nb,01\nc,1\nd,2\n", [0, 0, 1, 2], False),
}


@pytest.mark.parametrize(("text", "groups", "split"), OTHER_TABLES.values(), ids=OTHER_TABLES)
def test_tables_as_people_have_them_are_read(text, groups, split, tmp_path):
    (tmp_path / "mine.csv").write_text(text)
    read = splits.read_splits(tmp_path / "mine.csv", list("abcd"))
    assert (None if read.groups is None else read.groups.tolist()) == groups
    words = ["train", "train", "validation", "test"] if split else None
    assert (None if read.split is None else read.split.tolist()) == words
    assert read.folds is None


def test_of_several_columns_the_likeliest_is_taken_and_told(tmp_path):
    lines = ["a,1,x,train", "b,2,y,test"]
    path = write_splits(tmp_path / "mine.csv", lines, "id,scene,Patient,split")
    read = splits.read_splits(path)
    assert read.names == ["a", "b"]
    assert read.groups.tolist() == [0, 1]  # x and y
    assert read.notes == [
        f"{path}: its column 'id' is taken as name",
        f"{path}: its column 'Patient' is taken as group",
    ]


@pytest.mark.parametrize("header", ["name", "split,fold", "a,train", "", "\0\0"])
def test_a_table_without_names_or_anything_of_them_is_refused(header, tmp_path):
    path = write_splits(tmp_path / "mine.csv", ["a,train"], header)
    with pytest.raises(InputError, match=r"its first line must be name,group,split,fold, or name"):
        splits.read_splits(path)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(
        InputError, match=r"none\.csv: cannot be read \(No such file.*; name another"
    ):
        splits.read_splits(tmp_path / "none.csv", ["a"])


def test_lists_of_names_are_a_split(tmp_path):
    """As the 880 and 120 of Kvasir-SEG are published, in UTF-8 with and without a mark."""
    (tmp_path / "Train.TXT").write_text("a.jpg\nb.jpg\n\n", encoding="utf-8-sig")
    (tmp_path / "test.txt").write_text(" c \r\nd")
    (tmp_path / "readme.txt").write_text("lists")
    read = splits.read_splits(tmp_path, list("dcba"))
    assert read.split.tolist() == ["test", "test", "train", "train"]
    assert read.groups is None
    (tmp_path / "val.txt").write_text("c\n")
    with pytest.raises(InputError, match=r"val\.txt, line 1: 'c' stands there twice"):
        splits.read_splits(tmp_path, list("abcd"))
    (tmp_path / "test.txt").unlink()
    (tmp_path / "val.txt").write_text("c\nd\n")
    with pytest.raises(InputError, match=r"split test, but in train, validation; if that is the"):
        splits.read_splits(tmp_path, list("abcd"))
    for name in ("val.txt", "Train.TXT"):
        (tmp_path / name).unlink()
    with pytest.raises(InputError, match=r"holds no train\.txt and test\.txt"):
        splits.read_splits(tmp_path, list("abcd"))


MEANT = {  # the picture that a name of a file means among names
    "as it is": ("1", ["1", "01"], "1"),
    "extension": ("a.b.PNG", ["a.b"], "a.b"),
    "no extension": ("a.b", ["a.b"], "a.b"),
    "folders": ("data/x/001.png", ["x/001", "y/001"], None),
    "its folder": ("x/001.png", ["x/001", "y/001"], "x/001"),
    "letter case": ("IMG_1.JPG", ["img_1"], "img_1"),
    "letter case in doubt": ("IMG_1", ["img_1", "Img_1"], None),
    "no zeros left": ("7", ["007", "017"], "007"),
    "zeros in doubt": ("7", ["07", "007"], None),
    "zeros within": ("a7", ["a07"], None),
    "an accent in two characters": ("e\u0301", ["\u00e9"], "\u00e9"),
    "an accent in one": ("\u00e9", ["e\u0301"], "e\u0301"),
}


@pytest.mark.parametrize(("told", "names", "meant"), MEANT.values(), ids=MEANT)
def test_a_name_means_the_picture_that_it_can_only_mean(told, names, meant, tmp_path):
    row = splits.Row("mine.csv, line 2", told, None, "train", None)
    if meant:
        assert splits.find_names("mine.csv", [row], names)[0] == [meant]
    else:
        with pytest.raises(InputError, match=r"^mine\.csv, line 2: .* is unknown"):
            splits.find_names("mine.csv", [row], names)


def test_names_that_were_taken_as_others_are_told_and_the_nearest_of_unknown_ones(tmp_path):
    names = [f"{number:03d}" for number in range(12)]
    path = write_splits(tmp_path / "a.csv", [f"{n},{n}" for n in range(12)], "name,group")
    read = splits.read_splits(path, names)
    assert read.names == names
    assert read.groups.tolist() == list(range(12))
    assert read.notes == [f"{path}: 12 of its names are taken as others, '0' as '000'"]
    path = write_splits(tmp_path / "b.csv", ["polyp_1,1", "polpy_2,2"], "name,group")
    with pytest.raises(InputError, match=r"line 3: 'polpy_2' is unknown .* nearest: 'polyp_2'$"):
        splits.read_splits(path, ["polyp_1", "polyp_2"])


def test_the_splits_of_hyperkvasir_leak_nothing():
    with open(SPLITS_PATH, newline="") as file:
        lines = list(csv.DictReader(file))
    names = [line["name"] for line in lines]
    assert len(set(names)) == 1000
    assert names == sorted(names)
    _, groups, split, folds, notes = splits.read_splits(SPLITS_PATH, names)  # parts no group
    assert notes == []
    assert [(split == name).sum() for name in splits.SPLITS] == [720, 80, 200]
    np.testing.assert_array_equal(split == "test", folds == 0)
    assert all(len(set(folds[groups == group])) == 1 for group in np.unique(groups))
    group_of = dict(zip(names, groups, strict=True))
    for first, second in (
        ("cju30bmab08bi0835mvlr6e0r", "cju77k828z46w0871r0avuoo9"),
        ("cju3tp94kfstl08181awh6z49", "cjyzk8qieoboa0848ogj51wwm"),
    ):
        assert group_of[first] == group_of[second]


def test_every_fold_of_hyperkvasir_can_be_tested_without_a_leak():
    _, groups, split, folds, _ = splits.read_splits(SPLITS_PATH)
    assert splits.tested_fold(split, folds) == 0
    fractions, tested = np.random.default_rng(0).random(1000), np.zeros(1000, int)
    for fold in range(5):
        splits.check_folds(SPLITS_PATH, groups, folds, fold)
        split = split_by_fold(groups, fractions, folds, fold, validation_parts=10, seed=42)
        assert splits.tested_fold(split, folds) == fold
        assert all(len(set(split[groups == group])) == 1 for group in np.unique(groups))
        counts = [(split == name).sum() for name in splits.SPLITS]
        assert counts == pytest.approx([720, 80, 200], abs=5)
        tested += split == "test"
    np.testing.assert_array_equal(tested, 1)


def test_a_fold_that_is_not_held_or_parts_a_group_is_refused():
    groups, folds = np.array([0, 0, 1, 2]), np.array([3, 4, 4, 6])
    with pytest.raises(InputError, match=r"--fold 2: a\.csv holds the folds 3, 4, 6 only"):
        splits.check_folds("a.csv", groups, folds, 2)
    with pytest.raises(InputError, match=r"--fold 5: a\.csv holds the folds 3, 4, 6 only"):
        splits.check_folds("a.csv", groups, folds, 5)
    with pytest.raises(InputError, match=r"a\.csv: group 0 stands in the folds 3 and 4"):
        splits.check_folds("a.csv", groups, folds, 4)


def test_a_test_split_of_parts_of_folds_is_no_fold():
    folds = np.array([0, 0, 1, 2])
    for split, fold in (("TTtv", 0), ("Tttv", None), ("TTTv", None), ("tvtT", 2)):
        words = np.array([{"T": "test", "t": "train", "v": "validation"}[x] for x in split], object)
        assert splits.tested_fold(words, folds) == fold
