"""Polyps found, missed and falsely raised, on cases drawn by hand and against SciPy."""

import numpy as np
import pytest
from scipy import ndimage

from utils.prediction.regions import LEAST_FRACTION
from utils.scoring import polyps
from utils.scoring.intervals import describe, rate_extremes, share_extremes
from utils.scoring.measure import measure
from utils.scoring.registry import DEFINITIONS, FAMILIES


def draw(*boxes, size=40):
    """Return a mask of rectangles, each given as its rows and columns: top, bottom, left, right."""
    mask = np.zeros((size, size), np.uint8)
    for top, bottom, left, right in boxes:
        mask[top:bottom, left:right] = 1
    return mask


def compare(mask, prediction):
    """Return which polyps are found and which regions are right, by IoU and by any overlap."""
    return {
        rule: [
            regions.matched(rule).tolist()
            for regions in polyps.compare_regions(mask, prediction, prediction)
        ]
        for rule in polyps.RULES
    }


POLYP = (0, 10, 0, 10)
OTHER = (20, 30, 20, 30)


@pytest.mark.parametrize(
    ("mask", "prediction", "by_iou", "by_overlap"),
    [
        ([POLYP], [POLYP], [[True], [True]], [[True], [True]]),
        ([POLYP], [], [[False], []], [[False], []]),
        ([], [POLYP], [[], [False]], [[], [False]]),
        ([], [], [[], []], [[], []]),
        # Two polyps in one picture are two, and an alarm beside them is false
        ([POLYP, OTHER], [OTHER], [[False, True], [True]], [[False, True], [True]]),
        ([POLYP], [POLYP, OTHER], [[True], [True, False]], [[True], [True, False]]),
        # An IoU of 50 / 100 is enough, of 40 / 100 it is not
        ([POLYP], [(0, 5, 0, 10)], [[True], [True]], [[True], [True]]),
        ([POLYP], [(0, 4, 0, 10)], [[False], [False]], [[True], [True]]),
        # One pixel shared of 100
        ([POLYP], [(9, 19, 9, 19)], [[False], [False]], [[True], [True]]),
        # One region over two polyps finds both by overlap, none by IoU
        (
            [(0, 10, 0, 10), (0, 10, 12, 22)],
            [(0, 10, 0, 22)],
            [[False, False], [False]],
            [[True, True], [True]],
        ),
        # A polyp in two pieces: the larger, 60 / 100, counts, and by IoU the other is false
        ([POLYP], [(0, 6, 0, 10), (7, 10, 0, 10)], [[True], [True, False]], [[True], [True, True]]),
    ],
)
def test_cases_drawn_by_hand(mask, prediction, by_iou, by_overlap):
    found = compare(draw(*mask), draw(*prediction))
    assert found == {"iou": by_iou, "overlap": by_overlap}


def test_regions_that_touch_at_a_corner_are_one():
    first, _ = polyps.compare_regions(draw((0, 5, 0, 5), (5, 10, 5, 10)), draw(), draw())
    assert first.fractions.tolist() == [50 / 1600]


def test_specks_are_neither_polyps_nor_alarms():
    speck, enough = draw((50, 52, 50, 54), size=128), draw((50, 53, 50, 53), size=128)
    for mask, count in ((speck, 0), (enough, 1)):
        for regions in polyps.compare_regions(mask, mask, mask):
            assert len(regions.ious) == count
    labels, pixels, _ = polyps.label_regions(draw((0, 1, 0, 1), POLYP, size=128))
    assert (labels.max(), pixels.tolist()) == (1, [100])
    labels, pixels, centres = polyps.label_regions(draw((0, 2, 0, 2), (60, 70, 20, 41), size=128))
    assert np.array_equal(labels, draw((60, 70, 20, 41), size=128))
    assert (pixels.tolist(), centres.tolist()) == ([210], [[30, 64.5]])


def test_regions_and_ious_are_scipys_and_matches_are_one_to_one():
    random = np.random.default_rng(0)
    matched = 0
    for _ in range(20):
        smooth = ndimage.gaussian_filter(random.normal(size=(2, 64, 64)), (0, 3, 3))
        mask = smooth[0] > 0.05
        prediction = smooth[0] + 0.5 * smooth[1] > 0.05
        kept = []
        for image in (mask, prediction):
            labels, count = ndimage.label(image, np.ones((3, 3)))
            regions = [labels == number for number in range(1, count + 1)]
            kept.append([region for region in regions if region.mean() >= LEAST_FRACTION])
        ious = np.array([[(a & b).sum() / (a | b).sum() for b in kept[1]] for a in kept[0]])
        compared = polyps.compare_regions(mask, prediction, prediction)
        for axis, regions in enumerate(compared):
            expected = sorted(region.mean() for region in kept[axis])
            assert sorted(regions.fractions) == pytest.approx(expected)
            assert sorted(regions.ious) == pytest.approx(sorted(ious.max(axis=1 - axis)))
            assert (ious >= 0.5).sum() == regions.matched("iou").sum()
        matched += (ious >= 0.5).sum()
    assert matched > 20


