"""What reports say of scores: values, intervals, definitions, comparisons, protocol."""

import csv
import json

import numpy as np
import pytest

from utils.prediction.networks import Networks
from utils.reporting import report, tables
from utils.scoring.intervals import describe, difference
from utils.scoring.labelled import Batch
from utils.scoring.measure import measure, measure_all, pixel_table, set_scores
from utils.scoring.pixels import confusion_counts, image_scores
from utils.scoring.properties import PROPERTIES
from utils.scoring.registry import DEFINITIONS, FIRST, LABELS
from utils.scoring.scored import Scored

NAMES = ["mean_iou", "accuracy", "precision", "recall", "specificity", "f1", "polyp_iou"]
NAMES += ["image_dice", "image_iou"]
MACHINE = {"precision": "float32", "devices": ["a processor"], "python": "3", "tensorflow": "2"}
MACHINE |= {"keras": "3", "numpy": "2", "opencv": "5"}


class Pictures:
    """What a report asks of labelled pictures."""

    title, split, source, sha256 = "test split of a|b", "test", "demo", "abc"
    names = tuple(f"n{number}" for number in range(6))

    def is_trained_on_by(self, config):
        return True

    def doubts(self, configs):
        return ["look twice"]

    def notes(self):
        return ["two grey edges"]


def random_counts(seed, count=6, size=16):
    random = np.random.default_rng(seed)
    return confusion_counts(*random.integers(0, 2, (2, count, size, size, 1)))


def random_scored(seed, threshold=0.5, own=False, temperature=None):
    random = np.random.default_rng(seed)
    masks = random.integers(0, 2, (6, 16, 16, 1), np.uint8)
    own_masks = list(255 * random.integers(0, 2, (6, 32, 32), np.uint8)) if own else None
    scored = Scored(threshold, temperature)
    scored.add(Batch(None, masks, own_masks), random.random((6, 16, 16, 1), np.float32))
    return scored


def random_properties():
    random = np.random.default_rng(0)
    return [dict(zip(PROPERTIES, random.random(len(PROPERTIES)), strict=True)) for _ in range(6)]


def make_networks(folder, threshold=0.5):
    settings = {"filters": 4, "seed": 7, "data_source": "demo", "data_sha256": "abc"}
    names = [f"{folder}: 4 filters, seed 7"]
    return Networks([folder], [{"settings": settings}], ["9abc"], threshold, names=names)


def make_report(folder, predictions, own=False):
    thresholds = (0.5, 0.3)[:predictions]
    scored = [random_scored(seed, threshold, own) for seed, threshold in enumerate(thresholds)]
    chosen = [make_networks(folder / "ab"[n], thresholds[n]) for n in range(predictions)]
    groups = np.array([0, 0, 1, 2, 3, 4])
    made = report.make_report(Pictures(), groups, chosen, scored, 16, False, MACHINE)
    return made, scored, groups


def test_every_metric_says_what_it_is_and_has_its_interval():
    counts = random_counts(0)
    metrics = measure("pixels", [pixel_table(counts)], np.arange(6))
    assert list(metrics) == NAMES
    for name, metric in metrics.items():
        low, high = describe(metric)["interval"]
        assert 0 <= low < metric.value < high <= 1, name
        assert DEFINITIONS[name]
    assert metrics["f1"].value == set_scores(counts)["f1"]
    assert metrics["image_dice"].value == pytest.approx(image_scores(counts)["dice"].mean())


def test_a_difference_is_paired():
    """What is hard for both predictions moves both, and is no doubt about their difference."""
    random = np.random.default_rng(0)
    hits = random.integers(0, 1000, 200)
    counts = np.stack([hits, 1000 - hits, 1000 - hits, 9000 + hits], axis=1)
    others = counts + np.array([10, -10, -10, 10]) * (hits < 990)[:, None]
    tables = [[pixel_table(c)] for c in (counts, others)]
    metrics = [measure("pixels", table, np.arange(200))["f1"] for table in tables]
    f1 = difference(*metrics)
    low, high = f1["interval"]
    assert low < f1["value"] < high
    assert f1["value"] == pytest.approx(0.01, abs=2e-4)
    assert high - low < 0.01 * np.subtract(*reversed(describe(metrics[0])["interval"]))
    assert difference(metrics[0], metrics[0]) == {"value": 0, "interval": (0, 0)}


