"""Intervals: how far a score would move with other scenes, by bootstrap, and how two differ."""

import math
from typing import NamedTuple

import numpy as np

BOOTSTRAP_SAMPLES = 10_000


class Score(NamedTuple):
    """The value of a metric of a set of images.

    samples: (BOOTSTRAP_SAMPLES,) float, the same on bootstrap samples of the set, NaN where a
    sample has nothing to count; None for what is no score of images. count: of what the value is a
    mean, where that is told. extremes: see `interval`.
    """

    value: float
    samples: np.ndarray | None
    count: int | None = None
    extremes: tuple | None = None


def describe(score):
    """Return a Score as metrics.json has it: a dict of value, interval and count."""
    described = {"value": score.value}
    if score.samples is not None:
        described["interval"] = interval(score.value, score.samples, score.extremes)
    if score.count is not None:
        described["count"] = score.count
    return described


def difference(score, other):
    """Return how much larger a second prediction's Score of the same images is, and its interval.

    The interval is that of the difference on the same bootstrap samples (paired), and so much
    narrower than those of the two scores: what is hard for both moves both. Where neither varies,
    it is as wide as both scores' own intervals make it.
    """
    ends = percentile_interval(other.samples - score.samples)
    if score.extremes and not (varies(score.samples) or varies(other.samples)):
        low, high = interval(*score[:2], score.extremes)
        other_low, other_high = interval(*other[:2], other.extremes)
        ends = other_low - high, other_high - low
    return {"value": other.value - score.value, "interval": ends}


def varies(samples):
    """Tell whether a score differs between bootstrap samples."""
    return np.nanmin(samples) < np.nanmax(samples)


def interval(value, samples, extremes=None):
    """Return the 95 % interval of a score, by its values on bootstrap samples.

    Where all scenes agree the bootstrap sees no spread. extremes: the upper end that holds there
    for a score of 0, and the lower for one of 1, None if there is none; see `share_extremes`.
    """
    if extremes and not varies(samples):
        upper, lower = extremes
        if value == 0:
            return 0.0, upper
        if value == 1 and lower is not None:
            return lower, 1.0
    return percentile_interval(samples)


def share_extremes(scenes):
    """Return Wilson's ends (1927, doi 10.1080/01621459.1927.10502953) of a share of all or none.

    scenes: the number of trials. Returns the upper end where it is 0, the lower where it is 1.
    """
    end = 1.96**2 / (scenes + 1.96**2)
    return end, 1 - end


def rate_extremes(scenes):
    """Return the upper end of a Poisson rate of which so many scenes show nothing, and None."""
    return -math.log(0.025) / scenes, None


# By the kind of a metric's interval, see utils/scoring/registry.py
EXTREMES = {"share": share_extremes, "rate": rate_extremes}


def percentile_interval(samples):
    """Return the 95 % percentile interval of a score, by its values on bootstrap samples."""
    low, high = np.nanpercentile(samples, [2.5, 97.5])
    return float(low), float(high)


def draw_scenes(count, samples=BOOTSTRAP_SAMPLES, seed=42):
    """Yield how often each of `count` scenes is drawn in bootstrap samples, (k, count) int.

    Efron 1979. As many are drawn as there are, with replacement; the k of all pieces add up to
    `samples`. The same count and seed draw the same.
    """
    random, together = np.random.default_rng(seed), 500  # of 10,000 scenes: 40 MB at once
    for begin in range(0, samples, together):
        drawn = random.integers(count, size=(min(together, samples - begin), count))
        drawn += count * np.arange(len(drawn))[:, None]
        yield np.bincount(drawn.ravel(), minlength=drawn.size).reshape(drawn.shape)


def bootstrap_sums(columns, groups, samples=BOOTSTRAP_SAMPLES, seed=42):
    """Return the sums of `columns` over bootstrap samples of images, (samples, k) float.

    columns: (n, k) numbers of n images; groups: (n,) int. Whole groups are drawn, see
    `draw_scenes`, since frames of the same scene do not vary independently.
    """
    _, index = np.unique(groups, return_inverse=True)
    of_groups = np.stack([np.bincount(index, column) for column in np.transpose(columns)], axis=1)
    return np.concatenate(
        [times @ of_groups for times in draw_scenes(len(of_groups), samples, seed)]
    )


def bootstrap_ratios(tops, bottoms, groups, samples=BOOTSTRAP_SAMPLES):
    """Return the sums of `tops` over those of `bottoms` on bootstrap samples, (samples, k) float.

    tops, bottoms: (n, k) numbers of n images; groups: (n,) int. NaN where there is nothing to
    divide by.
    """
    top, bottom = np.split(bootstrap_sums(np.hstack([tops, bottoms]), groups, samples), 2, axis=1)
    return np.divide(top, bottom, out=np.full(top.shape, np.nan), where=bottom > 0)


def bootstrap_means(columns, groups, samples=BOOTSTRAP_SAMPLES):
    """Return the means of `columns`, (n, k) float, on bootstrap samples, (samples, k) float."""
    return bootstrap_ratios(columns, np.ones(np.shape(columns)), groups, samples)


def bootstrap_medians(values, groups, samples=BOOTSTRAP_SAMPLES):
    """Return the median of `values`, (n,) float, on bootstrap samples, (samples,) float."""
    names, index = np.unique(groups, return_inverse=True)
    order = np.argsort(values, kind="stable")
    ordered, medians = np.asarray(values, float)[order], []
    for times in draw_scenes(len(names), samples):
        upto = np.cumsum(times[:, index[order]], axis=1)
        twice, all_of_them = 2 * upto, upto[:, -1:]
        low = np.argmax(twice >= all_of_them, axis=1)
        high = np.argmax(twice > all_of_them, axis=1)
        medians.append((ordered[low] + ordered[high]) / 2)
    return np.concatenate(medians)


def drawn_images(groups, samples=BOOTSTRAP_SAMPLES):
    """Yield how often each image is drawn in bootstrap samples of whole groups, (k, n) int.

    groups: (n,) int; the k of all pieces add up to `samples`, see `draw_scenes`.
    """
    names, index = np.unique(groups, return_inverse=True)
    for times in draw_scenes(len(names), samples):
        yield times[:, index]
