"""The registry: every metric of a set of images once, with its definition, interval and formula.

A new metric is one entry, such as those of PIXELS. From there it comes to metrics.json, metrics.md,
the page, and docs/scores.md, which this command writes:

    python -m utils.scoring.registry > docs/scores.md
"""

from collections.abc import Callable
from textwrap import wrap
from typing import NamedTuple

import numpy as np

from utils.prediction.predictors import CLIP
from utils.prediction.regions import LEAST_FRACTION
from utils.scoring.alarms import froc_score
from utils.scoring.borders import TOLERANCE
from utils.scoring.calibration import BINS, expected_calibration_error
from utils.scoring.intervals import BOOTSTRAP_SAMPLES
from utils.scoring.polyps import RULES


class Metric(NamedTuple):
    """A metric of a set of images.

    name: its key in metrics.json; label: what people read. compute: returns the score, NaN where
    there is nothing to count, by the sums of what was counted of each image, as attributes; see
    utils/scoring/measure.py. interval: its kind, a key of KINDS, None for what is no score of
    images. count: the name of the sum that it is a mean over, where that is told beside it.
    """

    name: str
    label: str
    definition: str
    compute: Callable
    interval: str | None = "scenes"
    count: str | None = None


class Family(NamedTuple):
    """Metrics that are counted alike.

    key: of their dict in metrics.json; title: what people read; note: what all of them share;
    metrics: a list of Metric.
    """

    key: str
    title: str
    note: str
    metrics: list


def ratio(top, bottom, nothing=0.0):
    """Return top / bottom, numbers or arrays, and `nothing` where there is nothing to divide by."""
    return np.divide(top, bottom, out=np.full(np.shape(bottom), nothing), where=bottom > 0)


def polyp_iou(s):
    """Return the IoU of polyp, pixels pooled."""
    return ratio(s.tp, s.tp + s.fp + s.fn)


def polyp_share(top, bottom):
    """Return the `compute` of how many of the regions `bottom` are `top`, names of sums."""
    return lambda s: ratio(getattr(s, top), getattr(s, bottom), np.nan)