def test_a_report_holds_what_a_paper_asks_for(tmp_path):
    made, scored, _ = make_report(tmp_path, 1)
    assert json.loads(json.dumps(made))["metrics"]["f1"]["value"] == made["metrics"]["f1"]["value"]
    text = "\n".join(tables.markdown(made))
    for words in (
        "# Scores: test split of a|b",
        "Pixels at 16 x 16 pixels, as the network sees them",
        f"| F1 | {set_scores(scored[0].counts)['f1']:.3f} [0.",
        "6 of 5 scenes: test split of a\\|b",  # or the table would have one column more
        "is 0.5 or more",
        "4 filters, seed 7, trained on demo; SHA-256 of unet.keras 9",
        "10,000 bootstrap samples that draw whole scenes",
        "TensorFlow 2, Keras 3",
        "- look twice",
    ):
        assert words in text
    rows = [line for line in text.splitlines() if line.startswith("|")]
    unescaped = [line.replace("\\|", "").count("|") for line in rows]
    pixels, protocol = rows[:11], rows[-9:]
    assert unescaped[:11] == [4] * len(pixels)
    assert unescaped[-9:] == [3] * len(protocol)
    printed = "\n".join(tables.terminal_lines(made, 1.23, tmp_path))
    assert (
        "Scores of 6 images of 5 scenes: test split of a|b; read, predicted and scored in 1.2 s"
        in printed
    )
    assert "Beware: look twice\nNote: two grey edges" in printed
    assert text.endswith("## Beware\n\n- look twice\n\n## Notes\n\n- two grey edges")


def test_the_intervals_of_a_single_scene_are_doubted(tmp_path):
    scored, networks = [random_scored(0)], [make_networks(tmp_path)]
    made = report.make_report(Pictures(), np.zeros(6), networks, scored, 16, False, MACHINE)
    assert len(made["warnings"]) == 2
    assert made["warnings"][1].startswith("all images show one scene")


def test_two_predictions_stand_side_by_side_at_both_sizes(tmp_path):
    made, scored, groups = make_report(tmp_path, 2, own=True)
    assert made["compared"]["threshold"] == 0.3
    families = [measure_all(prediction, groups) for prediction in scored]
    keys = ["metrics", "metrics_at_own_size", "polyps", "pictures", "borders", "probabilities"]
    assert list(families[0]) == keys
    for key in keys:
        first, second = (these[key] for these in families)
        for part, scores in ((made, first), (made["compared"], second)):
            assert part[key] == {
                name: describe(score) | {"definition": DEFINITIONS[name]}
                for name, score in scores.items()
            }
        expected = {name: difference(first[name], second[name]) for name in first}
        assert made["compared"]["difference"][key] == expected
    assert list(made["compared"]["difference"]) == keys
    written, printed = tables.markdown(made), tables.terminal_lines(made, 1, tmp_path)
    shown = [("metrics", "f1"), ("metrics_at_own_size", "f1")]
    all_shown = [
        *shown,
        ("polyps", "false_regions_iou"),
        ("borders", "hausdorff_95_median"),
        ("probabilities", "calibration_error"),
    ]
    for lines, names in ((printed, shown), (written, all_shown)):
        text = "\n".join(lines)
        assert text.count("B - A") >= len(names)
        assert "the pictures' own size" in text
        for key, name in names:
            assert f"{made['compared']['difference'][key][name]['value']:+.3f}" in text
        assert "is 0.5 or more" in text
        assert "is 0.3 or more" in text


def test_what_one_of_two_predictions_lacks_is_told_all_the_same(tmp_path):
    """One calls no pixel polyp, so none of its regions are right; the other has a temperature."""
    scored = [random_scored(0, temperature=2.5), random_scored(1, threshold=2)]
    chosen = [make_networks(tmp_path / name) for name in "ab"]
    made = report.make_report(Pictures(), np.arange(6), chosen, scored, 16, False, MACHINE)
    assert "region_precision_iou" in made["polyps"]
    assert "region_precision_iou" not in made["compared"]["polyps"]
    lines = tables.markdown(made)
    (line,) = [line for line in lines if "| regions right, by any overlap" in line]
    count = made["polyps"]["region_precision_overlap"]["count"]
    assert f"of {count:,} | none |" in line
    (line,) = [line for line in lines if line.startswith("| temperature | 2.500 | none |")]
    assert any(line.startswith("| cross-entropy, scaled | ") for line in lines)
    rows = [line for line in lines if line.startswith("| regions right")]
    assert {row.count("|") for row in rows} == {6}


def test_the_table_of_images_has_all_columns_and_the_most_different(tmp_path):
    scored = [random_scored(seed, own=True) for seed in range(2)]
    properties = random_properties()
    table = report.per_image_table(Pictures.names, np.arange(6), scored, properties)
    kinds = ["dice", "iou", "precision", "recall"]
    own = [*kinds, *(f"own_{kind}" for kind in kinds)]
    own += ["sureness", "alarms", "polyps_found", "false_regions", "hausdorff_95", "boundary_f1"]
    shown = ["polyp_fraction", "polyps", "distance", "edge", "brightness", "sharpness"]
    compared = [f"compared_{name}" for name in own]
    assert list(table) == ["name", "scene", *own, *shown, *compared, "dice_difference"]
    assert table["edge"].tolist() == [values["edge"] for values in properties]
    assert table["hausdorff_95"].tolist() == [distance for distance, _ in scored[0].borders]
    dice = [image_scores(prediction.counts)["dice"] for prediction in scored]
    np.testing.assert_array_equal(table["dice_difference"], dice[1] - dice[0])
    lines = tables.most_different(table, 2)
    worst = np.argsort(-np.abs(dice[1] - dice[0]))[:2]
    assert [line.split()[0] for line in lines[1:]] == [f"n{row}" for row in worst]


