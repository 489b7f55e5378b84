"""Every score by hand and against scikit-learn."""

import time

import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

from utils.scoring import pixels as metrics
from utils.scoring.measure import measure, pixel_table, set_scores

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
    expected = {"dice": 4 / 7, "iou": 2 / 5, "precision": 2 / 3, "recall": 2 / 4}
    assert scores == {name: pytest.approx([value]) for name, value in expected.items()}


def test_the_scores_of_a_set_by_hand():
    scores = set_scores([[2, 1, 2, 3], [1, 0, 0, 7]])
    expected = {
        "mean_iou": (3 / 6 + 10 / 13) / 2,
        "accuracy": 13 / 16,
        "precision": 3 / 4,
        "recall": 3 / 5,
        "specificity": 10 / 11,
        "f1": 6 / 9,
        "polyp_iou": 3 / 6,
        "image_dice": (4 / 7 + 1) / 2,
        "image_iou": (2 / 5 + 1) / 2,
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
    assert list(metrics.image_scores([counts]).values()) == expected


def test_pooled_scores_are_scikit_learns():
    masks, probabilities = random_pair()
    predictions = probabilities >= 0.5
    truth, guess = masks.ravel(), predictions.ravel()
    iou = sklearn_metrics.jaccard_score(truth, guess, average=None)
    scores = set_scores(metrics.confusion_counts(masks, predictions))
    assert {name: scores[name] for name in scores if "image" not in name} == pytest.approx(
        {
            "mean_iou": iou.mean(),
            "accuracy": sklearn_metrics.accuracy_score(truth, guess),
            "precision": sklearn_metrics.precision_score(truth, guess),
            "recall": sklearn_metrics.recall_score(truth, guess),
            "specificity": sklearn_metrics.recall_score(truth, guess, pos_label=0),
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
    for *row, mask, prediction in zip(*scores.values(), masks, predictions, strict=True):
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


def test_sampled_scores_are_those_of_the_images_drawn():
    """With two scenes, a sample is one of three sets of images, whose scores are known."""
    random = np.random.default_rng(0)
    counts, groups = random.integers(1, 99, (5, 4)), np.array([0, 0, 1, 1, 1])
    first, second = counts[:2], counts[2:]
    sets = [np.concatenate(pair) for pair in ((first,) * 2, (first, second), (second,) * 2)]
    sampled = measure("pixels", [pixel_table(counts)], groups)
    assert {name: score.value for name, score in sampled.items()} == set_scores(counts)
    for name, score in sampled.items():
        expected = [set_scores(images)[name] for images in sets]
        assert set(score.samples.round(9)) == set(np.round(expected, 9)), name


def test_all_intervals_of_a_thousand_images_take_well_under_a_second():
    counts = np.random.default_rng(0).integers(0, 9999, (1000, 4))
    start = time.process_time()
    measure("pixels", [pixel_table(counts)], np.arange(1000))
    assert time.process_time() - start < 1  # 0.3 s; a loop over the samples takes several
