"""Score the trained network on the test split, or segment pictures of your own.

    python evaluation.py                         scores and figures of the test split
    python evaluation.py PICTURE_OR_FOLDER ...   a mask for each picture, at the picture's own size
    python evaluation.py --checkpoints A B       the mean of several networks' probabilities
    python evaluation.py --tta                   the mean over each picture's flips and turns

The test split is for this alone: nothing was chosen on it. In results/ the first form leaves

    metrics.json          every score with its definition, and the networks that it is of
    per_image.csv         name, Dice, IoU, precision, recall and polyp fraction of each image
    predictions.png       the best, median and worst cases
    precision_recall.png  the trade-off over all thresholds
    dice_histogram.png    how the scores are spread
    dice_by_size.png      the score against the polyp's size

and the second masks/NAME.png (0 and 255) and overlays/NAME.png. As long as checkpoints/ holds no
network of your own, the one that comes with these scripts is taken.
"""

import argparse
import csv
import json
import shlex
import time
from pathlib import Path

import numpy as np

from utils.constants import check_number, check_whole
from utils.dataset import load_split, load_summary
from utils.devices import start_tensorflow
from utils.figures import (
    SKY,
    YELLOW,
    outline,
    save_dice_by_size,
    save_dice_histogram,
    save_precision_recall,
    save_sheet,
)
from utils.files import InputError, Progress, input_errors, read_file, run, write_beside
from utils.metrics import (
    CURVE_THRESHOLDS,
    bootstrap_interval,
    confusion_counts,
    curve_histogram,
    image_scores,
    pooled_scores,
)
from utils.pictures import is_picture, read_picture, save_image
from utils.prediction import (
    VIEWS,
    average_networks,
    average_views,
    make_predictor,
    segment_picture,
)

DATA_DIR = "data/processed"
CHECKPOINTS_DIR = "checkpoints"
SHIPPED_CHECKPOINTS = "checkpoints/hyperkvasir-16"  # beside this script, wherever it is run from
RESULTS_DIR = "results"
THRESHOLD = 0.5  # a pixel is called polyp from this probability on
BATCH_SIZE = 32  # images predicted at once


# The networks


def find_checkpoints(named):
    """Return the folders of the networks to predict with, as Paths; each holds a unet.keras.

    named: those of --checkpoints, or None: then CHECKPOINTS_DIR, or as long as no network is there
    SHIPPED_CHECKPOINTS. Raises InputError for a folder that holds none or is named twice.
    """
    if named is None:
        shipped = Path(__file__).resolve().parent / SHIPPED_CHECKPOINTS
        own_is_there = (Path(CHECKPOINTS_DIR) / "unet.keras").is_file()
        if own_is_there or not (shipped / "unet.keras").is_file():
            named = [CHECKPOINTS_DIR]
        else:
            print(f"{CHECKPOINTS_DIR}: no network of yours there yet; taking that in {shipped}")
            return [shipped]
    folders, seen = [Path(name) for name in named], set()
    for folder in folders:
        if folder.is_file():
            raise InputError(
                f"{folder}: is a file; --checkpoints takes the folders that train.py left, and"
                " pictures stand before it"
            )
        if not (folder / "unet.keras").is_file():
            train = "python train.py"
            if folder != Path(CHECKPOINTS_DIR):
                train += f" --checkpoints {shlex.quote(str(folder))}"
            if len(folders) > 1:
                train += "; pictures stand before --checkpoints"
            raise InputError(f"{folder / 'unet.keras'}: no trained model there yet; run {train}")
        if folder.resolve() in seen:
            raise InputError(f"{folder}: named twice; --checkpoints takes each network once")
        seen.add(folder.resolve())
    return folders


def read_config(folder):
    """Return a checkpoint's config.json, as train.py left it, as a dict.

    Raises InputError if it is missing, damaged, or lacks what is told of a network.
    """
    path = Path(folder) / "config.json"
    way_out = "copy it again from where the network comes from, or train again"
    if not path.is_file():
        raise InputError(f"{path}: is missing, and belongs to unet.keras; {way_out}")
    try:
        config = json.loads(read_file(path))
        settings = config["settings"]
        lacking = {"filters", "seed", "data_source", "data_sha256"} - set(settings)
    except (ValueError, TypeError, KeyError) as error:
        raise InputError(f"{path}: is damaged; {way_out}") from error
    if lacking:
        raise InputError(f"{path}: lacks {', '.join(sorted(lacking))}; {way_out}")
    return config


