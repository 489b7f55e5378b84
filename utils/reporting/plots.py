"""Figures: what each shows of the scores, and how it is drawn."""

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator

from utils.drawing import FIRST, IMAGES, MEANS, SECOND, printable, save_figure
from utils.files import write_beside
from utils.reporting.cases import save_predictions, save_worst
from utils.scoring.alarms import LEVELS, froc
from utils.scoring.calibration import expected_calibration_error, reliability
from utils.scoring.measure import set_scores, sums_of
from utils.scoring.pixels import image_scores, polyp_fractions, precision_recall
from utils.scoring.polyps import RULES
from utils.scoring.properties import PROPERTIES, dice_by_property

# What they show, for those who cannot see them
FIGURES = {
    "predictions.png": "Best, median and worst cases: picture, mask, prediction, outlines of both",
    "precision_recall.png": "Precision against recall over all thresholds",
    "dice_histogram.png": "How many images have which Dice",
    "dice_by_size.png": "Dice of each image against the size of its polyp",
    "sensitivity_by_size.png": "Share of the polyps that are found, by their size",
    "froc.png": "Share of the polyps that are found, by the false alarms a picture",
    "reliability.png": "How often pixels are polyp, by the probability predicted of them",
    "failures.png": "Dice of images by what they show",
    "worst.png": "The worst images, and what they have in common",
}
OF_ANY = ("predictions.png", "worst.png")  # those of images without a polyp that counts, too


def figures_of(report):
    """Return those of the FIGURES that can show what is scored; report: as from `make_report`."""
    shown = FIGURES if any(row["count"] for row in report["polyps_by_size"]) else OF_ANY
    return {name: FIGURES[name] for name in shown}


def save_figures(results, pictures, scored, properties, groups, report):
    """Save the figures of one prediction of labelled pictures.

    scored: the Scored of it; properties, groups: of the pictures; report: as from `make_report`.
    """
    dice, fractions = image_scores(scored.counts)["dice"], polyp_fractions(scored.counts)
    title, threshold, packed = pictures.title, scored.threshold, scored.packed
    point = *map(set_scores(scored.counts).get, ("precision", "recall")), threshold
    probabilities = sum(scored.plain.histograms), sum(scored.divided.histograms), scored.temperature
    parts = dice_by_property(properties, dice, groups)
    drawn = {
        "predictions.png": (save_predictions, pictures, packed, dice, threshold),
        "precision_recall.png": (save_precision_recall, scored.curve, *point, title),
        "dice_histogram.png": (save_dice_histogram, dice, threshold, title),
        "dice_by_size.png": (save_dice_by_size, dice, fractions, threshold, title),
        "sensitivity_by_size.png": (save_sensitivity_by_size, report["polyps_by_size"], title),
        "froc.png": (save_froc, scored, groups, title),
        "reliability.png": (save_reliability, *probabilities, title),
        "failures.png": (save_failures, parts, threshold, title),
        "worst.png": (save_worst, pictures, packed, dice, properties, threshold),
    }
    for name in figures_of(report):
        save, *shown = drawn[name]
        with results.write(name) as beside:
            save(beside, *shown)


def save_precision_recall(path, histogram, precision, recall, threshold, subject):
    """Save precision_recall.png: the trade-off over all thresholds, and the point of one.

    histogram: as from `curve_histogram`; precision, recall: at `threshold`, 0 to 1; subject: which
    images, for the title. The curve begins where something is called polyp: at probability 1, to
    which a network trained on Dice loss alone rounds most of a polyp.
    """
    precisions, recalls = precision_recall(histogram)

    def draw(axes):
        called = recalls > 0
        label = "thresholds from 1 (left) down to 0"
        axes.plot(recalls[called], precisions[called], color=FIRST, label=label)
        text = f"threshold {threshold}: precision {precision:.3f}, recall {recall:.3f}"
        axes.plot(recall, precision, "o", color=SECOND, label=text)
        axes.legend(loc="lower left")
        axes.set(xlim=(0, 1.02), ylim=(0, 1.02))

    title = f"Precision and recall over all thresholds\n{subject}"
    save_figure(path, title, "recall, pixels pooled", "precision, pixels pooled", draw)


