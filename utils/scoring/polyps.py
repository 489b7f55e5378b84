"""Polyps instead of pixels: which are found, which are missed, and which regions are false."""

import math
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from utils.prediction.regions import label_regions, region_sureness
from utils.scoring.intervals import bootstrap_ratios, interval, share_extremes

SIZE_ENDS = (0.02, 0.05, 0.1)  # between the groups of polyps by size, in parts of the picture

# What it takes that a region of the prediction and one of the mask match
RULES = {"iou": "an IoU of 0.5 or more", "overlap": "any overlap"}


class Regions(NamedTuple):
    """The connected regions of a mask, or of a prediction.

    fractions: (n,) float, each one's part of the picture; ious: (n,) float, its highest IoU with a
    region of the other of the two, 0 where it shares no pixel with any. sureness: (n,) float, 0 to
    1, of a region of the prediction, see `region_sureness`; of a mask's, that of the surest region
    that overlaps it, 0 without any.
    """

    fractions: np.ndarray
    ious: np.ndarray
    sureness: np.ndarray

    def matched(self, rule):
        """Return (n,) bool: which of them a region of the other matches, by a key of RULES."""
        return self.ious >= 0.5 if rule == "iou" else self.ious > 0

    def of_size(self, least, below):
        """Return the Regions of those that are of a part of the picture from `least` to `below`."""
        inside = (self.fractions >= least) & (self.fractions < below)
        return Regions(*(values[inside] for values in self))


def compare_regions(mask, prediction, probability):
    """Return the Regions of a mask, which are its polyps, and those of a prediction.

    mask, prediction: (height, width), 0 or 1; probability: the same, float, 0 to 1.

    By IoU the matches are one to one, as those of Kirillov et al. 2019 (arXiv:1801.00868, section
    4.1), who ask for more than 0.5: two regions of 0.5 each would have to make up the polyp between
    them, and then they would be connected. By any overlap they are not, as in Bernal et al. 2017
    (doi 10.1109/TMI.2017.2664042), who ask for a centre in the polyp: one region can find several
    polyps, several can find the same, and none of them is false.
    """
    polyps, polyp_pixels, _ = label_regions(mask)
    regions, region_pixels, _ = label_regions(prediction)
    shape = len(polyp_pixels) + 1, len(region_pixels) + 1
    pairs = np.ravel(polyps) * shape[1] + np.ravel(regions)
    common = np.bincount(pairs, minlength=shape[0] * shape[1]).reshape(shape)[1:, 1:]
    ious = common / (polyp_pixels[:, None] + region_pixels - common)
    sureness = region_sureness(probability, regions, len(region_pixels))
    surest = np.max((common > 0) * sureness, axis=1, initial=0)
    return (
        Regions(polyp_pixels / polyps.size, ious.max(axis=1, initial=0), surest),
        Regions(region_pixels / regions.size, ious.max(axis=0, initial=0), sureness),
    )


def count_polyps(compared):
    """Return what there is of regions in each of n pictures, a dict of (n,) int.

    compared: for each picture what `compare_regions` returns. "polyps" and "regions" that are
    called polyp; by each of the RULES polyps "found", regions "right", and "false" ones.
    """
    polyps, regions = np.array([[len(side.ious) for side in pair] for pair in compared]).T
    counts = {"polyps": polyps, "regions": regions}
    for rule in RULES:
        found, right = np.array([[s.matched(rule).sum() for s in pair] for pair in compared]).T
        counts |= {f"found_{rule}": found, f"right_{rule}": right}
        counts[f"false_{rule}"] = regions - right
    return counts


def sensitivity_by_size(compared, groups):
    """Return how many polyps of each size are found, a list of dicts for the groups by SIZE_ENDS.

    compared: as in `count_polyps`; groups: (n,) int, the pictures' scenes. Each says from which
    part of the picture on ("least") and below which ("below", 1 for the last) its polyps are, their
    "count", and by each rule the "value", 0 to 1, and "interval" of the share found; both are None
    where the count is 0.
    """
    rows = []
    for least, below in pairwise((0, *SIZE_ENDS, math.inf)):
        these = [polyps.of_size(least, below) for polyps, _ in compared]
        counts = np.array([len(polyps.ious) for polyps in these])
        rows.append({"least": least, "below": min(below, 1), "count": int(counts.sum())})
        found = np.array([[polyps.matched(rule).sum() for rule in RULES] for polyps in these])
        sampled = bootstrap_ratios(found, np.tile(counts[:, None], len(RULES)), groups).T
        ends = share_extremes(len(np.unique(groups[counts > 0])))
        for rule, hits, samples in zip(RULES, found.sum(axis=0), sampled, strict=True):
            rows[-1][rule] = {"value": None, "interval": None}
            if counts.any():
                value = float(hits / counts.sum())
                rows[-1][rule] = {"value": value, "interval": interval(value, samples, ends)}
    return rows
