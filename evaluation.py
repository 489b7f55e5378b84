"""Score a trained network on labelled pictures, or segment pictures of your own.

    python evaluation.py                            scores and figures of the test split
    python evaluation.py --split S                  of another: train, validation, test or all
    python evaluation.py --images DIR --masks DIR   of labelled pictures that were never prepared
    python evaluation.py --archive FILE             the same, of .../images/ and .../masks/ in a zip
    python evaluation.py --compare C                and of the network in C on the same pictures
    python evaluation.py --thresholds               choose a threshold on the validation split
    python evaluation.py PICTURE_OR_FOLDER ...      a mask for each, at the picture's own size
    python evaluation.py FILM ...                   a film with the outlines of its polyps

--checkpoints A B and --compare C D take the mean of several networks' probabilities, --tta that
over each picture's flips and turns. The test split is for this alone: nothing was chosen on it.
In results/, where they replace those of an earlier run, scores leave

    metrics.json          every score with its definition and interval, and how it came about
    metrics.md            the same as tables for a paper
    per_image.csv         name, scene, and scores and polyp fraction of each image
    predictions.png       the best, median and worst cases
    precision_recall.png  the trade-off over all thresholds
    dice_histogram.png    how the scores are spread
    dice_by_size.png      the score against the polyp's size
    index.html            a page of all these and, from gallery/, of every picture

and own pictures masks/NAME.png (0 and 255), overlays/NAME.jpg, pictures.csv with a row for each
polyp, and for films films/NAME.mp4 and .csv. A picture or film that cannot be read is named, the
others are done, and the exit status is 1. As long as checkpoints/ holds no network of your own, the
one that comes with these scripts is taken. --thresholds prints a table and leaves thresholds.json
in the network's folder, which THRESHOLD = "validation" below reads.
"""

import argparse
import sys
import time
from pathlib import Path

import numpy as np

from utils.checkpoints import (
    THRESHOLDS_FILE,
    Networks,
    find_checkpoints,
    read_config,
    store_threshold,
    stored_threshold,
)
from utils.constants import check_number, check_whole
from utils.dataset import SPLITS
from utils.devices import describe_machine, start_tensorflow
from utils.figures import (
    save_dice_by_size,
    save_dice_histogram,
    save_precision_recall,
)
from utils.files import InputError, Progress, fail, input_errors, parallel, run
from utils.films import segment_film
from utils.gallery import gallery_names, pack_predictions, save_gallery, save_predictions
from utils.labelled import PreparedPictures, SourcePictures
from utils.metrics import (
    CURVE_THRESHOLDS,
    confusion_counts,
    curve_histogram,
    image_scores,
    polyp_fractions,
    pooled_scores,
    set_scores,
)
from utils.pictures import HALF
from utils.prediction import (
    average_networks,
    average_views,
    describe_prediction,
    enlarge,
    make_predictor,
)
from utils.report import (
    format_report,
    format_thresholds,
    make_report,
    most_different,
    per_image_table,
    save_report,
)
from utils.results import OWN_TABLE, SCORES, Results
from utils.segmentation import (
    find_files,
    is_film,
    read_list,
    result_names,
    segment_pictures,
)
from utils.sources import archive_source, folder_source

DATA_DIR = "data/processed"
CHECKPOINTS_DIR = "checkpoints"
SHIPPED_CHECKPOINTS = "checkpoints/hyperkvasir-16"  # beside this script, wherever it is run from
SPLITS_PATH = Path(__file__).parent / "data/hyperkvasir_splits.csv"
RESULTS_DIR = "results"

# A pixel is called polyp from this probability on; "validation": the one that --thresholds chose
THRESHOLD = 0.5
THRESHOLDS = (*(0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5), *(0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99))
BATCH_SIZE = 32  # images predicted at once
MIN_INLIERS = 4  # keypoints that join two pictures of a scene, as in data_preprocessing.py


# The networks


def shipped_checkpoints():
    """Return the folder of the network that comes with these scripts, as a Path."""
    return Path(__file__).resolve().parent / SHIPPED_CHECKPOINTS


def choose_networks(named, tta):
    """Return the Networks of one prediction, before TensorFlow starts.

    named: the folders that the user names, or None; tta: whether views are averaged. Raises
    InputError for a folder without a network, a damaged config.json, or no stored threshold.
    """
    folders = find_checkpoints(named, CHECKPOINTS_DIR, shipped_checkpoints())
    configs, threshold = [read_config(folder) for folder in folders], THRESHOLD
    if threshold == "validation":
        threshold = stored_threshold(folders, configs, tta)
    return Networks(folders, configs, threshold)


