"""Figures: the palette, outlines, contact sheets, and the look that all figures share."""

import cv2
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from utils.files import write_beside

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


def save_sheet(path, rows, titles, title):
    """Save a contact sheet: `rows` maps a row's label to its images, `titles` head the columns."""
    cell, gap = 144, 6  # pixels

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
    figure = Figure((width / 100 + 0.4, height / 100 + 0.65), layout="constrained")
    axes = figure.subplots()
    axes.imshow(sheet[:-gap, :-gap])
    axes.set_xticks(np.arange(cell / 2, width, cell + gap), titles, fontsize=8)
    axes.set_yticks(
        np.arange(cell / 2, height, cell + gap), rows, rotation=90, va="center", fontsize=10
    )
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_title(title, fontsize=11)
    with write_beside(path) as beside:
        figure.savefig(beside, dpi=100)


def save_figure(path, title, x_label, y_label, draw):
    """Save a figure of one pair of axes on which `draw(axes)` has drawn."""
    figure = Figure((5.5, 4), layout="constrained")
    axes = figure.subplots()
    draw(axes)
    axes.set(title=title, xlabel=x_label, ylabel=y_label)
    axes.grid(alpha=0.3)
    with write_beside(path) as beside:
        figure.savefig(beside, dpi=100)


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
