"""From files to arrays: what is made of good input, and what is said of bad."""

import csv
import hashlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

import data_preprocessing as data
from shell import ROOT, assert_mistake, command, make_pair, run_script, wait_for, zip_folders
from utils.command import InputError
from utils.data.dataset import FILES, SPLITS, load_summary
from utils.data.pictures import reduce_pair
from utils.data.sources import archive_source, folder_source
from utils.scoring.labelled import FoldPictures

REAL_ARCHIVE = ROOT / "../shared/hyper-kvasir-segmented-images.zip"


needs_real_data = pytest.mark.skipif(
    not REAL_ARCHIVE.is_file(), reason=f"the real data, {REAL_ARCHIVE.name}, is not here"
)


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != ".part"}


def test_a_folder_and_an_archive_make_the_same_data_set(folders, tmp_path):
    data.prepare(folder_source(*folders), tmp_path / "a")
    archive = zip_folders(folders, tmp_path / "pairs.zip")
    data.prepare(archive_source(archive), tmp_path / "b")
    for name in ("images.npy", "masks.npy", "splits.csv"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    summary = json.loads((tmp_path / "b/dataset.json").read_text())
    assert summary["source"] == "pairs.zip"
    assert summary["archive_sha256"] == hashlib.sha256(archive.read_bytes()).hexdigest()


def test_a_data_set_is_what_the_readme_says(folders, tmp_path):
    wide = np.zeros((60, 80, 3), np.uint8)
    wide[20:40, 20:60] = 200
    replace(folders[0] / "11.png", wide)
    replace(folders[1] / "11.png", wide[..., 0] // 200 * 255)
    summary = data.prepare(folder_source(*folders), tmp_path / "out")
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
        expected, expected_mask = reduce_pair(picture, mask, 128)
        np.testing.assert_array_equal(images[row], expected)  # in RGB
        np.testing.assert_array_equal(masks[row], expected_mask)
    assert summary == json.loads((tmp_path / "out/dataset.json").read_text())
    assert summary["pairs"]["all"] == 20
    assert sum(summary["pairs"][split] for split in SPLITS) == 20
    splits, groups = (np.array([line[key] for line in lines]) for key in ("split", "group"))
    for split, fraction in summary["polyp_fraction"].items():
        assert fraction == pytest.approx(masks[(splits == split) | (split == "all")].mean())
    assert len(set(summary["polyp_fraction"].values())) == 4
    assert summary["groups"] == len(set(groups))
    assert summary["largest_group"] == max(list(groups).count(group) for group in groups)
    assert summary["original_width"] == [50, 50, 80]
    assert summary["original_height"] == [40, 40, 60]
    assert cv2.imread(str(tmp_path / "out/preview.png")) is not None


def test_the_preview_goes_from_the_smallest_to_the_largest_polyp(tmp_path, monkeypatch):
    sheets = []
    monkeypatch.setattr("utils.drawing.save_sheet", lambda *given: sheets.append(given))
    fractions = np.linspace(0, 0.5, 20)[::-1]
    for name, channels in (("images", 3), ("masks", 1)):
        np.save(tmp_path / f"{name}.npy", np.zeros((20, 16, 16, channels), np.uint8))
    data.save_preview(tmp_path, [f"n{number}" for number in range(20)], fractions)
    ((_, _, titles, _),) = sheets
    assert len(titles) == 8
    assert titles[0] == "n19\nno polyp"
    assert titles[-1] == "n0\n50.0% polyp"


def test_the_number_of_threads_changes_nothing(folders, tmp_path, monkeypatch):
    for threads in (1, 5):
        monkeypatch.setattr(data, "DECODERS", threads)
        data.prepare(folder_source(*folders), tmp_path / f"{threads}")
    assert contents(tmp_path / "1") == contents(tmp_path / "5")


def test_a_frame_without_a_polyp_is_legal_and_counted(folders, tmp_path):
    cv2.imwrite(str(folders[1] / "03.png"), np.zeros((40, 50), np.uint8))
    summary = data.prepare(folder_source(*folders), tmp_path / "out")
    assert summary["without_polyp"]["all"] == 1


def invert(paths):
    for path in paths:
        replace(path, 255 - cv2.imread(str(path), cv2.IMREAD_GRAYSCALE))


def test_masks_that_are_inverted_or_too_large_are_warned_of_by_name(folders, tmp_path):
    source, masks = folder_source(*folders), sorted(folders[1].iterdir())
    assert data.prepare(source, tmp_path / "out")["warnings"] == []
    invert(masks[:10])
    assert data.prepare(source, tmp_path / "out")["warnings"] == []  # not in most
    invert(masks[10:11])
    large, inverted = data.prepare(source, tmp_path / "out")["warnings"]
    assert large == (
        f"{source.label}: the masks cover 63% of their pictures on average, most of all"
        " 00, 01, 02; are they the right ones?"
    )
    assert inverted == (
        f"{source.label}: 11 of 20 masks look inverted, with polyp along most of the border"
        " (00, 01, 02); polyp must be white, the rest black, or add"
        " --mask-inverted"
    )


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


BAD_FOLDERS = {
    "zero bytes": (lambda i, m: (i / "05.png").write_bytes(b""), ["05.png", "empty"]),
    "not a picture": (lambda i, m: (i / "05.png").write_text("text"), ["05.png", "not a picture"]),
    "mask not a picture": (lambda i, m: (m / "05.png").write_text("x"), ["05.png", "not a pict"]),
    "cut off": (truncate_jpeg, ["05.jpg", "cut off"]),
    "other size": (
        lambda i, m: replace(m / "05.png", np.eye(9) * 255),
        ["images/05.png", "50 x 40", "masks/05.png", "9 x 9"],
    ),
    "grey mask": (
        lambda i, m: replace(m / "05.png", np.full((40, 50), 99)),
        ["masks/05.png", "99"],
    ),
    "no polyp at all": (remove_all_polyps, ["no mask shows a polyp"]),
    "too few": (keep_four, ["too few"]),
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
    assert not (earlier / ".part").exists()


@pytest.mark.parametrize(("spoil", "words"), BAD_FOLDERS.values(), ids=BAD_FOLDERS)
def test_bad_folders_are_refused_in_a_line(spoil, words, folders, earlier):
    spoil(*folders)
    assert_refused(lambda: folder_source(*folders), earlier, *words)


def test_a_folder_with_other_files_is_not_replaced(folders, tmp_path):
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match="mine: holds other files"):
        data.prepare(folder_source(*folders), mine)
    assert contents(mine) == {"thesis.txt": b"years of work"}


def test_a_place_that_cannot_be_written_is_named(folders, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"file.*cannot be written"):
        data.prepare(folder_source(*folders), tmp_path / "file" / "processed")


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
    assert not (earlier / ".part").exists()


def demo_in_the_making(folder):
    process = subprocess.Popen(
        command("data_preprocessing.py", "--demo", "--data", folder),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    part = folder / ".part/images.npy"
    wait_for(process, lambda: part.exists() and part.stat().st_size > 100_000, seconds=60)
    return process


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_an_interrupted_run_leaves_the_earlier_data_set(how, earlier):
    process = demo_in_the_making(earlier)
    process.send_signal(how)
    _, errors = process.communicate(timeout=60)
    assert process.returncode != 0
    assert "Traceback" not in errors
    assert set(contents(earlier).values()) == {b"an earlier one"}
    assert how == signal.SIGKILL or not (earlier / ".part").exists()


def test_what_a_killed_run_has_left_is_no_obstacle(folders, tmp_path):
    stale = tmp_path / "out/.part"
    stale.mkdir(parents=True)
    (stale / "images.npy").write_text("half a data set")
    with pytest.raises(
        InputError, match=r"out: the data set is unfinished; run data_preproc.*again"
    ):
        load_summary(tmp_path / "out")
    data.prepare(folder_source(*folders), tmp_path / "out")
    assert set(os.listdir(tmp_path / "out")) == set(FILES)


def test_no_array_is_open_or_mapped_while_files_are_replaced(folders, tmp_path, monkeypatch):
    """Windows refuses to replace a file that is open."""
    replace_file, replaced = os.replace, []

    def replace_watched(source, target):
        maps = Path("/proc/self/maps").read_text()
        opened = [os.path.realpath(link) for link in Path("/proc/self/fd").iterdir()]
        assert not [line for line in [*maps.splitlines(), *opened] if line.endswith(".npy")]
        replaced.append(Path(target).name)
        replace_file(source, target)

    if not Path("/proc/self/maps").exists():
        pytest.skip("this system does not list what a process maps")
    monkeypatch.setattr(os, "replace", replace_watched)
    data.prepare(folder_source(*folders), tmp_path / "out")
    assert replaced[-1] == "dataset.json"
    assert set(FILES) <= set(replaced)


def test_the_demo_is_a_data_set_like_any_other(demo):
    summary = load_summary(demo)
    assert summary["pairs"]["all"] == 120
    assert summary["pairs"]["test"] == 24
    assert 105 <= summary["groups"] <= 120  # every picture is another one; a few join by chance
    assert summary["without_polyp"]["all"] == 0
    assert summary["test_fold"] == 0
    assert summary["warnings"] == []
    assert set(contents(demo)) == {
        *("images.npy", "masks.npy", "splits.csv", "dataset.json", "preview.png")
    }


def test_the_script_prepares_ones_own_pictures(folders, tmp_path):
    options = ["--images", folders[0], "--masks", folders[1], "--data", tmp_path / "out"]
    done = run_script("data_preprocessing.py", *options)
    assert done.returncode == 0, done.stderr
    assert f"/train.py --data {tmp_path / 'out'}" in done.stdout
    with open(tmp_path / "out/splits.csv") as file:
        mine = file.read().replace(",validation,", ",train,", 1)
    (tmp_path / "mine.csv").write_text(mine)
    done = run_script("data_preprocessing.py", *options, "--splits", tmp_path / "mine.csv")
    assert done.returncode == 0, done.stderr
    assert "mine.csv" in done.stdout
    assert "Beware" not in done.stdout
    assert (tmp_path / "out/splits.csv").read_text() == mine
    invert(folders[1].iterdir())
    options += ["--splits", tmp_path / "mine.csv", "--fold", 1]
    done = run_script("data_preprocessing.py", *options)
    assert done.returncode == 0, done.stderr
    assert "(mine.csv, fold 1)" in done.stdout
    assert load_summary(tmp_path / "out")["test_fold"] == 1
    assert "Beware: " in done.stdout
    assert "20 of 20 masks look inverted" in done.stdout


def test_masks_of_another_convention_are_prepared_and_written_down(folders, tmp_path, monkeypatch):
    images, masks = folders
    for path in list(masks.iterdir()):
        labels = np.where(cv2.imread(str(path), cv2.IMREAD_GRAYSCALE), 38, 7)[::2, ::2]
        replace(masks / f"{path.stem}_mask.PNG", labels)
        path.unlink()
    line = ["data_preprocessing.py", "--images", images, "--masks", masks, "--data", tmp_path / "a"]
    line += ["--mask-suffix", "_mask", "--mask-value", "7", "--mask-inverted", "--mask-resize"]
    monkeypatch.setattr(sys, "argv", [str(word) for word in line])
    data.main()
    expected = [cv2.resize(make_pair(n)[1][::2, ::2], (50, 40), interpolation=0) for n in (0, 19)]
    for row, mask in zip((0, 19), expected, strict=True):
        stored = np.load(tmp_path / "a/masks.npy", mmap_mode="r")[row]
        np.testing.assert_array_equal(stored, reduce_pair(make_pair(row)[0], mask, 128)[1])
    convention = load_summary(tmp_path / "a")["mask_convention"]
    assert convention == {
        **{"names": "NAME=NAME_mask", "values": [7], "threshold": None, "inverted": True},
        **{"resize": True, "unite": False},
    }


def test_a_convention_without_masks_of_ones_own_is_refused(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["data_preprocessing.py", "--demo", "--mask-inverted"])
    with pytest.raises(SystemExit, match="2"):
        data.main()
    assert "is for masks of your own: add --images and --masks" in capsys.readouterr().err


def splits_of(folder):
    """Return the names, groups, splits and folds of a prepared data set, as four arrays."""
    with open(folder / "splits.csv", newline="") as file:
        return [np.array(column) for column in list(zip(*csv.reader(file), strict=True))]


def test_each_fold_is_tested_once_and_no_scene_is_parted(folders, tmp_path):
    cv2.imwrite(str(folders[0] / "07.png"), cv2.imread(str(folders[0] / "06.png")))
    source = folder_source(*folders)
    assert data.prepare(source, tmp_path / "first")["test_fold"] == 0
    first, tested = tmp_path / "first/splits.csv", []
    for fold in range(5):
        summary = data.prepare(source, tmp_path / "out", first, fold)
        assert summary["test_fold"] == fold
        assert (fold == 0) == ((tmp_path / "out/splits.csv").read_bytes() == first.read_bytes())
        names, groups, split, folds = splits_of(tmp_path / "out")
        np.testing.assert_array_equal(split[1:] == "test", folds[1:] == str(fold))
        assert all(len(set(split[groups == group])) == 1 for group in groups)
        assert all(summary["pairs"][name] for name in SPLITS)
        tested += list(names[split == "test"])
    assert sorted(tested) == source.names
    each = [tmp_path / f"fold{fold}" for fold in range(5)]
    for fold, folder in enumerate(each):
        data.prepare(source, folder, first, fold)
    assert sorted(FoldPictures(each).names) == source.names
    data.prepare(source, tmp_path / "anew", fold=4)
    np.testing.assert_array_equal(splits_of(tmp_path / "anew"), splits_of(tmp_path / "out"))
    again = tmp_path / "out/splits.csv"
    data.prepare(source, tmp_path / "out", again, fold=0)  # of a file in the same folder
    assert again.read_bytes() == first.read_bytes()


def test_ones_own_validation_split_stays_where_its_test_fold_is_asked_for(folders, tmp_path):
    lines = [f"{n:02d},{n},{'test' if n % 5 == 3 else 'train'},{n % 5}" for n in range(20)]
    lines[0] = "00,0,validation,0"
    mine = tmp_path / "mine.csv"
    mine.write_text("\n".join(["name,group,split,fold", *lines]) + "\n")
    source = folder_source(*folders)
    for fold in (None, 3):
        assert data.prepare(source, tmp_path / "out", mine, fold)["test_fold"] == 3
        assert (tmp_path / "out/splits.csv").read_text() == mine.read_text()


def prepared_by(text, folders, tmp_path, fold=None, name="mine.csv"):
    """Return the summary and splits.csv, as four columns, of 20 pairs prepared by a table."""
    (tmp_path / name).write_text(text)
    summary = data.prepare(folder_source(*folders), tmp_path / "out", tmp_path / name, fold)
    return summary, [column[1:] for column in splits_of(tmp_path / "out")]


def test_a_split_without_validation_gets_one_of_its_training_pictures(folders, tmp_path):
    lines = [f"{n:02d}.png,{'test' if n < 6 else 'train'}" for n in range(20)]
    text = "\n".join(["file,split", *lines])
    summary, (_, groups, split, _) = prepared_by(text, folders, tmp_path)
    assert list(split[:6]) == ["test"] * 6
    assert set(split[6:]) == {"train", "validation"}
    assert list(groups) == [str(n) for n in range(20)]
    count = list(split).count("validation")
    assert 1 <= count <= 2  # a tenth of 14
    path = tmp_path / "mine.csv"
    assert summary["notes"] == [
        f"{path}: its column 'file' is taken as name",
        f"{path}: 20 of its names are taken as others, '00.png' as '00'",
        f"{path}: names no groups, so each picture counts as a scene of its own; frames of one"
        " scene may stand in two splits",
        f"{path}: names no validation split; {count} of its 14 training pictures became it",
    ]
    with pytest.raises(InputError, match=r"^--fold 1: .*mine\.csv names no folds; leave out"):
        prepared_by(text, folders, tmp_path, fold=1)


def test_groups_alone_are_dealt_into_folds_and_folds_alone_into_splits(folders, tmp_path):
    patients = [f"{n:02d},patient {n // 2}" for n in range(20)]
    summary, (_, groups, split, folds) = prepared_by(
        "\n".join(["name,group", *patients]), folders, tmp_path, fold=3
    )
    assert summary["groups"] == 10
    assert all(groups[::2] == groups[1::2])
    np.testing.assert_array_equal(split == "test", folds == "3")
    assert all(split[::2] == split[1::2])
    assert set(split) == set(SPLITS)
    lines = [f"{n:02d},{1 + n % 4}" for n in range(20)]
    summary, (_, _, split, folds) = prepared_by("\n".join(["name,fold", *lines]), folders, tmp_path)
    assert summary["test_fold"] == 1
    np.testing.assert_array_equal(split == "test", folds == "1")


def test_too_few_scenes_are_refused_before_the_work_and_the_way_out_is_named(folders, tmp_path):
    source = folder_source(*folders)._replace(decode=None)
    (tmp_path / "mine.csv").write_text(
        "name,group\n" + "".join(f"{n:02d},{n % 4}\n" for n in range(20))
    )
    for few, splits in (
        (source._replace(names=source.names[:4], groups=source.groups[:4]), None),
        (source._replace(groups=np.arange(20) % 4), None),
        (source, tmp_path / "mine.csv"),
    ):
        with pytest.raises(InputError, match=r"of 4 scenes are too few .* or --splits FILE with"):
            data.prepare(few, tmp_path / "out", splits)
    assert not (tmp_path / "out").exists()


def test_groups_of_the_source_are_taken_and_no_picture_is_looked_at(folders, tmp_path, monkeypatch):
    monkeypatch.setattr(data, "sift_features", lambda _: pytest.fail("it looks"))
    source = folder_source(*folders)._replace(groups=np.arange(20) // 2, notes=lambda: ["a note"])
    summary = data.prepare(source, tmp_path / "out")
    assert summary["groups"] == 10
    assert summary["notes"] == ["a note"]


@pytest.mark.parametrize("fold", [-1, 5])
def test_a_fold_that_there_is_not_is_refused_before_any_work(fold, folders, tmp_path):
    source = folder_source(*folders)._replace(decode=None)
    with pytest.raises(InputError, match=f"--fold {fold}: there are the folds 0 to 4"):
        data.prepare(source, tmp_path / "out", fold=fold)
    names = [f"{number:02d}" for number in range(20)]
    lines = [
        f"{n},{n},{split},{f}" for f, (n, split) in enumerate(zip(names, SPLITS * 7, strict=False))
    ]
    (tmp_path / "mine.csv").write_text("\n".join(["name,group,split,fold", *lines]) + "\n")
    with pytest.raises(
        InputError, match=r"--fold -1: .*mine\.csv holds the folds 0, 1, 2, .* 19 only"
    ):
        data.prepare(source, tmp_path / "out", tmp_path / "mine.csv", fold=-1)
    assert not (tmp_path / "out").exists()


def test_the_script_ends_a_mistake_with_a_line_and_status_2(folders, tmp_path):
    (folders[1] / "05.png").unlink()
    options = ["--images", folders[0], "--masks", folders[1], "--data", tmp_path / "out"]
    done = run_script("data_preprocessing.py", *options)
    assert_mistake(done, "05.png", "has no mask of the same name")
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "out").exists()
    assert_mistake(run_script("data_preprocessing.py", "--images", folders[0]), "go together")


def test_help_and_refusals_wait_for_no_large_import():
    code = "import sys, data_preprocessing; print(*sys.modules)"
    line = [sys.executable, "-c", code]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=True)
    assert not {"tensorflow", "sklearn", "matplotlib"} & set(done.stdout.split())


def test_the_command_to_run_next_can_be_copied(folders, tmp_path):
    options = ["--images", folders[0], "--masks", folders[1], "--data", "my dätä"]
    done = run_script("data_preprocessing.py", *options, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith(f"run: python {ROOT / 'train.py'} --data 'my dätä'\n")


def test_a_missing_split_of_hyperkvasir_is_named(folders, tmp_path, monkeypatch):
    arguments = ["data_preprocessing.py", "--images", folders[0], "--masks", folders[1]]
    monkeypatch.setattr(sys, "argv", [*map(str, arguments), "--data", str(tmp_path / "out")])
    monkeypatch.setattr(data, "SPLITS_PATH", tmp_path / "none.csv")
    with pytest.raises(InputError, match=r"none\.csv: is missing; .*git checkout.* --regroup"):
        data.main()
    monkeypatch.setattr(sys, "argv", [*sys.argv, "--regroup"])
    data.main()
    assert (tmp_path / "out/dataset.json").is_file()
    monkeypatch.setattr(data, "download_archive", lambda *_: pytest.fail("it downloads"))
    monkeypatch.setattr(sys, "argv", ["data_preprocessing.py"])
    with pytest.raises(InputError, match=r"none\.csv: is missing"):
        data.main()


def test_the_agreement_needs_no_split(folders, tmp_path, monkeypatch, capsys):
    arguments = ["data_preprocessing.py", "--images", folders[0], "--masks", folders[1]]
    monkeypatch.setattr(sys, "argv", [*map(str, arguments), "--agreement"])
    monkeypatch.setattr(data, "SPLITS_PATH", tmp_path / "none.csv")
    data.main()
    assert "no frame stands there twice" in capsys.readouterr().out


BAD_CONSTANTS = {
    "IMAGE_SIZE": [100, 0, 128.0, 16_000_000],
    "DEMO_PAIRS": [4],
    "SEED": [-1, 2**32],
    "FOLDS": [1, "5"],
    "VALIDATION_PARTS": [1],
}


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, them in BAD_CONSTANTS.items() for value in them]
)
def test_an_impossible_constant_is_named_before_any_work(name, value, monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "argv", ["data_preprocessing.py", "--archive", "none.zip"])
    monkeypatch.setattr(data, name, value)
    with pytest.raises(InputError) as error:
        data.main()
    assert str(error.value).startswith(f"{name} = {value!r}: must be ")
    assert str(error.value).endswith("; edit it in data_preprocessing.py")


@needs_real_data
def test_the_real_archive_by_default_and_regrouped(tmp_path):
    for option in ([], ["--regroup"], ["--fold", 0]):
        options = ["--archive", REAL_ARCHIVE, "--data", tmp_path / "out", *option]
        done = run_script("data_preprocessing.py", *options)
        assert done.returncode == 0, done.stderr
        assert (tmp_path / "out/splits.csv").read_bytes() == data.SPLITS_PATH.read_bytes()
    summary = load_summary(tmp_path / "out")
    assert summary["pairs"] == {"all": 1000, "train": 720, "validation": 80, "test": 200}
    assert summary["polyp_fraction"]["all"] == pytest.approx(0.1539098941, abs=1e-4)
    assert summary["without_polyp"]["all"] == 0
    assert summary["warnings"] == []
    done = run_script("data_preprocessing.py", *options[:-1], 3)
    assert done.returncode == 0, done.stderr
    assert "hyperkvasir_splits.csv, fold 3" in done.stdout
    _, groups, split, folds = splits_of(tmp_path / "out")
    assert set(folds[split == "test"]) == {"3"}
    assert all(len(set(split[groups == group])) == 1 for group in groups)
    counts = [(split == name).sum() for name in SPLITS]
    assert counts == pytest.approx([720, 80, 200], abs=3)


@pytest.mark.parametrize("line", [["--fold", "9"], ["--fold", "-1"], ["--fold", "5", "--regroup"]])
def test_a_fold_that_there_will_not_be_is_refused_before_the_download(line, monkeypatch):
    monkeypatch.setattr(data, "download_archive", lambda *_: pytest.fail("it downloads"))
    monkeypatch.setattr("sys.argv", ["data_preprocessing.py", *line])
    with pytest.raises(InputError, match=f"^--fold {line[1]}: .* folds 0"):
        data.main()
