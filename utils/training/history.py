"""The history: what is written down of each epoch, read, and drawn."""

import csv
import io
import math

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from utils.drawing import KEPT, TRAINING, VALIDATION
from utils.files import read_whole, reading, write_beside

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
    """Return the loss of a phase in words: its "bce" and "dice" weigh the two that are added."""
    losses = (("binary cross-entropy", phase["bce"]), ("Dice loss", phase["dice"]))
    return " + ".join(
        name if weight == 1 else f"{weight:g} x {name}" for name, weight in losses if weight
    )


def save_curves(path, rows, best, phases, threshold):
    """Save curves.png: each phase's loss, and Dice over all, on training and validation split.

    rows: as from `read_history`, one or more; best: the one whose network is kept; phases: dicts of
    what `describe_loss` asks for; threshold: that of their Dice, 0 to 1.
    """
    numbers = sorted({row["phase"] for row in rows})
    figure = Figure((8, 6), layout="constrained")
    panels = figure.subplot_mosaic([numbers, ["score"] * len(numbers)])
    begin = 0
    for number in numbers:
        these = [row for row in rows if row["phase"] == number]
        epochs = np.arange(begin + 1, begin + len(these) + 1)
        marker = "." if len(these) < 20 else None  # a line of one point does not show
        for axes, key in ((panels[number], "loss"), (panels["score"], "dice_score")):
            first = axes is not panels["score"] or not begin
            for name, colour, label in (
                ("", TRAINING, "training"),
                ("val_", VALIDATION, "validation"),
            ):
                values = [row[name + key] for row in these]
                label = label if first else None
                axes.plot(epochs, values, color=colour, marker=marker, label=label)
        if begin:
            panels["score"].axvline(begin + 0.5, color="0.6", linestyle=":", linewidth=1)
        panels[number].set_title(f"phase {number}", fontsize=10)
        panels[number].set_ylabel(describe_loss(phases[number - 1]).replace(" + ", "\n+ "))
        panels[number].set_xlim(begin + 0.5, begin + len(these) + 0.5)
        begin += len(these)
    kept, score = rows.index(best) + 1, best["val_dice_score"]
    ring = {"markersize": 9, "markerfacecolor": "none", "markeredgewidth": 2}
    label = f"kept: epoch {kept}, {score:.3f}"
    panels["score"].plot(kept, score, "o", color=KEPT, label=label, **ring)
    panels["score"].set_ylabel(f"Dice, mean over images,\nthreshold {threshold}")
    panels["score"].set(xlim=(0.5, len(rows) + 0.5), ylim=(0, 1))
    for axes in panels.values():
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.grid(alpha=0.3)
    curves = panels["score"].get_legend_handles_labels()
    figure.legend(*curves, loc="outside upper center", ncols=3)
    with write_beside(path) as beside:
        figure.savefig(beside, dpi=100)
