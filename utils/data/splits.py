"""Splits as files have them: a table, or lists of names, read and checked.

Nothing is computed here: folds.py deals scenes into folds, and `complete_splits` of
data_preprocessing.py adds what a file does not say.
"""

import csv
import io
import re
import unicodedata
from difflib import get_close_matches
from pathlib import Path
from typing import NamedTuple

import numpy as np

from utils.command import InputError
from utils.data.pictures import is_picture
from utils.files import read_file, reading

SPLITS = ("train", "validation", "test")
SPLIT_COLUMNS = ["name", "group", "split", "fold"]

# What people call them, in small letters and without spaces; of several columns the first is taken
COLUMNS = {
    "name": "name image imagename imageid picture file filename path frame id",
    "group": "group patient patientid patientname subject case caseid video videoid sequence scene",
    "split": "split set subset partition",
    "fold": "fold",
}
SPLIT_WORDS = {"train": "train training", "validation": "validation val valid dev"}
SPLIT_WORDS |= {"test": "test testing"}


class Splits(NamedTuple):
    """A split of n pictures, as far as a file says it.

    names: n strings; groups: (n,) int, the same for pictures of a scene; split: (n,) str; folds:
    (n,) int; None for what the file does not say. notes: lines on how it was read.
    """

    names: list
    groups: np.ndarray | None
    split: np.ndarray | None
    folds: np.ndarray | None
    notes: list


class Row(NamedTuple):
    """What a file says of one picture, as text, None where it says nothing; place: file, line."""

    place: str
    name: str
    group: str | None
    split: str | None
    fold: str | None


def read_splits(path, names=None):
    """Return the Splits in a table, or in a folder of lists such as train.txt and test.txt.

    names: of the pictures, in whose order it comes; None for the file's own names and order. A name
    of the file may have an extension and folders, other letter case, or have lost leading zeros,
    where that leaves no doubt. Raises InputError for a malformed file, for unknown, missing or
    doubled names, without pictures to train on or to test on, and for a group in two splits.
    """
    rows, notes = read_lists(path) if Path(path).is_dir() else read_table(path)
    check_groups(rows)
    meant = [row.name for row in rows]
    if names is not None:
        meant, more = find_names(path, rows, names)
        notes += more
    row_of = {}
    for name, row in zip(meant, rows, strict=True):
        if name in row_of:
            raise InputError(f"{row.place}: {row.name!r} stands there twice")
        row_of[name] = row
    names = meant if names is None else names
    if missing := sorted(set(names) - row_of.keys()):
        raise InputError(f"{path}: {missing[0]!r} is missing ({len(missing)} such names in all)")
    groups, split, folds = (
        None if not rows or rows[0][at] is None else [row_of[name][at] for name in names]
        for at in (2, 3, 4)
    )
    if groups is not None:
        groups = number_groups(groups)
    if split is not None:
        split = np.array(split, object)
        check_split(path, split)
    if folds is not None:
        folds = np.array(folds, int)
    return Splits(names, groups, split, folds, notes)


def read_lists(folder):
    """Return the Rows of lists in a folder, a name a line, and notes on how they were read.

    Raises InputError without any.
    """
    rows = []
    with reading(folder, "name a file, or a folder of lists"):
        files = sorted(Path(folder).iterdir())
    for file in files:
        split = meaning(file.stem, SPLIT_WORDS)
        if split and file.suffix.lower() == ".txt":
            lines = read_text(file).splitlines()
            rows += [
                Row(f"{file}, line {number}", line.strip(), None, split, None)
                for number, line in enumerate(lines, 1)
                if line.strip()
            ]
    if not rows:
        raise InputError(f"{folder}: holds no train.txt and test.txt with a name a line")
    return rows, []


def read_table(path):
    """Return the Rows of a CSV file, and notes on how it was read.

    Its columns may stand in any order, parted by commas, semicolons or tabs. Raises InputError if
    it cannot be read, without a column of names and one of groups, splits or folds, and for a line
    of more or fewer values, or a value that is no split or no number.
    """
    text = read_text(path)
    first = text.partition("\n")[0]
    try:
        file = io.StringIO(text, newline="")
        reader = csv.reader(file, delimiter=max(",;\t", key=first.count), strict=True)
        header = next(reader, [])
        lines = [(reader.line_num, line) for line in reader if any(line)]
    except csv.Error as error:
        raise InputError(f"{path}: no CSV file in UTF-8 ({error})") from error
    columns, notes = {}, []
    called = [re.sub(r"[\W_]", "", title).lower() for title in header]
    for column, words in COLUMNS.items():
        column_at = [called.index(word) for word in words.split() if word in called]
        if column_at:
            columns[column] = column_at[0]
            if header[column_at[0]].strip().lower() != column:
                notes.append(f"{path}: its column {header[column_at[0]]!r} is taken as {column}")
    if "name" not in columns or len(columns) < 2:
        raise InputError(
            f"{path}: its first line must be {','.join(SPLIT_COLUMNS)}, or name and some of the"
            " others; a folder of lists, train.txt and test.txt, will do too"
        )
    rows = []
    for number, line in lines:
        place = f"{path}, line {number}"
        if len(line) != len(header):
            raise InputError(f"{place}: has {len(line)} values instead of {len(header)}")
        said = {column: line[at].strip() for column, at in columns.items()}
        if "" in said.values():
            raise InputError(f"{place}: has no {next(c for c in said if not said[c])}")
        if "split" in said:
            split = meaning(said["split"], SPLIT_WORDS)
            if not split:
                raise InputError(f"{place}: split {said['split']!r} is none of {SPLITS}")
            said["split"] = split
        try:
            said["fold"] = int(np.int64(int(said["fold"]))) if "fold" in said else None
        except (ValueError, OverflowError):
            raise InputError(f"{place}: fold must be a number, not {said['fold']!r}") from None
        rows.append(Row(place, *(said.get(column) for column in SPLIT_COLUMNS)))
    return rows, notes


