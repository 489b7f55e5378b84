"""Reports of scores: the metrics with their intervals, and the tables, files and lines of them."""

import csv
import json

import numpy as np

from utils.prediction.networks import describe_networks
from utils.prediction.predictors import describe_prediction
from utils.scoring.borders import TOLERANCE, border_metrics
from utils.scoring.calibration import calibration_metrics
from utils.scoring.intervals import INTERVALS, Metric, describe, difference
from utils.scoring.pixels import image_scores, polyp_fractions, sampled_scores, set_scores
from utils.scoring.polyps import RULES, polyp_metrics, sensitivity_by_size

DEFINITIONS = {
    "mean_iou": "mean of the IoU of polyp and of background; pixels pooled",
    "accuracy": "pixels called rightly, background counted; pixels pooled",
    "precision": "polyp among what is called polyp; pixels pooled",
    "recall": "called polyp among what is polyp; pixels pooled",
    "f1": "harmonic mean of these two, that is Dice; pixels pooled",
    "polyp_iou": "IoU of polyp alone; pixels pooled",
    "image_dice": "Dice of polyp, mean over images",
    "image_iou": "IoU of polyp, mean over images",
}
LABELS = {
    "mean_iou": "mean IoU",
    "f1": "F1",
    "polyp_iou": "polyp IoU",
    "image_dice": "Dice per image",
    "image_iou": "IoU per image",
    "hausdorff_95": "95 % Hausdorff",
    "hausdorff_95_median": "median of these",
    "boundary_f1": "boundary F1",
    "calibration_error": "calibration error",
    "calibration_error_scaled": "calibration error, scaled",
    "cross_entropy": "cross-entropy",
    "cross_entropy_scaled": "cross-entropy, scaled",
}
POLYP_LABELS = {
    "polyp_sensitivity": ("polyps found", "of {:,} polyps"),
    "region_precision": ("regions right", "of {:,} regions called polyp"),
    "false_alarms": ("false alarms", "regions that find no polyp, per image, of {:,} images"),
}
LABELS |= {
    f"{name}_{rule}": f"{words}, by {text}"
    for name, (words, _) in POLYP_LABELS.items()
    for rule, text in RULES.items()
}
OWN_SIZE = "the pictures' own size, with probabilities enlarged bilinearly"


# The metrics


def collect_metrics(counts, groups, threshold):
    """Return every score of pixels as a dict of Metric.

    counts: (n, 4) as from `confusion_counts`; groups: (n,) int, the images' scenes; threshold: by
    which the pixels were called polyp.
    """
    sampled = sampled_scores(counts, groups)
    return {
        name: Metric(value, sampled[name], f"{DEFINITIONS[name]}; threshold {threshold}")
        for name, value in set_scores(counts).items()
    }


def collect_families(prediction, groups, threshold, size):
    """Return all metrics of a prediction, a Scored: dicts of Metric by the report's names for them.

    groups: (n,) int, the images' scenes; threshold: see `collect_metrics`; size: the network's.
    """
    families = {"metrics": collect_metrics(prediction.counts, groups, threshold)}
    if prediction.own_counts:
        own = collect_metrics(prediction.own_counts, groups, threshold)
        families["metrics_at_own_size"] = own
    probabilities = prediction.plain, prediction.divided, prediction.temperature
    return families | {
        "polyps": polyp_metrics(prediction.regions, groups),
        "borders": border_metrics(prediction.borders, groups, f"{size} x {size}"),
        "probabilities": calibration_metrics(groups, *probabilities),
    }


def compare_families(families, others):
    """Return how much larger a second prediction's metrics are, as `difference`, by their names.

    families, others: as from `collect_families`, of the same images.
    """
    return {
        key: {
            name: difference(metric, others[key][name])
            for name, metric in metrics.items()
            if name in others[key] and metric.samples is not None
        }
        for key, metrics in families.items()
    }


