"""Drawing: the palette, outlines, contact sheets, and the common look of figures."""

import cv2
import numpy as np
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font

from utils.files import write_beside

# Okabe and Ito's palette, which colour-blind readers can tell apart
BLUE, ORANGE, GREEN, SKY, YELLOW = "#0072B2", "#E69F00", "#009E73", "#56B4E9", "#F0E442"
GREY = "#BBBBBB"
# What the colours stand for
MASK, PREDICTION, UNSURE = SKY, YELLOW, GREY  # outlines
OUTLINES = "mask blue, prediction yellow on top"  # the same in words
TRAINING, VALIDATION, KEPT = BLUE, ORANGE, GREEN  # scores of epochs
FIRST, SECOND, MEANS, IMAGES = BLUE, ORANGE, GREEN, SKY  # scores of pictures


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
    """Return lines that figures can show: pictures' names in any script, each cut to a width.

    width: pixels at 100 dots per inch; size: the font's, in points. Characters that the font lacks,
    which matplotlib would warn of, become "?"; of a line that is too long the middle goes, since
    pictures of one series differ at the end.
    """
    font = get_font(findfont(FontProperties()))
    font.set_size(size, 100)
    known = font.get_charmap()

    def shorten(line, kept):
        middle = "\N{HORIZONTAL ELLIPSIS}" if kept < len(line) else ""
        return line[: kept - kept // 2] + middle + line[len(line) - kept // 2 :]

    def fits(line):
        font.set_text(line)
        return font.get_width_height()[0] / 64 <= width

    lines = []
    for line in text.split("\n"):
        line = "".join(c if ord(c) in known and c.isprintable() else "?" for c in line)
        kept = len(line)
        while kept and not fits(shorten(line, kept)):
            kept -= 1
        lines.append(shorten(line, kept))
    return "\n".join(lines)


def save_sheet(path, rows, titles, title):
    """Save a contact sheet: `rows` maps a row's label to its images, `titles` head the columns.

    rows: str to n images, each (height, width, 3) uint8 or a mask, (height, width), 0 or 1;
    titles: n str, of one or several lines, which are cut to the column's width; title: too, cut to
    the sheet's.
    """
    cell, gap = 144, 6  # pixels
    titles = [printable(text, cell, 10) for text in titles]

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
    above = printable(title, max(width, 600), 12).split("\n")
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
    axes.set_title(printable(title, 480, 12), parse_math=False)
    axes.set(xlabel=x_label, ylabel=y_label)
    axes.grid(alpha=0.3)
    with write_beside(path) as beside:
        figure.savefig(beside, dpi=100)