HAUSDORFF = (
    "95th percentile of the distances from border to border, the larger of both ways, in pixels;"
    " 0 where both are empty, the picture's diagonal where one is"
)
CALIBRATION = (
    f"mean over pixels, in {BINS} bins of probability, of |mean probability - share of polyp|"
)
ENTROPY = (
    "mean over pixels of the negative logarithm of the probability of what is there, kept"
    f" {CLIP:.0e} from 0 and 1, in nats"
)
PIXELS = [
    Metric(
        "mean_iou",
        "mean IoU",
        "mean of the IoU of polyp, TP / (TP + FP + FN), and that of background, TN / (TN + FP +"
        " FN); pixels pooled",
        lambda s: (polyp_iou(s) + ratio(s.tn, s.tn + s.fp + s.fn)) / 2,
    ),
    Metric(
        "accuracy",
        "accuracy",
        "(TP + TN) / all; pixels pooled, background too",
        lambda s: ratio(s.tp + s.tn, s.tp + s.fp + s.fn + s.tn),
    ),
    Metric(
        "precision",
        "precision",
        "TP / (TP + FP); pixels pooled",
        lambda s: ratio(s.tp, s.tp + s.fp),
    ),
    Metric(
        "recall",
        "recall",
        "TP / (TP + FN), also called sensitivity; pixels pooled",
        lambda s: ratio(s.tp, s.tp + s.fn),
    ),
    Metric(
        "specificity",
        "specificity",
        "TN / (TN + FP); pixels pooled",
        lambda s: ratio(s.tn, s.tn + s.fp),
    ),
    Metric(
        "f1",
        "F1",
        "2 TP / (2 TP + FP + FN), harmonic mean of precision and recall, which is Dice; pixels"
        " pooled",
        lambda s: ratio(2 * s.tp, 2 * s.tp + s.fp + s.fn),
    ),
    Metric("polyp_iou", "polyp IoU", "TP / (TP + FP + FN); pixels pooled", polyp_iou),
    Metric(
        "image_dice",
        "Dice per image",
        "2 TP / (2 TP + FP + FN) of each image alone, 1 for an empty mask predicted empty; mean"
        " over images",
        lambda s: s.dice / s.images,
    ),
    Metric(
        "image_iou",
        "IoU per image",
        "TP / (TP + FP + FN) of each image alone, 1 for an empty mask predicted empty; mean over"
        " images",
        lambda s: s.iou / s.images,
    ),
]
POLYPS = [
    metric
    for rule, words in RULES.items()
    for metric in (
        Metric(
            f"polyp_sensitivity_{rule}",
            f"polyps found, by {words}",
            f"share of the polyps that a region called polyp matches, by {words}",
            polyp_share(f"found_{rule}", "polyps"),
            "share",
            "polyps",
        ),
        Metric(
            f"region_precision_{rule}",
            f"regions right, by {words}",
            f"share of the regions called polyp that match a polyp, by {words}",
            polyp_share(f"right_{rule}", "regions"),
            "share",
            "regions",
        ),
        Metric(
            f"false_regions_{rule}",
            f"false regions, by {words}",
            f"regions called polyp that match none, per image, by {words}",
            polyp_share(f"false_{rule}", "images"),
            "rate",
            "images",
        ),
    )
]
ALARM = "an alarm is a region called polyp that is as sure as the level stored with the network"
PICTURES = [
    Metric(
        "alarm_sensitivity",
        "with a polyp: an alarm",
        f"share of the pictures with a polyp in which there is an alarm, the sensitivity per"
        f" picture: {ALARM}",
        polyp_share("alarmed", "shown"),
        "share",
        "shown",
    ),
    Metric(
        "alarm_without_polyp",
        "without a polyp: an alarm",
        "share of the pictures without a polyp in which there is an alarm, 1 - the specificity per"
        f" picture: {ALARM}",
        polyp_share("disturbed", "absent"),
        "share",
        "absent",
    ),
    Metric(
        "marked_without_polyp",
        "without a polyp: anything marked",
        "share of the pictures without a polyp in which a region is called polyp",
        polyp_share("marked", "absent"),
        "share",
        "absent",
    ),
    Metric(
        "needless_alarms",
        "needless alarms per picture",
        f"alarms per picture without a polyp: {ALARM}",
        polyp_share("needless", "absent"),
        "rate",
        "absent",
    ),
    Metric(
        "area_under_roc",
        "area under the ROC",
        "how likely a picture with a polyp is surer than one without, equals counted half (Hanley"
        " and McNeil 1982, doi 10.1148/radiology.143.1.7063747); over all levels",
        lambda s: s.area_under_roc,
    ),
    Metric(
        "froc",
        "FROC",
        "mean of the shares of the polyps found at 1/8, 1/4, 1/2, 1, 2, 4 and 8 false alarms a"
        " picture (Setio et al. 2017, doi 10.1016/j.media.2017.06.015), by any overlap; over all"
        " levels",
        lambda s: froc_score(s.found_at, s.false_at, s.polyps, s.images),
    ),
    Metric(
        "shown_dice",
        "Dice per picture with a polyp",
        "2 TP / (2 TP + FP + FN) of each picture with a polyp alone; mean over these",
        polyp_share("shown_dice", "shown"),
        "scenes",
    ),
]
BORDERS = [
    Metric(
        "hausdorff_95",
        "95 % Hausdorff",
        f"{HAUSDORFF}; mean over images",
        lambda s: s.hausdorff_95 / s.images,
    ),
    Metric(
        "hausdorff_95_median",
        "95 % Hausdorff, median",
        f"{HAUSDORFF}; median over images",
        lambda s: s.median_hausdorff_95,
    ),
    Metric(
        "boundary_f1",
        "boundary F1",
        f"harmonic mean of the shares of both borders that lie within {TOLERANCE} pixels of the"
        " other; 1 where both are empty, 0 where one is; mean over images",
        lambda s: s.boundary_f1 / s.images,
    ),
]
PROBABILITIES = [
    Metric(
        "calibration_error",
        "calibration error",
        CALIBRATION,
        lambda s: expected_calibration_error(s.reliability),
    ),
    Metric(
        "cross_entropy",
        "cross-entropy",
        ENTROPY,
        lambda s: s.cross_entropy / s.images,
    ),
]
SCALED = [
    Metric(
        "temperature",
        "temperature",
        "by which the log-odds of all probabilities are divided: that of the smallest"
        " cross-entropy on the validation split",
        lambda s: s.temperature,
        None,
    ),
    Metric(
        "calibration_error_scaled",
        "calibration error, scaled",
        f"{CALIBRATION}; probabilities scaled by the temperature",
        lambda s: expected_calibration_error(s.reliability),
    ),
    Metric(
        "cross_entropy_scaled",
        "cross-entropy, scaled",
        f"{ENTROPY}; probabilities scaled by the temperature",
        lambda s: s.cross_entropy / s.images,
    ),
]
FAMILIES = {
    "pixels": Family(
        "metrics",
        "Pixels",
        "TP, FP, FN and TN count pixels; polyp is the positive class. A pixel is called polyp from"
        " a probability of 0.5 on, unless THRESHOLD in evaluation.py says otherwise. Pooled: over"
        " all pixels of all images together; a score without pixels to go by is 0. Dice is of Dice"
        " 1945, doi 10.2307/1932409, IoU of Jaccard 1912. Pixels are scored at the network's size,"
        " and where the pictures themselves are at hand also at their own size, with probabilities"
        " enlarged bilinearly.",
        PIXELS,
    ),
    "polyps": Family(
        "polyps",
        "Whole polyps",
        "Polyps are the connected regions of a mask, corners count as connected, and regions below"
        f" {100 * LEAST_FRACTION:g} % of the image do not count. By an IoU of 0.5 or more, matches"
        " are one to one (Kirillov et al. 2019, arXiv:1801.00868). By any overlap, one region can"
        " find several polyps, and several can find the same (as in Bernal et al. 2017, doi"
        " 10.1109/TMI.2017.2664042). A score with nothing to count is left out.",
        POLYPS,
    ),
    "pictures": Family(
        "pictures",
        "Whole pictures",
        "Whether there is a polyp in a picture. How sure a prediction is of a region, or of a"
        " picture, is the highest threshold at which it would still call"
        f" {100 * LEAST_FRACTION:g} % of the picture polyp, so much that it counts as a region. The"
        " level is the one that `--thresholds` has stored with the network; where none is stored,"
        " every region is an alarm. Sensitivity and specificity are as in Maier-Hein et al. 2024,"
        " arXiv:2206.01653, for image-level classification. A score without pictures of its kind is"
        " left out.",
        PICTURES,
    ),
    "borders": Family(
        "borders",
        "Borders",
        "A border is the pixels of a mask beside one that is not polyp, at the network's size. The"
        " Hausdorff distance is of Huttenlocher et al. 1993, doi 10.1109/34.232073, as"
        " Maier-Hein et al. 2024, arXiv:2206.01653, define its 95th percentile; boundary F1 of"
        " Csurka et al. 2013, doi 10.5244/C.27.32.",
        BORDERS,
    ),
    "probabilities": Family(
        "probabilities",
        "Probabilities",
        "How often a probability comes true, before it is turned into a mask. The calibration error"
        " is that of Guo et al. 2017, arXiv:1706.04599, with the probability of polyp.",
        PROBABILITIES,
    ),
    "scaled": Family(
        "probabilities",
        "Probabilities, scaled",
        "The same with the temperature of Guo et al. 2017, once `--thresholds` has stored one with"
        " the network.",
        SCALED,
    ),
}
METRICS = [metric for family in FAMILIES.values() for metric in family.metrics]
LABELS = {metric.name: metric.label for metric in METRICS}
DEFINITIONS = {metric.name: metric.definition for metric in METRICS}
# What everybody asks for, and is shown first
FIRST = ("mean_iou", "precision", "recall", "f1", "image_dice")
# And where some pictures show no polyp
FIRST_OF_PICTURES = (
    "alarm_sensitivity",
    "alarm_without_polyp",
    "marked_without_polyp",
    "area_under_roc",
)