def read_text(path):
    """Return the text of a file in UTF-8; raises InputError if it is none."""
    try:
        return read_file(path).decode("utf-8-sig")  # Excel begins with a mark
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: no CSV file in UTF-8 ({error})") from error


def meaning(text, words):
    """Return the key of `words` in whose value the text is one of the words; None if in none."""
    return next(
        (key for key, value in words.items() if text.strip().lower() in value.split()), None
    )


def find_names(path, rows, names):
    """Return the picture that each Row means, n strings, and notes on those of other names.

    Raises InputError for a name that no picture has, or several may have.
    """
    by_key = []
    for level in range(len(KEYS)):
        of_level = {}
        for name in names:
            of_level.setdefault(key_of(name, level), []).append(name)
        by_key.append(of_level)
    meant, unknown = [], []
    for row in rows:
        found = [of_level.get(key_of(row.name, level), []) for level, of_level in enumerate(by_key)]
        found = next(filter(None, found), [])
        meant.append(found[0] if len(found) == 1 else None)
        if len(found) != 1:
            unknown.append((row, found))
    if unknown:
        row, found = unknown[0]
        near = found or get_close_matches(key_of(row.name, 1), names, 1)
        hint = f"; nearest: {' or '.join(map(repr, near[:2]))}" if near else ""
        raise InputError(
            f"{row.place}: {row.name!r} is unknown ({len(unknown)} such names in all){hint}"
        )
    other = [
        (row.name, name)
        for row, name in zip(rows, meant, strict=True)
        if key_of(row.name, 0) != key_of(name, 0)
    ]
    if not other:
        return meant, []
    told, name = other[0]
    return meant, [f"{path}: {len(other):,} of its names are taken as others, {told!r} as {name!r}"]


def without_extension(name):
    """Return a name of a picture's file without what stands behind the last dot."""
    return name.rpartition(".")[0] if is_picture(name) else name


# What a name is compared by, each after those before it: as it is, then more and more freely
KEYS = (
    lambda name: unicodedata.normalize("NFC", name).replace("\\", "/").removeprefix("./"),
    without_extension,
    str.casefold,
    lambda name: name.rpartition("/")[2],
    lambda name: name.lstrip("0") if name.isdecimal() else name,  # spreadsheets take them away
)


def key_of(name, level):
    """Return what a name is compared by at a level of KEYS."""
    for change in KEYS[: level + 1]:
        name = change(name)
    return name


def number_groups(groups):
    """Return (n,) int for n texts: the numbers that they are, or else one for each, from 0 on."""
    if all(re.fullmatch(r"0|-?[1-9]\d{0,17}", group) for group in groups):
        return np.array(groups, np.int64)
    number = {}
    return np.array([number.setdefault(group, len(number)) for group in groups])


def check_groups(rows):
    """Raise InputError for a group of Rows that stands in two splits."""
    split_of = {}
    for row in rows:
        if row.group and split_of.setdefault(row.group, row.split) != row.split:
            raise InputError(f"{row.place}: group {row.group} stands in two splits")


def check_split(path, split):
    """Raise InputError for a split, (n,) str, with no picture to train on, or none to test on."""
    for needed in ("train", "test"):
        if needed not in split:
            held = ", ".join(sorted(set(split)))
            raise InputError(
                f"{path}: no pair is in the split {needed}, but in {held}; if that is the one to"
                f" {needed} on, call it {needed}, or its list {needed}.txt; where validation lacks,"
                " a part of train becomes it"
            )


def tested_fold(split, folds):
    """Return the fold that is the test split, an int; None if no single and whole one is.

    split: (n,) str; folds: (n,) int.
    """
    tested = np.unique(folds[split == "test"])
    whole = len(tested) == 1 and np.array_equal(folds == tested[0], split == "test")
    return int(tested[0]) if whole else None


def check_folds(path, groups, folds, fold):
    """Raise InputError unless a splits file holds `fold`, and parts no group between folds.

    groups, folds: (n,) int, as `read_splits` returns them.
    """
    held = np.unique(folds)
    if fold not in held:
        some = ", ".join(map(str, held if len(held) <= 10 else [*held[:8], "...", held[-1]]))
        raise InputError(f"--fold {fold}: {path} holds the folds {some} only")
    for group in np.unique(groups):
        its = np.unique(folds[groups == group])
        if len(its) > 1:
            raise InputError(f"{path}: group {group} stands in the folds {its[0]} and {its[1]}")