def make_report(pictures, groups, chosen, scored, size, tta, machine):
    """Return all that metrics.json says, a dict.

    pictures: as scoring/labelled.py has them; groups: (n,) int, their scenes; chosen: the Networks
    of one prediction or of two; scored: the Scored of each; size: the network's; tta: whether views
    were averaged; machine: `describe_machine`.
    """
    families = [
        collect_families(prediction, groups, networks.threshold, size)
        for networks, prediction in zip(chosen, scored, strict=True)
    ]
    described = [
        {
            "prediction": describe_prediction(networks, tta),
            "threshold": networks.threshold,
            "networks": describe_networks(networks),
            **{
                key: {name: describe(metric) for name, metric in metrics.items()}
                for key, metrics in these.items()
            },
            "polyps_by_size": sensitivity_by_size(prediction.regions, groups),
            **({"folds": fold_scores(pictures, networks, prediction)} if networks.by_fold else {}),
        }
        for networks, prediction, these in zip(chosen, scored, families, strict=True)
    ]
    configs = {
        folder: config
        for networks in chosen
        for folder, config in zip(networks.folders, networks.configs, strict=True)
    }
    trained_on = [pictures.is_trained_on_by(config) for config in configs.values()]
    report = {
        "title": pictures.title,
        "split": pictures.split,
        "data": pictures.source,
        "data_sha256": pictures.sha256,
        "trained_on_this_data": None if None in trained_on else all(trained_on),
        "warnings": pictures.doubts(configs) + scene_doubts(groups),
        "images": len(pictures.names),
        "scenes": len(np.unique(groups)),
        "resolution": f"{size} x {size} pixels, as the network sees them",
        "intervals": INTERVALS,
        "tta": tta,
        "machine": machine,
        **described[0],
    }
    if len(chosen) > 1:
        report["compared"] = described[1] | {"difference": compare_families(*families)}
    return report


def scene_doubts(groups):
    """Return a line if all images are of one scene; groups: (n,) int, their scenes."""
    if len(np.unique(groups)) > 1:
        return []
    return ["all images show one scene: the intervals do not say how others would vary."]


def fold_scores(pictures, networks, prediction):
    """Return the scores of each fold, a list of dicts of what and how many it is, and its metrics.

    pictures: a FoldPictures; networks: the Networks by fold; prediction: the Scored of all.
    """
    rows, begin = [], 0
    for part, folder in zip(pictures.parts, networks.folders, strict=True):
        counts = prediction.counts[begin : begin + len(part.names)]
        begin += len(counts)
        named = {"data": str(part.folder), "data_sha256": part.sha256, "checkpoints": str(folder)}
        rows.append({**named, "images": len(counts), "metrics": set_scores(counts)})
    return rows


def per_image_table(names, groups, scored, properties):
    """Return the columns of per_image.csv: names, scenes, and what was scored, str to n values.

    scored: see `make_report`; of a second prediction the columns begin with "compared_".
    properties: the `picture_properties` of each image.
    """
    table = {"name": names, "scene": groups, **score_columns(scored[0])}
    table["polyp_fraction"] = polyp_fractions(scored[0].counts)
    for name in ("polyps", "distance", "edge", "brightness", "sharpness"):
        table[name] = np.array([values[name] for values in properties])
    if len(scored) > 1:
        others = score_columns(scored[1])
        table |= {f"compared_{name}": column for name, column in others.items()}
        table["dice_difference"] = others["dice"] - table["dice"]
    return table


def score_columns(prediction):
    """Return the columns of per_image.csv of one prediction, a Scored: str to (n,) numbers.

    Scores at the pictures' own size have "own_" before their names. Polyps are found, and alarms
    false, by the first of RULES.
    """
    table, kinds = {}, ("dice", "iou", "precision", "recall")
    for prefix, counts in (("", prediction.counts), ("own_", prediction.own_counts)):
        if counts:
            scores = zip(kinds, image_scores(counts).T, strict=True)
            table |= {prefix + kind: column for kind, column in scores}
    rule = next(iter(RULES))
    matched = [[side.matched(rule) for side in pair] for pair in prediction.regions]
    table["polyps_found"] = np.array([found.sum() for found, _ in matched])
    table["false_alarms"] = np.array([(~right).sum() for _, right in matched])
    table["hausdorff_95"], table["boundary_f1"] = np.transpose(prediction.borders)
    return table


