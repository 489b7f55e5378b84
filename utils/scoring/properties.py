"""What pictures show, and how Dice depends on it."""

from typing import NamedTuple

import cv2
import numpy as np

from utils.data.pictures import picture_area
from utils.prediction.regions import label_regions
from utils.scoring.intervals import bootstrap_means, percentile_interval


class Property(NamedTuple):
    """A property of pictures: what figures call it, and the format of its values.

    parts: where the second part of the pictures begins, and the next; None for quarters.
    summary: what is told of many pictures, "median", or "mean" of a number that is mostly the same.
    """

    label: str
    format: str
    parts: tuple | None = None
    summary: str = "median"


PROPERTIES = {
    "size": Property("polyp, % of the image", ".1f"),
    "polyps": Property("polyps in the image", ".3g", (2, 3), "mean"),
    "distance": Property("polyp from the centre (corner: 1)", ".2f"),
    "edge": Property("a polyp at the edge: 1, else 0", ".2g", (1,), "mean"),
    "brightness": Property("mean grey level", ".0f"),
    "sharpness": Property("variance of the Laplacian", ".0f"),
}


class Part(NamedTuple):
    """Pictures that are alike in a property.

    low, high: its lowest and highest value among them, floats; count: how many they are; mean: of
    their Dice, 0 to 1; interval: the mean's 95 % interval.
    """

    low: float
    high: float
    count: int
    mean: float
    interval: tuple


def picture_properties(picture, mask):
    """Return the PROPERTIES of a picture and its mask as a dict of floats.

    picture: (height, width, 3) uint8, RGB; mask: (height, width), 0 or 1.
    size: of all polyps; polyps: their number, as `label_regions` counts them; distance: of the
    largest one's centre of gravity from the picture's centre, 0 there and 1 in a corner; edge:
    whether one reaches the picture's edge. Without a polyp, polyps is 0 and these others NaN.
    brightness: the mean grey level; sharpness: the variance of its Laplacian, which is low where
    the picture is blurred (Pech-Pacheco et al. 2000, doi 10.1109/ICPR.2000.903548), and depends on
    the size that the picture was reduced to. Both leave out the black border around a picture.
    """
    mask = np.asarray(mask, bool)
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    # Without the step from the picture to its border, which no blur takes away
    frame = {"borderType": cv2.BORDER_CONSTANT, "borderValue": 0}
    shown = cv2.erode(picture_area(picture), np.ones((5, 5), np.uint8), **frame) > 0
    if not shown.any():
        shown[:] = True
    properties = dict.fromkeys(PROPERTIES, np.nan) | {
        "polyps": 0.0,
        "brightness": float(grey[shown].mean()),
        "sharpness": float(cv2.Laplacian(grey, cv2.CV_64F)[shown].var()),
    }
    _, pixels, centres = label_regions(mask)
    if len(pixels):
        middle = (np.array(mask.shape[::-1]) - 1) / 2
        distance = np.hypot(*(centres[pixels.argmax()] - middle)) / np.hypot(*middle)
        properties |= {
            "size": 100 * float(mask.mean()),
            "polyps": float(len(pixels)),
            "distance": float(distance),
            "edge": float(mask[[0, -1]].any() or mask[:, [0, -1]].any()),
        }
    return properties


def dice_by_property(properties, dice, groups):
    """Return the mean Dice of parts of the pictures, by each of the PROPERTIES: lists of Part.

    properties: of n pictures, dicts as from `picture_properties`; dice: (n,) float, 0 to 1; groups:
    (n,) int, the pictures' scenes. Equal values are never parted, and pictures without a value are
    left out.
    """
    parts = {}
    for name, described in PROPERTIES.items():
        values = np.array([row[name] for row in properties])
        known = np.flatnonzero(~np.isnan(values))
        begins = described.parts
        if begins is None:
            begins = np.quantile(values[known], [0.25, 0.5, 0.75]) if len(known) else []
        number = np.searchsorted(begins, values[known], side="right")
        parts[name] = []
        for rows in (known[number == part] for part in np.unique(number)):
            # A thousand samples are exact enough for the lines of a figure
            sampled = bootstrap_means(dice[rows][:, None], groups[rows], samples=1000)
            interval = percentile_interval(sampled)
            ends = float(values[rows].min()), float(values[rows].max())
            parts[name].append(Part(*ends, len(rows), float(dice[rows].mean()), interval))
    return parts
