"""Measuring: what is counted of each image, its sums over sets and samples, and their scores."""

import math
from functools import partial
from types import SimpleNamespace

import numpy as np

from utils.scoring.alarms import area_under_roc
from utils.scoring.intervals import (
    EXTREMES,
    Score,
    bootstrap_medians,
    bootstrap_sums,
    drawn_images,
)
from utils.scoring.pixels import image_scores, polyp_fractions
from utils.scoring.polyps import count_polyps
from utils.scoring.registry import family_metrics

MEDIANS = {"hausdorff_95"}  # of what is counted: the sums have its median too


# What is counted of each image


def pixel_table(counts):
    """Return what is summed of pixels; counts: (n, 4) as from `confusion_counts`."""
    counts = np.asarray(counts)
    scores = image_scores(counts)
    table = dict(zip(("tp", "fp", "fn", "tn"), counts.T, strict=True))
    return table | {name: scores[name] for name in ("dice", "iou")}


def tables_of(scored):
    """Yield each key of metrics.json with its family, and the tables of what is summed for it.

    scored: a Scored of n images; without any polyp, overlaps and borders say nothing, and are left
    out. A table is a dict of arrays by their names, (n, ...), which are summed together. The last
    of what is yielded are numbers that are known without a sum.
    """
    shown = polyp_fractions(scored.counts).any()
    if shown:
        yield "metrics", "pixels", [pixel_table(scored.counts)], {}
    if shown and scored.own_counts:
        yield "metrics_at_own_size", "pixels", [pixel_table(scored.own_counts)], {}
    yield "polyps", "polyps", [count_polyps(scored.regions)], {}
    yield "pictures", "pictures", [scored.picture_table()], {}
    if shown:
        borders = np.asarray(scored.borders, float)
        names = "hausdorff_95", "boundary_f1"
        yield "borders", "borders", [dict(zip(names, borders.T, strict=True))], {}
    yield "probabilities", "probabilities", probability_tables(scored.plain), {}
    if scored.temperature is not None:
        known = {"temperature": scored.temperature}
        yield "probabilities", "scaled", probability_tables(scored.divided), known


def probability_tables(probabilities):
    """Return the tables of Probabilities."""
    histograms, losses = map(np.array, probabilities)
    return [{"reliability": histograms}, {"cross_entropy": losses}]


# What is computed from the sums


def sums_of(table, groups=None):
    """Return the sums of a table's arrays over all images, by name; their number is "images".

    groups: None, or (n,) int, the images' scenes: then the sums over each of the bootstrap samples,
    (samples, ...). Of MEDIANS there are the medians too, and of what is "surest" the area under
    the ROC.
    """
    shapes = {name: np.shape(column)[1:] for name, column in table.items()}
    columns = np.hstack([np.reshape(column, (len(column), -1)) for column in table.values()])
    ones = np.ones((len(columns), 1))
    if groups is None:
        sums, median = np.append(columns.sum(axis=0), len(columns)), np.median
    else:
        sums = bootstrap_sums(np.hstack([columns, ones]), groups)
        median = partial(bootstrap_medians, groups=groups)
    parts = np.split(sums, np.cumsum([math.prod(shape) for shape in shapes.values()]), axis=-1)
    named = {
        name: part.reshape((*sums.shape[:-1], *shape))
        for (name, shape), part in zip(shapes.items(), parts[:-1], strict=True)
    }
    medians = {f"median_{name}": median(table[name]) for name in MEDIANS & table.keys()}
    if "surest" in table:
        weights = [np.ones(len(columns))] if groups is None else drawn_images(groups)
        areas = [area_under_roc(table["shown"], table["surest"], each) for each in weights]
        named["area_under_roc"] = areas[0] if groups is None else np.concatenate(areas)
    return named | medians | {"images": sums[..., -1]}


def set_scores(counts):
    """Return the scores of pixels of a set of images, a dict of floats, 0 to 1.

    counts: (n, 4) as from `confusion_counts`.
    """
    sums = SimpleNamespace(**sums_of(pixel_table(counts)))
    return {name: float(metric.compute(sums)) for name, metric in family_metrics("pixels").items()}


def measure(family, tables, groups, known=()):
    """Return the Scores of a family's metrics by their names, but for those of nothing.

    tables, known: see `tables_of`; groups: (n,) int, the images' scenes.
    """
    of_set, of_samples, columns = dict(known), {}, {"images": np.ones(len(groups))}
    for table in tables:
        of_set |= sums_of(table)
        of_samples |= sums_of(table, groups)
        columns |= table
    scores = {}
    for name, metric in family_metrics(family).items():
        value = float(metric.compute(SimpleNamespace(**of_set)))
        if math.isnan(value):
            continue
        samples = metric.interval and metric.compute(SimpleNamespace(**of_samples))
        count = extremes = None
        if metric.count:
            counted = np.asarray(columns[metric.count])
            count = int(counted.sum())
            extremes = EXTREMES[metric.interval](len(np.unique(groups[counted > 0])))
        scores[name] = Score(value, samples, count, extremes)
    return scores


def measure_all(scored, groups):
    """Return all scores of a prediction: dicts of Score by name, by their key in metrics.json.

    scored: a Scored of n images; groups: (n,) int, their scenes.
    """
    scores = {}
    for key, family, tables, known in tables_of(scored):
        scores.setdefault(key, {}).update(measure(family, tables, groups, known))
    return scores
