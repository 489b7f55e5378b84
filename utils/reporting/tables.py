"""The tables of a report: for the terminal, for metrics.md, and for the page."""

from typing import NamedTuple

import numpy as np

from utils.scoring.polyps import RULES
from utils.scoring.registry import (
    DEFINITIONS,
    FAMILIES,
    FIRST,
    FIRST_OF_PICTURES,
    LABELS,
    family_metrics,
)

# Keys of metrics.json with their family, in the order in which tables show them
SECTIONS = [(family.key, name) for name, family in FAMILIES.items()]
SECTIONS.insert(1, ("metrics_at_own_size", "pixels"))
OWN_SIZE = "the pictures' own size, with probabilities enlarged bilinearly"


class Table(NamedTuple):
    """A table of texts: its title, the heads of its columns, and its rows, lists of cells."""

    title: str
    heads: list
    rows: list


def predictions_of(report):
    """Return the report's dicts of its predictions by " A" and " B", or by "" if there is one."""
    return {" A": report, " B": report["compared"]} if "compared" in report else {"": report}


# The tables


def first_tables(report):
    """Return the Tables of what everybody asks for, where there are polyps and where not."""
    tables = [score_table(report, key, family, FIRST) for key, family in SECTIONS[:2]]
    if report["images_with_polyp"] < report["images"]:
        tables.append(score_table(report, "pictures", "pictures", FIRST_OF_PICTURES))
    return [table for table in tables if table.rows] + fold_tables(report, FIRST)


def all_tables(report):
    """Return the Tables of all metrics with definitions, of the folds, and of polyps by size."""
    tables = []
    for key, family in SECTIONS:
        names = family_metrics(family)
        title, heads, rows = score_table(report, key, family, names)
        definitions = {LABELS[name]: DEFINITIONS[name] for name in names}
        rows = [[*row, definitions[row[0]]] for row in rows]
        tables += [Table(title, [*heads, "definition"], rows)] if rows else []
    return tables + fold_tables(report, family_metrics("pixels")) + size_tables(report)


def score_table(report, key, family, names):
    """Return the Table of the metrics `names`: their value with its interval, or A, B and B - A.

    key: of their dict in the report; family: of the registry.
    """
    predictions = predictions_of(report)
    scores = [prediction.get(key, {}) for prediction in predictions.values()]
    heads, changes = ["score", "value, 95 % interval"], {}
    if "compared" in report:
        heads, changes = ["score", "A", "B", "B - A"], report["compared"]["difference"].get(key, {})
    rows = []
    for name in names:
        if any(name in these for these in scores):
            cells = [score_text(these[name]) if name in these else "none" for these in scores]
            if "compared" in report:
                cells.append(score_text(changes[name], "+.3f") if name in changes else "")
            rows.append([LABELS[name], *cells])
    size = OWN_SIZE if key == "metrics_at_own_size" else report["resolution"]
    return Table(f"{FAMILIES[family].title} at {size}", heads, rows)


def score_text(score, form=".3f"):
    """Return a score of a report as text: its value, its interval, and what it is a mean over."""
    text = f"{score['value']:{form}}"
    if "interval" in score:
        text += " [{:{form}}, {:{form}}]".format(*score["interval"], form=form)
    return f"{text} of {score['count']:,}" if "count" in score else text


def fold_tables(report, names):
    """Return a Table of each prediction's folds, by the metrics `names` of pixels."""
    tables = []
    for letter, prediction in predictions_of(report).items():
        if folds := prediction.get("folds"):
            scores = np.array([[fold["metrics"][name] for name in names] for fold in folds])
            firsts = [[fold["data"], f"{fold['images']:,}"] for fold in folds]
            firsts += [["mean", ""], ["standard deviation", ""]]
            values = [*scores, scores.mean(axis=0), scores.std(axis=0, ddof=1)]
            rows = [
                [*first, *map("{:.3f}".format, row)]
                for first, row in zip(firsts, values, strict=True)
            ]
            heads = ["fold", "images", *(LABELS[name] for name in names)]
            tables.append(Table(f"Folds{letter}, pixels at {report['resolution']}", heads, rows))
    return tables


def size_tables(report):
    """Return a Table of each prediction's polyps found, by their size, if there are any."""
    if not report["images_with_polyp"]:
        return []
    tables, heads = [], ["size", "polyps", *(f"found by {text}" for text in RULES.values())]
    for letter, prediction in predictions_of(report).items():
        rows = [
            [
                f"{100 * row['least']:g} to {100 * row['below']:g} %",
                f"{row['count']:,}",
                *(score_text(row[rule]) if row["count"] else "" for rule in RULES),
            ]
            for row in prediction["polyps_by_size"]
        ]
        title = f"Polyps found{letter}, by their part of the image, at {report['resolution']}"
        tables.append(Table(title, heads, rows))
    return tables


