"""The report: all that metrics.json and per_image.csv say of a prediction, or of two."""

import csv
import json

import numpy as np

from utils.prediction.networks import describe_networks
from utils.prediction.predictors import describe_prediction
from utils.reporting.tables import markdown
from utils.scoring.alarms import count_alarms
from utils.scoring.intervals import describe, difference
from utils.scoring.measure import measure_all, set_scores
from utils.scoring.pixels import image_scores, polyp_fractions
from utils.scoring.polyps import RULES, count_polyps, sensitivity_by_size
from utils.scoring.registry import DEFINITIONS, INTERVALS


def make_report(pictures, groups, chosen, scored, size, tta, machine):
    """Return all that metrics.json says, a dict.

    pictures: as scoring/labelled.py has them; groups: (n,) int, their scenes; chosen: the Networks
    of one prediction or of two; scored: the Scored of each; size: the network's; tta: whether views
    were averaged; machine: `describe_machine`.
    """
    measured = [measure_all(prediction, groups) for prediction in scored]
    described = [
        describe_scored(pictures, groups, *each, tta)
        for each in zip(chosen, scored, measured, strict=True)
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
        "notes": pictures.notes(),
        "images": len(pictures.names),
        "images_with_polyp": int((polyp_fractions(scored[0].counts) > 0).sum()),
        "scenes": len(np.unique(groups)),
        "resolution": f"{size} x {size} pixels, as the network sees them",
        "intervals": INTERVALS,
        "tta": tta,
        "machine": machine,
        **described[0],
    }
    if len(chosen) > 1:
        report["compared"] = described[1] | {"difference": compare(*measured)}
    return report


def describe_scored(pictures, groups, networks, prediction, measured, tta):
    """Return what a report says of one prediction, a Scored by Networks, a dict.

    measured: as from `measure_all`; the others: see `make_report`.
    """
    described = {
        "prediction": describe_prediction(networks, tta),
        "threshold": networks.threshold,
        "level": networks.level,
        "networks": describe_networks(networks),
    }
    for key, scores in measured.items():
        described[key] = {
            name: describe(score) | {"definition": DEFINITIONS[name]}
            for name, score in scores.items()
        }
    described["polyps_by_size"] = sensitivity_by_size(prediction.regions, groups)
    if networks.by_fold:
        described["folds"] = fold_scores(pictures, networks, prediction)
    return described


def compare(measured, others):
    """Return how much larger a second prediction's scores are, as `difference`, by their names.

    measured, others: as from `measure_all`, of the same images.
    """
    return {
        key: {
            name: difference(score, others[key][name])
            for name, score in scores.items()
            if name in others[key] and score.samples is not None
        }
        for key, scores in measured.items()
    }


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

    Scores at the pictures' own size have "own_" before their names. Polyps are found, and
    regions false, by the first of RULES.
    """
    table = image_scores(prediction.counts)
    if prediction.own_counts:
        own = image_scores(prediction.own_counts)
        table |= {f"own_{name}": column for name, column in own.items()}
    rule, counts = next(iter(RULES)), count_polyps(prediction.regions)
    table |= {"sureness": np.array(prediction.surest)}
    table["alarms"] = count_alarms(prediction.regions, prediction.level)
    table |= {"polyps_found": counts[f"found_{rule}"], "false_regions": counts[f"false_{rule}"]}
    table["hausdorff_95"], table["boundary_f1"] = np.transpose(prediction.borders)
    return table


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
