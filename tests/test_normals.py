"""Normal pictures: read with empty masks, named and grouped by their folders, dealt and scored."""

import csv
import json

import cv2
import numpy as np
import pytest

import data_preprocessing as data
from shell import assert_mistake, run_script
from utils.command import InputError
from utils.data.normals import add_normals, normal_source
from utils.data.scenes import UNKNOWN
from utils.data.sources import folder_source
from utils.scoring.labelled import SourcePictures


def drawn(seed):
    return np.random.default_rng(seed).integers(0, 256, (40, 50, 3), np.uint8)


def save(path, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = drawn(seed)
    path.write_bytes(cv2.imencode(path.suffix, picture[..., ::-1])[1])


@pytest.fixture
def films(tmp_path):
    """Ten films of three frames."""
    for film in range(10):
        for frame in range(3):
            save(tmp_path / f"normal/f{film}/{frame}.png", 3 * film + frame)
    return tmp_path / "normal"


@pytest.fixture
def pairs(tmp_path):
    for number in range(20):
        save(tmp_path / f"images/{number:02d}.png", number)
        mask = np.zeros((40, 50), np.uint8)
        mask[5 : 15 + number, 10 : 20 + number] = 255
        (tmp_path / "masks").mkdir(exist_ok=True)
        cv2.imwrite(str(tmp_path / f"masks/{number:02d}.png"), mask)
    return folder_source(tmp_path / "images", tmp_path / "masks")


def test_pictures_have_empty_masks_and_folders_are_scenes(films):
    source = normal_source([films])
    assert source.names[:4] == ["normal/f0/0", "normal/f0/1", "normal/f0/2", "normal/f1/0"]
    assert source.groups.tolist() == sorted([*range(10)] * 3)
    assert source.normals == 30
    picture, mask = source.decode("normal/f1/0")
    np.testing.assert_array_equal(picture, drawn(3))
    assert mask.shape == (40, 50)
    assert not mask.any()
    assert "each of 10 folders counts as a scene" in source.notes()[0]


def test_scenes_are_looked_for_in_a_folder_without_folders(films):
    one = normal_source([films / "f0"])
    assert set(one.groups) == {UNKNOWN}
    assert one.notes() == []
    several = normal_source([films / f"f{film}" for film in range(5)])
    assert several.groups.tolist() == sorted([*range(5)] * 3)
    assert several.names[3] == "f1/0"


def chosen(films, *flags):
    """Return which groups data_preprocessing.py takes of its folders, of pairs and normals."""
    line = ["data_preprocessing.py", "--images", films.parent / "a", "--masks", films.parent / "b"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", [*map(str, line), "--normals", str(films), *flags])
        source = data.choose_source(data.parse_arguments())
    known = source.groups != UNKNOWN
    return known[:10].any(), known[10:].any(), len(source.notes())


def test_folders_are_scenes_unless_the_user_says_it_otherwise(films, tmp_path):
    """A table may name the pairs alone."""
    for number in range(10):
        save(tmp_path / f"a/case{number}/1.png")
        save(tmp_path / f"b/case{number}/1.png")
    assert chosen(films) == (True, True, 2)
    assert chosen(films, "--splits", "mine.csv") == (False, True, 1)
    assert chosen(films, "--regroup") == (False, False, 0)


def test_what_cannot_be_taken_is_named(films, tmp_path):
    (tmp_path / "empty").mkdir()
    for folders, words in (
        ([tmp_path / "gone"], "gone"),
        ([tmp_path / "empty"], "holds no picture"),
        ([films, films], "have the same name"),
    ):
        with pytest.raises(InputError, match=words):
            normal_source(folders)
    for name, words in (("scan.dcm", "of no kind that is read"), ("a.json", "polygons of LabelMe")):
        (tmp_path / "empty" / name).write_text('{"shapes": []}')
        with pytest.raises(InputError, match=f"{name}.* {words}"):
            normal_source([tmp_path / "empty"])
    save(tmp_path / "odd/a.png")
    (tmp_path / "odd/a.png").rename(tmp_path / "odd/a\nb.png")
    with pytest.raises(InputError, match="that is no text; rename it"):
        normal_source([tmp_path / "odd"])
    (films / "notes.txt").touch()
    assert any(
        "left out" in note and "notes.txt" in note for note in normal_source([films]).notes()
    )


def test_pairs_and_normal_pictures_are_one_source(pairs, films):
    both = add_normals(pairs, normal_source([films]))
    assert both.names == pairs.names + normal_source([films]).names
    assert both.decode("03")[1].any()
    assert not both.decode("normal/f0/0")[1].any()
    assert set(both.groups[:20]) == {UNKNOWN}
    assert len(set(both.groups[20:]) - {UNKNOWN}) == 10
    with pytest.raises(InputError, match="is the name of a pair too"):
        add_normals(both, normal_source([films]))


def read_splits(folder):
    with open(folder / "splits.csv", newline="") as file:
        return list(csv.DictReader(file))


def prepare(source, folder, splits=None):
    summary = data.prepare(source, folder, splits)
    rows = read_splits(folder)
    assert [row["name"] for row in rows] == source.names
    kept = {}
    for row in rows:
        assert kept.setdefault(row["group"], (row["split"], row["fold"])) == (
            row["split"],
            row["fold"],
        )
    normal = dict.fromkeys(("train", "validation", "test"), 0)
    for row in rows[-source.normals :]:
        normal[row["split"]] += 1
    without = {name: count for name, count in summary["without_polyp"].items() if name != "all"}
    assert without == normal
    masks = np.load(folder / "masks.npy")
    assert masks[: -source.normals].any(axis=(1, 2, 3)).all()
    assert not masks[-source.normals :].any()
    return rows, normal


def test_normal_pictures_are_dealt_by_scene_into_every_split(pairs, films, tmp_path):
    _, normal = prepare(add_normals(pairs, normal_source([films])), tmp_path / "out")
    assert min(normal.values()) >= 3


def test_a_split_of_the_pairs_stays_as_it_is(pairs, films, tmp_path):
    lines = [
        f"{n:02d},{n},{'test' if n < 4 else 'validation' if n < 6 else 'train'},{n // 4}"
        for n in range(20)
    ]
    path = tmp_path / "mine.csv"
    path.write_text("name,group,split,fold\n" + "\n".join(lines) + "\n")
    source = add_normals(pairs, normal_source([films]))
    rows, normal = prepare(source, tmp_path / "out", path)
    assert [",".join(row.values()) for row in rows[:20]] == lines
    assert normal["test"] == 6
    assert len({int(row["group"]) for row in rows[20:]} - set(range(20))) == 10
    again, _ = prepare(source, tmp_path / "again", tmp_path / "out/splits.csv")
    assert again == rows  # a table of all names says it of all


def test_pictures_without_a_polyp_are_scored_alone(films):
    pictures = SourcePictures(normal_source([films]))
    batches = list(pictures.batches(16, 8))
    assert sum(len(batch.images) for batch in batches) == 30
    assert not any(batch.masks.any() for batch in batches)
    assert len(set(pictures.scenes())) == 10
    assert pictures.doubts({}) == []
    assert pictures.notes() == pictures.pairs_of_source.notes()


def test_the_scripts_take_them(films, tmp_path):
    done = run_script("data_preprocessing.py", "--demo", "--normals", films)
    assert_mistake(done, "--normals goes with pairs")
    done = run_script(
        "evaluation.py", "--normals", films, "--results", tmp_path / "results", cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert "Scores of 30 images of 10 scenes" in done.stdout
    assert "without a polyp: an alarm" in done.stdout
    assert "without a polyp: anything marked" in done.stdout
    assert "F1" not in done.stdout
    report = json.loads((tmp_path / "results/metrics.json").read_text())
    assert report["images_with_polyp"] == 0
    alarm, marked = (
        report["pictures"][f"{name}_without_polyp"]["value"] for name in ("alarm", "marked")
    )
    assert 0 <= alarm <= marked <= 1
    assert not {"metrics", "metrics_at_own_size", "borders"} & set(report)
    assert "alarm_sensitivity" not in report["pictures"]
    figures = {path.name for path in (tmp_path / "results").glob("*.png")}
    assert figures == {"predictions.png", "worst.png"}
