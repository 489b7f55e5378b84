"""Distances of borders by hand, of empty masks, and as others compute them with SciPy."""

import cv2
import numpy as np
import pytest
import surface_distance
from scipy import ndimage

from utils.scoring import borders
from utils.scoring.intervals import describe
from utils.scoring.measure import measure
from utils.scoring.registry import DEFINITIONS


def square(top, left, side, size=32):
    mask = np.zeros((size, size), np.uint8)
    mask[top : top + side, left : left + side] = 1
    return mask


def reference_distances(mask, prediction):
    """Return both ways' distances from border to border as MedPy 0.5.2 computes them.

    Its border is what an erosion by SciPy's cross takes away, its distances are those of SciPy's
    exact transform (medpy.metric.binary, __surface_distances).
    """
    ways = []
    for these, others in ((mask, prediction), (prediction, mask)):
        its_border = these ^ ndimage.binary_erosion(these)
        to_others = ndimage.distance_transform_edt(~(others ^ ndimage.binary_erosion(others)))
        ways.append(to_others[its_border])
    return ways


def test_the_border_is_inside_and_goes_along_the_pictures_edge():
    expected = square(0, 3, 5)
    expected[1:4, 4:7] = 0
    assert np.array_equal(borders.border(square(0, 3, 5)), expected)


def test_a_shift_by_hand():
    mask, shifted = square(10, 10, 8), square(10, 13, 8)
    hausdorff, f1 = borders.border_scores(mask, shifted)
    assert hausdorff == 3
    # Farther than 2 are, of each border's 28 pixels, its far side's 8 and its near side's middle 2
    assert f1 == pytest.approx(18 / 28)


@pytest.mark.parametrize(("shift", "expected"), [(0, (0, 1)), (2, (2, 1))])
def test_two_pixels_are_near_enough(shift, expected):
    scores = borders.border_scores(square(10, 10, 8), square(10, 10 + shift, 8))
    assert scores == expected


def test_empty_masks():
    polyp, nothing = square(5, 5, 6), np.zeros((32, 32), np.uint8)
    assert borders.border_scores(nothing, nothing) == (0, 1)
    for pair in ((polyp, nothing), (nothing, polyp)):
        assert borders.border_scores(*pair) == pytest.approx((31 * 2**0.5, 0))
    wide = np.zeros((4, 5), np.uint8)
    wide[0, 0] = 1
    assert borders.border_scores(wide, np.zeros_like(wide))[0] == 5  # 3 down and 4 to the right


def test_far_apart_the_boundary_f1_is_0():
    hausdorff, f1 = borders.border_scores(square(0, 0, 3), square(20, 20, 3))
    assert f1 == 0
    assert 24 < hausdorff < 29


def test_scores_are_those_of_published_implementations():
    random = np.random.default_rng(0)
    for size in ((128, 128), (96, 200)):
        for _ in range(10):
            smooth = ndimage.gaussian_filter(random.normal(size=(2, *size)), (0, 6, 6))
            mask, prediction = smooth[0] > 0.04, smooth[0] + 0.4 * smooth[1] > 0.04
            hausdorff, f1 = borders.border_scores(mask, prediction)
            recalled, called = reference_distances(mask, prediction)
            expected = max(np.percentile(recalled, 95), np.percentile(called, 95))
            assert hausdorff == expected
            precision, recall = (called <= 2).mean(), (recalled <= 2).mean()
            assert 0.05 < abs(precision - recall) + f1 < 1.9
            assert f1 == pytest.approx(2 * precision * recall / (precision + recall))


def ellipse(random):
    drawn = np.zeros((128, 128), np.uint8)
    centre, axes = random.integers(56, 72, 2).tolist(), random.integers(15, 40, 2).tolist()
    return cv2.ellipse(drawn, centre, axes, int(random.integers(180)), 0, 360, 1, -1).astype(bool)


@pytest.mark.filterwarnings("ignore:Please import:DeprecationWarning")
def test_scores_are_near_those_of_surface_distance():
    """DeepMind's package draws borders between the pixels, half a pixel beside these."""
    random, distances = np.random.default_rng(1), []
    for _ in range(20):
        mask, prediction = ellipse(random), ellipse(random)
        hausdorff, f1 = borders.border_scores(mask, prediction)
        theirs = surface_distance.compute_surface_distances(mask, prediction, (1, 1))
        robust = surface_distance.compute_robust_hausdorff(theirs, 95)
        assert hausdorff == pytest.approx(robust, abs=0.75)
        within = surface_distance.compute_surface_overlap_at_tolerance(theirs, borders.TOLERANCE)
        assert f1 * np.sum(within) == pytest.approx(2 * np.prod(within), abs=0.05)  # or 0 by 0
        distances.append(hausdorff)
    assert min(distances) < 8 < 20 < max(distances)


def test_metrics_say_what_they_are():
    scores = {"hausdorff_95": np.array([1.0, 2, 6]), "boundary_f1": np.array([1, 0.5, 0])}
    metrics = measure("borders", [scores], np.arange(3))
    values = {name: metric.value for name, metric in metrics.items()}
    assert values == {"hausdorff_95": 3, "hausdorff_95_median": 2, "boundary_f1": 0.5}
    assert all("border" in DEFINITIONS[name] for name in metrics)
    for metric in metrics.values():
        low, high = describe(metric)["interval"]
        assert low < metric.value < high
