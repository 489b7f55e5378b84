"""Reliability against scikit-learn, the calibration error by hand, and the temperature."""

import numpy as np
import pytest
from scipy import optimize
from sklearn.calibration import calibration_curve
from sklearn.metrics import log_loss

from utils.prediction import predictors
from utils.scoring import calibration
from utils.scoring.intervals import describe
from utils.scoring.measure import measure, probability_tables
from utils.scoring.pixels import curve_histogram
from utils.scoring.scored import Probabilities


def overconfident(count=100_000, temperature=4, seed=0):
    """Return masks and the probabilities of a network that is too sure, (2, count / 2, 1, 1)."""
    random = np.random.default_rng(seed)
    true_log_odds = random.normal(-0.5, 2, count)
    masks = random.random(count) < 1 / (1 + np.exp(-true_log_odds))
    probabilities = 1 / (1 + np.exp(-temperature * true_log_odds))
    shape = 2, count // 2, 1, 1
    return masks.astype(np.uint8).reshape(shape), probabilities.astype(np.float32).reshape(shape)


def test_reliability_is_scikit_learns_and_adds_up_over_batches():
    masks, probabilities = overconfident(20_000)
    probabilities[0, :20] = 0
    probabilities[1, :20] = 1
    probabilities[0, 20:40] = 1 / 3  # as float32 just above an end of two bins
    histogram = sum(
        calibration.reliability_histogram(*batch)
        for batch in zip(masks, probabilities, strict=True)
    )
    assert histogram[0].sum() == 20_000
    called, share = calibration.reliability(histogram)
    expected = calibration_curve(
        masks.ravel(), probabilities.ravel().astype(float), n_bins=calibration.BINS
    )
    np.testing.assert_allclose(share, expected[0])
    np.testing.assert_allclose(called, expected[1])


def test_bins_without_pixels_are_left_out():
    histogram = calibration.reliability_histogram([0, 1, 1], [0.0, 0.5, 1.0])
    called, share = calibration.reliability(histogram)
    assert called.tolist() == [0, 0.5, 1]
    assert share.tolist() == [0, 1, 1]


def test_bins_hold_their_upper_ends():
    pixels, *_ = calibration.reliability_histogram([0, 0, 0, 1], [0, 1 / 15, 0.2, 0.2001])
    assert np.flatnonzero(pixels).tolist() == [0, 2, 3]


def test_calibration_error_by_hand():
    masks, probabilities = [0, 0, 1, 1, 1], [0.1, 0.1, 0.1, 0.9, 0.9]
    histogram = calibration.reliability_histogram(masks, probabilities)
    expected = (3 * abs(1 / 3 - 0.1) + 2 * abs(1 - 0.9)) / 5
    assert calibration.expected_calibration_error(histogram) == pytest.approx(expected)


def test_the_temperature_that_made_a_network_too_sure_is_found():
    masks, probabilities = overconfident()
    histogram = sum(curve_histogram(masks[n : n + 1], probabilities[n : n + 1]) for n in range(2))
    temperature = calibration.fit_temperature(histogram)
    assert temperature == pytest.approx(4, rel=0.03)
    truth = masks.ravel()

    def loss(t):
        return log_loss(truth, predictors.scale_probabilities(probabilities, t).ravel())

    best = optimize.minimize_scalar(loss, bounds=(1, 10), method="bounded").x
    assert temperature == pytest.approx(best, rel=0.002)
    for scale in (1, temperature):
        loss_of_bins = calibration.cross_entropy(histogram, scale)
        assert loss_of_bins == pytest.approx(loss(scale), rel=3e-4)
    before, after = (
        calibration.expected_calibration_error(calibration.reliability_histogram(masks, p))
        for p in (probabilities, predictors.scale_probabilities(probabilities, temperature))
    )
    assert before > 0.1
    assert after < 0.01


@pytest.mark.parametrize(("flipped", "end"), [(False, 0.01), (True, 100)])
def test_no_temperature_fits_a_network_that_is_always_right_or_always_wrong(flipped, end):
    probabilities = np.array([0, 0.2, 0.9, 1], np.float32).reshape(1, 2, 2, 1)
    masks = (probabilities > 0.5) != flipped
    temperature = calibration.fit_temperature(curve_histogram(masks, probabilities))
    assert temperature == pytest.approx(end)


def test_scaling_keeps_what_is_called_and_both_ends_are_treated_alike():
    probabilities = np.array([0, 0.3, 0.5, 0.7, 1], np.float32)
    assert predictors.log_odds(probabilities)[[0, -1]] == pytest.approx([-16.636, 16.636], abs=1e-3)
    for temperature in (0.01, 2, 100):
        scaled = predictors.scale_probabilities(probabilities, temperature)
        assert ((scaled >= 0.5) == (probabilities >= 0.5)).all()
        assert scaled + scaled[::-1] == pytest.approx(np.ones(5))
    unscaled = predictors.scale_probabilities(probabilities, 1)
    assert unscaled == pytest.approx(probabilities, abs=1e-6)


def test_metrics_tell_before_and_after_apart():
    masks, probabilities = overconfident(4_000)
    masks, probabilities = (x.reshape(20, 200, 1, 1) for x in (masks, probabilities))
    scaled = predictors.scale_probabilities(probabilities, 4)
    curves = [curve_histogram(*pair) for pair in zip(masks, probabilities, strict=True)]
    ways = []
    for these, temperature in ((probabilities, 1), (scaled, 4)):
        pairs = zip(masks, these, strict=True)
        histograms = [calibration.reliability_histogram(*pair) for pair in pairs]
        losses = [calibration.cross_entropy(curve, temperature) for curve in curves]
        ways.append(Probabilities(histograms, losses))

    def measured(ways, groups):
        plain, divided = map(probability_tables, ways)
        metrics = measure("probabilities", plain, groups)
        return metrics | measure("scaled", divided, groups, {"temperature": 4})

    metrics = measured(ways, np.arange(20))
    before, after = (calibration.reliability_histogram(masks, p) for p in (probabilities, scaled))
    assert {name: metric.value for name, metric in metrics.items()} == {
        "temperature": 4,
        "calibration_error": pytest.approx(calibration.expected_calibration_error(before)),
        "calibration_error_scaled": pytest.approx(calibration.expected_calibration_error(after)),
        "cross_entropy": pytest.approx(calibration.cross_entropy(sum(curves))),
        "cross_entropy_scaled": pytest.approx(calibration.cross_entropy(sum(curves), 4)),
    }
    assert metrics["cross_entropy_scaled"].value < metrics["cross_entropy"].value
    assert "interval" not in describe(metrics["temperature"])
    for name in ("calibration_error", "cross_entropy"):
        low, high = describe(metrics[name])["interval"]
        assert low < metrics[name].value < high
    # Of one image, all samples are that image
    first = [Probabilities(way.histograms[:1], way.losses[:1]) for way in ways]
    one = measured(first, np.zeros(1))
    interval = describe(one["calibration_error"])["interval"]
    assert interval == pytest.approx((one["calibration_error"].value,) * 2)
