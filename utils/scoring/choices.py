"""Choices: the threshold, the temperature and the level of alarms, by what pictures score."""

from typing import NamedTuple

import numpy as np

from utils.command import Progress
from utils.prediction.regions import picture_sureness
from utils.scoring.calibration import fit_temperature
from utils.scoring.measure import set_scores
from utils.scoring.pixels import confusion_counts, curve_histogram


class Thresholded(NamedTuple):
    """What labelled pictures score at several thresholds, and how sure of each a network is.

    rows: dicts, `set_scores` and the "threshold"; curve: a `curve_histogram`; with_polyp, without:
    the `picture_sureness` of those with a polyp and of those without, (k,) and (n - k,) float.
    """

    rows: list
    curve: np.ndarray
    with_polyp: np.ndarray
    without: np.ndarray


def score_thresholds(predict, pictures, size, thresholds, batch_size):
    """Return labelled pictures as Thresholded.

    pictures: as scoring/labelled.py has them; predict, size: of one network; thresholds: a tuple of
    probabilities.
    """
    counts, curve, surest, shown = [[] for _ in thresholds], 0, [], []
    progress = Progress("images", len(pictures.names))
    for batch in pictures.batches(size, batch_size):
        probabilities = predict(batch.images)
        for threshold, counted in zip(thresholds, counts, strict=True):
            counted.append(confusion_counts(batch.masks, probabilities >= threshold))
        curve += curve_histogram(batch.masks, probabilities)
        shown += list(batch.masks.any(axis=(1, 2, 3)))
        surest += map(picture_sureness, probabilities)
        progress.advance(len(batch.images))
    rows = [
        {"threshold": threshold, **set_scores(np.concatenate(counted))}
        for threshold, counted in zip(thresholds, counts, strict=True)
    ]
    surest, shown = np.array(surest), np.array(shown)
    return Thresholded(rows, curve, surest[shown], surest[~shown])


def choose(scored, reached):
    """Return what a network predicts best with, a dict; scored: Thresholded, some with a polyp.

    "threshold": that of the highest Dice per image, and of equals the nearest to 0.5;
    "temperature": as from `fit_temperature`; "level": from which sureness on a region is an alarm,
    such that the share `reached` of the pictures with a polyp, 0 to 1, are as sure.
    """
    best = max(scored.rows, key=lambda row: (row["image_dice"], -abs(row["threshold"] - 0.5)))
    return {
        "threshold": best["threshold"],
        "temperature": fit_temperature(scored.curve),
        "level": float(np.quantile(scored.with_polyp, 1 - reached, method="lower")),
    }