def load_predictor(folders, tta):
    """Start TensorFlow and load the networks of `find_checkpoints`.

    tta: whether to average over each picture's eight views (test-time augmentation). Returns a
    function from (n, size, size, 3) uint8 pictures to probabilities of polyp, (n, size, size, 1)
    float32, 0 to 1; that size; and the precision that the networks compute in. Raises InputError
    for a file that holds no such network, and for networks of several sizes.
    """
    start_tensorflow()
    from model import choose_precision, load_unet

    precision = choose_precision()
    with input_errors():
        networks = [load_unet(folder / "unet.keras", precision) for folder in folders]
    sizes = [network.input_shape[1] for network in networks]
    for folder, size in zip(folders, sizes, strict=True):
        if size != sizes[0]:
            raise InputError(
                f"{folder}: its network takes {size} pixels a side, that of {folders[0]}"
                f" {sizes[0]}; average networks of one size"
            )
    predictors = [
        make_predictor(network, folder / "unet.keras")
        for network, folder in zip(networks, folders, strict=True)
    ]
    predict = average_networks(predictors)
    return average_views(predict, BATCH_SIZE) if tta else predict, sizes[0], precision


def describe_prediction(networks, tta):
    """Return the definition of a predicted pixel, by the number of networks and of views."""
    averaged = [f"{networks} networks"] if networks > 1 else []
    averaged += [f"the {len(VIEWS)} flips and quarter turns of each picture"] if tta else []
    mean = f", the mean over {' and '.join(averaged)}," if averaged else ""
    return f"a pixel is called polyp if its probability{mean} is {THRESHOLD} or more"


# The test split


def evaluate(predict, split):
    """Predict a split batch by batch.

    Returns the pixel counts, (n, 4) int, and the histogram for `precision_recall`.
    """
    counts, histogram = [], np.zeros((2, len(CURVE_THRESHOLDS)), np.int64)
    progress = Progress("test images", len(split.names))
    for begin in range(0, len(split.names), BATCH_SIZE):
        rows = slice(begin, begin + BATCH_SIZE)
        masks, probabilities = split.masks[rows], predict(split.images[rows])
        counts.append(confusion_counts(masks, probabilities >= THRESHOLD))
        histogram += curve_histogram(masks, probabilities)
        progress.advance(len(masks))
    return np.concatenate(counts), histogram


def collect_metrics(counts, groups):
    """Return every score as a dict of its value, its definition and, where there is one, interval.

    counts: (n, 4) as from `confusion_counts`; groups: (n,) int, the images' scenes.
    """
    at = f"threshold {THRESHOLD}"
    pooled = f"pixels pooled over the split, {at}"
    definitions = {
        "mean_iou": f"mean of the IoU of polyp and of background; {pooled}",
        "accuracy": f"pixels called rightly, background counted; {pooled}",
        "precision": f"polyp among what is called polyp; {pooled}",
        "recall": f"called polyp among what is polyp; {pooled}",
        "f1": f"harmonic mean of these two, that is Dice; {pooled}",
        "polyp_iou": f"IoU of polyp alone; {pooled}",
    }
    metrics = {
        name: {"value": value, "definition": definitions[name]}
        for name, value in pooled_scores(counts).items()
    }
    scores = image_scores(counts)
    for column, name in enumerate(("Dice", "IoU")):
        metrics[f"image_{name.lower()}"] = {
            "value": float(scores[:, column].mean()),
            "interval": bootstrap_interval(scores[:, column], groups),
            "definition": f"{name} of polyp, mean over images, {at}; 95 % bootstrap over scenes",
        }
    return metrics


