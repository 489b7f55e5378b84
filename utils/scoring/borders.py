"""Borders: how far that of a prediction lies from that of the mask, and how much of it is right."""

import cv2
import numpy as np

from utils.scoring.intervals import Metric, bootstrap_means, bootstrap_medians

TOLERANCE = 2  # pixels by which a border that counts as right may be off


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
    """Return the 95 % Hausdorff distance in pixels and the boundary F1, 0 to 1, of a prediction.

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
            return float(np.hypot(*np.subtract(borders[0].shape, 1))), 0.0
        return 0.0, 1.0
    ways = []
    for these, others in (borders, borders[::-1]):
        to_others = (~others).astype(np.uint8)
        rounded = cv2.distanceTransform(to_others, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)[these]
        # To float32, and not alike in two runs; the squares of what was rounded are whole numbers
        ways.append(np.sqrt(np.rint(np.square(rounded, dtype=np.float64))))
    hausdorff = max(np.percentile(distances, 95) for distances in ways)
    recall, precision = ((distances <= TOLERANCE).mean() for distances in ways)
    both = recall + precision
    return float(hausdorff), float(2 * recall * precision / both) if both else 0.0


def border_metrics(scores, groups, size):
    """Return the scores of the borders as a dict of Metric.

    scores: (n, 2) float, as `border_scores` returns them; groups: (n,) int, the pictures' scenes;
    size: words for the pixels that they are in, such as "128 x 128".
    """
    scores = np.asarray(scores, float)
    distance, f1 = scores.mean(axis=0).tolist()
    distances = scores[:, 0]
    distance_samples, f1_samples = bootstrap_means(scores, groups).T
    hausdorff = (
        "95th percentile of the distances from border to border, the larger of both ways, in pixels"
        f" of {size}; where one of both is empty, the picture's diagonal"
    )
    boundary = (
        f"harmonic mean of the shares of both borders that lie within {TOLERANCE} pixels of {size}"
        " of the other; where one of both is empty, 0"
    )
    return {
        "hausdorff_95": Metric(distance, distance_samples, f"{hausdorff}; mean over images"),
        "hausdorff_95_median": Metric(
            float(np.median(distances)),
            bootstrap_medians(distances, groups),
            f"{hausdorff}; median over images",
        ),
        "boundary_f1": Metric(f1, f1_samples, f"{boundary}; mean over images"),
    }
