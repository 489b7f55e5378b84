"""Cases: labelled pictures shown with their masks and predictions, and what the worst share."""

import cv2
import numpy as np
from matplotlib.figure import Figure

from utils.drawing import MASK, OUTLINES, PREDICTION, outline, printable, save_sheet
from utils.files import write_beside
from utils.scoring.properties import PROPERTIES

WORST = 12  # pictures that worst.png shows


def outlined_rows(pictures, predictions, rows):
    """Return images, masks, predictions and the outlines of both, for some rows of labelled ones.

    pictures: as scoring/labelled.py has them; predictions: n of `pack_predictions`. Returns lists
    of (size, size, 3) uint8; of (size, size, 1) uint8, 0 or 1, twice; and of enlarged images.
    """
    size = int((8 * len(predictions[0])) ** 0.5)
    images, masks = pictures.pairs(rows, size)
    packed = np.stack([predictions[row] for row in rows])
    predicted = np.unpackbits(packed, axis=1, count=size * size).reshape(masks.shape)
    drawn = [
        outline(image, [(mask, MASK), (prediction, PREDICTION)])
        for image, mask, prediction in zip(images, masks, predicted, strict=True)
    ]
    return images, masks, predicted, drawn


def save_predictions(path, pictures, predictions, dice, threshold, each=3):
    """Save predictions.png: `each` of the best, median and worst cases, all outlined.

    pictures, predictions: see `outlined_rows`; dice: (n,) float. Too few for that are all shown.
    """
    order, total = np.argsort(-dice, kind="stable"), len(dice)
    if total <= 3 * each:
        ranks = dict.fromkeys(range(total), "")
    else:
        middle = (total - each) // 2
        begins = {"best": 0, "median": middle, "worst": total - each}
        ranks = {begin + n: f"{place}: " for place, begin in begins.items() for n in range(each)}
    rows = order[list(ranks)]
    titles = [
        f"{place}{rank + 1:,}/{total:,}\n{pictures.names[row]}\nDice {dice[row]:.3f}"
        for (rank, place), row in zip(ranks.items(), rows, strict=True)
    ]
    images, masks, predicted, drawn = outlined_rows(pictures, predictions, rows)
    sheet = {
        "picture": images,
        "mask": masks[..., 0],
        "prediction": predicted[..., 0],
        "outlines": drawn,
    }
    title = f"Threshold {threshold}. Outlines: {OUTLINES}\n{pictures.title}"
    save_sheet(path, sheet, titles, title)


def save_worst(path, pictures, predictions, dice, properties, threshold):
    """Save worst.png: the worst images with their `picture_properties`, against all others'.

    pictures, predictions: see `outlined_rows`; dice: (n,) float.
    """
    rows, total = worst_rows(dice), len(dice)
    titles = [
        describe_image(f"{rank:,}/{total:,}: {pictures.names[row]}", dice[row], properties[row])
        for rank, row in zip(range(total, 0, -1), rows, strict=False)
    ]
    lines = describe_comparison(compare_worst(properties, rows), len(rows), total)
    title = f"The worst by Dice, threshold {threshold}. Outlines: {OUTLINES}"
    images, _, _, drawn = outlined_rows(pictures, predictions, rows)
    save_pairs(path, images, drawn, titles, lines, f"{title}\n{pictures.title}")


def save_pairs(path, pictures, outlined, titles, lines, title):
    """Save worst.png: pictures, each beside itself with outlines, and a table below them.

    pictures, outlined: n images of three channels, uint8; titles: n str, of the same number of
    lines; lines: those of the table.
    """
    columns, side, gap, size = 3, 144, 6, 8.5  # pictures in a row, pixels, pixels, points
    rows = -(-len(pictures) // columns)
    heights = [side + 18 * (1 + titles[0].count("\n"))] * rows + [16 * (1 + len(lines))]  # pixels
    figure = Figure((9, sum(heights) / 100 + 0.5), layout="constrained")
    grid = figure.add_gridspec(rows + 1, columns, height_ratios=heights)
    for number, text in enumerate(titles):
        axes = figure.add_subplot(grid[divmod(number, columns)])
        pair = [
            cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA)
            for image in (pictures[number], outlined[number])
        ]
        axes.imshow(np.hstack([pair[0], np.full((side, gap, 3), 255, np.uint8), pair[1]]))
        text = printable(text, 2 * side + gap, size)
        axes.set_title(text, fontsize=size, loc="left", parse_math=False)
        axes.axis("off")
    axes = figure.add_subplot(grid[-1, :])
    axes.text(0, 1, "\n".join(lines), fontsize=9.5, family="monospace", va="top")
    axes.axis("off")
    figure.suptitle(printable(title, 850, 12), parse_math=False)
    with write_beside(path) as beside:
        figure.savefig(beside, dpi=100)


def worst_rows(dice):
    """Return the rows of the WORST pictures by their Dice, (n,) int, the worst first.

    dice: (n,) float. Of fewer than twice as many pictures it is the worse half, rounded up.
    """
    count = min(WORST, (len(dice) + 1) // 2)
    return np.argsort(-dice, kind="stable")[::-1][:count]  # as predictions.png ranks them


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