def load_predictor(folders, tta):
    """Load the networks of `find_checkpoints`; TensorFlow has started.

    tta: whether to average over each picture's eight views (test-time augmentation). Returns a
    function from (n, size, size, 3) uint8 pictures to probabilities of polyp, (n, size, size, 1)
    float32, 0 to 1; that size; and the precision that the networks compute in. Raises InputError
    for a file that holds no such network, and for networks of several sizes.
    """
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


# Labelled pictures


def choose_pictures(arguments):
    """Return the labelled pictures that the arguments ask for, as utils/labelled.py has them."""
    if arguments.images:
        source = folder_source(arguments.images, arguments.masks)
    elif arguments.archive:
        source = archive_source(arguments.archive)
    else:
        return PreparedPictures(arguments.split or "test", arguments.data)
    return SourcePictures(source, MIN_INLIERS, SPLITS_PATH)


def score_images(batch, probabilities, threshold):
    """Return what is counted of each image of a Batch, as a dict of arrays of that length.

    probabilities: (n, size, size, 1) float32, 0 to 1, from `threshold` on called polyp. "counts"
    and, at the pictures' own size, "own_counts" are pixels, (n, 4) int as from `confusion_counts`.
    What else is added here is a column of per_image.csv.
    """

    def own_counts(pair):
        mask, probability = pair
        return confusion_counts([mask >= HALF], [enlarge(probability, mask.shape) >= threshold])[0]

    columns = {"counts": confusion_counts(batch.masks, probabilities >= threshold)}
    if batch.own_masks is not None:
        pairs = zip(batch.own_masks, probabilities, strict=True)
        columns["own_counts"] = np.stack(list(parallel(own_counts, pairs)))
    return columns


def evaluate(predictors, thresholds, pictures, size):
    """Predict pictures batch by batch, by one or several predictors, each with its threshold.

    Returns for each predictor what `score_images` counted of all pictures; and of the first the
    histogram for `precision_recall`, and the `pack_predictions` of all pictures.
    """
    parts, histogram = [[] for _ in predictors], np.zeros((2, len(CURVE_THRESHOLDS)), np.int64)
    packed = []
    progress = Progress("images", len(pictures.names))
    for batch in pictures.batches(size, BATCH_SIZE):
        for predict, threshold, scored in zip(predictors, thresholds, parts, strict=True):
            probabilities = predict(batch.images)
            scored.append(score_images(batch, probabilities, threshold))
            if scored is parts[0]:
                histogram += curve_histogram(batch.masks, probabilities)
                packed.append(pack_predictions(probabilities >= threshold))
        progress.advance(len(batch.images))
    joined = [
        {name: np.concatenate([columns[name] for columns in scored]) for name in scored[0]}
        for scored in parts
    ]
    return joined, histogram, np.concatenate(packed)


# The commands


def score(arguments):
    """Score labelled pictures, compare two predictions if asked to, and leave all in `results`."""
    pictures, tta = choose_pictures(arguments), arguments.tta
    named = [arguments.checkpoints, *([arguments.compare] if arguments.compare else [])]
    chosen = [choose_networks(folders, tta) for folders in named]
    read = [arguments.images, arguments.masks, arguments.archive]
    results = Results(arguments.results, [path for path in read if path])
    predictors, size, precision = load_predictors(chosen, pictures, tta)
    start = time.monotonic()
    thresholds = [networks.threshold for networks in chosen]
    scored, histogram, predictions = evaluate(predictors, thresholds, pictures, size)
    seconds = time.monotonic() - start
    groups, machine = pictures.scenes(), describe_machine(precision, 1)
    report = make_report(pictures, groups, chosen, scored, size, tta, machine)
    table = per_image_table(pictures.names, groups, scored)
    with results.begin([*SCORES, *gallery_names(len(pictures.names))]):
        save_report(results, report, table)
        save_figures(results, pictures, predictions, thresholds[0], scored[0]["counts"], histogram)
        save_gallery(results, report, pictures, table, predictions)
    print(*format_report(report, seconds), sep="\n")
    if arguments.compare:
        print(*most_different(table), sep="\n")
    whose = ", of A" if arguments.compare else ""
    print(f"Look at {results.folder / 'index.html'}: all pictures and figures{whose}")