# The kinds of intervals
KINDS = {
    "scenes": f"95 % percentiles of {BOOTSTRAP_SAMPLES:,} bootstrap samples that draw whole scenes",
    "share": (
        "where all polyps or regions are found, or none, Wilson's of a share of as many scenes"
    ),
    "rate": "without any false alarm Poisson's",
}
INTERVALS = f"{KINDS['scenes']}; {KINDS['share']}, and {KINDS['rate']}"
INTERVALS_NOTE = (
    "Frames of one scene do not vary independently: hence the bootstrap (Efron 1979) draws whole"
    " scenes. Where every polyp is found, or none, it sees no spread: hence Wilson's interval of a"
    " share (1927, doi 10.1080/01621459.1927.10502953), and Poisson's of a rate. With `--compare`,"
    " B - A is computed on the same samples (paired), for what is hard for one network is hard for"
    " the other."
)


def family_metrics(family):
    """Return the metrics of a key of FAMILIES by their names."""
    return {metric.name: metric for metric in FAMILIES[family].metrics}


def document():
    """Return docs/scores.md as text."""
    lines = [
        "# What the scores mean",
        "",
        "`python -m utils.scoring.registry > docs/scores.md` made this page: edit the registry.",
    ]
    for family, (_, title, note, _) in FAMILIES.items():
        lines += ["", f"## {title}", "", *wrap(note, 100), ""]
        lines += ["| score | key in `metrics.json` | definition | interval |"]
        lines += ["| --- | --- | --- | --- |"]
        for name, metric in family_metrics(family).items():
            cells = metric.label, f"`{name}`", metric.definition, metric.interval or "none"
            lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    lines += ["", "## Intervals", "", *wrap(INTERVALS_NOTE, 100), ""]
    lines += [f"- {kind}: {words}" for kind, words in KINDS.items()]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(document(), end="")
