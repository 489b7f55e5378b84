"""Where a network fails: Dice by what pictures show, and what its worst have in common."""

import numpy as np

from utils.scoring.properties import PROPERTIES

WORST = 12  # pictures that are looked at


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
    for key, text in format_properties(properties).items():
        unit = "%" if key == "size" and text != "none" else ""
        told.append(f"{key} {text}{unit}")
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