def format_table(metrics):
    """Return the metrics as lines of name, value, interval and definition."""
    labels = {
        "mean_iou": "mean IoU",
        "f1": "F1",
        "polyp_iou": "polyp IoU",
        "image_dice": "Dice per image",
        "image_iou": "IoU per image",
    }
    lines = []
    for name, metric in metrics.items():
        low_high = "[{:.3f}, {:.3f}]".format(*metric["interval"]) if "interval" in metric else ""
        label = labels.get(name, name)
        lines.append(f"{label:14} {metric['value']:.3f}  {low_high:14}  {metric['definition']}")
    return "\n".join(lines)


def save_predictions(path, predict, split, dice, each=3):
    """Save predictions.png: `each` of the best, median and worst cases, all outlined.

    dice: (n,) float, of the images of `split`. A split too small for that is shown whole.
    """
    order, total = np.argsort(-dice, kind="stable"), len(dice)
    if total <= 3 * each:
        ranks = dict.fromkeys(range(total), "")
    else:
        middle = (total - each) // 2
        begins = {"best": 0, "median": middle, "worst": total - each}
        ranks = {begin + n: f"{place}: " for place, begin in begins.items() for n in range(each)}
    rows = order[list(ranks)]
    titles = [
        f"{place}{rank + 1:,} of {total:,}\n{split.names[row]}\nDice {dice[row]:.3f}"
        for (rank, place), row in zip(ranks.items(), rows, strict=True)
    ]
    pictures, masks = split.images[rows], split.masks[rows]
    predictions = (predict(pictures) >= THRESHOLD).astype(np.uint8)
    sheet = {
        "picture": pictures,
        "mask": masks[..., 0],
        "prediction": predictions[..., 0],
        "outlines": [
            outline(picture, [(mask, SKY), (prediction, YELLOW)])
            for picture, mask, prediction in zip(pictures, masks, predictions, strict=True)
        ],
    }
    title = f"Test split, threshold {THRESHOLD}. Outlines: mask blue, prediction yellow"
    save_sheet(path, sheet, titles, title)


# The commands