def load_predictors(chosen, pictures, tta):
    """Start TensorFlow, and return the predictor of each of the Networks; their size, precision."""
    start_tensorflow()
    loaded = [load_predictor(networks.folders, tta) for networks in chosen]
    for networks, (_, size, _) in zip(chosen, loaded, strict=True):
        pictures.check_size(size, networks.folders[0])
        if size != loaded[0][1]:
            raise InputError(
                f"{networks.folders[0]}: its network takes {size} pixels a side, that of"
                f" {chosen[0].folders[0]} {loaded[0][1]}; compare networks of one size"
            )
    return [predict for predict, _, _ in loaded], *loaded[0][1:]


def save_figures(results, pictures, predictions, threshold, counts, histogram):
    """Save the figures of one prediction of labelled pictures, by a threshold.

    predictions, counts, histogram: what `evaluate` returned of it.
    """
    dice, fractions, title = image_scores(counts)[:, 0], polyp_fractions(counts), pictures.title
    pooled = pooled_scores(counts)
    point = pooled["precision"], pooled["recall"], threshold
    with results.write("predictions.png") as beside:
        save_predictions(beside, pictures, predictions, dice, threshold)
    with results.write("precision_recall.png") as beside:
        save_precision_recall(beside, histogram, *point, title)
    with results.write("dice_histogram.png") as beside:
        save_dice_histogram(beside, dice, threshold, title)
    with results.write("dice_by_size.png") as beside:
        save_dice_by_size(beside, dice, fractions, threshold, title)


def choose_threshold(arguments):
    """Score the validation split over THRESHOLDS, print the table, and store the best."""
    folders = find_checkpoints(arguments.checkpoints, CHECKPOINTS_DIR, shipped_checkpoints())
    if len(folders) > 1:
        raise InputError("--thresholds: is stored with one network; name one with --checkpoints")
    pictures, config = PreparedPictures("validation", arguments.data), read_config(folders[0])
    if not pictures.is_trained_on_by(config):
        raise InputError(
            f"{folders[0]}: was trained on other data or another split than {arguments.data}, and"
            " may have seen its validation split; name its own with --data"
        )
    networks = Networks(folders, [config], None)
    (predict,), size, precision = load_predictors([networks], pictures, arguments.tta)
    counts, progress = [[] for _ in THRESHOLDS], Progress("images", len(pictures.names))
    for batch in pictures.batches(size, BATCH_SIZE):
        probabilities = predict(batch.images)
        for threshold, counted in zip(THRESHOLDS, counts, strict=True):
            counted.append(confusion_counts(batch.masks, probabilities >= threshold))
        progress.advance(len(batch.images))
    rows = [
        {"threshold": threshold, **set_scores(np.concatenate(counted))}
        for threshold, counted in zip(THRESHOLDS, counts, strict=True)
    ]
    best = store_threshold(folders[0], arguments.tta, pictures.sha256, len(pictures.names), rows)
    print(
        f"{pictures.title}: {len(pictures.names):,} images, pixels pooled but for Dice per image;"
        f" in {precision}",
        *format_thresholds(rows),
        f"{folders[0] / THRESHOLDS_FILE}: {best['threshold']:g}, the best by Dice per image;"
        ' THRESHOLD = "validation" in evaluation.py takes it',
        sep="\n",
    )


def segment(arguments):
    """Segment pictures and films at their own size; end with status 1 if any cannot be read."""
    named = arguments.pictures + (read_list(arguments.list) if arguments.list else [])
    files = find_files(named, arguments.results)
    films = {name: file for name, file in files.items() if is_film(file.name)}
    pictures = {name: file for name, file in files.items() if name not in films}
    results = Results(arguments.results, files.values())
    networks = choose_networks(arguments.checkpoints, arguments.tta)
    start_tensorflow()
    *predictor, _ = load_predictor(networks.folders, arguments.tta)
    how = predictor, networks.threshold, BATCH_SIZE, results
    prediction = describe_prediction(len(networks.folders), arguments.tta, networks.threshold)
    print(f"Prediction: {prediction}", flush=True)
    failures = []
    with results.begin(result_names(pictures, films, arguments.probabilities)):
        if pictures:
            without, failures = segment_pictures(pictures, *how, arguments.probabilities)
            print(
                f"{results.folder / 'masks'}: {len(pictures) - len(failures):,} masks,"
                f" {without:,} of them without a polyp; outlined in {results.folder / 'overlays'},"
                f" each polyp in {results.folder / OWN_TABLE}",
                flush=True,
            )
        for name, file in films.items():
            start = time.monotonic()
            try:
                frames, with_polyp = segment_film(file, name, *how)
            except InputError as error:
                failures.append(error)
                continue
            print(
                f"{results.folder / f'films/{name}.mp4'}: {frames:,} frames,"
                f" {with_polyp:,} of them with a polyp, {frames / (time.monotonic() - start):.0f}"
                " a second; each polyp in the .csv beside it"
            )
    for error in failures:
        fail(error, status=1)
    if failures:
        sys.exit(fail(f"{len(failures):,} of {len(files):,} could not be read whole", status=1))


