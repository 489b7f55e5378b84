"""Pixels: confusion counts, the scores of each image, and the precision-recall curve."""

import numpy as np

# Of the precision-recall curve: 0, log-odds from -87 to 16.6 in steps of 0.1, and 1. Those are
# float32's smallest probability and the largest below 1; a network trained with Dice loss puts most
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


def polyp_fractions(counts):
    """Return the polyp's part of each mask, (n,) float, 0 to 1; counts: (n, 4)."""
    counts = np.asarray(counts)
    return (counts[:, 0] + counts[:, 2]) / counts.sum(axis=1)


def image_scores(counts):
    """Return "dice", "iou", "precision" and "recall" of each image, a dict of (n,) float, 0 to 1.

    Dice is 2 |A and B| / (|A| + |B|) of two sets (Dice 1945, doi 10.2307/1932409), which is F1, the
    harmonic mean of precision and recall; IoU is |A and B| / |A or B| (Jaccard 1912).
    counts: (n, 4) as from `confusion_counts`. An empty mask predicted empty scores 1 throughout; a
    score that has no pixels to go by otherwise, such as the precision of nothing, is 0.
    """
    tp, fp, fn, _ = np.asarray(counts, float).T
    empty = (tp + fp + fn == 0).astype(float)
    fractions = {
        "dice": (2 * tp, 2 * tp + fp + fn),
        "iou": (tp, tp + fp + fn),
        "precision": (tp, tp + fp),
        "recall": (tp, tp + fn),
    }
    return {
        name: np.divide(top, bottom, out=empty.copy(), where=bottom > 0)
        for name, (top, bottom) in fractions.items()
    }


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
