"""What is chosen of a threshold, a temperature and a level, by hand."""

import numpy as np
import pytest

from utils.prediction.predictors import level_text
from utils.scoring.calibration import fit_temperature
from utils.scoring.choices import Thresholded, choose
from utils.scoring.pixels import curve_histogram


def thresholded(dice_by_threshold, with_polyp=(0.5,)):
    rows = [{"threshold": key, "image_dice": dice} for key, dice in dice_by_threshold.items()]
    random = np.random.default_rng(0)
    curve = curve_histogram(random.integers(0, 2, 100), random.random(100))
    return Thresholded(rows, curve, np.array(with_polyp), np.array([0.99]))


@pytest.mark.parametrize(
    ("dice", "best"),
    [
        ({0.1: 0.7, 0.5: 0.8, 0.9: 0.9}, 0.9),
        ({0.1: 0.9, 0.4: 0.9, 0.9: 0.9}, 0.4),  # of equals the one nearest to 0.5
    ],
)
def test_the_best_threshold_is_that_of_the_highest_dice(dice, best):
    scored = thresholded(dice)
    choices = choose(scored, 0.98)
    assert choices["threshold"] == best
    assert choices["temperature"] == fit_temperature(scored.curve)


@pytest.mark.parametrize(("reached", "level"), [(0.5, 0.6), (0.7, 0.3), (0.99, 0.2)])
def test_so_many_of_the_pictures_with_a_polyp_reach_the_level(reached, level):
    surest = [0.9, 0.2, 0.6, 0.3, 0.8]
    assert choose(thresholded({0.5: 1}, surest), reached)["level"] == level
    assert (np.array(surest) >= level).mean() >= reached


@pytest.mark.parametrize(
    ("level", "text"),
    [(0.25, "0.25"), (0.9959007, "0.9959"), (1 - 1.2e-6, "0.9999988"), (0, "0.00"), (1, "1")],
)
def test_a_level_is_told_with_two_digits_after_its_nines(level, text):
    assert level_text(level) == text
