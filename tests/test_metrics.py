"""Every score by hand and against scikit-learn, and the bootstrap."""

import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

from utils import metrics

HAND_MASK = np.array([[1, 1, 0, 0], [1, 1, 0, 0]]).reshape(1, 2, 4, 1)


HAND_PREDICTION = np.array([[1, 0, 1, 0], [1, 0, 0, 0]]).reshape(1, 2, 4, 1)


def random_pair(count=5, size=16, seed=0):
    random = np.random.default_rng(seed)
    masks = (random.random((count, size, size, 1)) < 0.3).astype(np.uint8)
    probabilities = np.clip(masks * 0.3 + random.random(masks.shape) * 0.7, 0, 1)
    return masks, probabilities.astype(np.float32)


def test_pixels_are_counted_by_hand():
    counts = metrics.confusion_counts(HAND_MASK, HAND_PREDICTION)
    assert counts.tolist() == [[2, 1, 2, 3]]  # true positive, false positive, false neg., true neg.


def test_image_scores_by_hand():
    scores = metrics.image_scores([[2, 1, 2, 3]])
    np.testing.assert_allclose(scores, [[4 / 7, 2 / 5, 2 / 3, 2 / 4]])


def test_pooled_scores_by_hand():
    scores = metrics.pooled_scores([[2, 1, 2, 3], [1, 0, 0, 7]])
    expected = {
        "mean_iou": (3 / 6 + 10 / 13) / 2,
        "accuracy": 13 / 16,
        "precision": 3 / 4,
        "recall": 3 / 5,
        "f1": 6 / 9,
        "polyp_iou": 3 / 6,
    }
    assert scores == pytest.approx(expected)


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ([0, 0, 0, 9], [1, 1, 1, 1]),  # no polyp, none predicted
        ([0, 4, 0, 5], [0, 0, 0, 0]),  # no polyp, one predicted
        ([0, 0, 4, 5], [0, 0, 0, 0]),  # a polyp, none predicted
    ],
)
def test_scores_of_empty_masks_and_predictions(counts, expected):
    assert metrics.image_scores([counts]).tolist() == [expected]


def test_pooled_scores_are_scikit_learns():
    masks, probabilities = random_pair()
    predictions = probabilities >= 0.5
    truth, guess = masks.ravel(), predictions.ravel()
    iou = sklearn_metrics.jaccard_score(truth, guess, average=None)
    scores = metrics.pooled_scores(metrics.confusion_counts(masks, predictions))
    assert scores == pytest.approx(
        {
            "mean_iou": iou.mean(),
            "accuracy": sklearn_metrics.accuracy_score(truth, guess),
            "precision": sklearn_metrics.precision_score(truth, guess),
            "recall": sklearn_metrics.recall_score(truth, guess),
            "f1": sklearn_metrics.f1_score(truth, guess),
            "polyp_iou": iou[1],
        }
    )
    assert scores["precision"] != pytest.approx(scores["recall"])  # or a swap would not show


def test_image_scores_are_scikit_learns():
    masks, probabilities = random_pair()
    predictions = probabilities >= 0.5
    scores = metrics.image_scores(metrics.confusion_counts(masks, predictions))
    functions = ("f1_score", "jaccard_score", "precision_score", "recall_score")
    for row, mask, prediction in zip(scores, masks, predictions, strict=True):
        pair = mask.ravel(), prediction.ravel()
        assert row == pytest.approx([getattr(sklearn_metrics, f)(*pair) for f in functions])


def test_precision_recall_curve_is_scikit_learns_at_its_thresholds():
    random = np.random.default_rng(0)
    masks, _ = random_pair()
    log_odds = random.normal(np.where(masks, 10, -30), 30)  # most of them near 0 and 1
    probabilities = (1 / (1 + np.exp(-log_odds))).astype(np.float32)
    assert 0.05 < (probabilities == 1).mean() < 0.5
    histogram = sum(
        metrics.curve_histogram(masks[part], probabilities[part]) for part in ([0, 1], [2, 3, 4])
    )
    precision, recall = metrics.precision_recall(histogram)
    expected = sklearn_metrics.precision_recall_curve(masks.ravel(), probabilities.ravel())
    same = np.searchsorted(expected[2].astype(float), metrics.CURVE_THRESHOLDS)
    np.testing.assert_allclose(precision, expected[0][same])
    np.testing.assert_allclose(recall, expected[1][same])


def test_the_curve_tells_probabilities_near_both_ends_apart():
    probabilities = np.array([0, 1e-37, 1e-30, 1e-8, 0.5, 0.99, 0.99999, 1 - 6e-8, 1], np.float32)
    thresholds = metrics.CURVE_THRESHOLDS
    assert (np.diff(thresholds) > 0).all()
    histogram = metrics.curve_histogram(np.ones((1, 3, 3, 1)), probabilities.reshape(1, 3, 3, 1))
    assert histogram[0].sum() == 0
    assert sorted(histogram[1])[-10:] == [0] + [1] * 9
    assert (histogram[1, 0], histogram[1, -1]) == (1, 1)  # of the probabilities 0 and 1


def test_a_split_without_polyps_has_a_curve_of_zero_recall():
    histogram = metrics.curve_histogram(np.zeros((1, 2, 2, 1)), np.full((1, 2, 2, 1), 0.7))
    precision, recall = metrics.precision_recall(histogram)
    assert recall.max() == 0
    assert set(precision) == {0, 1}


def test_bootstrap_interval_holds_the_mean_and_repeats():
    values = np.random.default_rng(0).random(100)
    low, high = metrics.bootstrap_interval(values, np.arange(100))
    assert (low, high) == metrics.bootstrap_interval(values, np.arange(100))
    standard_error = values.std() / 10
    assert low == pytest.approx(values.mean() - 1.96 * standard_error, abs=0.2 * standard_error)
    assert high == pytest.approx(values.mean() + 1.96 * standard_error, abs=0.2 * standard_error)


def test_bootstrap_draws_whole_groups():
    values, groups = np.repeat([0.0, 1.0], 50), np.repeat([7, 3], 50)
    assert metrics.bootstrap_interval(values, groups) == (0.0, 1.0)
