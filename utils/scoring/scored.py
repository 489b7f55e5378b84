"""What is scored of each image, batch by batch."""

from typing import NamedTuple

import numpy as np

from utils.command import Progress, parallel
from utils.data.pictures import HALF
from utils.prediction.predictors import enlarge, scale_probabilities
from utils.prediction.regions import picture_sureness
from utils.scoring.alarms import picture_table
from utils.scoring.borders import border_scores
from utils.scoring.calibration import cross_entropy, reliability_histogram
from utils.scoring.pixels import confusion_counts, curve_histogram, image_scores
from utils.scoring.polyps import compare_regions
from utils.scoring.properties import picture_properties


class Probabilities(NamedTuple):
    """What is counted of the probabilities: n of `reliability_histogram`, n of `cross_entropy`."""

    histograms: list
    losses: list


class Scored:
    """What one prediction of labelled pictures scores, image by image; batches add up.

    threshold: a pixel is called polyp from this probability on. temperature: by which the log-odds
    are divided for the second of the reliability histograms; None where there is none. scaled:
    whether threshold and level are those of probabilities that are so divided. level: a region that
    is as sure is an alarm.

    counts, and own_counts at the pictures' own size, where that is known: n of `confusion_counts`;
    regions: n of `compare_regions`; surest: n of `picture_sureness`; borders: n of
    `border_scores`. curve: as from `curve_histogram`. plain, divided: Probabilities as they are,
    and divided; the latter are empty without a temperature. packed: n of `pack_predictions`.
    """

    def __init__(self, threshold, temperature=None, scaled=False, level=0.0):
        self.threshold, self.temperature, self.scaled = threshold, temperature, scaled
        self.level, self.surest = level, []
        self.counts, self.own_counts, self.regions, self.borders = [], [], [], []
        self.curve, self.packed = 0, []
        self.plain, self.divided = Probabilities([], []), Probabilities([], [])

    def add(self, batch, probabilities):
        """Count a Batch of labelled pictures.

        probabilities: (n, size, size, 1) float32, 0 to 1, as they are.
        """
        pairs = list(zip(batch.masks, probabilities, strict=True))
        curves = [curve_histogram(*pair) for pair in pairs]
        self.curve += np.sum(curves, axis=0)
        self.plain.histograms.extend(reliability_histogram(*pair) for pair in pairs)
        self.plain.losses.extend(map(cross_entropy, curves))
        if self.temperature is not None:
            divided = scale_probabilities(probabilities, self.temperature)
            pairs = zip(batch.masks, divided, strict=True)
            self.divided.histograms.extend(reliability_histogram(*pair) for pair in pairs)
            self.divided.losses.extend(cross_entropy(curve, self.temperature) for curve in curves)
            probabilities = divided.astype(np.float32) if self.scaled else probabilities
        predictions = probabilities >= self.threshold
        grey = probabilities[..., 0]
        pairs = list(zip(batch.masks[..., 0], predictions[..., 0], grey, strict=True))
        self.counts += list(confusion_counts(batch.masks, predictions))
        self.packed += list(pack_predictions(predictions))
        self.surest += map(picture_sureness, grey)
        self.regions += parallel(lambda pair: compare_regions(*pair), pairs)
        self.borders += parallel(lambda pair: border_scores(*pair[:2]), pairs)
        if batch.own_masks is not None:
            pairs = zip(batch.own_masks, probabilities, strict=True)
            self.own_counts += parallel(self.count_own, pairs)

    def picture_table(self):
        """Return what is summed of whole pictures, see alarms.py."""
        dice = image_scores(self.counts)["dice"]
        return picture_table(np.array(self.counts), self.regions, self.surest, dice, self.level)

    def count_own(self, pair):
        """Return the counts of a mask at its own size, and of the probabilities enlarged to it."""
        mask, probability = pair
        predicted = enlarge(probability, mask.shape) >= self.threshold
        return confusion_counts([mask >= HALF], [predicted])[0]


def score_pictures(predictors, scored, pictures, size, batch_size):
    """Predict labelled pictures batch by batch, and add each prediction's batches to its Scored.

    pictures: as scoring/labelled.py has them; predictors: a list for each prediction, of one for
    each of the pictures' parts; scored: a Scored for each prediction; size: the networks'. Returns
    the `picture_properties` of each image, at that size.
    """
    properties, progress = [], Progress("images", len(pictures.names))
    for part, of_part in zip(pictures.parts, zip(*predictors, strict=True), strict=True):
        for batch in part.batches(size, batch_size):
            for predict, prediction in zip(of_part, scored, strict=True):
                prediction.add(batch, predict(batch.images))
            pairs = zip(batch.images, batch.masks[..., 0], strict=True)
            properties += parallel(lambda pair: picture_properties(*pair), pairs)
            progress.advance(len(batch.images))
    return properties


def pack_predictions(predictions):
    """Return predictions, (n, size, size, 1) bool, in an eighth of their memory, (n, -1) uint8."""
    return np.packbits(predictions.reshape(len(predictions), -1), axis=1)
