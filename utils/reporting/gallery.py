"""The gallery: a page of the scores, the figures and every picture, which needs no network."""

from html import escape
from itertools import pairwise
from string import Template

import cv2
import numpy as np

from utils.command import parallel
from utils.data.pictures import DECODERS
from utils.drawing import BLUE, SKY, YELLOW, encode_jpeg
from utils.reporting.cases import outlined_rows
from utils.reporting.plots import FIGURES
from utils.reporting.report import report_tables
from utils.scoring.polyps import SIZE_ENDS

# All that is put in is escaped, or of this module. Without scripts the pictures are there too.
PAGE = Template("""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<style>
:root { color-scheme: light dark; --ground: #fff; --panel: #f3f5f7; --text: #1b1f23;
  --line: #c5ccd3; --strong: $blue; --on-strong: #fff; }
@media (prefers-color-scheme: dark) {
  :root { --ground: #14171a; --panel: #20252a; --text: #e8ebee; --line: #48515a;
    --strong: $sky; --on-strong: #14171a; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 90rem; padding: 1rem; background: var(--ground);
  color: var(--text); font: 1rem/1.5 system-ui, sans-serif; }
h1 { font-size: 1.6rem; line-height: 1.25; overflow-wrap: anywhere; }
h2 { font-size: 1.25rem; margin: 2rem 0 .5rem; }
a { color: var(--strong); }
:focus-visible { outline: 3px solid var(--strong); outline-offset: 2px; }
nav a { margin-right: 1rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; margin: .5rem 0 1.5rem; }
caption { text-align: left; padding-bottom: .3rem; font-weight: 600; }
th, td { padding: .25rem .8rem .25rem 0; border-bottom: 1px solid var(--line); text-align: left;
  vertical-align: top; font-variant-numeric: tabular-nums; }
td:not(:last-child) { white-space: nowrap; }
.figures { display: flex; flex-wrap: wrap; gap: 1rem; }
.figures img { max-width: 100%; height: auto; }
.controls { display: flex; flex-wrap: wrap; gap: .5rem 1.5rem; align-items: center;
  background: var(--ground); padding: .6rem 0; }
@media (min-width: 50rem) { .controls { position: sticky; top: 0; z-index: 1; } }
button, select { font: inherit; color: inherit; background: var(--panel); min-height: 2.25rem;
  border: 1px solid var(--line); border-radius: .3rem; padding: .2rem .7rem; }
button[aria-pressed="true"] { background: var(--strong); color: var(--on-strong);
  border-color: var(--strong); }
ol { list-style: none; margin: 0; padding: 0; display: grid; gap: 1rem;
  grid-template-columns: repeat(auto-fill, minmax(11rem, 1fr)); }
ol li { background: var(--panel); border-radius: .3rem; overflow: hidden; content-visibility: auto;
  contain-intrinsic-size: auto 17rem; }
ol li[hidden] { display: none; }
ol img { display: block; width: 100%; height: auto; }
ol p { margin: 0; padding: .4rem .6rem .6rem; font-size: .9rem; overflow-wrap: anywhere; }
.key { display: inline-block; width: 1.2em; height: .7em; border: 1px solid var(--text); }
</style>
</head>
<body>
<header>
<h1>$title</h1>
<p>$summary</p>
$warnings
<nav aria-label="Sections"><a href="#scores">Scores</a><a href="#figures">Figures</a
><a href="#pictures">Pictures</a></nav>
</header>
<main>
<section aria-labelledby="scores">
<h2 id="scores">Scores</h2>
$tables
<p>In brackets or beside a score: $intervals. How they came about stands in
<a href="metrics.md">metrics.md</a>, the scores of each image in
<a href="per_image.csv">per_image.csv</a>.</p>
</section>
<section aria-labelledby="figures">
<h2 id="figures">Figures</h2>
<div class="figures">
$figures
</div>
</section>
<section aria-labelledby="pictures">
<h2 id="pictures">Pictures</h2>
<p>Outlined: <span class="key" style="background: $sky"></span> mask in blue,
<span class="key" style="background: $yellow"></span> prediction$whose in yellow.</p>
<div class="controls" id="controls" hidden>
<div role="group" aria-label="Order by Dice">
<button type="button" data-order="1" aria-pressed="true">Worst first</button>
<button type="button" data-order="-1" aria-pressed="false">Best first</button>
</div>
$filters
<span id="count" role="status"></span>
</div>
<ol id="cards">
$cards
</ol>
</section>
</main>
<script>
const list = document.getElementById("cards"), cards = [...list.children];
const filters = [...document.querySelectorAll("select")];
const buttons = [...document.querySelectorAll("button")];
function filter() {
  for (const card of cards)
    card.hidden = filters.some(f => f.value && card.dataset[f.name] !== f.value);
  const shown = cards.filter(card => !card.hidden).length;
  const text = shown.toLocaleString("en") + " of " + cards.length.toLocaleString("en");
  document.getElementById("count").textContent = text + " pictures";
}
for (const button of buttons)
  button.addEventListener("click", () => {
    for (const other of buttons) other.setAttribute("aria-pressed", other === button);
    cards.sort((a, b) => button.dataset.order * (a.dataset.dice - b.dataset.dice));
    list.append(...cards);
  });
for (const select of filters) select.addEventListener("change", filter);
document.getElementById("controls").hidden = false;
filter();
</script>
</body>
</html>
""")


