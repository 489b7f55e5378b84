"""Borders: how far that of a prediction lies from that of the mask, and how much of it is right."""

from typing import NamedTuple

import cv2
import numpy as np

TOLERANCE = 2  # pixels by which a border that counts as right may be off


class BorderScores(NamedTuple):
    """The 95 % Hausdorff distance in pixels, and the boundary F1, 0 to 1, of a prediction."""

    hausdorff_95: float
    boundary_f1: float


def border(mask):
    """Return the border of a mask, (height, width) bool: its pixels beside one that is not polyp.

    mask: (height, width), 0 or 1. Beside is above, below, left and right; what lies outside the
    picture is not polyp.
    """
    cross = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
    mask = np.asarray(mask, np.uint8)
    inner = cv2.erode(mask, cross, borderType=cv2.BORDER_CONSTANT, borderValue=0)
    return (mask & ~inner).astype(bool)


def border_scores(mask, prediction):
    """Return the BorderScores of a prediction.

    mask, prediction: (height, width), 0 or 1. Both scores look from each pixel of one `border` for
    the nearest of the other. The first is the larger of both ways' 95th percentiles of these
    distances (Huttenlocher et al. 1993, doi 10.1109/34.232073, with 0.95; as Maier-Hein et al.
    2024, arXiv:2206.01653, define it). The second is the harmonic mean of both ways' shares within
    TOLERANCE pixels (Csurka et al. 2013, doi 10.5244/C.27.32). They are 0 and 1 where both are
    empty; where one is, the diagonal, from a corner pixel to the opposite, and 0.
    """
    borders = border(mask), border(prediction)
    if not (borders[0].any() and borders[1].any()):
        if borders[0].any() or borders[1].any():
            return BorderScores(float(np.hypot(*np.subtract(borders[0].shape, 1))), 0.0)
        return BorderScores(0.0, 1.0)
    ways = []
    for these, others in (borders, borders[::-1]):
        to_others = (~others).astype(np.uint8)
        rounded = cv2.distanceTransform(to_others, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)[these]
        # To float32, and not alike in two runs; the squares of what was rounded are whole numbers
        ways.append(np.sqrt(np.rint(np.square(rounded, dtype=np.float64))))
    hausdorff = max(np.percentile(distances, 95) for distances in ways)
    recall, precision = ((distances <= TOLERANCE).mean() for distances in ways)
    both = recall + precision
    f1 = float(2 * recall * precision / both) if both else 0.0
    return BorderScores(float(hausdorff), f1)