# In the terminal


def format_table(metrics):
    """Return the metrics as lines of name, value, interval and definition."""
    return [
        f"{label(name):14} {metric['value']:.3f}  {interval_text(metric)}  {DEFINITIONS[name]}"
        for name, metric in metrics.items()
    ]


def format_comparison(metrics, others, differences):
    """Return the metrics of two predictions, A and B, and of B - A, as lines with intervals."""
    return align([["", "A", "B", "B - A"], *comparison_rows(metrics, others, differences)])


def align(rows):
    """Return rows of texts as lines with columns."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]


def label(name):
    """Return what a metric is called where people read it."""
    return LABELS.get(name, name)


def comparison_rows(metrics, others, differences):
    """Return a row of texts for each metric: its name, A, B and B - A with their intervals.

    And how many were counted, where that is told. "none" stands where there was nothing to count.
    """
    rows = []
    for name in metrics | others:
        cells = []
        for metric in (metrics.get(name), others.get(name)):
            text = f"{metric['value']:.3f} {interval_text(metric)}".rstrip() if metric else "none"
            cells.append(f"{text} of {metric['count']:,}" if metric and "count" in metric else text)
        change = differences.get(name)
        text = f"{change['value']:+.3f} {interval_text(change, '+.3f')}" if change else ""
        rows.append([label(name), *cells, text])
    return rows


def interval_text(metric, form=".3f"):
    """Return the interval of a metric as text, empty without one."""
    if "interval" not in metric:
        return ""
    low, high = metric["interval"]
    return f"[{low:{form}}, {high:{form}}]"


def format_report(report, seconds):
    """Return what is said of a report in the terminal, as lines; seconds: prediction took them."""
    predictions = predictions_of(report)
    lines = [
        f"Scores of {report['images']:,} images of {report['scenes']:,} scenes:"
        f" {report['title']}; read, predicted and scored in {seconds:.1f} s,"
        f" in {report['machine']['precision']}"
    ]
    for letter, prediction in predictions.items():
        for network in prediction["networks"]:
            settings = network["training"]["settings"]
            lines.append(
                f"Network{letter} of {network['checkpoints']}: {settings['filters']} filters, seed"
                f" {settings['seed']}"
            )
        lines.append(f"Prediction{letter}: {prediction['prediction']}")
    shown = {"polyps": format_polyps, "borders": format_borders}
    for key, title, metrics, others, differences in sections(report):
        if others:
            lines += ["", f"{title}:", *format_comparison(metrics, others, differences)]
        elif key != "probabilities":
            lines += ["", f"{title}:", *shown.get(key, format_table)(metrics)]
    for title, heads, rows in fold_tables(report):
        lines += ["", f"{title}:", *align([heads, *rows])]
    lines += ["", f"In brackets: {INTERVALS}"]
    return lines + [f"Beware: {line}" for line in report["warnings"]]


def predictions_of(report):
    """Return the report's dicts of its predictions by " A" and " B", or by "" if there is one."""
    return {" A": report, " B": report["compared"]} if "compared" in report else {"": report}


def most_different(table, count=5):
    """Return lines of the images on which two predictions' Dice differ most, by per_image.csv."""
    rows = np.argsort(-np.abs(table["dice_difference"]), kind="stable")[:count]
    width = max(len(table["name"][row]) for row in rows)
    columns = ("dice", "compared_dice", "dice_difference")
    return [
        f"The {len(rows)} images on which they differ most, by Dice; per_image.csv has all:",
        *(
            "  {:{}}  A {:.3f}  B {:.3f}  {:+.3f}".format(
                table["name"][row], width, *(table[column][row] for column in columns)
            )
            for row in rows
        ),
    ]


