"""From files to arrays: what is made of good input, and what is said of bad."""

import csv
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile

import cv2
import numpy as np
import pytest

import data_preprocessing as data
from data_preprocessing import InputError
from shell import ROOT, assert_mistake, command, run_script

REAL_ARCHIVE = ROOT / "../shared/hyper-kvasir-segmented-images.zip"
needs_real_data = pytest.mark.skipif(
    not REAL_ARCHIVE.is_file(), reason=f"the real data, {REAL_ARCHIVE.name}, is not here"
)


def make_pair(number, height=40, width=50):
    """Return a picture in RGB and its mask, 0 and 255."""
    random = np.random.default_rng(number)
    mask = np.zeros((height, width), np.uint8)
    mask[5 : 15 + number, 10 : 20 + number] = 255
    return random.integers(0, 256, (height, width, 3), np.uint8), mask


@pytest.fixture
def folders(tmp_path):
    """Return folders of 20 pictures and their masks, all PNG."""
    images, masks = tmp_path / "images", tmp_path / "masks"
    for folder in (images, masks):
        folder.mkdir()
    for number in range(20):
        picture, mask = make_pair(number)
        cv2.imwrite(str(images / f"{number:02d}.png"), picture[..., ::-1])
        cv2.imwrite(str(masks / f"{number:02d}.png"), mask)
    return images, masks


def zip_folders(folders, path):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for folder in folders:
            for file in folder.iterdir():
                archive.write(file, f"top/{folder.name}/{file.name}")
    return path


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


# One pair


def test_reduction_by_hand():
    picture = np.zeros((4, 4, 3), np.uint8)
    picture[:2, :2, 0] = [[0, 100], [200, 100]]
    mask = np.zeros((4, 4), np.uint8)
    mask[:2, :2] = [[255, 255], [0, 0]]  # half of the area: polyp
    mask[2:, :2] = [[255, 0], [0, 0]]  # a quarter: not
    mask[2:, 2:] = 255
    small, small_mask = data.reduce_pair(picture, mask, "name", size=2)
    np.testing.assert_array_equal(small[..., 0], [[100, 0], [0, 0]])
    np.testing.assert_array_equal(small_mask[..., 0], [[1, 0], [0, 1]])
    assert small.dtype == small_mask.dtype == np.uint8


