"""Cases: which labelled pictures are shown, and that mask and prediction are theirs."""

import numpy as np
import pytest

from shell import property_rows
from utils.drawing import MASK, PREDICTION
from utils.reporting import cases
from utils.reporting.cases import outlined_rows
from utils.scoring.pixels import confusion_counts, image_scores
from utils.scoring.properties import PROPERTIES
from utils.scoring.scored import pack_predictions


def make_pictures(*shape):
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


class DrawnPictures:
    """Labelled pictures of arrays."""

    title = "drawn pictures"

    def __init__(self, images, masks, names=None, splits=None):
        self.images, self.masks = images, masks
        self.names = names or [f"n{number}" for number in range(len(images))]
        self.split_names = splits or ["test"] * len(images)

    def pairs(self, rows, size):
        assert self.images.shape[1:3] == (size, size)
        return self.images[rows], self.masks[rows]

    def splits(self):
        return self.split_names


@pytest.mark.parametrize("size", [16, 30, 50])
def test_predictions_are_unpacked_at_any_size(size):
    images, masks = make_pictures(2, size, size, 3), np.zeros((2, size, size, 1), np.uint8)
    predictions = images[..., :1] > 127
    packed = pack_predictions(predictions)
    unpacked = outlined_rows(DrawnPictures(images, masks), packed, [1, 0])[2]
    np.testing.assert_array_equal(unpacked, predictions[::-1])


@pytest.mark.parametrize("count", [1, 2, 4, 9, 10, 40])
def test_predictions_show_each_case_once_and_by_name(count, monkeypatch):
    shown = []
    monkeypatch.setattr(cases, "save_sheet", lambda *args: shown.extend(args))
    masks = (np.random.default_rng(0).random((count, 16, 16, 1)) < 0.5).astype(np.uint8)
    images = make_pictures(count, 16, 16, 3)
    predictions = images[..., :1] > 127
    dice = image_scores(confusion_counts(masks, predictions))["dice"]
    packed = pack_predictions(predictions)
    cases.save_predictions("a.png", DrawnPictures(images, masks), packed, dice, 0.5)
    _, sheet, titles, title = shown
    lines = [text.split("\n") for text in titles]
    names = [name for _, name, _ in lines]
    assert len(set(names)) == len(names) == min(count, 9)
    scores = [dice[int(name[1:])] for name in names]
    assert scores == sorted(scores, reverse=True)
    assert [text for _, _, text in lines] == [f"Dice {score:.3f}" for score in scores]
    assert scores[0] == dice.max()
    assert scores[-1] == dice.min()
    places = ["best: "] * 3 + ["median: "] * 3 + ["worst: "] * 3 if count > 9 else [""] * count
    spread = {10: [1, 2, 3, 4, 5, 6, 8, 9, 10], 40: [1, 2, 3, 19, 20, 21, 38, 39, 40]}
    ranks = spread.get(count, range(1, count + 1))
    assert [text for text, _, _ in lines] == [
        f"{place}{rank}/{count}" for place, rank in zip(places, ranks, strict=True)
    ]
    for number, name in enumerate(names):
        row = int(name[1:])
        np.testing.assert_array_equal(sheet["picture"][number], images[row])
        np.testing.assert_array_equal(sheet["mask"][number], masks[row, ..., 0])
        np.testing.assert_array_equal(sheet["prediction"][number], predictions[row, ..., 0])
    assert title == "Threshold 0.5. Outlines: mask blue, prediction yellow on top\ndrawn pictures"


def test_packed_predictions_come_back_with_their_outlines():
    masks = np.zeros((3, 32, 32, 1), np.uint8)
    masks[1, 4:20, 4:20] = 1
    pictures = DrawnPictures(np.zeros((3, 32, 32, 3), np.uint8), masks)
    predictions = np.zeros((3, 32, 32, 1), bool)
    predictions[1, 10:28, 10:28] = True
    packed = pack_predictions(predictions)
    assert packed.nbytes * 8 == predictions.nbytes
    _, same, predicted, drawn = outlined_rows(pictures, packed, [1, 2])
    np.testing.assert_array_equal(same, masks[[1, 2]])
    np.testing.assert_array_equal(predicted, predictions[[1, 2]])
    for colour in (MASK, PREDICTION):
        distances = np.abs(drawn[0] - np.float32(tuple(bytes.fromhex(colour[1:])))).max(axis=-1)
        assert (distances < 40).any()
    assert not drawn[1].any()


