"""The gallery: a page of the scores, the figures and every picture, which needs no network."""

from html import escape
from itertools import pairwise
from pathlib import Path
from string import Template

import cv2
import numpy as np

from utils.command import parallel
from utils.data.pictures import DECODERS
from utils.drawing import FIRST, IMAGES, MASK, OUTLINES, PREDICTION, encode_jpeg
from utils.reporting.cases import outlined_rows
from utils.reporting.plots import FIGURES, figures_of
from utils.reporting.tables import about, all_tables, first_tables
from utils.scoring.polyps import SIZE_ENDS

PAGE = Path(__file__).with_name("page.html")


# The pictures


def report_names(count):
    """Return the names of all results of so many labelled pictures."""
    cards = [card_name(row) for row in range(count)]
    return ["metrics.json", "metrics.md", "per_image.csv", *FIGURES, *cards, "index.html"]


def card_name(row):
    """Return the file of a picture's outlines; by number, since a name may be no file's."""
    return f"gallery/{row + 1:05d}.jpg"


def save_gallery(results, report, pictures, table, predictions):
    """Save index.html and the outlined pictures in gallery/; the figures are there already.

    results: see utils/results.py; report, table: as from `make_report` and `per_image_table`;
    pictures, predictions: see `outlined_rows`.
    """

    def save_card(row):
        (drawn,) = outlined_rows(pictures, predictions, [row])[3]
        with results.write(card_name(row)) as beside:
            beside.write_bytes(encode_jpeg(drawn, 90))
        return drawn.shape[:2]

    shapes = list(parallel(save_card, range(len(predictions)), DECODERS))
    text = page(results.part, report, pictures, table, shapes)
    with results.write("index.html") as beside:
        beside.write_text(text, encoding="utf-8", errors="backslashreplace")


# The page


def page(folder, report, pictures, table, shapes):
    """Return the page as text.

    folder: of the figures; shapes: height and width of each outlined picture, in pixels.
    """
    splits, sizes = pictures.splits(), [size_group(part) for part in table["polyp_fraction"]]
    order, (heading, *lines) = np.argsort(table["dice"], kind="stable"), about(report)
    alarms = [ALARM_NAMES[bool(count)] for count in table["alarms"]]
    cards = [card(row, table, splits[row], sizes[row], alarms[row], shapes[row]) for row in order]
    choices = [("size", "Polyp", sizes, SIZE_NAMES)]
    if len(set(alarms)) > 1:
        choices.append(("alarm", "Alarm", alarms, ALARM_NAMES))
    if len(set(splits)) > 1:
        choices.append(("split", "Split", splits, list(dict.fromkeys(splits))))
    # All that is put in is escaped, or of this project
    return Template(PAGE.read_text(encoding="utf-8")).substitute(
        title=escape(f"Scores: {report['title']}"),
        heading=escape(heading),
        about="\n".join(f"<p>{escape(line)}</p>" for line in lines),
        first_tables="\n".join(map(html_table, first_tables(report))),
        all_tables="\n".join(map(folded, all_tables(report))),
        intervals=escape(report["intervals"]),
        figures="\n".join(figure(folder / name, text) for name, text in figures_of(report).items()),
        filters="\n".join(select(*choice) for choice in choices),
        cards="\n".join(cards),
        whose=", of A" if "compared" in report else "",
        outlines=OUTLINES,
        mask=MASK,
        prediction=PREDICTION,
        light=FIRST,
        dark=IMAGES,
    )


ALARM_NAMES = "no alarm", "alarm"
# The polyps' sizes, by the ends that the scores of polyps have
SIZE_NAMES = [
    "none",
    f"below {100 * SIZE_ENDS[0]:g} % of the picture",
    *(f"{100 * a:g} to {100 * b:g} %" for a, b in pairwise(SIZE_ENDS)),
    f"{100 * SIZE_ENDS[-1]:g} % and more",
]


def size_group(fraction):
    """Return the one of SIZE_NAMES for a picture's polyp, by its part of the picture, 0 to 1."""
    if not fraction:
        return SIZE_NAMES[0]
    return SIZE_NAMES[1 + int(np.searchsorted(SIZE_ENDS, fraction, side="right"))]


def folded(table):
    """Return a Table that is shown when its title is clicked on."""
    return f"<details><summary>{escape(table.title)}</summary>\n{html_table(table)}\n</details>"


def html_table(table):
    """Return a Table; where it has definitions, they stand below the names of the scores."""
    title, heads, rows = table
    if heads[-1] == "definition":
        heads = heads[:-1]
        firsts = [f"{escape(row[0])}<small>{escape(row[-1])}</small>" for row in rows]
    else:
        firsts = [escape(row[0]) for row in rows]
    head = "".join(f'<th scope="col">{escape(text)}</th>' for text in heads)
    body = "\n".join(
        f'<tr><th scope="row">{first}</th>'
        + "".join(f"<td>{escape(text)}</td>" for text in row[1 : len(heads)])
        + "</tr>"
        for first, row in zip(firsts, rows, strict=True)
    )
    return (
        f'<div class="wide" tabindex="0" role="region" aria-label="{escape(title)}">'
        f"<table><caption>{escape(title)}</caption>\n<thead><tr>{head}</tr></thead>\n"
        f"<tbody>\n{body}\n</tbody></table></div>"
    )


def figure(path, alt):
    """Return a figure of the folder, with its size, so that nothing moves as it is loaded."""
    height, width = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_GRAYSCALE).shape
    name = escape(path.name)
    return (
        f'<a href="{name}"><img src="{name}" width="{width}" height="{height}" loading="lazy"'
        f' alt="{escape(alt)}"></a>'
    )


def select(name, label, values, order):
    """Return a filter; values: of all pictures, n str; order: in which to offer those that occur.

    name: of the cards' data attribute.
    """
    options = "".join(
        f'<option value="{escape(value)}">{escape(value)} ({values.count(value):,})</option>'
        for value in order
        if value in values
    )
    return (
        f'<label>{escape(label)} <select name="{name}"><option value="">all</option>{options}'
        "</select></label>"
    )


def card(row, table, split, size, alarm, shape):
    """Return the list item of a picture; table: of per_image.csv; shape: height and width."""
    name, dice, fraction = (table[key][row] for key in ("name", "dice", "polyp_fraction"))
    name, file, polyp = escape(str(name)), card_name(row), f"{fraction:.1%} polyp"
    data = f' data-split="{escape(split)}"' if split else ""
    return (
        f'<li data-dice="{dice:.6f}" data-size="{escape(size)}" data-alarm="{alarm}"{data}><a'
        f' href="{file}"><img'
        f' src="{file}" width="{shape[1]}" height="{shape[0]}" loading="lazy" alt="{name}: mask and'
        f' prediction outlined, Dice {dice:.3f}"></a><p>{name}<br>Dice {dice:.3f},'
        f" {polyp if fraction else 'no polyp'}, {alarm}</p></li>"
    )
