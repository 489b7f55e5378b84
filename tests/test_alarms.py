"""Alarms: how sure, in which pictures, and the curves over all levels; by hand and scikit-learn."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from utils.prediction.regions import label_regions, picture_sureness, region_sureness
from utils.scoring import alarms
from utils.scoring.measure import measure, sums_of
from utils.scoring.polyps import compare_regions


def test_sureness_is_the_highest_threshold_at_which_the_least_region_is_left():
    """Of 4,000 pixels a region has 2 or more."""
    probability = np.zeros((40, 100), np.float32)
    probability[5, 5:8] = 0.9, 0.8, 0.7
    probability[30, 30:32] = 0.6, 0.95
    assert picture_sureness(probability) == pytest.approx(0.9)
    labels, pixels, _ = label_regions(probability >= 0.5)
    np.testing.assert_allclose(region_sureness(probability, labels, len(pixels)), [0.8, 0.6])
    for threshold in (0.55, 0.65, 0.75, 0.85):
        left = len(label_regions(probability >= threshold)[1])
        assert left == (region_sureness(probability, labels, 2) >= threshold).sum()


@pytest.mark.parametrize("ties", [False, True])
def test_the_area_under_the_roc_is_scikit_learns_and_counts_images_as_often_as_drawn(ties):
    random = np.random.default_rng(0)
    shown, surest = random.random(60) < 0.4, random.random(60)
    surest = surest.round(1) if ties else surest
    weights = random.integers(0, 4, (5, 60))
    areas = alarms.area_under_roc(shown, surest, weights)
    for area, times in zip(areas, weights, strict=True):
        assert area == pytest.approx(roc_auc_score(shown, surest, sample_weight=times))
        assert area == pytest.approx(roc_auc_score(shown.repeat(times), surest.repeat(times)))


def test_pictures_of_one_kind_have_no_area():
    assert np.isnan(alarms.area_under_roc(np.ones(3, bool), np.arange(3), np.ones(3)))


def draw(*boxes):
    """Return probabilities of 20 x 20; boxes: the first row, the last column's end, a value."""
    probability = np.zeros((20, 20), np.float32)
    for top, left, value in boxes:
        probability[top : top + 3, left : left + 3] = value
    return probability


def make_table(level=0.0):
    """Four pictures: a polyp found surely, one unsurely beside a false alarm, and two without."""
    masks = [draw((2, 2, 1)), draw((10, 10, 1)), draw(), draw()]
    probabilities = [
        draw((2, 2, 0.99)),
        draw((10, 10, 0.6), (2, 2, 0.9)),
        draw((5, 5, 0.8), (15, 15, 0.7)),
        draw((5, 5, 0.1)),
    ]
    compared = [
        compare_regions(mask, probability >= 0.5, probability)
        for mask, probability in zip(masks, probabilities, strict=True)
    ]
    counts = np.array([[9, 0, 0, 391], [9, 9, 0, 382], [0, 18, 0, 382], [0, 0, 0, 400]])
    dice = np.array([1, 2 / 3, 0, 1])
    surest = [picture_sureness(probability) for probability in probabilities]
    return alarms.picture_table(counts, compared, surest, dice, level)


def values(table):
    scores = measure("pictures", [table], np.arange(4))
    return {name: score.value for name, score in scores.items()}


def test_scores_of_pictures_by_hand():
    scores = values(make_table())
    assert scores["alarm_sensitivity"] == 1
    assert scores["alarm_without_polyp"] == scores["marked_without_polyp"] == 0.5
    assert scores["needless_alarms"] == 1
    assert scores["area_under_roc"] == 1  # 0.99 and 0.9 against 0.8 and 0.1
    assert scores["shown_dice"] == pytest.approx(5 / 6)
    scores = values(make_table(level=0.95))
    assert scores["alarm_sensitivity"] == 0.5
    assert scores["alarm_without_polyp"] == 0
    assert scores["marked_without_polyp"] == 0.5
    assert scores["needless_alarms"] == 0


def test_the_froc_by_hand():
    """By falling level: a polyp at 0.99; false alarms at 0.9, 0.8 and 0.7; a polyp at 0.6."""
    sums = sums_of(make_table())
    rates, shares = alarms.froc(
        *(sums[name] for name in ("found_at", "false_at", "polyps", "images"))
    )
    assert set(zip(rates.tolist(), shares.tolist(), strict=True)) == {
        *((0, 0), (0, 0.5), (0.25, 0.5), (0.5, 0.5), (0.75, 0.5), (0.75, 1)),
    }
    # 1/8, 1/4 and 1/2 a picture find half of the polyps, all others all
    assert values(make_table())["froc"] == pytest.approx((3 * 0.5 + 4 * 1) / 7)


def test_without_pictures_of_a_kind_its_scores_are_left_out():
    table = {name: column[2:] for name, column in make_table().items()}
    scores = measure("pictures", [table], np.arange(2))
    assert set(scores) == {"alarm_without_polyp", "marked_without_polyp", "needless_alarms"}
    table = {name: column[:2] for name, column in make_table().items()}
    scores = measure("pictures", [table], np.arange(2))
    assert set(scores) == {"alarm_sensitivity", "froc", "shown_dice"}


def test_intervals_draw_whole_scenes():
    table = {name: np.repeat(column, 5, axis=0) for name, column in make_table().items()}
    pictures, scenes = (
        measure("pictures", [table], groups)["alarm_without_polyp"].samples
        for groups in (np.arange(20), np.arange(20) // 5)
    )
    assert np.nanstd(scenes) > 1.5 * np.nanstd(pictures)
