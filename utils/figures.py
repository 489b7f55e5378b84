"""Figures: the palette, outlines, contact sheets, the curves of scores, and their common look."""

import cv2
import numpy as np
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator, NullLocator

from utils.calibration import expected_calibration_error, reliability
from utils.failures import PROPERTIES
from utils.files import write_beside
from utils.metrics import precision_recall
from utils.polyps import RULES

# From Okabe and Ito's palette, which colour-blind readers can tell apart
BLUE, ORANGE, GREEN, SKY, YELLOW = "#0072B2", "#E69F00", "#009E73", "#56B4E9", "#F0E442"


def outline(picture, masks_and_colours, scale=3):
    """Return a picture enlarged `scale` times with the outlines of masks drawn on it.

    picture: (height, width, 3) uint8; masks_and_colours: pairs of a (height, width, 1) mask, 0 or
    1, and a colour such as "#56B4E9".
    """
    size = (picture.shape[1] * scale, picture.shape[0] * scale)
    canvas = cv2.resize(picture, size, interpolation=cv2.INTER_CUBIC)
    for mask, colour in masks_and_colours:
        smooth = cv2.resize(mask[..., 0] * np.uint8(255), size, interpolation=cv2.INTER_LINEAR)
        smooth = cv2.threshold(smooth, 127, 255, cv2.THRESH_BINARY)[1]
        contours = cv2.findContours(smooth, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)[0]
        red_green_blue = tuple(bytes.fromhex(colour[1:]))
        thickness = max(1, round(max(size) / 190))
        cv2.drawContours(canvas, contours, -1, red_green_blue, thickness, cv2.LINE_AA)
    return canvas