def jpeg(mask, quality):
    encoded = cv2.imencode(".jpg", mask, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return cv2.imdecode(encoded, cv2.IMREAD_GRAYSCALE)


ROUND_MASK = cv2.circle(np.zeros((60, 60), np.uint8), (30, 30), 20, 255, -1)
GOOD_MASKS = {
    "0 and 255": ROUND_MASK,
    "JPEG of quality 75": jpeg(ROUND_MASK, 75),
    "JPEG of quality 95": jpeg(ROUND_MASK, 95),
    "0 and 1": ROUND_MASK // 255,
    "16 bits": ROUND_MASK.astype(np.uint16) * 257,
    "0 and 1 in 16 bits": ROUND_MASK.astype(np.uint16) // 255,
}


@pytest.mark.parametrize("mask", GOOD_MASKS.values(), ids=GOOD_MASKS)
def test_two_valued_masks_are_taken(mask):
    binary = data.binary_mask(mask, "name")
    assert set(np.unique(binary)) == {0, 255}
    assert (binary != ROUND_MASK).mean() <= 0.002


@pytest.mark.parametrize("value", [0, 255])
def test_masks_of_one_value_are_taken(value):
    mask = np.full((8, 8), value, np.uint8)
    np.testing.assert_array_equal(data.binary_mask(mask, "name"), mask)


BAD_MASKS = {
    "three labels": (np.repeat(np.uint8([[0, 128, 255]]), 3, axis=0), "0, 128, 255"),
    "labels 0 and 38": (np.repeat(np.uint8([[0, 38]]), 3, axis=0), "0, 38"),
    "labels 0, 1, 2": (np.repeat(np.uint8([[0, 1, 2]]), 3, axis=0), "0, 1, 2"),
    "grey": (np.full((3, 3), 100, np.uint8), "100"),
    "a ramp": (np.arange(256, dtype=np.uint8).reshape(16, 16), "0, 1, 2, 3, ..., 253, 254, 255"),
    "fractions": (np.eye(3, dtype=np.float32), "float32"),
}


@pytest.mark.parametrize(("mask", "words"), BAD_MASKS.values(), ids=BAD_MASKS)
def test_other_masks_are_refused_with_their_values(mask, words):
    with pytest.raises(InputError) as error:
        data.binary_mask(mask, "a.png")
    assert str(error.value).startswith("a.png: mask")
    assert words in str(error.value)


# A data set


def test_a_folder_and_an_archive_make_the_same_data_set(folders, tmp_path):
    data.prepare(data.folder_source(*folders), tmp_path / "a")
    archive = zip_folders(folders, tmp_path / "pairs.zip")
    data.prepare(data.archive_source(archive), tmp_path / "b")
    for name in ("images.npy", "masks.npy", "splits.csv"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    summary = json.loads((tmp_path / "b/dataset.json").read_text())
    assert summary["source"] == "pairs.zip"
    assert summary["archive_sha256"] == hashlib.sha256(archive.read_bytes()).hexdigest()


def test_a_data_set_is_what_the_readme_says(folders, tmp_path):
    summary = data.prepare(data.folder_source(*folders), tmp_path / "out")
    images = np.load(tmp_path / "out/images.npy", mmap_mode="r")
    masks = np.load(tmp_path / "out/masks.npy", mmap_mode="r")
    assert (images.shape, images.dtype) == ((20, 128, 128, 3), np.uint8)
    assert (masks.shape, masks.dtype) == ((20, 128, 128, 1), np.uint8)
    assert set(np.unique(masks)) == {0, 1}
    with open(tmp_path / "out/splits.csv", newline="") as file:
        lines = list(csv.DictReader(file))
    assert list(lines[0]) == ["name", "group", "split", "fold"]
    assert [line["name"] for line in lines] == [f"{number:02d}" for number in range(20)]
    for row in (0, 7, 19):
        picture, mask = make_pair(row)
        expected, expected_mask = data.reduce_pair(picture, mask, "name")
        np.testing.assert_array_equal(images[row], expected)  # in RGB
        np.testing.assert_array_equal(masks[row], expected_mask)
    assert summary == json.loads((tmp_path / "out/dataset.json").read_text())
    assert summary["pairs"]["all"] == 20
    assert sum(summary["pairs"][split] for split in data.SPLITS) == 20
    assert summary["polyp_fraction"]["all"] == pytest.approx(masks.mean())
    assert summary["original_width"] == [50, 50, 50]
    assert cv2.imread(str(tmp_path / "out/preview.png")) is not None


def test_the_number_of_threads_changes_nothing(folders, tmp_path, monkeypatch):
    for threads in (1, 5):
        monkeypatch.setattr(os, "cpu_count", lambda threads=threads: threads)
        data.prepare(data.folder_source(*folders), tmp_path / f"{threads}")
    assert contents(tmp_path / "1") == contents(tmp_path / "5")


def test_a_frame_without_a_polyp_is_legal_and_counted(folders, tmp_path):
    cv2.imwrite(str(folders[1] / "03.png"), np.zeros((40, 50), np.uint8))
    summary = data.prepare(data.folder_source(*folders), tmp_path / "out")
    assert summary["masks_without_polyp"] == 1


def test_files_of_other_kinds_are_passed_over(folders, tmp_path):
    (folders[0] / "notes.txt").write_text("not a picture")
    (folders[1] / ".hidden.png").write_bytes(b"")
    assert data.prepare(data.folder_source(*folders), tmp_path / "out")["pairs"]["all"] == 20


# Bad input


def truncate(path):
    path.write_bytes(path.read_bytes()[:-200])


def replace(path, image):
    cv2.imwrite(str(path), image)


def remove_all_polyps(images, masks):
    for path in masks.iterdir():
        replace(path, np.zeros((40, 50), np.uint8))


def keep_four(images, masks):
    for folder in (images, masks):
        for path in sorted(folder.iterdir())[4:]:
            path.unlink()


def truncate_jpeg(images, masks):
    (images / "05.png").unlink()
    replace(images / "05.jpg", make_pair(5)[0])
    truncate(images / "05.jpg")


def empty(images, masks):
    for path in images.iterdir():
        path.unlink()


BAD_FOLDERS = {
    "missing mask": (lambda i, m: (m / "05.png").unlink(), ["05.png", "no mask"]),
    "missing picture": (lambda i, m: (i / "05.png").unlink(), ["05.png", "no picture"]),
    "doubled stem": (lambda i, m: replace(i / "05.bmp", make_pair(5)[0]), ["05.png", "same name"]),
    "zero bytes": (lambda i, m: (i / "05.png").write_bytes(b""), ["05.png", "empty"]),
    "not a picture": (lambda i, m: (i / "05.png").write_text("text"), ["05.png", "not a picture"]),
    "mask not a picture": (lambda i, m: (m / "05.png").write_text("x"), ["05.png", "not a pict"]),
    "cut off": (truncate_jpeg, ["05.jpg", "cut off"]),
    "other size": (lambda i, m: replace(m / "05.png", np.eye(9) * 255), ["05", "50 x 40", "9 x 9"]),
    "grey mask": (lambda i, m: replace(m / "05.png", np.full((40, 50), 99)), ["05", "99"]),
    "no polyp at all": (remove_all_polyps, ["no mask shows a polyp"]),
    "too few": (keep_four, ["too few"]),
    "empty folder": (empty, ["images", "no picture"]),
}


@pytest.fixture
def earlier(tmp_path):
    """Return a folder with an earlier data set, of which every byte must stay."""
    folder = tmp_path / "processed"
    folder.mkdir()
    for name in ("images.npy", "dataset.json"):
        (folder / name).write_text("an earlier one")
    return folder


def assert_refused(make, earlier, *words):
    with pytest.raises(InputError) as error:
        data.prepare(make(), earlier)
    assert "\n" not in str(error.value)
    for word in words:
        assert word in str(error.value)
    assert set(contents(earlier).values()) == {b"an earlier one"}
    assert not earlier.with_name("processed.part").exists()


@pytest.mark.parametrize(("spoil", "words"), BAD_FOLDERS.values(), ids=BAD_FOLDERS)
def test_bad_folders_are_refused_in_a_line(spoil, words, folders, earlier):
    spoil(*folders)
    assert_refused(lambda: data.folder_source(*folders), earlier, *words)


def test_a_missing_folder_is_named(folders, earlier, tmp_path):
    assert_refused(lambda: data.folder_source(tmp_path / "none", folders[1]), earlier, "none")


def damage(path):
    content = bytearray(path.read_bytes())
    content[2000:2100] = bytes(100)
    path.write_bytes(content)


BAD_ARCHIVES = {
    "not a zip": (lambda path: path.write_text("text"), ["not a whole zip"]),
    "truncated": (truncate, ["not a whole zip"]),
    "damaged": (damage, ["damaged"]),
    "missing": (lambda path: path.unlink(), ["No such file"]),
}


@pytest.mark.parametrize(("spoil", "words"), BAD_ARCHIVES.values(), ids=BAD_ARCHIVES)
def test_bad_archives_are_refused_in_a_line(spoil, words, folders, earlier, tmp_path):
    path = zip_folders(folders, tmp_path / "pairs.zip")
    spoil(path)
    assert_refused(lambda: data.archive_source(path), earlier, "pairs.zip", *words)


@pytest.mark.parametrize("kind", [0, 1])
def test_an_archive_of_another_layout_is_refused(kind, folders, earlier, tmp_path):
    path = zip_folders(folders[kind : kind + 1], tmp_path / "pairs.zip")
    assert_refused(lambda: data.archive_source(path), earlier, "pairs.zip", "has no folder")


def test_a_folder_with_other_files_is_not_replaced(folders, tmp_path):
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match="mine: holds other files"):
        data.prepare(data.folder_source(*folders), mine)
    assert contents(mine) == {"thesis.txt": b"years of work"}


def test_a_place_that_cannot_be_written_is_named(folders, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"file.*cannot be written"):
        data.prepare(data.folder_source(*folders), tmp_path / "file" / "processed")


def test_a_full_disk_is_reported_and_leaves_the_earlier_data_set(earlier):
    """The system refuses to let a file grow beyond the limit, as a full disk does."""
    code = """
import resource, signal, data_preprocessing as data
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, 400_000))
data.DEMO_PAIRS = 20
data.run(data.main)
"""
    line = [sys.executable, "-c", code, "--demo", "--data", str(earlier)]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=False)
    assert_mistake(done, "processed", "cannot be written", "make room")
    assert set(contents(earlier).values()) == {b"an earlier one"}
    assert not earlier.with_name("processed.part").exists()