# The pictures


def gallery_names(count):
    """Return the names of the pictures that `save_gallery` leaves of so many."""
    return [card_name(row) for row in range(count)]


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
    order = np.argsort(table["dice"], kind="stable")
    cards = [card(row, table, splits[row], sizes[row], shapes[row]) for row in order]
    choices = [("size", "Polyp", sizes, SIZE_NAMES)]
    if len(set(splits)) > 1:
        choices.append(("split", "Split", splits, list(dict.fromkeys(splits))))
    return PAGE.substitute(
        title=escape(f"Scores: {report['title']}"),
        summary=escape(summary(report)),
        warnings="\n".join(f"<p>Beware: {escape(line)}</p>" for line in report["warnings"]),
        tables="\n".join(html_table(*parts) for parts in report_tables(report)),
        intervals=escape(report["intervals"]),
        figures="\n".join(figure(folder / name, FIGURES[name]) for name in FIGURES),
        filters="\n".join(select(*choice) for choice in choices),
        cards="\n".join(cards),
        whose=" A" if "compared" in report else "",
        blue=BLUE,
        sky=SKY,
        yellow=YELLOW,
    )


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


def summary(report):
    """Return what was scored, and how, as a sentence or two."""
    text = (
        f"{report['images']:,} images of {report['scenes']:,} scenes, at {report['resolution']}:"
        f" {report['prediction']}."
    )
    if "compared" in report:
        text += f" B: {report['compared']['prediction']}."
    return text


def html_table(title, heads, rows):
    """Return a table of scores; title, heads, rows: texts."""
    head = "".join(f'<th scope="col">{escape(text)}</th>' for text in heads)
    body = "\n".join(
        f'<tr><th scope="row">{escape(first)}</th>'
        + "".join(f"<td>{escape(text)}</td>" for text in rest)
        + "</tr>"
        for first, *rest in rows
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


def card(row, table, split, size, shape):
    """Return the list item of a picture; table: of per_image.csv; shape: height and width."""
    name, dice, fraction = (table[key][row] for key in ("name", "dice", "polyp_fraction"))
    name, file, polyp = escape(str(name)), card_name(row), f"{fraction:.1%} polyp"
    data = f' data-split="{escape(split)}"' if split else ""
    return (
        f'<li data-dice="{dice:.6f}" data-size="{escape(size)}"{data}><a href="{file}"><img'
        f' src="{file}" width="{shape[1]}" height="{shape[0]}" loading="lazy" alt="{name}: mask and'
        f' prediction outlined, Dice {dice:.3f}"></a><p>{name}<br>Dice {dice:.3f},'
        f" {polyp if fraction else 'no polyp'}</p></li>"
    )
