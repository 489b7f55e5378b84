"""The history: what is written down of each epoch, read, and drawn."""

import csv
import io
import math

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from utils.drawing import KEPT, TRAINING, VALIDATION
from utils.files import read_whole, reading, write_beside

# The losses that a phase weighs, in words. The functions are model.py's: this must not load Keras
LOSSES = {"bce": "binary cross-entropy", "dice": "Dice loss"}

# What every epoch is asked for, and no training goes on without
MEASURED = (
    *("seconds", "loss", "dice_score"),
    *("val_loss", "val_dice_score", "val_predicted_fraction"),
)


def read_history(path):
    """Return the rows of history.csv, as numbers; an empty list if there is no file.

    phase and epoch are whole numbers; all other columns, whatever was measured, are floats.
    Raises InputError for a file that is damaged: one that lacks what is asked of every epoch, or
    whose epochs do not count from 1 in each phase, one phase after the other.
    """
    if not path.exists():
        return []
    types = {"phase": int, "epoch": int}
    with reading(path, "--fresh begins anew"):
        text = read_whole(path).decode()
        reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
        if not {*types, *MEASURED} <= set(reader.fieldnames or ()):
            raise ValueError
        rows = [
            {column: types.get(column, float)(value) for column, value in row.items()}
            for row in reader
        ]
        ended = text.endswith("\n")  # or the last number may lack digits
        found = [(row["phase"], row["epoch"]) for row in rows]
        phases = [phase for phase, _ in found]
        whole = [
            (phase, n + 1) for phase in sorted(set(phases)) for n in range(phases.count(phase))
        ]
        numbers = [row[column] for row in rows for column in MEASURED]
        if not ended or found != whole or not all(map(math.isfinite, numbers)):
            raise ValueError
    return rows


def write_history(path, rows):
    """Write history.csv; its columns are whatever was measured in any row."""
    columns = dict.fromkeys(column for row in rows for column in row)
    with write_beside(path) as beside, open(beside, "w", newline="") as file:
        writer = csv.DictWriter(file, columns, restval=math.nan, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def describe_loss(phase):
    """Return the loss of a phase in words; phase: a dict of a weight for some of LOSSES."""
    weights = {words: phase.get(name, 0) for name, words in LOSSES.items()}
    return " + ".join(
        words if weight == 1 else f"{weight:g} x {words}"
        for words, weight in weights.items()
        if weight
    )


def name_epoch(row):
    """Return what people are told that an epoch is; row: of the history."""
    return f"epoch {row['epoch']:,} of phase {row['phase']}"


def save_curves(path, rows, best, phases, threshold):
    """Save curves.png: each phase's loss and Dice on training and validation split.

    rows: as from `read_history`, one or more; best: the one whose network is kept; phases: dicts of
    what `describe_loss` asks for; threshold: that of their Dice, 0 to 1.
    """
    numbers = sorted({row["phase"] for row in rows})
    figure = Figure((8, 6), layout="constrained")
    panels = figure.subplots(2, len(numbers), squeeze=False)
    for number, (losses, scores) in zip(numbers, panels.T, strict=True):
        these = [row for row in rows if row["phase"] == number]
        marker = "." if len(these) < 20 else None  # a line of one point does not show
        for axes, key in ((losses, "loss"), (scores, "dice_score")):
            for name, colour, label in (
                ("", TRAINING, "training"),
                ("val_", VALIDATION, "validation"),
            ):
                epochs, values = zip(
                    *((row["epoch"], row[name + key]) for row in these), strict=True
                )
                axes.plot(epochs, values, color=colour, marker=marker, label=label)
            axes.set(xlabel="epoch", xlim=(0.5, len(these) + 0.5))
            axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
            axes.grid(alpha=0.3)
        losses.set_title(f"phase {number}", fontsize=10)
        losses.set_ylabel(describe_loss(phases[number - 1]).replace(" + ", "\n+ "))
        scores.set(ylabel=f"Dice, mean over images,\nthreshold {threshold}", ylim=(0, 1))
    ring = {"markersize": 9, "markerfacecolor": "none", "markeredgewidth": 2}
    label = f"kept: {name_epoch(best)}, Dice {best['val_dice_score']:.3f}"
    scores.plot(best["epoch"], best["val_dice_score"], "o", color=KEPT, label=label, **ring)
    figure.legend(*scores.get_legend_handles_labels(), loc="outside upper center", ncols=3)
    with write_beside(path) as beside:
        figure.savefig(beside, dpi=100)