def test_the_worst_are_shown_in_order_with_their_own_properties(monkeypatch):
    shown = []
    monkeypatch.setattr(cases, "save_pairs", lambda *args: shown.extend(args))
    images = make_pictures(6, 16, 16, 3)
    masks = np.ones((6, 16, 16, 1), np.uint8)
    dice = np.array([0.9, 0.2, 0.8, 0.1, 1, 0.3])
    properties = [dict.fromkeys(PROPERTIES, float(number)) for number in range(6)]
    drawn = DrawnPictures(images, masks)
    cases.save_worst("a.png", drawn, pack_predictions(masks > 0), dice, properties, 0.5)
    _, pictures, _, titles, lines, title = shown
    assert [text.split("\n")[0] for text in titles] == ["6/6: n3", "5/6: n1", "4/6: n5"]
    assert "Dice 0.200, size 1.0" in titles[1]
    np.testing.assert_array_equal(pictures, images[[3, 1, 5]])
    assert len(lines) == 1 + len(PROPERTIES)
    assert title.endswith("\ndrawn pictures")


def test_the_worst_are_shown_with_their_titles_and_a_table(tmp_path, drawn):
    pictures = np.full((4, 16, 16, 3), 90, np.uint8)
    masks = np.zeros((4, 16, 16, 1), np.uint8)
    masks[:, 4:9, 4:9] = 1
    titles = [f"{number} of 4: 息肉 $x_{{2$\nDice 0.1" for number in range(1, 5)]
    path = tmp_path / "a.png"
    cases.save_pairs(path, pictures, 255 - pictures, titles, ["one", "two"], "$x_{2$")
    *shown_cases, table = drawn[0].axes
    assert shown_cases[3].get_title(loc="left") == "4 of 4: ?? $x_{2$\nDice 0.1"
    shown = shown_cases[0].images[0].get_array()
    assert (shown[:, :144] == 90).all()
    assert (shown[:, 150:] != 90).any()
    assert table.texts[0].get_text() == "one\ntwo"
    assert path.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(("total", "count"), [(1, 1), (3, 2), (24, 12), (200, 12)])
def test_the_worst_are_twelve_or_half(total, count):
    dice = np.random.default_rng(0).permutation(total) / total
    rows = cases.worst_rows(dice)
    assert dice[rows].tolist() == sorted(dice)[:count]


def test_what_the_worst_have_in_common():
    rows = property_rows(
        size=[1, 2, 9, np.nan, 20, 30], edge=[1, 1, 0, np.nan, 0, 1], brightness=[9, 7, 5, 4, 3, 2]
    )
    compared = cases.compare_worst(rows, [2, 0, 1])
    assert compared["size"] == (2, 25)
    assert compared["edge"] == (pytest.approx(2 / 3), 0.5)
    assert compared["brightness"] == (7, 3)
    lines = cases.describe_comparison(compared, 3, 1006)
    assert lines[0].split() == ["worst", "3", "other", "1,003"]
    assert lines[1].startswith("size ")
    assert lines[1].split()[-3:] == ["median", "2.0", "25.0"]
    assert len({len(line) for line in lines}) == 1
    alone = cases.describe_comparison(cases.compare_worst(rows[:1], [0]), 1, 1)
    assert alone[1].split()[-2:] == ["1.0", "none"]


def test_an_image_among_the_worst_is_described_in_three_lines():
    (row,) = property_rows(size=[3.21], distance=[np.nan])
    assert cases.describe_image("1 of 9: a", 0.5, row).split("\n") == [
        "1 of 9: a",
        "Dice 0.500, size 3.2%, polyps 1, distance none",
        "edge 1, brightness 1, sharpness 1",
    ]