def score_test_split(data_dir, checkpoints, tta, results):
    """Score the test split, print the table and leave everything in `results`."""
    folders = find_checkpoints(checkpoints)
    summary, split = load_summary(data_dir), load_split("test", data_dir)
    configs = {folder: read_config(folder) for folder in folders}
    predict, size, precision = load_predictor(folders, tta)
    if size != summary["image_size"]:
        raise InputError(
            f"{folders[0]}: its network takes {size} pixels a side, {data_dir} has"
            f" {summary['image_size']}; prepare the data or train again"
        )
    others = [
        folder
        for folder, config in configs.items()
        if config["settings"]["data_sha256"] != summary["sha256"]
    ]
    start = time.monotonic()
    counts, histogram = evaluate(predict, split)
    seconds = time.monotonic() - start
    scores, metrics = image_scores(counts), collect_metrics(counts, split.groups)
    fractions = (counts[:, 0] + counts[:, 2]) / counts.sum(axis=1)

    prediction = describe_prediction(len(folders), tta)
    report = {
        "data": summary["source"],
        "data_sha256": summary["sha256"],
        "trained_on_this_data": not others,
        "images": len(split.names),
        "scenes": len(np.unique(split.groups)),
        "precision": precision,
        "prediction": prediction,
        "threshold": THRESHOLD,
        "tta": tta,
        "networks": [
            {"checkpoints": str(folder), "training": config} for folder, config in configs.items()
        ],
        "metrics": metrics,
    }
    with write_beside(results / "metrics.json") as beside:
        beside.write_text(json.dumps(report, indent=2) + "\n")
    with (
        write_beside(results / "per_image.csv") as beside,
        open(beside, "w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["name", "dice", "iou", "precision", "recall", "polyp_fraction"])
        table = np.column_stack([scores, fractions]).round(6)
        writer.writerows([name, *row] for name, row in zip(split.names, table, strict=True))
    dice, pooled = scores[:, 0], {name: metric["value"] for name, metric in metrics.items()}
    point = pooled["precision"], pooled["recall"], THRESHOLD
    save_predictions(results / "predictions.png", predict, split, dice)
    save_precision_recall(results / "precision_recall.png", histogram, *point)
    save_dice_histogram(results / "dice_histogram.png", dice, THRESHOLD)
    save_dice_by_size(results / "dice_by_size.png", dice, fractions, THRESHOLD)

    print(
        f"Test split of {data_dir}: {report['images']:,} images, {report['scenes']:,} scenes;"
        f" predicted in {seconds:.1f} s, in {precision}"
    )
    for folder, config in configs.items():
        settings = config["settings"]
        print(f"Network of {folder}: {settings['filters']} filters, seed {settings['seed']}")
    print(f"Prediction: {prediction}\n{format_table(metrics)}")
    for folder in others:
        print(
            f"Beware: {folder} was trained on other data or another split"
            f" ({configs[folder]['settings']['data_source']}). If it has seen any of these images,"
            " the scores are not true."
        )
    print(f"Look at {results / 'predictions.png'} and the other figures beside it")


def find_pictures(paths):
    """Return the files of pictures, and of the pictures in folders, as a dict by their names.

    A name is without folder and suffix. Raises InputError for a file that is missing, a folder
    without pictures, and two pictures of one name.
    """
    by_name = {}
    for path in map(Path, paths):
        files = [path]
        if path.is_dir():
            files = sorted(entry for entry in path.iterdir() if is_picture(entry.name))
            if not files:
                raise InputError(f"{path}: holds no picture that OpenCV reads")
        for file in files:
            if not file.is_file():
                raise InputError(f"{file}: there is no such file")
            if file.stem in by_name:
                raise InputError(f"{file}: has the same name as {by_name[file.stem]}; rename one")
            by_name[file.stem] = file
    return by_name


def segment_own_pictures(paths, checkpoints, tta, results):
    """Segment pictures, and the pictures in folders, at their own size."""
    files, folders = find_pictures(paths), find_checkpoints(checkpoints)
    predict, size, _ = load_predictor(folders, tta)
    progress, without = Progress("pictures", len(files)), 0
    for name, file in files.items():
        picture = read_picture(file)
        mask = segment_picture(predict, picture, size, THRESHOLD)
        without += not mask.any()
        overlay = outline(picture, [(mask[..., None] // 255, YELLOW)], scale=1)
        save_image(results / "masks" / f"{name}.png", mask)
        save_image(results / "overlays" / f"{name}.png", overlay[..., ::-1])
        progress.advance()
    print(
        f"Prediction: {describe_prediction(len(folders), tta)}\n"
        f"{results / 'masks'}: {len(files):,} masks, {without:,} of them without a polyp;"
        f" outlined in {results / 'overlays'}"
    )


def parse_arguments():
    """Return the command line's arguments."""
    usage = "%(prog)s [PICTURE_OR_FOLDER ...] [options]"  # not behind --checkpoints
    parser = argparse.ArgumentParser(usage=usage, description=__doc__.splitlines()[0])
    parser.add_argument("pictures", nargs="*", metavar="PICTURE_OR_FOLDER", help="your own")
    show = {"metavar": "DIR", "help": "default: %(default)s"}
    parser.add_argument("--data", default=DATA_DIR, **show)
    parser.add_argument(
        "--checkpoints",
        nargs="+",
        action="extend",
        metavar="DIR",
        help="of one network, or of several, whose mean is taken;"
        f" default: {CHECKPOINTS_DIR}, and without a network there {SHIPPED_CHECKPOINTS}",
    )
    parser.add_argument(
        "--tta", action="store_true", help="average over each picture's flips and quarter turns"
    )
    parser.add_argument("--results", default=RESULTS_DIR, **show)
    return parser.parse_args()


def main():
    """Score the test split, or segment the pictures that the command line names."""
    arguments = parse_arguments()
    check_number("THRESHOLD", THRESHOLD, "evaluation.py", above=0, below=1)
    check_whole("BATCH_SIZE", BATCH_SIZE, "evaluation.py", least=1)
    networks = arguments.checkpoints, arguments.tta, Path(arguments.results)
    if arguments.pictures:
        segment_own_pictures(arguments.pictures, *networks)
    else:
        score_test_split(arguments.data, *networks)


if __name__ == "__main__":
    run(main)