def save_dice_histogram(path, dice, threshold, subject):
    """Save dice_histogram.png: how the images' Dice, (n,) float, is spread; mean and median.

    subject: which images, for the title.
    """

    def draw(axes):
        axes.hist(dice, np.linspace(0, 1, 21), color=IMAGES, edgecolor="white")
        axes.axvline(dice.mean(), color=SECOND, label=f"mean {dice.mean():.3f}")
        median = np.median(dice)
        axes.axvline(median, color=FIRST, linestyle="--", label=f"median {median:.3f}")
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
        axes.plot(sizes, dice[order], "o", color=IMAGES, markersize=4, alpha=0.7, clip_on=False)
        if len(order) >= 10:
            for number, part in enumerate(np.array_split(np.arange(len(order)), 5)):
                ends, mean = sizes[part[[0, -1]]], dice[order[part]].mean()
                label = None if number else "mean of each fifth of the images"
                axes.plot(ends, [mean, mean], color=MEANS, linewidth=3, label=label)
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
        places = np.arange(len(rows))
        looks = ((FIRST, "o", -0.08), (SECOND, "s", 0.08))
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


def save_froc(path, scored, groups, subject):
    """Save froc.png: polyps found against false alarms over all levels, and the point of one.

    scored: a Scored; groups: (n,) int, the images' scenes; subject: which images, for the title.
    """
    counted = scored.picture_table()
    table = {name: counted[name] for name in ("found_at", "false_at", "polyps")}

    def curve(groups=None):
        sums = sums_of(table, groups)
        return froc(*(sums[name] for name in (*table, "images")))

    def draw(axes):
        rates, shares = curve()
        grid = np.linspace(0, max(rates[-1], 0.01), 100)
        drawn = [np.interp(grid, *each) for each in zip(*curve(groups), strict=True)]
        low, high = np.nanpercentile(drawn, [2.5, 97.5], axis=0)
        axes.fill_between(grid, low, high, color=IMAGES, alpha=0.4, label="95 % interval")
        axes.plot(rates, shares, color=FIRST, label="levels from 1 (left) down")
        level = max(scored.level, scored.threshold)
        here = np.argmin(np.abs(LEVELS[::-1] - level))
        text = f"{shares[here]:.0%} found, {rates[here]:.2f} false alarms a picture"
        axes.plot(rates[here], shares[here], "o", color=SECOND, label=text)
        axes.set(xlim=(0, max(1.05 * rates[-1], 0.1)), ylim=(0, 1.02))
        axes.legend(loc="lower right")

    title = f"Polyps found and false alarms over all levels\n{subject}"
    save_figure(path, title, "false alarms a picture", "polyps found, by any overlap", draw)


def save_reliability(path, before, after, temperature, subject):
    """Save reliability.png: how often pixels are polyp, by their probability, and their number.

    before, after: as from `reliability_histogram`, of the probabilities as they are, and scaled by
    `temperature`, which was fitted on the validation split; temperature: None without, and then
    `after` does not count. subject: which images, for the title.
    """
    figure = Figure((5.5, 5.5), layout="constrained")
    shares, pixels = figure.subplots(2, sharex=True, height_ratios=(3, 1))
    shares.plot([0, 1], [0, 1], color="0.6", linestyle=":", label="perfectly calibrated")
    curves = [(before, FIRST, "o-", "as they are")]
    if temperature is not None:
        curves.append((after, SECOND, "s--", f"at temperature {temperature:.2f}"))
    for histogram, colour, style, words in curves:
        called, share = reliability(histogram)
        error = expected_calibration_error(histogram)
        label = f"{words}: calibration error {error:.3f}"
        shares.plot(called, share, style, color=colour, markersize=5, label=label)
        pixels.stairs(histogram[0], np.linspace(0, 1, histogram.shape[1] + 1), color=colour)
    shares.set(ylabel="share of these pixels that is polyp", ylim=(0, 1.02), xlim=(0, 1))
    title = f"Probabilities, and how often they come true\n{subject}"
    shares.set_title(printable(title, 480, 12), parse_math=False)
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
        means = np.array([part.mean for part in these])
        lengths = np.abs(np.array([part.interval for part in these]).T - means)
        places = np.arange(len(these))
        axes.bar(places, means, 0.7, color=IMAGES)
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
    figure.suptitle(printable(title, 850, 12), parse_math=False)
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
