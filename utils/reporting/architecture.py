"""The network drawn as a U."""

from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from utils.drawing import BLUE, GREEN, ORANGE, SKY, YELLOW
from utils.files import write_beside

ENCODER, BOTTLENECK, DECODER, POOLING, UPSAMPLING = SKY, YELLOW, ORANGE, BLUE, GREEN


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
        colour = ENCODER if column < blocks else BOTTLENECK if column == blocks else DECODER
        axes.add_patch(Rectangle((x, y), width, height, facecolor=colour, edgecolor="0.2"))
        text = f"{filters * 2**level} filters\n{size // 2**level} x {size // 2**level}"
        axes.text(x + width / 2, y + height / 2, text, ha="center", va="center", fontsize=9.5)
        if column < blocks:
            partner = corners[-1 - column]
            arrow((x + width, y + height / 2), (partner[0], y + height / 2), "0.5", "--")
            arrow((x + width * 0.75, y), (x + width * 0.75 + 0.4, y - down + height), POOLING)
        elif column < 2 * blocks:
            above = y + down
            arrow(
                (x + width * 0.75 - 0.15, y + height), (x + width * 0.75 + 0.25, above), UPSAMPLING
            )
    arrow((-0.75, height / 2), (0, height / 2), "0.2")
    arrow((corners[-1][0] + width, height / 2), (corners[-1][0] + width + 0.75, height / 2), "0.2")
    axes.text(-0.8, height / 2, f"picture\n{size} x {size}\nRGB", ha="right", va="center")
    end = corners[-1][0] + width + 0.8
    axes.text(end, height / 2, f"polyp\n{size} x {size}\n0 to 1", ha="left", va="center")
    legend = {
        "a block: two 3 x 3 convolutions with ReLU": "0.2",
        "2 x 2 max pooling": POOLING,
        "2 x 2 transposed convolution": UPSAMPLING,
        "skip connection, concatenated": "0.5",
    }
    for row, (text, colour) in enumerate(legend.items()):
        axes.text(-1.8, -3.65 - 0.42 * row, text, color=colour, fontsize=9.5)
    with write_beside(path) as beside:
        figure.savefig(beside, dpi=100)