def printable(text, width, size):
    """Return a line that figures can show: a picture's name in any script, cut to a width.

    width: pixels at 100 dots per inch; size: the font's, in points. Characters that the font lacks,
    which matplotlib would warn of, become "?"; of a line that is too long the middle goes, since
    pictures of one series differ at the end.
    """
    font = get_font(findfont(FontProperties()))
    font.set_size(size, 100)
    known = font.get_charmap()
    text = "".join(c if ord(c) in known and c.isprintable() else "?" for c in text)

    def shorten(kept):
        middle = "\N{HORIZONTAL ELLIPSIS}" if kept < len(text) else ""
        return text[: kept - kept // 2] + middle + text[len(text) - kept // 2 :]

    def fits(line):
        font.set_text(line)
        return font.get_width_height()[0] / 64 <= width

    kept = len(text)
    while kept and not fits(shorten(kept)):
        kept -= 1
    return shorten(kept)


def save_sheet(path, rows, titles, title):
    """Save a contact sheet: `rows` maps a row's label to its images, `titles` head the columns.

    rows: str to n images, each (height, width, 3) uint8 or a mask, (height, width), 0 or 1;
    titles: n str, of one or several lines, which are cut to the column's width; title: too, cut to
    the sheet's.
    """
    cell, gap = 144, 6  # pixels
    titles = ["\n".join(printable(s, cell, 10) for s in text.split("\n")) for text in titles]

    def tile(image):
        if image.ndim == 2:
            image = cv2.cvtColor(image * np.uint8(255), cv2.COLOR_GRAY2RGB)
        shrinking = image.shape[0] > cell
        way = cv2.INTER_AREA if shrinking else cv2.INTER_CUBIC
        image = cv2.resize(image, (cell, cell), interpolation=way)
        return cv2.copyMakeBorder(image, 0, gap, 0, gap, cv2.BORDER_CONSTANT, value=(255,) * 3)

    sheet = np.vstack([np.hstack([tile(image) for image in images]) for images in rows.values()])
    height, width = sheet.shape[:2]
    # One image for all: axes of their own take a hundredth of a second each
    lines = 1 + max(text.count("\n") for text in titles)
    above = [printable(line, max(width, 600), 12) for line in title.split("\n")]
    inches = (
        max(width / 100 + 0.4, *(0.09 * len(line) for line in above)),
        height / 100 + 0.5 + 0.18 * lines + 0.2 * (len(above) - 1),
    )
    figure = Figure(inches, layout="constrained")
    axes = figure.subplots()
    axes.imshow(sheet[:-gap, :-gap])
    centers = np.arange(cell / 2, width, cell + gap)
    axes.set_xticks(centers, titles, fontsize=10, parse_math=False)
    axes.set_yticks(
        np.arange(cell / 2, height, cell + gap), rows, rotation=90, va="center", fontsize=10
    )
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    figure.suptitle("\n".join(above), fontsize=12, parse_math=False)
    with write_beside(path) as beside:
        figure.savefig(beside, dpi=100)


def encode_jpeg(picture, quality):
    """Return a picture, (height, width, 3) uint8, RGB, as a JPEG file's bytes; quality: 0 to 100.

    Its colours are as fine as its light, or thin outlines would turn grey.
    """
    options = [
        *(cv2.IMWRITE_JPEG_QUALITY, quality),
        *(cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444),
    ]
    return cv2.imencode(".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), options)[1].tobytes()


def save_figure(path, title, x_label, y_label, draw):
    """Save a figure of one pair of axes on which `draw(axes)` has drawn.

    title: of one or several lines, which are cut to the figure's width.
    """
    figure = Figure((5.5, 4), layout="constrained")
    axes = figure.subplots()
    draw(axes)
    title = "\n".join(printable(line, 480, 12) for line in title.split("\n"))
    axes.set_title(title, parse_math=False)
    axes.set(xlabel=x_label, ylabel=y_label)
    axes.grid(alpha=0.3)
    with write_beside(path) as beside:
        figure.savefig(beside, dpi=100)


def save_precision_recall(path, histogram, precision, recall, threshold, subject):
    """Save precision_recall.png: the trade-off over all thresholds, and the point of one.

    histogram: as from `curve_histogram`; precision, recall: at `threshold`, 0 to 1; subject: which
    images, for the title. The curve begins where something is called polyp: at probability 1, to
    which a network trained on Dice loss alone rounds most of a polyp.
    """
    precisions, recalls = precision_recall(histogram)

    def draw(axes):
        if not histogram[1].any():
            write_instead(axes, "no image has a polyp")
        else:
            called = recalls > 0
            label = "thresholds from 1 (left) down to 0"
            axes.plot(recalls[called], precisions[called], color=BLUE, label=label)
            text = f"threshold {threshold}: precision {precision:.3f}, recall {recall:.3f}"
            axes.plot(recall, precision, "o", color=ORANGE, label=text)
            axes.legend(loc="lower left")
        axes.set(xlim=(0, 1.02), ylim=(0, 1.02))

    title = f"Precision and recall over all thresholds\n{subject}"
    save_figure(path, title, "recall, pixels pooled", "precision, pixels pooled", draw)


def save_dice_histogram(path, dice, threshold, subject):
    """Save dice_histogram.png: how the images' Dice, (n,) float, is spread; mean and median.

    subject: which images, for the title.
    """

    def draw(axes):
        axes.hist(dice, np.linspace(0, 1, 21), color=SKY, edgecolor="white")
        axes.axvline(dice.mean(), color=ORANGE, label=f"mean {dice.mean():.3f}")
        median = np.median(dice)
        axes.axvline(median, color=BLUE, linestyle="--", label=f"median {median:.3f}")
        axes.set_xlim(0, 1)
        axes.yaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.legend(loc="upper left")

    title = f"Images by their Dice ({len(dice):,} in all)\n{subject}"
    save_figure(path, title, f"Dice of an image, threshold {threshold}", "images", draw)


def save_dice_by_size(path, dice, fractions, threshold, subject):
    """Save dice_by_size.png: Dice against polyp fraction, with the mean of each fifth by size.

    dice, fractions: (n,) float, 0 to 1; subject: which images, for the title. Images without a
    polyp have no place on the axis of sizes; fewer than ten with one are shown without means.
    """
    polyps = np.flatnonzero(fractions > 0)
    order = polyps[np.argsort(fractions[polyps], kind="stable")]
    sizes = 100 * fractions[order]

    def draw(axes):
        if not len(order):
            write_instead(axes, "no image has a polyp")
            return
        axes.plot(sizes, dice[order], "o", color=SKY, markersize=4, alpha=0.7, clip_on=False)
        if len(order) >= 10:
            for number, part in enumerate(np.array_split(np.arange(len(order)), 5)):
                ends, mean = sizes[part[[0, -1]]], dice[order[part]].mean()
                label = None if number else "mean of each fifth of the images"
                axes.plot(ends, [mean, mean], color=GREEN, linewidth=3, label=label)
            axes.legend(loc="lower right")
        axes.set_xscale("log")
        ticks = ticks_around(sizes[0], sizes[-1])
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set(xlim=(ticks[0], ticks[-1]), ylim=(0, 1.02))

    x_label = "polyp, % of the image's pixels"
    if len(order) < len(dice):
        x_label += f" (left out: {len(dice) - len(order):,} without a polyp)"
    title = f"Dice by the polyp's size\n{subject}"
    save_figure(path, title, x_label, f"Dice of an image, threshold {threshold}", draw)


def save_sensitivity_by_size(path, rows, subject):
    """Save sensitivity_by_size.png: the share of polyps found, by their size and by both rules.

    rows: as from `sensitivity_by_size`; subject: which images, for the title. The lines are the
    shares' 95 % intervals.
    """
    rows = [row for row in rows if row["count"]]

    def draw(axes):
        if not rows:
            write_instead(axes, "no image has a polyp")
            return
        places = np.arange(len(rows))
        looks = ((BLUE, "o", -0.08), (ORANGE, "s", 0.08))
        for rule, (colour, marker, aside) in zip(RULES, looks, strict=True):
            values = np.array([row[rule]["value"] for row in rows])
            ends = np.array([row[rule]["interval"] for row in rows]).T
            look = {"color": colour, "fmt": marker, "capsize": 3}
            label = f"found by {RULES[rule]}"
            axes.errorbar(places + aside, values, np.abs(ends - values), label=label, **look)
        texts = [
            f"{100 * row['least']:g} to {100 * row['below']:g} %\n{row['count']:,} polyps"
            for row in rows
        ]
        axes.set_xticks(places, texts)
        axes.set(xlim=(-0.5, len(rows) - 0.5), ylim=(0, 1.04))
        axes.legend(loc="lower right")

    title = f"Polyps found, by their size\n{subject}"
    save_figure(path, title, "polyp, % of the image's pixels", "share of the polyps found", draw)


def save_reliability(path, before, after, temperature, subject):
    """Save reliability.png: how often pixels are polyp, by their probability, and their number.

    before, after: as from `reliability_histogram`, of the probabilities as they are, and scaled by
    `temperature`, which was fitted on the validation split; temperature: None without, and then
    `after` does not count. subject: which images, for the title.
    """
    figure = Figure((5.5, 5.5), layout="constrained")
    shares, pixels = figure.subplots(2, sharex=True, height_ratios=(3, 1))
    shares.plot([0, 1], [0, 1], color="0.6", linestyle=":", label="perfectly calibrated")
    curves = [(before, BLUE, "o-", "as they are")]
    if temperature is not None:
        curves.append((after, ORANGE, "s--", f"at temperature {temperature:.2f}"))
    for histogram, colour, style, words in curves:
        called, share = reliability(histogram)
        error = expected_calibration_error(histogram)
        label = f"{words}: calibration error {error:.3f}"
        shares.plot(called, share, style, color=colour, markersize=5, label=label)
        pixels.stairs(histogram[0], np.linspace(0, 1, histogram.shape[1] + 1), color=colour)
    shares.set(ylabel="share of these pixels that is polyp", ylim=(0, 1.02), xlim=(0, 1))
    title = f"Probabilities, and how often they come true\n{printable(subject, 480, 12)}"
    shares.set_title(title, parse_math=False)
    shares.legend(loc="upper left")
    pixels.set(xlabel="probability of polyp", ylabel="pixels", yscale="log")
    for axes in (shares, pixels):
        axes.grid(alpha=0.3)
    with write_beside(path) as beside:
        figure.savefig(beside, dpi=100)


def save_failures(path, parts, threshold, subject):
    """Save failures.png: the mean Dice of images by what they show, a panel for each property.

    parts: as from `dice_by_property`; subject: which images, for the title. The lines are the
    means' 95 % intervals.
    """
    figure = Figure((9, 6), layout="constrained")
    panels = figure.subplots(2, 3)
    for axes, (name, these) in zip(panels.flat, parts.items(), strict=True):
        axes.set(title=name, xlabel=PROPERTIES[name].label)
        if not these:
            write_instead(axes, "no image has a polyp")
            continue
        means = np.array([part.mean for part in these])
        lengths = np.abs(np.array([part.interval for part in these]).T - means)
        places = np.arange(len(these))
        axes.bar(places, means, 0.7, color=SKY)
        axes.errorbar(places, means, lengths, fmt="none", color="0.2", capsize=3)
        texts = []
        for place, part in zip(places, these, strict=True):
            low, high = (f"{end:{PROPERTIES[name].format}}" for end in (part.low, part.high))
            ends = low if low == high else f"{low}\nto {high}"
            texts.append(f"{ends}\nn {part.count:,}")
            axes.text(place, 0.03, f"{part.mean:.2f}", ha="center", fontsize=9)
        axes.set_xticks(places, texts, fontsize=8)
        axes.set(xlim=(places.mean() - 2.1, places.mean() + 2.1), ylim=(0, 1.02))
        axes.grid(alpha=0.3, axis="y")
    for axes in panels[:, 0]:
        axes.set_ylabel(f"mean Dice, threshold {threshold}")
    title = f"Dice by what the images show; n: images, lines: 95 % intervals\n{subject}"
    title = "\n".join(printable(line, 850, 12) for line in title.split("\n"))
    figure.suptitle(title, parse_math=False)
    with write_beside(path) as beside:
        figure.savefig(beside, dpi=100)


def save_worst(path, pictures, outlined, titles, lines, title):
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
        text = "\n".join(printable(line, 2 * side + gap, size) for line in text.split("\n"))
        axes.set_title(text, fontsize=size, loc="left", parse_math=False)
        axes.axis("off")
    axes = figure.add_subplot(grid[-1, :])
    axes.text(0, 1, "\n".join(lines), fontsize=9.5, family="monospace", va="top")
    axes.axis("off")
    title = "\n".join(printable(line, 850, 12) for line in title.split("\n"))
    figure.suptitle(title, parse_math=False)
    with write_beside(path) as beside:
        figure.savefig(beside, dpi=100)


def ticks_around(low, high):
    """Return the ticks of a logarithmic axis from `low` to `high`: 1, 2 and 5 times powers of 10.

    There are two or more, the first at or below `low`, the last at or above `high`.
    """
    ticks = np.array([float(f"{n}e{power}") for power in range(-9, 4) for n in (1, 2, 5)])
    first = np.searchsorted(ticks, low, side="right") - 1
    last = np.searchsorted(ticks, high)
    return ticks[first : max(last, first + 1) + 1]


def write_instead(axes, text):
    """Write, on axes that have nothing to show, why."""
    axes.text(0.5, 0.5, text, ha="center", va="center", transform=axes.transAxes)
    axes.set(xticks=[], yticks=[])


def draw_architecture(path, size, filters, blocks):
    """Draw the network as a U of its blocks, each with its filters and its size in pixels."""
    figure = Figure((10, 4.8), layout="constrained")
    axes = figure.subplots()
    axes.axis("off")
    axes.set(xlim=(-1.9, 12.7), ylim=(-5.0, 0.75))
    width, height, right, down = 1.5, 0.66, 1.16, 1.14  # of a box, and from box to box
    levels = [*range(blocks + 1), *reversed(range(blocks))]
    corners = [(right * column, -down * level) for column, level in enumerate(levels)]

    def arrow(start, end, colour, style="-"):
        line = {"arrowstyle": "-|>", "color": colour, "linewidth": 1.6, "linestyle": style}
        axes.annotate("", end, start, arrowprops=line)

    for column, (level, (x, y)) in enumerate(zip(levels, corners, strict=True)):
        colour = SKY if column < blocks else YELLOW if column == blocks else ORANGE
        axes.add_patch(Rectangle((x, y), width, height, facecolor=colour, edgecolor="0.2"))
        text = f"{filters * 2**level} filters\n{size // 2**level} x {size // 2**level}"
        axes.text(x + width / 2, y + height / 2, text, ha="center", va="center", fontsize=9.5)
        if column < blocks:
            partner = corners[-1 - column]
            arrow((x + width, y + height / 2), (partner[0], y + height / 2), "0.5", "--")
            arrow((x + width * 0.75, y), (x + width * 0.75 + 0.4, y - down + height), BLUE)
        elif column < 2 * blocks:
            above = y + down
            arrow((x + width * 0.75 - 0.15, y + height), (x + width * 0.75 + 0.25, above), GREEN)
    arrow((-0.75, height / 2), (0, height / 2), "0.2")
    arrow((corners[-1][0] + width, height / 2), (corners[-1][0] + width + 0.75, height / 2), "0.2")
    axes.text(-0.8, height / 2, f"picture\n{size} x {size}\nRGB", ha="right", va="center")
    end = corners[-1][0] + width + 0.8
    axes.text(end, height / 2, f"polyp\n{size} x {size}\n0 to 1", ha="left", va="center")
    legend = {
        "a block: two 3 x 3 convolutions with ReLU": "0.2",
        "2 x 2 max pooling": BLUE,
        "2 x 2 transposed convolution": GREEN,
        "skip connection, concatenated": "0.5",
    }
    for row, (text, colour) in enumerate(legend.items()):
        axes.text(-1.8, -3.65 - 0.42 * row, text, color=colour, fontsize=9.5)
    with write_beside(path) as beside:
        figure.savefig(beside, dpi=100)
