"""Calibration: how often what is called polyp with a probability is one, and one temperature."""

import numpy as np

from utils.prediction.predictors import log_odds, sigmoid
from utils.scoring.pixels import CURVE_THRESHOLDS

BINS = 15  # of probability, evenly wide, as in Guo et al. 2017
TEMPERATURES = 0.01, 100  # the range in which one is looked for


def reliability_histogram(masks, probabilities):
    """Count the pixels in BINS bins of probability; histograms of batches add up.

    masks: any shape, 0 or 1; probabilities: the same shape, float, 0 to 1. Returns (3, BINS) float:
    each bin's pixels, the sum of their probabilities, and those of them that are polyp. The first
    bin holds 0, and all hold their upper end.
    """
    values = np.ravel(probabilities).astype(float)
    inner_ends = np.linspace(0, 1, BINS + 1)[1:-1]
    bins = np.searchsorted(inner_ends, values)
    weights = (np.ones(len(values)), values, np.ravel(masks))
    return np.stack([np.bincount(bins, weight, minlength=BINS) for weight in weights])


def reliability(histogram):
    """Return the mean probability and the share of polyp of each bin that has pixels, 0 to 1.

    histogram: as from `reliability_histogram`. Returns two arrays of up to BINS floats.
    """
    pixels, probabilities, polyps = histogram[:, histogram[0] > 0]
    return probabilities / pixels, polyps / pixels


def expected_calibration_error(histogram):
    """Return the mean, over pixels, of how far their bin's share of polyp is from its probability.

    histogram: (..., 3, BINS) as from `reliability_histogram`, none of 0 pixels. Returns (...)
    float, 0 to 1: Guo et al. 2017, equation 3, with the probability of polyp in place of that of
    the class that is called.
    """
    pixels, probabilities, polyps = np.moveaxis(histogram, -2, 0)
    return np.abs(probabilities - polyps).sum(axis=-1) / pixels.sum(axis=-1)


def cross_entropy(histogram, temperature=1):
    """Return the mean negative log-likelihood of pixels, scaled by a temperature, in nats, a float.

    histogram: as from `curve_histogram`, not of 0 pixels; a pixel counts with the middle, in
    log-odds, of the two thresholds that it lies between.
    """
    scaled = middle_log_odds() / temperature
    background, polyps = histogram
    loss = background @ np.logaddexp(0, scaled) + polyps @ np.logaddexp(0, -scaled)
    return float(loss / histogram.sum())


def fit_temperature(histogram):
    """Return the temperature of the smallest `cross_entropy`, a float in TEMPERATURES.

    histogram: as from `curve_histogram`, of the validation split. The loss is convex in the
    temperature's inverse, so its slope changes sign once, and halving the range finds where.
    """
    middles, (background, polyps) = middle_log_odds(), histogram

    def slope(inverse):
        return ((background + polyps) * sigmoid(inverse * middles) - polyps) @ middles

    low, high = 1 / TEMPERATURES[1], 1 / TEMPERATURES[0]
    for _ in range(60):
        middle = (low * high) ** 0.5
        low, high = (low, middle) if slope(middle) > 0 else (middle, high)
    return 1 / low


def middle_log_odds():
    """Return the log-odds in the middle between each of the CURVE_THRESHOLDS and the next."""
    ends = log_odds(CURVE_THRESHOLDS)
    return (ends + np.append(ends[1:], ends[-1])) / 2
