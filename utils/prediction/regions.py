"""Regions: what of a mask or a prediction hangs together, and so counts as one polyp.

How sure a prediction is of a region, or of a picture, is the highest threshold at which it would
still call so much of it polyp that it counts, LEAST_FRACTION of the picture. A region that is at
least as sure as a level is an alarm.
"""

import math

import cv2
import numpy as np

# Smaller regions, by their part of the picture, are neither polyps nor alarms: those of less than
# 9 pixels of 128 x 128. In HyperKvasir's masks at the pictures' own size 143 regions are single
# pixels that JPEG left, and the smallest of the other 1,063 covers 0.0017 of its picture.
LEAST_FRACTION = 0.0005


def label_regions(mask):
    """Find a mask's connected regions; pixels that touch at a corner are connected.

    mask: (height, width), 0 or 1. Returns the labels, (height, width) int32, 1 to n and 0 for the
    background and for regions below LEAST_FRACTION; and each region's pixels, (n,) int, and centre
    of gravity, (n, 2) float of x and y.
    """
    count, labels, stats, centres = cv2.connectedComponentsWithStats(
        np.asarray(mask, np.uint8), connectivity=8
    )
    pixels = stats[:, cv2.CC_STAT_AREA]
    kept = pixels >= LEAST_FRACTION * labels.size
    kept[0] = False
    numbers = np.zeros(count, np.int32)
    numbers[kept] = np.arange(1, kept.sum() + 1)
    labels = labels if kept[1:].all() else numbers[labels]  # without a copy, of a large picture
    return labels, pixels[kept], centres[kept]


def picture_sureness(probability):
    """Return how sure a prediction is that a picture shows a polyp, 0 to 1.

    probability: (height, width), float. The least of the LEAST_FRACTION of the picture's pixels
    that are surest: how sure their mean is, or a region's, tells polyps from other things no better
    (docs/experiments.md).
    """
    least = math.ceil(LEAST_FRACTION * probability.size)
    return float(np.partition(probability.ravel(), -least)[-least])


def region_sureness(probability, labels, count):
    """Return how sure a prediction is of each of its regions, (count,) float, 0 to 1.

    probability: (height, width), float; labels: as from `label_regions`, with so many regions.
    """
    least = math.ceil(LEAST_FRACTION * labels.size)
    inside = (probability[labels == number] for number in range(1, count + 1))
    return np.array([np.partition(values, -least)[-least] for values in inside], float)
