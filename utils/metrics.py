"""Scores from arrays: confusion counts, scores of images and of all pixels, intervals, curves."""

import numpy as np

BOOTSTRAP_SAMPLES = 10_000
# Of the precision-recall curve: 0, log-odds from -87 to 16.6 in steps of 0.1, and 1. Those are
# float32's smallest probability and the largest below 1; a network trained on Dice loss puts most
# pixels so near the two ends that even steps of probability would not tell them apart.
CURVE_THRESHOLDS = np.array([0, *1 / (1 + np.exp(-np.arange(-870, 167) / 10)), 1])


def confusion_counts(masks, predictions):
    """Return each image's true positive, false positive, false negative and true negative pixels.

    masks, predictions: (n, height, width, 1), 0 or 1. Returns (n, 4) int.
    """
    masks = np.asarray(masks, bool).reshape(len(masks), -1)
    predictions = np.asarray(predictions, bool).reshape(len(predictions), -1)
    both = (masks & predictions).sum(axis=1)
    predicted, polyp = predictions.sum(axis=1), masks.sum(axis=1)
    return np.stack(
        [both, predicted - both, polyp - both, masks.shape[1] - predicted - polyp + both], axis=1
    )


def image_scores(counts):
    """Return Dice, IoU, precision and recall of each image, (n, 4) float, 0 to 1.

    counts: (n, 4) as from `confusion_counts`. An empty mask predicted empty scores 1 throughout; a
    score that has no pixels to go by otherwise, such as the precision of nothing, is 0.
    """
    tp, fp, fn, _ = np.asarray(counts, float).T
    fractions = [(2 * tp, 2 * tp + fp + fn), (tp, tp + fp + fn), (tp, tp + fp), (tp, tp + fn)]
    empty = (tp + fp + fn == 0).astype(float)
    return np.stack(
        [np.divide(top, bottom, out=empty.copy(), where=bottom > 0) for top, bottom in fractions],
        axis=1,
    )


def pooled_scores(counts):
    """Return the scores of all pixels of a split taken together, as a dict of floats, 0 to 1.

    counts: (n, 4) as from `confusion_counts`. A score without pixels to go by is 0.
    """
    tp, fp, fn, tn = (int(n) for n in np.sum(counts, axis=0))

    def ratio(top, bottom):
        return top / bottom if bottom else 0.0

    polyp_iou, background_iou = ratio(tp, tp + fp + fn), ratio(tn, tn + fp + fn)
    return {
        "mean_iou": (polyp_iou + background_iou) / 2,
        "accuracy": ratio(tp + tn, tp + fp + fn + tn),
        "precision": ratio(tp, tp + fp),
        "recall": ratio(tp, tp + fn),
        "f1": ratio(2 * tp, 2 * tp + fp + fn),
        "polyp_iou": polyp_iou,
    }


def bootstrap_interval(values, groups, samples=BOOTSTRAP_SAMPLES, seed=42):
    """Return the 95 % percentile interval of the mean of `values` (Efron 1979).

    values: (n,) float; groups: (n,) int. Whole groups are drawn with replacement, since frames of
    the same scene do not vary independently.
    """
    _, index = np.unique(groups, return_inverse=True)
    sums, sizes = np.bincount(index, values), np.bincount(index)
    random = np.random.default_rng(seed)
    means = []
    for _ in range(samples):
        drawn = random.integers(len(sizes), size=len(sizes))
        means.append(sums[drawn].sum() / sizes[drawn].sum())
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def curve_histogram(masks, probabilities):
    """Count the pixels of background and polyp between the CURVE_THRESHOLDS.

    masks: (n, height, width, 1), 0 or 1; probabilities: the same shape, float, 0 to 1. Returns
    (2, len(CURVE_THRESHOLDS)) int: row 0 the background's and row 1 the polyps' pixels with a
    probability from each threshold on and below the next. Histograms of batches add up.
    """
    bins = np.searchsorted(CURVE_THRESHOLDS, np.ravel(probabilities), side="right") - 1
    bins += len(CURVE_THRESHOLDS) * np.ravel(masks).astype(np.int64)
    return np.bincount(bins, minlength=2 * len(CURVE_THRESHOLDS)).reshape(2, -1)


def precision_recall(histogram):
    """Return precision and recall at each of the CURVE_THRESHOLDS, (thresholds,) float, 0 to 1.

    histogram: as from `curve_histogram`. The precision of nothing is 1, as in scikit-learn; recall
    without any polyp is 0.
    """
    fp, tp = np.cumsum(histogram[:, ::-1], axis=1)[:, ::-1]
    precision = np.divide(tp, tp + fp, out=np.ones(len(tp)), where=tp + fp > 0)
    return precision, tp / max(1, tp[0])
