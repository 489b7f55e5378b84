"""Bootstrap intervals: against plain loops and known spreads, and shares of all or none."""

import numpy as np
import pytest
from scipy import stats

from utils.scoring import intervals
from utils.scoring.intervals import Score


def mean_interval(values, groups):
    sampled = intervals.bootstrap_means(np.asarray(values, float)[:, None], groups)
    return intervals.percentile_interval(sampled)


def test_an_interval_holds_the_mean_and_repeats():
    values = np.random.default_rng(0).random(100)
    low, high = mean_interval(values, np.arange(100))
    assert (low, high) == mean_interval(values, np.arange(100))
    standard_error = values.std() / 10
    assert low == pytest.approx(values.mean() - 1.96 * standard_error, abs=0.2 * standard_error)
    assert high == pytest.approx(values.mean() + 1.96 * standard_error, abs=0.2 * standard_error)


@pytest.fixture
def drawn():
    """Return columns of 30 images, their groups, and the rows of 1,001 bootstrap samples."""
    random = np.random.default_rng(0)
    columns, groups = random.random((30, 2)), random.integers(20, size=30)
    groups[groups > 15] = 3  # a large group
    draws, rows = np.random.default_rng(42), [np.flatnonzero(groups == g) for g in set(groups)]
    samples = []
    for _ in range(1001):  # more than are drawn at once
        scenes = draws.integers(len(rows), size=len(rows))
        samples.append(np.concatenate([rows[scene] for scene in scenes]))
    return columns, groups, samples


def test_sums_ratios_and_medians_are_those_of_a_plain_loop(drawn):
    columns, groups, samples = drawn
    sums = intervals.bootstrap_sums(columns, groups, samples=1001)
    np.testing.assert_allclose(sums, [columns[rows].sum(axis=0) for rows in samples])
    ratios = intervals.bootstrap_ratios(columns[:, :1], columns[:, 1:], groups, samples=1001)
    expected = [np.divide(*columns[rows].sum(axis=0)) for rows in samples]
    np.testing.assert_allclose(ratios[:, 0], expected)
    medians = intervals.bootstrap_medians(columns[:, 0], groups, samples=1001)
    np.testing.assert_array_equal(medians, [np.median(columns[rows, 0]) for rows in samples])


def test_whole_groups_are_drawn():
    values, groups = np.repeat([0.0, 1.0], 50), np.repeat([7, 3], 50)
    assert mean_interval(values, groups) == (0.0, 1.0)


def test_a_sample_with_nothing_to_count_is_left_out():
    """Of two scenes one has no polyp: a sample of that alone has no share of polyps found."""
    samples = intervals.bootstrap_ratios(np.array([[3], [0]]), np.array([[4], [0]]), np.arange(2))
    assert np.isnan(samples).mean() == pytest.approx(1 / 4, abs=0.02)
    assert intervals.interval(0.75, samples, intervals.share_extremes(1)) == (0.75, 0.75)


@pytest.mark.parametrize("scenes", [1, 12, 190])
def test_where_all_or_none_are_found_the_interval_is_wilsons(scenes):
    for value in (0, 1):
        expected = stats.binomtest(value * scenes, scenes).proportion_ci(method="wilson")
        samples = np.full(10_000, value)
        ends = intervals.interval(value, samples, intervals.share_extremes(scenes))
        assert ends == pytest.approx((expected.low, expected.high), abs=1e-4)
        # A score that is no share, such as Dice, has none of it
        assert intervals.interval(value, samples) == (value, value)


def test_where_no_alarm_is_false_the_interval_is_poissons():
    """So many scenes show none with a probability of 2.5 % if the rate is at the upper end."""
    low, high = intervals.interval(0, np.zeros(10_000), intervals.rate_extremes(20))
    assert low == 0
    assert stats.poisson.pmf(0, 20 * high) == pytest.approx(0.025)
    # One in each image is no share of all
    assert intervals.interval(1, np.ones(10_000), intervals.rate_extremes(20)) == (1, 1)


def test_a_score_is_described_and_compared():
    random = np.random.default_rng(0)
    first = Score(0.5, random.normal(0.5, 0.1, 10_000), 7)
    second = Score(0.6, first.samples + random.normal(0.1, 0.01, 10_000), 7)
    described = intervals.describe(first)
    assert list(described) == ["value", "interval", "count"]
    assert described["interval"] == pytest.approx((0.304, 0.696), abs=0.01)
    difference = intervals.difference(first, second)
    assert difference["interval"] == pytest.approx((0.08, 0.12), abs=0.002)
    assert intervals.describe(Score(2.5, None)) == {"value": 2.5}


def test_two_that_find_all_are_not_sure_to_be_equal():
    score = Score(1, np.ones(10_000), 12, intervals.share_extremes(12))
    end = intervals.interval(1, score.samples, score.extremes)[0]
    difference = intervals.difference(score, score)
    assert difference == {"value": 0, "interval": (pytest.approx(end - 1), pytest.approx(1 - end))}