def format_polyps(metrics):
    """Return the scores of whole polyps as lines, a column for each of RULES."""
    heads = (f"{f'by {text}':26}" for text in RULES.values())
    lines = [f"{'':15}{''.join(heads)}".rstrip()]
    for name, (words, definition) in POLYP_LABELS.items():
        cells = [metrics.get(f"{name}_{rule}") for rule in RULES]
        texts = [f"{m['value']:.3f}  {interval_text(m)}" if m else "none" for m in cells]
        counted = definition.format(next((m["count"] for m in cells if m), 0))
        lines.append("".join([f"{words:15}", *(f"{text:26}" for text in texts), counted]))
    return lines


def format_borders(metrics):
    """Return the scores of the borders as lines."""
    distance, median, f1 = (
        metrics[name] for name in ("hausdorff_95", "hausdorff_95_median", "boundary_f1")
    )
    return [
        f"{'95 % Hausdorff':15}{distance['value']:5.1f}  {interval_text(distance, '.1f'):14}"
        f"  distance in pixels, mean over images; median {median['value']:.1f}"
        f" {interval_text(median, '.1f')}",
        f"{'boundary F1':15}{f1['value']:.3f}  {interval_text(f1)}  within {TOLERANCE} pixels, mean"
        " over images",
    ]


def format_thresholds(rows):
    """Return the scores at each threshold, dicts as of `store_threshold`, as lines."""
    lines = ["threshold     F1  precision  recall  Dice per image"]
    for row in rows:
        lines.append(
            f"{row['threshold']:9g}  {row['f1']:.3f}  {row['precision']:9.3f}"
            f"  {row['recall']:6.3f}  {row['image_dice']:14.3f}"
        )
    return lines


def sections(report):
    """Yield what a report has of pixels at each size, of polyps, of borders, of probabilities.

    Yields its name in the report, the title in words, the metrics, and those of the compared
    prediction and the differences, or None twice.
    """
    compared, size = report.get("compared", {}), report["resolution"]
    for key, title in (
        ("metrics", f"Pixels at {size}"),
        ("metrics_at_own_size", f"Pixels at {OWN_SIZE}"),
        ("polyps", f"Whole polyps at {size}"),
        ("borders", f"Borders at {size}"),
        ("probabilities", f"Probabilities at {size}"),
    ):
        if key in report:
            others = compared.get(key), compared.get("difference", {}).get(key)
            yield key, title, report[key], *others


# In files


