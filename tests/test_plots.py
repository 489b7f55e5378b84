"""What the figures of scores show: ticks that can be read, and axes with labels."""

import numpy as np
import pytest

from utils.reporting import plots
from utils.scoring.pixels import curve_histogram
from utils.scoring.properties import PROPERTIES, Part


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.3, 70, [0.2, 0.5, 1, 2, 5, 10, 20, 50, 100]),
        (5, 5, [5, 10]),
        (6, 9, [5, 10]),
        (2, 5, [2, 5]),
        (100, 100, [100, 200]),
    ],
)
def test_ticks_of_sizes_are_few_and_enclose_them(low, high, expected):
    assert plots.ticks_around(low, high).tolist() == pytest.approx(expected)


@pytest.mark.parametrize("count", [1, 2, 4, 9, 10, 200])
def test_dice_by_size_has_ticks_that_do_not_crowd(count, tmp_path, drawn):
    random = np.random.default_rng(count)
    dice, fractions = random.random(count), random.uniform(0.03, 0.09, count)
    plots.save_dice_by_size(tmp_path / "a.png", dice, fractions, 0.3, "drawn")
    axes = drawn[0].axes[0]
    assert axes.get_xlabel() == "polyp, % of the image's pixels"
    assert axes.get_ylabel() == "Dice of an image, threshold 0.3"
    assert 2 <= len(axes.get_xticks()) <= 4
    assert len(axes.get_xticks(minor=True)) == 0
    assert len(axes.lines) == (6 if count >= 10 else 1)  # the images, and the means of fifths


def test_dice_by_size_says_what_it_leaves_out(tmp_path, drawn):
    fractions = np.array([0.1, 0, 0.2])
    plots.save_dice_by_size(tmp_path / "a.png", np.ones(3), fractions, 0.5, "drawn")
    axes = drawn[0].axes[0]
    assert "(left out: 1 without a polyp)" in axes.get_xlabel()
    assert list(axes.lines[0].get_xdata()) == [10, 20]


def test_the_precision_recall_curve_begins_where_something_is_called_polyp(tmp_path, drawn):
    masks = np.array([1, 1, 0, 0]).reshape(1, 2, 2, 1)
    probabilities = np.array([0.9, 0.2, 0.3, 0.1]).reshape(1, 2, 2, 1)
    histogram = curve_histogram(masks, probabilities)
    plots.save_precision_recall(tmp_path / "a.png", histogram, 1.0, 0.5, 0.4, "drawn")
    curve, point = drawn[0].axes[0].lines
    steps = sorted({(x, round(y, 3)) for x, y in zip(*curve.get_data(), strict=True)})
    assert steps == [(0.5, 0.5), (0.5, 1), (1, 0.5), (1, 0.667)]
    assert (point.get_xdata(), point.get_ydata()) == ([0.5], [1.0])
    labels = [text.get_text() for text in drawn[0].axes[0].get_legend().get_texts()]
    assert labels[1] == "threshold 0.4: precision 1.000, recall 0.500"


def test_the_histogram_of_few_images_counts_in_whole_numbers(tmp_path, drawn):
    plots.save_dice_histogram(tmp_path / "a.png", np.array([0.2]), 0.3, "test split of $x_{2$")
    axes = drawn[0].axes[0]
    assert axes.get_xlabel() == "Dice of an image, threshold 0.3"
    assert all(tick == int(tick) for tick in axes.get_yticks())
    assert axes.get_title() == "Images by their Dice (1 in all)\ntest split of $x_{2$"


def test_a_long_subject_is_cut_to_the_figures_width(tmp_path, drawn):
    subject = "pictures of " + "a folder/" * 20
    plots.save_dice_histogram(tmp_path / "a.png", np.array([0.2]), 0.3, subject)
    line = drawn[0].axes[0].get_title().split("\n")[1]
    assert line.startswith("pictures of a")
    assert len(line) < 80


def found(value, low, high):
    return {"value": value, "interval": (low, high)}


def test_sensitivity_by_size_shows_groups_that_hold_polyps(tmp_path, drawn):
    rows = [
        {"least": 0, "below": 0.02, "count": 0, "iou": found(None, 0, 0), "overlap": None},
        {"least": 0.02, "below": 0.05, "count": 1200, "iou": found(0.5, 0.25, 1)},
    ]
    rows[1]["overlap"] = found(1, 1, 1)
    plots.save_sensitivity_by_size(tmp_path / "a.png", rows, "some")
    axes = drawn[0].axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["2 to 5 %\n1,200 polyps"]
    by_iou, by_overlap = axes.containers
    assert by_iou.get_label() == "found by an IoU of 0.5 or more"
    assert by_iou.lines[0].get_ydata().tolist() == [0.5]
    assert by_iou.lines[2][0].get_segments()[0][:, 1].tolist() == [0.25, 1]
    assert by_overlap.lines[0].get_ydata().tolist() == [1]


def test_reliability_shows_both_curves_and_their_errors(tmp_path, drawn):
    before = np.zeros((3, 15))
    before[:, 0], before[:, 14] = (100, 0, 10), (100, 100, 80)
    after = before.copy()
    after[1] = after[2]
    plots.save_reliability(tmp_path / "a.png", before, after, 2.5, "some")
    shares, pixels = drawn[0].axes
    _, curve, scaled = shares.lines
    np.testing.assert_allclose(curve.get_data(), [(0, 1), (0.1, 0.8)])
    np.testing.assert_allclose(scaled.get_data(), [(0.1, 0.8), (0.1, 0.8)])
    labels = [text.get_text() for text in shares.get_legend().get_texts()]
    assert labels[1] == "as they are: calibration error 0.150"
    assert labels[2] == "at temperature 2.50: calibration error 0.000"
    assert pixels.patches[0].get_data().values.tolist() == before[0].tolist()


def test_failures_shows_a_panel_for_each_property(tmp_path, drawn):
    these = [Part(1, 1, 1234, 0.5, (0.4, 0.7)), Part(2, 9, 3, 1, (1, 1))]
    parts = dict.fromkeys(PROPERTIES, these)
    plots.save_failures(tmp_path / "a.png", parts, 0.3, "a $x_{2$")
    panels = drawn[0].axes
    assert [axes.get_title() for axes in panels] == list(PROPERTIES)
    assert panels[0].get_ylabel() == "mean Dice, threshold 0.3"
    labels = [label.get_text() for label in panels[1].get_xticklabels()]
    assert labels == ["1\nn 1,234", "2\nto 9\nn 3"]
    for axes in panels:
        assert [bar.get_height() for bar in axes.patches] == [0.5, 1]
        assert axes.get_ylim() == (0, 1.02)
