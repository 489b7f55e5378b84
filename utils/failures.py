"""Where a network fails: Dice by what pictures show, and what its worst have in common."""

from typing import NamedTuple

import cv2
import numpy as np

from utils.agreement import picture_area
from utils.intervals import bootstrap_means, percentile_interval
from utils.polyps import label_regions

WORST = 12  # pictures that are looked at


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


def worst_rows(dice):
    """Return the rows of the WORST pictures by their Dice, (n,) int, the worst first.

    dice: (n,) float. Of fewer than twice as many pictures it is the worse half, rounded up.
    """
    count = min(WORST, (len(dice) + 1) // 2)
    return np.argsort(dice, kind="stable")[:count]


def compare_worst(properties, rows):
    """Return what the worst pictures have in common, and the others: a dict of pairs of floats.

    properties: of all pictures, as in `dice_by_property`; rows: as from `worst_rows`. By each of
    the PROPERTIES the summary that is named there, of those that have a value; NaN without any.
    """
    worst = np.isin(np.arange(len(properties)), rows)
    compared = {}
    for name, described in PROPERTIES.items():
        values = np.array([row[name] for row in properties])
        summary = np.median if described.summary == "median" else np.mean
        sides = (values[side & ~np.isnan(values)] for side in (worst, ~worst))
        compared[name] = tuple(float(summary(side)) if len(side) else np.nan for side in sides)
    return compared


def format_properties(values):
    """Return the values of PROPERTIES, floats by their names, as texts by their names."""
    return {
        name: "none" if np.isnan(value) else f"{value:{PROPERTIES[name].format}}"
        for name, value in values.items()
    }


def describe_image(name, dice, properties):
    """Return the three lines that head an image among the worst: name, Dice, `picture_properties`.

    dice: a float, 0 to 1; properties: a dict as from `picture_properties`.
    """
    told = [f"Dice {dice:.3f}"]
    told += [f"{key} {text}" for key, text in format_properties(properties).items()]
    return "\n".join([name, ", ".join(told[:4]), ", ".join(told[4:])])


def describe_comparison(compared, count, total):
    """Return what `compare_worst` returns as lines of a table, for the worst `count` of `total`."""
    sides = [{name: pair[side] for name, pair in compared.items()} for side in (0, 1)]
    worst, others = map(format_properties, sides)
    width = max(len(described.label) for described in PROPERTIES.values())
    heads = f"worst {count:,}", f"other {total - count:,}"
    return [
        f"{'':{10 + 2 + width + 2 + 6}}  {heads[0]:>12}  {heads[1]:>12}",
        *(
            f"{name:10}  {described.label:{width}}  {described.summary:6}"
            f"  {worst[name]:>12}  {others[name]:>12}"
            for name, described in PROPERTIES.items()
        ),
    ]