@pytest.fixture
def compared():
    """Three pictures: a polyp found and one missed, a false alarm, and a polyp half found."""
    return [
        polyps.compare_regions(draw(*mask), draw(*prediction), draw(*prediction))
        for mask, prediction in (
            ([POLYP, (20, 24, 20, 26)], [POLYP]),
            ([], [OTHER]),
            ([(0, 20, 0, 20)], [(0, 9, 0, 20)]),
        )
    ]


def polyp_metrics(compared, groups):
    return measure("polyps", [polyps.count_polyps(compared)], groups)


def test_metrics_by_hand(compared):
    metrics = polyp_metrics(compared, np.arange(3))
    values = {name: (metric.value, metric.count) for name, metric in metrics.items()}
    assert values == {
        "polyp_sensitivity_iou": (pytest.approx(1 / 3), 3),
        "region_precision_iou": (pytest.approx(1 / 3), 3),
        "false_regions_iou": (pytest.approx(2 / 3), 3),
        "polyp_sensitivity_overlap": (pytest.approx(2 / 3), 3),
        "region_precision_overlap": (pytest.approx(2 / 3), 3),
        "false_regions_overlap": (pytest.approx(1 / 3), 3),
    }
    for metric in metrics.values():
        low, high = describe(metric)["interval"]
        assert low < metric.value < high
    assert "IoU of 0.5 or more" in DEFINITIONS["polyp_sensitivity_iou"]
    assert "regions below 0.05 % of the image do not count" in FAMILIES["polyps"].note
    # One of the three pictures has no polyp
    assert metrics["polyp_sensitivity_iou"].extremes == share_extremes(2)
    assert metrics["false_regions_iou"].extremes == rate_extremes(3)


def test_intervals_draw_whole_scenes(compared):
    metrics = polyp_metrics(compared, np.array([7, 7, 7]))
    for metric in metrics.values():
        assert describe(metric)["interval"] == pytest.approx((metric.value, metric.value))


def test_a_score_with_nothing_to_count_is_left_out():
    nothing = [polyps.compare_regions(draw(), draw(), draw())] * 2
    metrics = polyp_metrics(nothing, np.arange(2))
    assert {name: metric.value for name, metric in metrics.items()} == {
        "false_regions_iou": 0,
        "false_regions_overlap": 0,
    }


def test_sensitivity_by_size_by_hand(compared):
    rows = polyps.sensitivity_by_size(compared, np.arange(3))  # 1.5 %, 6.25 % and 25 % of 1,600
    assert [(row["least"], row["below"]) for row in rows] == [
        (0, 0.02),
        (0.02, 0.05),
        (0.05, 0.1),
        (0.1, 1),
    ]
    assert [row["count"] for row in rows] == [1, 0, 1, 1]
    assert [row["iou"]["value"] for row in rows] == [0, None, 1, 0]
    assert [row["overlap"]["value"] for row in rows] == [0, None, 1, 1]
    end = 1.96**2 / (1 + 1.96**2)  # a single scene says little
    assert [row["overlap"]["interval"] for row in rows] == [
        (0, pytest.approx(end)),
        None,
        (pytest.approx(1 - end), 1),
        (pytest.approx(1 - end), 1),
    ]


def test_a_size_at_the_end_of_two_groups_is_in_the_larger():
    rows = polyps.sensitivity_by_size(
        [polyps.compare_regions(draw((0, 4, 0, 8)), draw(), draw())], np.zeros(1)
    )
    assert [row["count"] for row in rows] == [0, 1, 0, 0]  # 32 of 1,600 pixels


def test_a_polyp_that_fills_its_picture_is_in_the_last_group():
    full = draw((0, 40, 0, 40))
    rows = polyps.sensitivity_by_size([polyps.compare_regions(full, full, full)], np.zeros(1))
    assert [row["count"] for row in rows] == [0, 0, 0, 1]
    assert rows[-1]["below"] == 1
