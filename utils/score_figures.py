"""The figures of a report of scores."""

from utils.cases import save_predictions, save_worst_images
from utils.failures import dice_by_property
from utils.figures import (
    save_dice_by_size,
    save_dice_histogram,
    save_failures,
    save_precision_recall,
    save_reliability,
    save_sensitivity_by_size,
)
from utils.metrics import image_scores, polyp_fractions, pooled_scores

# What they show, for those who cannot see them
FIGURES = {
    "predictions.png": "Best, median and worst cases: picture, mask, prediction, outlines of both",
    "precision_recall.png": "Precision against recall over all thresholds",
    "dice_histogram.png": "How many images have which Dice",
    "dice_by_size.png": "Dice of each image against the size of its polyp",
    "sensitivity_by_size.png": "Share of the polyps that are found, by their size",
    "reliability.png": "How often pixels are polyp, by the probability predicted of them",
    "failures.png": "Dice of images by what they show",
    "worst.png": "The worst images, and what they have in common",
}


def save_figures(results, pictures, scored, properties, groups, report):
    """Save the figures of one prediction of labelled pictures.

    scored: the Scored of it; properties, groups: of the pictures; report: as from `make_report`.
    """
    counts, title, threshold = scored.counts, pictures.title, scored.threshold
    dice, fractions, pooled = (
        image_scores(counts)[:, 0],
        polyp_fractions(counts),
        pooled_scores(counts),
    )
    point = pooled["precision"], pooled["recall"], threshold
    with results.write("predictions.png") as beside:
        save_predictions(beside, pictures, scored.packed, dice, threshold)
    with results.write("precision_recall.png") as beside:
        save_precision_recall(beside, scored.curve, *point, title)
    with results.write("dice_histogram.png") as beside:
        save_dice_histogram(beside, dice, threshold, title)
    with results.write("dice_by_size.png") as beside:
        save_dice_by_size(beside, dice, fractions, threshold, title)
    with results.write("sensitivity_by_size.png") as beside:
        save_sensitivity_by_size(beside, report["polyps_by_size"], title)
    with results.write("reliability.png") as beside:
        plain, divided = sum(scored.plain[0]), sum(scored.divided[0])
        save_reliability(beside, plain, divided, scored.temperature, title)
    with results.write("failures.png") as beside:
        save_failures(beside, dice_by_property(properties, dice, groups), threshold, title)
    with results.write("worst.png") as beside:
        save_worst_images(beside, pictures, scored.packed, dice, properties, threshold)
