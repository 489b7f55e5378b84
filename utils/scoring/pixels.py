"""Scores from arrays: confusion counts, scores of images and of all pixels, curves."""

import numpy as np

from utils.scoring.intervals import BOOTSTRAP_SAMPLES, bootstrap_sums

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
    """Return Dice, IoU, precision and recall of each image, (n, 4) float, 0 to 1.

    Dice is 2 |A and B| / (|A| + |B|) of two sets (Dice 1945, doi 10.2307/1932409), which is F1, the
    harmonic mean of precision and recall; IoU is |A and B| / |A or B| (Jaccard 1912).
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


def pixel_scores(sums):
    """Return the scores of pixels taken together, as a dict of floats or arrays, 0 to 1.

    sums: (..., 4) numbers of pixels, in the order of `confusion_counts`. A score without pixels to
    go by is 0.
    """
    tp, fp, fn, tn = np.moveaxis(np.asarray(sums, float), -1, 0)

    def ratio(top, bottom):
        return np.divide(top, bottom, out=np.zeros_like(bottom), where=bottom > 0)

    polyp_iou, background_iou = ratio(tp, tp + fp + fn), ratio(tn, tn + fp + fn)
    return {
        "mean_iou": (polyp_iou + background_iou) / 2,
        "accuracy": ratio(tp + tn, tp + fp + fn + tn),
        "precision": ratio(tp, tp + fp),
        "recall": ratio(tp, tp + fn),
        "f1": ratio(2 * tp, 2 * tp + fp + fn),
        "polyp_iou": polyp_iou,
    }


def pooled_scores(counts):
    """Return the scores of all pixels of a split taken together, as a dict of floats, 0 to 1.

    counts: (n, 4) as from `confusion_counts`. A score without pixels to go by is 0.
    """
    return {name: float(score) for name, score in pixel_scores(np.sum(counts, axis=0)).items()}


def set_scores(counts):
    """Return the scores of a set of images, as a dict of floats, 0 to 1.

    counts: (n, 4) as from `confusion_counts`. Those of `pooled_scores`, and the means over the
    images of Dice and IoU, image_dice and image_iou.
    """
    sums = summands(counts).sum(axis=0)
    return {name: float(score) for name, score in scores_of_sums(sums).items()}


def sampled_scores(counts, groups, samples=BOOTSTRAP_SAMPLES):
    """Return the scores of `set_scores` on bootstrap samples of a set, a dict of (samples,) float.

    counts: (n, 4); groups: (n,) int. The samples are those of `bootstrap_sums`: two predictions'
    scores of the same images are paired sample by sample.
    """
    return scores_of_sums(bootstrap_sums(summands(counts), groups, samples))


def summands(counts):
    """Return what the scores of a set are made of by adding up: (n, 7) float, a row an image.

    The columns: the four counts, Dice, IoU, and 1.
    """
    return np.column_stack([counts, image_scores(counts)[:, :2], np.ones(len(counts))])


def scores_of_sums(sums):
    """Return the scores of a set, by the sums of its `summands`, (..., 7)."""
    dice, iou, images = np.moveaxis(sums[..., 4:], -1, 0)
    return pixel_scores(sums[..., :4]) | {"image_dice": dice / images, "image_iou": iou / images}


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