class Folder:
    """A stand-in for utils/results.py's Results, which needs no lock here."""

    def __init__(self, path):
        self.path = path

    def write(self, name):
        from utils.files import write_beside

        return write_beside(self.path / name)


def test_the_files_hold_the_report(tmp_path):
    made, scored, groups = make_report(tmp_path, 1)
    table = report.per_image_table(Pictures.names, groups, scored, random_properties())
    report.save_report(Folder(tmp_path), made, table)
    assert json.loads((tmp_path / "metrics.json").read_text())["title"] == made["title"]
    assert (tmp_path / "metrics.md").read_text() == "\n".join(tables.markdown(made)) + "\n"
    odd = made | {"title": "test split of f\udce4"}  # a folder that is not in UTF-8
    report.save_report(Folder(tmp_path), odd, table)
    assert "# Scores: test split of f\\udce4\n" in (tmp_path / "metrics.md").read_text()
    with open(tmp_path / "per_image.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == list(Pictures.names)
    assert [row["scene"] for row in rows] == ["0", "0", "1", "2", "3", "4"]
    np.testing.assert_allclose([float(row["dice"]) for row in rows], table["dice"], atol=1e-6)
    assert max(len(row["dice"]) for row in rows) <= 8


def test_thresholds_stand_in_a_table():
    others = {"mean_iou": 0.6, "precision": 0.9, "recall": 0.8, "image_dice": 0.7}
    rows = [{"threshold": t, "f1": t, **others} for t in (0.05, 0.5)]
    head, *lines = tables.threshold_lines(rows)
    assert head.split()[:4] == ["threshold", "mean", "IoU", "precision"]
    assert [line.split() for line in lines] == [
        ["0.05", "0.600", "0.900", "0.800", "0.050", "0.700"],
        ["0.5", "0.600", "0.900", "0.800", "0.500", "0.700"],
    ]


def test_polyps_borders_and_probabilities_stand_in_every_form(tmp_path):
    made, scored, _ = make_report(tmp_path, 1)
    found = sum(polyps.matched("iou").sum() for polyps, _ in scored[0].regions)
    count = sum(len(polyps.ious) for polyps, _ in scored[0].regions)
    assert made["polyps"]["polyp_sensitivity_iou"]["value"] == pytest.approx(found / count)
    assert made["polyps"]["polyp_sensitivity_iou"]["count"] == count
    distances = [distance for distance, _ in scored[0].borders]
    assert made["borders"]["hausdorff_95"]["value"] == pytest.approx(np.mean(distances))
    assert "Borders at 16 x 16 pixels" in "\n".join(tables.markdown(made))
    assert set(made["probabilities"]) == {"calibration_error", "cross_entropy"}
    written = tables.markdown(made)
    text = "\n".join(written)
    assert f"| {found / count:.3f} [" in text
    assert f"| {np.mean([f1 for _, f1 in scored[0].borders]):.3f} [" in text
    assert any(line.startswith("| calibration error | ") for line in written)
    assert sum(row["count"] for row in made["polyps_by_size"]) == count


def test_a_stored_temperature_is_told_of(tmp_path):
    scored = [random_scored(0, temperature=2.5)]
    networks = [make_networks(tmp_path)]
    made = report.make_report(Pictures(), np.arange(6), networks, scored, 16, False, MACHINE)
    assert made["probabilities"]["temperature"]["value"] == 2.5
    before, after = (made["probabilities"][f"calibration_error{end}"] for end in ("", "_scaled"))
    assert before["value"] != after["value"]


def test_the_terminal_shows_the_five_scores_that_were_promised_and_which_network(tmp_path):
    made, _, _ = make_report(tmp_path, 1)
    lines = tables.terminal_lines(made, 1, tmp_path)
    assert f"Network: {tmp_path / 'a'}: 4 filters, seed 7" in lines
    begin = lines.index("Pixels at 16 x 16 pixels, as the network sees them:") + 2
    rows = [line.split("  ") for line in lines[begin : lines.index("", begin)]]
    assert [row[0] for row in rows] == [LABELS[name] for name in FIRST]
    assert [LABELS[name] for name in FIRST] == [
        *("mean IoU", "precision", "recall", "F1", "Dice per image")
    ]
    for name, row in zip(FIRST, rows, strict=True):
        low, high = made["metrics"][name]["interval"]
        assert row[-1].strip() == f"{made['metrics'][name]['value']:.3f} [{low:.3f}, {high:.3f}]"
    assert [line.split(":")[0] for line in lines[-2:]] == [
        str(tmp_path / name) for name in ("metrics.md", "index.html")
    ]
