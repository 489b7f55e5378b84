"""The history: what is written down of each epoch, read, and drawn."""

import csv
import math

import numpy as np
from matplotlib.figure import Figure

from utils.figures import BLUE, ORANGE
from utils.files import write_beside


def read_history(path):
    """Return the rows of history.csv, as numbers; an empty list if there is no file.

    phase is text, epoch a whole number; all other columns, whatever was measured, are floats.
    """
    if not path.exists():
        return []
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    types = {"phase": str, "epoch": int}
    return [{key: types.get(key, float)(value) for key, value in row.items()} for row in rows]


def write_history(path, rows):
    """Write history.csv; its columns are whatever was measured in any row."""
    columns = dict.fromkeys(column for row in rows for column in row)
    with write_beside(path) as beside, open(beside, "w", newline="") as file:
        writer = csv.DictWriter(file, columns, restval=math.nan, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def best_row(rows):
    """Return the row of the highest validation Dice, the first of equals."""
    return max(rows, key=lambda row: row["val_dice_score"])


def save_curves(path, rows, threshold):
    """Save curves.png: loss, and Dice on the training and validation split, over both phases."""
    figure = Figure((9, 3.6), layout="constrained")
    loss_axes, dice_axes = figure.subplots(1, 2)
    epochs = np.arange(1, len(rows) + 1)
    best = rows.index(best_row(rows))
    for axes, key in ((loss_axes, "loss"), (dice_axes, "dice_score")):
        for phase, begin in {row["phase"]: None for row in rows}.items():
            these = [i for i, row in enumerate(rows) if row["phase"] == phase]
            begin = these[0]
            for name, colour, label in (("", BLUE, "training"), ("val_", ORANGE, "validation")):
                values = [rows[i][name + key] for i in these]
                axes.plot(epochs[these], values, color=colour, label=None if begin else label)
            if begin:
                axes.axvline(begin + 0.5, color="0.6", linestyle=":", linewidth=1)
        axes.set_xlabel("epoch")
        axes.grid(alpha=0.3)
    loss_axes.set_ylabel("loss: cross-entropy, then Dice")
    dice_axes.set_ylabel(f"Dice, mean over images, threshold {threshold}")
    dice_axes.set_ylim(0, 1)
    score = rows[best]["val_dice_score"]
    label = f"kept: epoch {best + 1}, {score:.3f}"
    dice_axes.plot(best + 1, score, "o", color=ORANGE, label=label)
    loss_axes.legend()
    dice_axes.legend(loc="lower right")
    with write_beside(path) as beside:
        figure.savefig(beside, dpi=100)