def save_report(results, report, table):
    """Save metrics.json, metrics.md and per_image.csv; results: see utils/results.py."""
    with results.write("metrics.json") as beside:
        beside.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    with results.write("metrics.md") as beside:
        text = "\n".join(markdown(report)) + "\n"
        beside.write_text(text, encoding="utf-8", errors="backslashreplace")
    with (
        results.write("per_image.csv") as beside,
        open(beside, "w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(table)
        for row in zip(*table.values(), strict=True):
            writer.writerow(round(x, 6) if isinstance(x, float) else x for x in row)


def markdown(report):
    """Return metrics.md as lines: the tables of a paper, and how the scores came about."""
    lines = [f"# Scores: {report['title']}"]
    for title, heads, rows in report_tables(report):
        lines += ["", f"## {title}", "", *table_lines(heads, rows)]
    lines += ["", "## Protocol", "", *table_lines(["", ""], protocol(report))]
    if report["warnings"]:
        lines += ["", "## Beware", "", *(f"- {line}" for line in report["warnings"])]
    return lines


def report_tables(report):
    """Yield the title, the heads and the rows, all as texts, of each table of a report."""
    for key, title, metrics, others, differences in sections(report):
        if others:
            # Of pixels without the thresholds, which may differ; the protocol has both
            definitions = [
                DEFINITIONS.get(name, metric["definition"])
                for name, metric in (metrics | others).items()
            ]
            rows = comparison_rows(metrics, others, differences)
            rows = [[*row, text] for row, text in zip(rows, definitions, strict=True)]
            yield title, ["score", "A", "B", "B - A", "definition"], rows
        else:
            heads = ["score", "value", "95 % interval", "definition"]
            yield (
                title,
                heads[:3] + (["of"] if key == "polyps" else []) + heads[3:],
                [
                    [
                        label(name),
                        f"{m['value']:.3f}",
                        interval_text(m)[1:-1],
                        *([f"{m['count']:,}"] if key == "polyps" else []),
                        m["definition"],
                    ]
                    for name, m in metrics.items()
                ],
            )
    yield from fold_tables(report)
    for letter, prediction in predictions_of(report).items():
        title = f"Polyps found{letter}, by their part of the image, at {report['resolution']}"
        heads = ["size", "polyps", *(f"found by {text}" for text in RULES.values())]
        yield title, heads, size_rows(prediction["polyps_by_size"])


def fold_tables(report):
    """Yield the title, the heads and the rows, as texts, of a table of each prediction's folds."""
    for letter, prediction in predictions_of(report).items():
        if "folds" in prediction:
            scores = [list(fold["metrics"].values()) for fold in prediction["folds"]]
            heads = ["fold", "images", *map(label, prediction["folds"][0]["metrics"])]
            rows = [
                [fold["data"], f"{fold['images']:,}", *map("{:.3f}".format, row)]
                for fold, row in zip(prediction["folds"], scores, strict=True)
            ]
            for text, summary in (
                ("mean", np.mean(scores, axis=0)),
                ("standard deviation", np.std(scores, axis=0, ddof=1)),
            ):
                rows.append([text, "", *map("{:.3f}".format, summary)])
            yield f"Folds{letter}, pixels at {report['resolution']}", heads, rows


def size_rows(polyps_by_size):
    """Return the rows of a table of what `sensitivity_by_size` returns."""
    rows = []
    for row in polyps_by_size:
        shares = [
            f"{row[rule]['value']:.3f} {interval_text(row[rule])}" if row["count"] else ""
            for rule in RULES
        ]
        ends = f"{100 * row['least']:g} to {100 * row['below']:g} %"
        rows.append([ends, f"{row['count']:,}", *shares])
    return rows


def protocol(report):
    """Return the rows of the table of how the scores came about."""
    machine, source, compared = report["machine"], report["data"], report.get("compared")
    if report["data_sha256"]:
        source += f", SHA-256 {report['data_sha256']}"
    rows = [
        ["images", f"{report['images']:,} of {report['scenes']:,} scenes: {report['title']}"],
        ["source", source],
        *(
            row
            for letter, prediction in predictions_of(report).items()
            for row in prediction_rows(prediction, letter)
        ),
        ["intervals", report["intervals"] + ("; B - A on the same samples" if compared else "")],
        ["computed", f"in {machine['precision']}, on {', '.join(machine['devices'])}"],
        [
            "versions",
            f"Python {machine['python']}, TensorFlow {machine['tensorflow']}, Keras"
            f" {machine['keras']}, NumPy {machine['numpy']}, OpenCV {machine['opencv']}",
        ],
    ]
    return rows


def prediction_rows(prediction, letter):
    """Return the rows on a prediction and its networks, by the report's dict of it."""
    rows = [[f"prediction{letter}", prediction["prediction"]]]
    for network in prediction["networks"]:
        settings = network["training"]["settings"]
        rows.append(
            [
                f"network{letter}",
                f"{network['checkpoints']}: {settings['filters']} filters, seed"
                f" {settings['seed']}, trained on {settings['data_source']}; SHA-256 of unet.keras"
                f" {network['weights_sha256']}",
            ]
        )
    return rows


def table_lines(heads, rows):
    """Return a Markdown table as lines."""
    cells = [heads, ["---"] * len(heads), *rows]
    return [
        "| " + " | ".join(str(cell).replace("|", "\\|") for cell in row) + " |" for row in cells
    ]
