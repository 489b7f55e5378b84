"""Cases: labelled pictures shown with their masks and predictions."""

import numpy as np

from utils.failures import compare_worst, describe_comparison, describe_image, worst_rows
from utils.figures import SKY, YELLOW, outline, save_sheet, save_worst


def pack_predictions(predictions):
    """Return predictions, (n, size, size, 1) bool, in an eighth of their memory, (n, -1) uint8."""
    return np.packbits(predictions.reshape(len(predictions), -1), axis=1)


def outlined_rows(pictures, predictions, rows):
    """Return images, masks, predictions and the outlines of both, for some rows of labelled ones.

    pictures: as utils/labelled.py has them; predictions: n of `pack_predictions`. Returns lists
    of (size, size, 3) uint8; of (size, size, 1) uint8, 0 or 1, twice; and of enlarged images.
    """
    size = int((8 * len(predictions[0])) ** 0.5)
    images, masks = pictures.pairs(rows, size)
    packed = np.stack([predictions[row] for row in rows])
    predicted = np.unpackbits(packed, axis=1, count=size * size).reshape(masks.shape)
    drawn = [
        outline(image, [(mask, SKY), (prediction, YELLOW)])
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
    title = f"Threshold {threshold}. Outlines: mask blue, prediction yellow\n{pictures.title}"
    save_sheet(path, sheet, titles, title)


def save_worst_images(path, pictures, predictions, dice, properties, threshold):
    """Save worst.png: the worst images with their `picture_properties`, against all others'.

    pictures, predictions: see `outlined_rows`; dice: (n,) float.
    """
    rows, total = worst_rows(dice), len(dice)
    titles = [
        describe_image(f"{n} of {total:,}: {pictures.names[row]}", dice[row], properties[row])
        for n, row in enumerate(rows, 1)
    ]
    lines = describe_comparison(compare_worst(properties, rows), len(rows), total)
    title = f"The worst by Dice, threshold {threshold}. Outlines: mask blue, prediction yellow"
    images, _, _, drawn = outlined_rows(pictures, predictions, rows)
    save_worst(path, images, drawn, titles, lines, f"{title}\n{pictures.title}")