# Interruption


def demo_in_the_making(folder):
    process = subprocess.Popen(
        command("data_preprocessing.py", "--demo", "--data", folder),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    part = folder.with_name("processed.part") / "images.npy"
    deadline = time.monotonic() + 60
    while not (part.exists() and part.stat().st_size > 100_000):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return process


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_an_interrupted_run_leaves_the_earlier_data_set(how, earlier):
    process = demo_in_the_making(earlier)
    process.send_signal(how)
    _, errors = process.communicate(timeout=60)
    assert process.returncode != 0
    assert "Traceback" not in errors
    assert set(contents(earlier).values()) == {b"an earlier one"}
    assert how == signal.SIGKILL or not earlier.with_name("processed.part").exists()


def test_a_swap_that_was_cut_short_heals(folders, earlier):
    earlier.rename(earlier.with_name("processed.old"))
    stale = earlier.with_name("processed.part")
    stale.mkdir()
    (stale / "images.npy").write_text("half a data set")
    data.prepare(data.folder_source(*folders), earlier)
    assert "splits.csv" in contents(earlier)
    assert not stale.exists()
    assert not earlier.with_name("processed.old").exists()


# Splits


def test_the_split_parts_no_group_and_keeps_its_proportions():
    random = np.random.default_rng(0)
    groups = random.integers(0, 700, 1000)
    fractions = random.random(1000)
    split, folds = data.split_groups(groups, fractions)
    for group in np.unique(groups):
        assert len(set(split[groups == group])) == 1
        assert len(set(folds[groups == group])) == 1
    np.testing.assert_array_equal(split == "test", folds == 0)
    assert np.bincount(folds) == pytest.approx(np.full(5, 200), abs=3)
    counts = [(split == name).sum() for name in data.SPLITS]
    assert counts == pytest.approx([720, 80, 200], abs=4)
    for name in data.SPLITS:
        assert fractions[split == name].mean() == pytest.approx(fractions.mean(), abs=0.03)


def test_the_split_depends_on_the_seed_alone():
    groups, fractions = np.arange(200), np.linspace(0, 0.5, 200)
    first, again = (data.split_groups(groups, fractions, seed=1)[0] for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert (first != data.split_groups(groups, fractions, seed=2)[0]).any()


def test_five_scenes_can_be_split_and_four_cannot():
    split, _ = data.split_groups(np.arange(5), np.full(5, 0.1))
    assert set(split) == set(data.SPLITS)
    with pytest.raises(InputError, match="8 pairs of 4 scenes are too few"):
        data.split_groups(np.arange(8) // 2, np.full(8, 0.1))


def write_splits(path, lines, header="name,group,split,fold"):
    path.write_text("\n".join([header, *lines]) + "\n")
    return path


GOOD_LINES = ["a,0,train,1", "b,0,train,1", "c,1,validation,2", "d,2,test,0"]


def test_a_splits_file_is_read_in_the_order_of_the_names(tmp_path):
    path = write_splits(tmp_path / "mine.csv", GOOD_LINES[::-1])
    groups, split, folds = data.read_splits(path, ["a", "b", "c", "d"])
    assert groups.tolist() == [0, 0, 1, 2]
    assert split.tolist() == ["train", "train", "validation", "test"]
    assert folds.tolist() == [1, 1, 2, 0]


BAD_SPLITS = {
    "unknown name": ([*GOOD_LINES, "e,3,test,0"], "e is unknown"),
    "missing name": ([*GOOD_LINES[:3], "x,2,test,0"], "d is missing"),
    "doubled name": ([*GOOD_LINES, "a,0,train,1"], "line 6: a stands there twice"),
    "unknown split": ([*GOOD_LINES[:3], "d,2,testing,0"], "line 5: split 'testing'"),
    "no number": ([*GOOD_LINES[:3], "d,two,test,0"], "line 5: group and fold"),
    "short line": ([*GOOD_LINES[:3], "d,2,test"], "line 5: group and fold"),
    "parted group": (["a,0,train,1", "b,0,test,0"], "line 3: group 0 stands in two splits"),
    "no test split": ([*GOOD_LINES[:3], "d,2,train,1"], "no pair is in the split test"),
    "empty": ([], "a is missing"),
}


@pytest.mark.parametrize(("lines", "words"), BAD_SPLITS.values(), ids=BAD_SPLITS)
def test_bad_splits_files_are_refused_in_a_line(lines, words, tmp_path):
    path = write_splits(tmp_path / "mine.csv", lines)
    with pytest.raises(InputError) as error:
        data.read_splits(path, ["a", "b", "c", "d"])
    assert str(error.value).startswith(f"{path}")
    assert words in str(error.value)


def test_a_splits_file_with_another_header_or_none_is_refused(tmp_path):
    path = write_splits(tmp_path / "mine.csv", GOOD_LINES, header="name,split")
    with pytest.raises(InputError, match="first line must be name,group,split,fold"):
        data.read_splits(path, ["a", "b", "c", "d"])
    with pytest.raises(InputError, match=r"none\.csv: No such file"):
        data.read_splits(tmp_path / "none.csv", ["a"])


def test_the_splits_of_hyperkvasir_leak_nothing():
    with open(data.SPLITS_PATH, newline="") as file:
        lines = list(csv.DictReader(file))
    names = [line["name"] for line in lines]
    assert len(set(names)) == 1000
    assert names == sorted(names)
    groups, split, folds = data.read_splits(data.SPLITS_PATH, names)  # parts no group
    assert [(split == name).sum() for name in data.SPLITS] == [720, 80, 200]
    np.testing.assert_array_equal(split == "test", folds == 0)
    assert all(len(set(folds[groups == group])) == 1 for group in np.unique(groups))
    group_of = dict(zip(names, groups, strict=True))
    for first, second in (
        ("cju30bmab08bi0835mvlr6e0r", "cju77k828z46w0871r0avuoo9"),
        ("cju3tp94kfstl08181awh6z49", "cjyzk8qieoboa0848ogj51wwm"),
    ):
        assert group_of[first] == group_of[second]


# Frames of the same scene


def drawn_pictures(count):
    return [data.draw_demo_pair(f"demo_{number}")[0] for number in range(count)]


def bordered(picture):
    return cv2.copyMakeBorder(picture, 40, 40, 90, 30, cv2.BORDER_CONSTANT)


def with_inset(picture):
    picture = picture[20:-10, 30:-40].copy()
    picture[-110:, :150] = (10, 60, 20)
    return picture


def jpeg_and_brighter(picture):
    bright = cv2.convertScaleAbs(picture, alpha=1.15, beta=5)
    return cv2.imdecode(cv2.imencode(".jpg", bright, [cv2.IMWRITE_JPEG_QUALITY, 80])[1], 1)


COPIES = {
    "cropped": lambda picture: picture[30:-50, 60:-20],
    "another border": bordered,
    "inset": with_inset,
    "another size": lambda picture: cv2.resize(picture, None, fx=0.6, fy=0.6, interpolation=3),
    "turned": lambda picture: np.rot90(picture).copy(),
    "brighter JPEG": jpeg_and_brighter,
}


@pytest.fixture(scope="module")
def originals():
    return [data.describe_picture(picture) for picture in drawn_pictures(8)]


@pytest.mark.parametrize("copy", COPIES.values(), ids=COPIES)
def test_copies_join_their_originals(copy, originals):
    copies = [data.describe_picture(copy(picture)) for picture in drawn_pictures(8)]
    for row, original in enumerate(originals):
        agreeing = [data.agreeing_features(original, other) for other in copies]
        assert agreeing.pop(row) >= 30
        assert max(agreeing) <= 5  # by chance
    groups = data.group_near_duplicates(originals + copies)
    np.testing.assert_array_equal(groups[:8], groups[8:])
    assert len(np.unique(groups)) >= 7


@pytest.mark.parametrize("size", [(1, 1, 3), (3, 500, 3), (300, 400, 3)])
@pytest.mark.parametrize("value", [0, 120, 255])
def test_pictures_without_features_stand_alone(size, value):
    features = [data.describe_picture(np.full(size, value, np.uint8)) for _ in range(3)]
    assert [len(item.places) for item in features] == [0, 0, 0]
    np.testing.assert_array_equal(data.group_near_duplicates(features), [0, 1, 2])


def made_up_features(places, seed=0):
    descriptors = np.random.default_rng(seed).integers(0, 256, (len(places), 128), np.uint8)
    return data.Features(np.float32(places), descriptors)


def test_features_that_move_together_agree():
    random = np.random.default_rng(0)
    x, y = random.uniform(20, 300, (2, 30))
    here = np.column_stack([x, y, random.uniform(3, 9, 30), random.uniform(0, 360, 30)])
    there = np.column_stack([40 - 1.5 * y, 10 + 1.5 * x, 1.5 * here[:, 2], here[:, 3] + 90])
    first, second = made_up_features(here), made_up_features(there)
    assert data.agreeing_features(first, second) == 30
    scattered = made_up_features(np.column_stack([*random.uniform(20, 300, (2, 30)), here[:, 2:]]))
    assert data.agreeing_features(first, scattered) < 6
    assert data.agreeing_features(first, made_up_features(here, seed=1)) == 0


def test_what_hangs_together_by_pairs_is_one_group(monkeypatch):
    joined = {(1, 4), (2, 4), (3, 5)}
    monkeypatch.setattr(data, "likely_pairs", lambda features: sorted(joined | {(0, 1)}))
    monkeypatch.setattr(
        data, "agreeing_features", lambda *pair: data.AGREEING_FEATURES * (pair in joined)
    )
    np.testing.assert_array_equal(data.group_near_duplicates(range(6)), [0, 1, 1, 2, 1, 2])


# What the other scripts use


def test_a_split_comes_as_it_was_stored(demo):
    images, masks = (np.load(demo / f"{kind}.npy") for kind in ("images", "masks"))
    with open(demo / "splits.csv", newline="") as file:
        lines = list(csv.DictReader(file))
    for name in data.SPLITS:
        split = data.load_split(name, demo)
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
    rows = data.Rows(file, [119])
    os.truncate(file, file.stat().st_size - 1)
    with pytest.raises(InputError, match=r"images\.npy: is cut off; prepare the data set again"):
        rows[:]
    with pytest.raises(InputError, match=r"images\.npy: is damaged; prepare the data set again"):
        data.load_split("test", tmp_path / "cut")


def test_without_a_data_set_the_message_says_what_to_run(tmp_path):
    with pytest.raises(InputError, match=r"no data set there yet; run python data_preproc"):
        data.load_split("train", tmp_path)


def test_an_unknown_split_is_refused(demo):
    with pytest.raises(InputError, match="'val': none of train, validation, test"):
        data.load_split("val", demo)


# The demo and the command line


def test_the_demo_is_the_same_on_every_machine():
    digest = hashlib.sha256()
    for number in range(3):
        picture, mask = data.draw_demo_pair(f"demo_{number:03d}")
        assert picture.shape[:2] == mask.shape
        assert mask.any()
        digest.update(picture.tobytes() + mask.tobytes())
    assert digest.hexdigest() == "254c4c11852eb510ca2d1a0b5b94253e171679ad046b65f2c0650ae59facf720"


def test_the_demo_is_a_data_set_like_any_other(demo):
    summary = data.load_summary(demo)
    assert summary["pairs"]["all"] == 120
    assert summary["pairs"]["test"] == 24
    assert 105 <= summary["groups"] <= 120  # every picture is another one; a few join by chance
    assert summary["masks_without_polyp"] == 0
    assert set(contents(demo)) == {
        *("images.npy", "masks.npy", "splits.csv", "dataset.json", "preview.png")
    }


def test_the_script_prepares_ones_own_pictures(folders, tmp_path):
    options = ["--images", folders[0], "--masks", folders[1], "--data", tmp_path / "out"]
    done = run_script("data_preprocessing.py", *options)
    assert done.returncode == 0, done.stderr
    assert f"python train.py --data {tmp_path / 'out'}" in done.stdout
    with open(tmp_path / "out/splits.csv") as file:
        mine = file.read().replace(",validation,", ",train,", 1)
    (tmp_path / "mine.csv").write_text(mine)
    done = run_script("data_preprocessing.py", *options, "--splits", tmp_path / "mine.csv")
    assert done.returncode == 0, done.stderr
    assert "mine.csv" in done.stdout
    assert (tmp_path / "out/splits.csv").read_text() == mine


def test_the_script_ends_a_mistake_with_a_line_and_status_2(folders, tmp_path):
    (folders[1] / "05.png").unlink()
    options = ["--images", folders[0], "--masks", folders[1], "--data", tmp_path / "out"]
    done = run_script("data_preprocessing.py", *options)
    assert_mistake(done, "05.png", "has no mask of the same name")
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "out").exists()
    assert_mistake(run_script("data_preprocessing.py", "--images", folders[0]), "go together")


@needs_real_data
def test_the_real_archive_by_default_and_regrouped(tmp_path):
    for option in ([], ["--regroup"]):
        options = ["--archive", REAL_ARCHIVE, "--data", tmp_path / "out", *option]
        done = run_script("data_preprocessing.py", *options)
        assert done.returncode == 0, done.stderr
        assert (tmp_path / "out/splits.csv").read_bytes() == data.SPLITS_PATH.read_bytes()
    summary = data.load_summary(tmp_path / "out")
    assert summary["pairs"] == {"all": 1000, "train": 720, "validation": 80, "test": 200}
    assert summary["polyp_fraction"]["all"] == pytest.approx(0.1539098941, abs=1e-4)
    assert summary["masks_without_polyp"] == 0