def parse_arguments():
    """Return the command line's arguments."""
    usage = "%(prog)s [PICTURE_OR_FOLDER ...] [options]"  # not behind --checkpoints
    parser = argparse.ArgumentParser(usage=usage, description=__doc__.splitlines()[0])
    parser.add_argument(
        "pictures", nargs="*", metavar="PICTURE_OR_FOLDER", help="your own, films too"
    )
    parser.add_argument("--list", metavar="FILE", help="of their paths, one a line; - for stdin")
    parser.add_argument(
        "--probabilities", action="store_true", help="leave those of your own pictures too"
    )
    show = {"metavar": "DIR", "help": "default: %(default)s"}
    parser.add_argument("--data", default=DATA_DIR, **show)
    parser.add_argument("--split", choices=(*SPLITS, "all"), help="default: test")
    parser.add_argument("--images", metavar="DIR", help="labelled, with --masks; not prepared")
    parser.add_argument("--masks", metavar="DIR", help="of the pictures' names")
    parser.add_argument("--archive", metavar="FILE", help="a zip of such pictures and masks")
    networks = {"nargs": "+", "action": "extend", "metavar": "DIR"}
    parser.add_argument(
        "--checkpoints",
        **networks,
        help="of one network, or of several, whose mean is taken;"
        f" default: {CHECKPOINTS_DIR}, and without a network there {SHIPPED_CHECKPOINTS}",
    )
    parser.add_argument("--compare", **networks, help="another network, or several, to compare")
    parser.add_argument(
        "--thresholds", action="store_true", help="choose a threshold on the validation split"
    )
    parser.add_argument(
        "--tta", action="store_true", help="average over each picture's flips and quarter turns"
    )
    parser.add_argument("--results", default=RESULTS_DIR, **show)
    arguments = parser.parse_args()
    check_combination(parser, arguments)
    return arguments


def check_combination(parser, arguments):
    """End with a line if the arguments ask for several things at once, or for half of one."""
    given = {name for name, value in vars(arguments).items() if value}
    given -= {"tta", "checkpoints", "results"}
    given -= {"data"} if arguments.data == DATA_DIR else set()
    goes_with = {
        "pictures": {"list", "probabilities"},
        "list": {"pictures", "probabilities"},
        "thresholds": {"data"},
        "images": {"masks", "compare"},
        "archive": {"compare"},
    }
    for name, others in goes_with.items():
        odd = sorted(given - others - {name})
        if name in given and odd:
            kind = "PICTURE_OR_FOLDER" if name == "pictures" else f"--{name}"
            parser.error(f"{kind} and --{odd[0]} do not go together")
    if arguments.probabilities and not (arguments.pictures or arguments.list):
        parser.error("--probabilities: name pictures too; it is for those of your own")
    if bool(arguments.images) != bool(arguments.masks):
        parser.error("--images and --masks go together")


def main():
    """Do what the command line asks for: score, choose a threshold, or segment."""
    arguments = parse_arguments()
    if THRESHOLD != "validation":
        check_number("THRESHOLD", THRESHOLD, "evaluation.py", above=0, below=1)
    for threshold in THRESHOLDS:
        check_number("a number of THRESHOLDS", threshold, "evaluation.py", above=0, below=1)
    check_whole("BATCH_SIZE", BATCH_SIZE, "evaluation.py", least=1)
    check_whole("MIN_INLIERS", MIN_INLIERS, "evaluation.py", least=1)
    if arguments.pictures or arguments.list:
        segment(arguments)
    elif arguments.thresholds:
        choose_threshold(arguments)
    else:
        score(arguments)


if __name__ == "__main__":
    run(main)
