"""Regions: what of a mask or a prediction hangs together, and so counts as one polyp."""

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