def protocol(report):
    """Return the Table of how the scores came about."""
    machine, source = report["machine"], report["data"]
    if report["data_sha256"]:
        source += f", SHA-256 {report['data_sha256']}"
    rows = [
        ["images", f"{report['images']:,} of {report['scenes']:,} scenes: {report['title']}"],
        ["source", source],
    ]
    for letter, prediction in predictions_of(report).items():
        rows.append([f"prediction{letter}", prediction["prediction"]])
        for network in prediction["networks"]:
            source = network["training"]["settings"]["data_source"]
            text = f"{network['network']}, trained on {source}; SHA-256 of unet.keras"
            rows.append([f"network{letter}", f"{text} {network['weights_sha256']}"])
    versions = (
        f"Python {machine['python']}, TensorFlow {machine['tensorflow']}, Keras {machine['keras']},"
        f" NumPy {machine['numpy']}, OpenCV {machine['opencv']}"
    )
    paired = "; B - A on the same samples" if "compared" in report else ""
    rows += [
        ["intervals", f"{report['intervals']}{paired}"],
        ["computed", f"in {machine['precision']}, on {', '.join(machine['devices'])}"],
        ["versions", versions],
    ]
    return Table("Protocol", ["", ""], rows)


# In the terminal, and as Markdown


def about(report):
    """Return what was scored, how, and by which networks, with warnings and notes, as lines."""
    lines = [
        f"Scores of {report['images']:,} images of {report['scenes']:,} scenes: {report['title']}"
    ]
    for letter, prediction in predictions_of(report).items():
        lines += [f"Network{letter}: {network['network']}" for network in prediction["networks"]]
        lines.append(f"Prediction{letter}: {prediction['prediction']}")
    lines += [f"Beware: {line}" for line in report["warnings"]]
    return lines + [f"Note: {line}" for line in report["notes"]]


def terminal_lines(report, seconds, folder):
    """Return what is said of a report in the terminal, as lines.

    seconds: prediction took them; folder: in which the rest is, a Path.
    """
    first, *lines = about(report)
    lines = [f"{first}; read, predicted and scored in {seconds:.1f} s", *lines]
    for table in first_tables(report):
        lines += ["", f"{table.title}:", *align([table.heads, *table.rows])]
    whose = " of A" if "compared" in report else ""
    return [
        *lines,
        "",
        f"{folder / 'metrics.md'}: all scores and definitions, of polyps and borders too",
        f"{folder / 'index.html'}: a page of these, and of all pictures and figures{whose}",
    ]


def align(rows):
    """Return rows of texts as lines with columns."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]


def most_different(table, count=5):
    """Return lines of the images on which two predictions' Dice differ most, by per_image.csv."""
    rows = np.argsort(-np.abs(table["dice_difference"]), kind="stable")[:count]
    columns = {"A": "dice", "B": "compared_dice"}
    cells = [
        [
            f"  {table['name'][row]}",
            *(f"{letter} {table[column][row]:.3f}" for letter, column in columns.items()),
            f"{table['dice_difference'][row]:+.3f}",
        ]
        for row in rows
    ]
    title = f"The {len(rows)} images on which they differ most, by Dice; per_image.csv has all:"
    return [title, *align(cells)]


def threshold_lines(rows):
    """Return the scores at each threshold, dicts as in Thresholded, as lines."""
    heads = ["threshold", *(LABELS[name] for name in FIRST)]
    cells = [[f"{row['threshold']:g}", *(f"{row[name]:.3f}" for name in FIRST)] for row in rows]
    return align([heads, *cells])


def markdown(report):
    """Return metrics.md as lines: the tables of a paper, and how the scores came about."""
    lines = [f"# Scores: {report['title']}"]
    for title, heads, rows in [*all_tables(report), protocol(report)]:
        cells = [heads, ["---"] * len(heads), *rows]
        lines += ["", f"## {title}", ""]
        lines += ["| " + " | ".join(c.replace("|", "\\|") for c in row) + " |" for row in cells]
    for title, told in (("Beware", report["warnings"]), ("Notes", report["notes"])):
        lines += ["", f"## {title}", "", *(f"- {line}" for line in told)] if told else []
    return lines
