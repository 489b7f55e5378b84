"""Score a trained network on labelled pictures, or segment pictures of your own.

    python evaluation.py                            scores and figures of the test split
    python evaluation.py --split S                  of another: train, validation, test or all
    python evaluation.py --images DIR --masks DIR   of labelled pictures that were never prepared
    python evaluation.py --archive FILE             the same, of .../images/ and .../masks/ in a zip
    python evaluation.py --archive FILE --split S   of a split, at the pictures' own size too
    python evaluation.py --compare C                and of the network in C on the same pictures
    python evaluation.py --thresholds               choose a threshold on the validation split
    python evaluation.py PICTURE_OR_FOLDER ...      a mask for each, at the picture's own size
    python evaluation.py FILM ...                   a film with the outlines of its polyps

--checkpoints A B and --compare C D take the mean of several networks' probabilities, --tta that
over each picture's flips and turns, but for networks that answer all of them alike. With --data F
G, folders of two folds, A predicts the test split of F and B that of G. The test split is for this
alone: nothing was chosen by its scores. In results/, where they replace those of an earlier run,
scores leave

    metrics.json          every score with its definition and interval, and how it came about
    metrics.md            the same as tables for a paper
    per_image.csv         name, scene, and scores and polyp fraction of each image
    predictions.png       the best, median and worst cases
    precision_recall.png  the trade-off over all thresholds
    dice_histogram.png    how the scores are spread
    dice_by_size.png      the score against the polyp's size, and sensitivity_by_size.png
    reliability.png       how often the probabilities come true
    failures.png          the score by what the pictures show
    worst.png             the twelve worst, and what they have in common
    index.html            a page of all these and, from gallery/, of every picture

own pictures masks/NAME.png (0 and 255), overlays/NAME.jpg, probabilities/NAME.png if asked for, and
pictures.csv with a row for each polyp, films films/NAME.mp4 and .csv, and each run written.jsonl,
the list of all these. A picture or film that cannot be read is named, the others are done, and the
exit status is 1. As long as checkpoints/ holds no network of your own, that of SHIPPED_CHECKPOINTS
is taken, which comes with these scripts. --thresholds prints a table and leaves thresholds.json in
the network's folder, which THRESHOLD = "validation" below reads.
"""

import argparse
import sys
import time
from pathlib import Path

from utils.command import (
    InputError,
    check_constants,
    command_line,
    fail,
    hold_back_stderr,
    input_errors,
    named_path,
    number,
    numbers,
    one_of,
    run,
    whole,
)
from utils.data.dataset import SPLITS
from utils.data.sources import (
    add_mask_arguments,
    archive_source,
    check_mask_arguments,
    folder_source,
    mask_convention,
)
from utils.devices import choose_precision, describe_machine, start_tensorflow
from utils.files import lock_folder
from utils.prediction.films import FilmError, is_film, segment_film
from utils.prediction.networks import (
    THRESHOLDS_FILE,
    Networks,
    descent_doubts,
    find_checkpoints,
    hash_weights,
    is_equivariant,
    load_unet,
    read_config,
    store_threshold,
    stored_choices,
)
from utils.prediction.own_pictures import (
    find_files,
    read_list,
    result_names,
    segment_pictures,
)
from utils.prediction.predictors import (
    average_networks,
    average_views,
    describe_prediction,
    make_predictor,
    scale_predictor,
    scale_probabilities,
)
from utils.reporting.gallery import gallery_names, save_gallery
from utils.reporting.plots import save_figures
from utils.reporting.report import (
    format_report,
    format_thresholds,
    make_report,
    most_different,
    per_image_table,
    save_report,
)
from utils.results import OWN_TABLE, SCORES, Results
from utils.scoring.calibration import fit_temperature
from utils.scoring.labelled import FoldPictures, PreparedPictures, SourcePictures
from utils.scoring.scored import Scored, score_pictures, score_thresholds

DATA_DIR = "data/processed"
CHECKPOINTS_DIR = "checkpoints"
SHIPPED_CHECKPOINTS = "checkpoints/hyperkvasir-32"  # beside this script, wherever it is run from
SPLITS_PATH = Path(__file__).parent / "data/hyperkvasir_splits.csv"
RESULTS_DIR = "results"

# A pixel is called polyp from this probability on; "validation": the one that --thresholds chose
THRESHOLD = 0.5
# "validation": probabilities are scaled by the temperature that --thresholds chose
TEMPERATURE = None
THRESHOLDS = (*(0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5), *(0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99))
BATCH_SIZE = 32  # images predicted at once


# The networks


def shipped_checkpoints():
    """Return the folder of the network to predict with until there is one of one's own, a Path."""
    return Path(__file__).resolve().parent / SHIPPED_CHECKPOINTS


def choose_networks(named, tta, by_fold=False):
    """Return the Networks of one prediction, before TensorFlow starts.

    named: the folders that the user names, or None; tta: whether views are averaged; by_fold: see
    Networks. Raises InputError for a folder without a network, a damaged config.json, or where a
    constant asks for what is stored with the network, and nothing is.
    """
    folders = find_checkpoints(named, CHECKPOINTS_DIR, shipped_checkpoints())
    configs, weights = [read_config(folder) for folder in folders], hash_weights(folders)
    try:
        threshold, temperature = stored_choices(folders, configs, weights, tta)
    except InputError:
        if "validation" in (THRESHOLD, TEMPERATURE):
            raise
        threshold, temperature = None, None  # then nothing is told of a temperature
    scaled = TEMPERATURE == "validation"
    if THRESHOLD != "validation":
        threshold = THRESHOLD
    elif scaled:  # it was chosen on probabilities as they are: the same pixels are called polyp
        threshold = float(scale_probabilities(threshold, temperature))
    return Networks(folders, configs, weights, threshold, temperature, scaled, by_fold)


def load_prediction(networks, tta):
    """Load the Networks of a prediction; TensorFlow has started.

    tta: whether to average over each picture's eight views (test-time augmentation). Returns the
    Networks, chosen anew where a training has replaced one meanwhile; a list of one predictor, or
    by fold of one for each, which are functions from (n, size, size, 3) uint8 pictures to
    probabilities of polyp, (n, size, size, 1) float32, 0 to 1; that size; and the precision that
    the networks compute in. Raises InputError for a file that holds no such network, and for
    networks of several sizes.
    """
    import model  # noqa: F401  whose layers, of one's own too, Keras must know

    precision, folders = choose_precision(), networks.folders
    with input_errors():
        loaded = [load_unet(folder / "unet.keras", precision) for folder in folders]
    if hash_weights(folders) != networks.weights:
        return load_prediction(choose_networks(folders, tta, networks.by_fold), tta)
    sizes = [network.input_shape[1] for network in loaded]
    for folder, size in zip(folders, sizes, strict=True):
        if size != sizes[0]:
            raise InputError(
                f"{folder}: its network takes {size} pixels a side, that of {folders[0]}"
                f" {sizes[0]}; name networks of one size"
            )
    predictors = []
    for network, folder, config in zip(loaded, folders, networks.configs, strict=True):
        predict = make_predictor(network, folder / "unet.keras")
        if tta and not is_equivariant(config):
            predict = average_views(predict, BATCH_SIZE)
        predictors.append(predict)
    if not networks.by_fold:
        predictors = [average_networks(predictors)]
    return networks, predictors, sizes[0], precision


# Labelled pictures


def choose_pictures(arguments):
    """Return the labelled pictures that the arguments ask for, as scoring/labelled.py has them."""
    source = None
    if arguments.images:
        source = folder_source(arguments.images, arguments.masks, mask_convention(arguments))
    elif arguments.archive:
        source = archive_source(arguments.archive, mask_convention(arguments))
    if source and not (arguments.split or arguments.data):
        return SourcePictures(source, SPLITS_PATH)
    folders = arguments.data or [DATA_DIR]
    if len(folders) > 1:
        return FoldPictures(folders, source)
    return PreparedPictures(arguments.split or "test", *folders, source)


# The commands


def score(arguments):
    """Score labelled pictures, compare two predictions if asked to, and leave all in `results`."""
    tta, by_fold = arguments.tta, len(arguments.data or []) > 1
    named = [arguments.checkpoints, *([arguments.compare] if arguments.compare else [])]
    chosen = [choose_networks(folders, tta, by_fold) for folders in named]
    pictures = choose_pictures(arguments)
    if by_fold:
        for networks in chosen:
            pictures.check_networks(networks)
    read = [arguments.images, arguments.masks, arguments.archive]
    results = Results(arguments.results, [path for path in read if path])
    with results.begin([*SCORES, *gallery_names(len(pictures.names))]):
        chosen, predictors, size, precision = load_predictions(chosen, pictures, tta)
        start = time.monotonic()
        scored = [
            Scored(networks.threshold, networks.temperature, networks.scaled) for networks in chosen
        ]
        properties = score_pictures(predictors, scored, pictures, size, BATCH_SIZE)
        seconds = time.monotonic() - start
        groups, machine = pictures.scenes(), describe_machine(precision, 1)
        report = make_report(pictures, groups, chosen, scored, size, tta, machine)
        table = per_image_table(pictures.names, groups, scored, properties)
        with hold_back_stderr():  # what decoders say again of whole pictures
            save_report(results, report, table)
            save_figures(results, pictures, scored[0], properties, groups, report)
            save_gallery(results, report, pictures, table, scored[0].packed)
        pictures.check_unchanged()
    print(*format_report(report, seconds), sep="\n")
    if arguments.compare:
        print(*most_different(table), sep="\n")
    whose = ", of A" if arguments.compare else ""
    print(f"Look at {results.folder / 'index.html'}: all pictures and figures{whose}")


def load_predictions(chosen, pictures, tta):
    """Start TensorFlow, and load each of the Networks, see `load_prediction`.

    Returns a list of Networks, that of their lists of predictors, their size and precision.
    """
    start_tensorflow()
    loaded = [load_prediction(networks, tta) for networks in chosen]
    chosen, predictors, sizes, precisions = map(list, zip(*loaded, strict=True))
    for networks, size in zip(chosen, sizes, strict=True):
        pictures.check_size(size, networks.folders[0])
        if networks.by_fold:
            pictures.check_networks(networks)
        if size != sizes[0]:
            raise InputError(
                f"{networks.folders[0]}: its network takes {size} pixels a side, that of"
                f" {chosen[0].folders[0]} {sizes[0]}; compare networks of one size"
            )
    return chosen, predictors, sizes[0], precisions[0]


def choose_threshold(arguments):
    """Score the validation split over THRESHOLDS, print the table, and store the best."""
    folders = find_checkpoints(arguments.checkpoints, CHECKPOINTS_DIR, shipped_checkpoints())
    if len(folders) > 1:
        raise InputError("--thresholds: is stored with one network; name one with --checkpoints")
    (data,) = arguments.data or [DATA_DIR]
    pictures = PreparedPictures("validation", data)
    with lock_folder(folders[0]):  # against a training that would replace the network
        config = read_config(folders[0])
        if not pictures.is_trained_on_by(config):
            raise InputError(
                f"{folders[0]}: was trained on other data or another split than {data},"
                " and may have seen its validation split; name its own with --data"
            )
        networks = Networks(folders, [config], hash_weights(folders), None)
        loaded = load_predictions([networks], pictures, arguments.tta)
        (networks,), ((predict,),), size, precision = loaded
        rows, curve = score_thresholds(predict, pictures, size, THRESHOLDS, BATCH_SIZE)
        temperature, images = fit_temperature(curve), len(pictures.names)
        pictures.check_unchanged()
        best = store_threshold(networks, arguments.tta, images, rows, temperature)
    print(
        f"{pictures.title}: {images:,} images, pixels pooled but for Dice per image;"
        f" in {precision}",
        *format_thresholds(rows),
        f"{folders[0] / THRESHOLDS_FILE}: threshold {best['threshold']:g}, the best by Dice per"
        f" image, and temperature {temperature:.3g}, that of the smallest cross-entropy;"
        ' "validation" for THRESHOLD or TEMPERATURE in evaluation.py takes them',
        *(f"Beware: {line}" for line in descent_doubts(folders[0], config, pictures.sha256)),
        sep="\n",
    )


def segment(arguments):
    """Segment pictures and films at their own size; end with status 1 if any cannot be read."""
    listed, missing = read_list(arguments.list) if arguments.list else ([], [])
    files, failures = find_files(arguments.pictures + listed, arguments.results), missing.copy()
    films = {name: file for name, file in files.items() if is_film(file)}
    pictures = {name: file for name, file in files.items() if name not in films}
    results, lines = Results(arguments.results, files.values()), []
    networks = choose_networks(arguments.checkpoints, arguments.tta)
    with results.begin(result_names(pictures, films, arguments.probabilities)):
        start_tensorflow()
        networks, (predict,), size, _ = load_prediction(networks, arguments.tta)
        if networks.scaled:
            predict = scale_predictor(predict, networks.temperature)
        how = (predict, size), networks.threshold, BATCH_SIZE, results
        print(f"Prediction: {describe_prediction(networks, arguments.tta)}", flush=True)
        if pictures:
            done, without, failed = segment_pictures(pictures, *how, arguments.probabilities)
            failures += failed
            masks, overlays, table = (results.folder / n for n in ("masks", "overlays", OWN_TABLE))
            if done:
                noun = "mask" if done == 1 else "masks"
                lines.append(
                    f"{masks}: {done:,} {noun}, {without:,} without a polyp; outlined in"
                    f" {overlays}, each polyp in {table}"
                )
        for name, file in films.items():
            start = time.monotonic()
            try:
                frames, with_polyp = segment_film(file, name, *how)
            except FilmError as error:
                failures.append(error)
                continue
            noun = "frame" if frames == 1 else "frames"
            lines.append(
                f"{results.folder / f'films/{name}.mp4'}: {frames:,} {noun},"
                f" {with_polyp:,} of them with a polyp, {frames / (time.monotonic() - start):.0f}"
                " a second; each polyp in the .csv beside it"
            )
    for line in lines:
        print(line)
    for error in failures:
        fail(error, status=1)
    if failures:
        count = len(files) + len(missing)
        sys.exit(fail(f"{len(failures):,} of {count:,} could not be read whole", status=1))


def parse_arguments():
    """Return the command line's arguments."""
    usage = "%(prog)s [PICTURE_OR_FOLDER ...] [options]"  # not behind --checkpoints
    parser = argparse.ArgumentParser(usage=usage, description=__doc__.splitlines()[0])
    parser.add_argument(
        "pictures",
        nargs="*",
        type=named_path,
        metavar="PICTURE_OR_FOLDER",
        help="your own, films too",
    )
    parser.add_argument(
        "--list", type=named_path, metavar="FILE", help="names them, a path a line; - for stdin"
    )
    parser.add_argument(
        "--probabilities", action="store_true", help="write those of your own pictures too, as PNG"
    )
    folder = {"type": named_path, "metavar": "DIR"}
    several = folder | {"nargs": "+", "action": "extend"}
    parser.add_argument(
        "--data",
        **several,
        help=f"several: folds, each with the network of its place; default: {DATA_DIR}",
    )
    parser.add_argument("--split", choices=(*SPLITS, "all"), help="default: test")
    parser.add_argument("--images", **folder, help="labelled, with --masks; not prepared")
    parser.add_argument("--masks", **folder, help="with the same file names")
    parser.add_argument(
        "--archive", type=named_path, metavar="FILE", help="a zip of such pictures and masks"
    )
    add_mask_arguments(parser)
    parser.add_argument(
        "--checkpoints",
        **several,
        help="of one network, or of several, whose mean is taken;"
        f" default: {CHECKPOINTS_DIR}, and without a network there {SHIPPED_CHECKPOINTS}",
    )
    parser.add_argument("--compare", **several, help="another network, or several, to compare")
    parser.add_argument(
        "--thresholds", action="store_true", help="choose a threshold on the validation split"
    )
    parser.add_argument(
        "--tta", action="store_true", help="average over each picture's flips and quarter turns"
    )
    parser.add_argument("--results", default=RESULTS_DIR, **folder, help="default: %(default)s")
    arguments = parser.parse_args(command_line())
    check_combination(parser, arguments)
    return arguments


def check_combination(parser, arguments):
    """End with a line if the arguments ask for several things at once, or for half of one."""
    given = {name for name, value in vars(arguments).items() if value}
    given -= {"tta", "checkpoints", "results"}
    given = {name for name in given if not name.startswith("mask_")}
    goes_with = {
        "pictures": {"list", "probabilities"},
        "list": {"pictures", "probabilities"},
        "thresholds": {"data"},
        "images": {"masks", "compare", "split", "data"},
        "archive": {"compare", "split", "data"},
    }
    for name, others in goes_with.items():
        odd = sorted(given - others - {name})
        if name in given and odd:
            kind = "PICTURE_OR_FOLDER" if name == "pictures" else f"--{name}"
            parser.error(f"{kind} and --{odd[0]} do not go together")
    if arguments.probabilities and not (arguments.pictures or arguments.list):
        parser.error("--probabilities: name pictures too; it is for those of your own")
    if len(arguments.data or []) > 1:
        check_folds(parser, arguments)
    check_mask_arguments(parser, arguments)


def check_folds(parser, arguments):
    """End with a line if the arguments ask for more than scores of folds, each by its network."""
    folds = len(arguments.data)
    for option in ("split", "thresholds"):
        if getattr(arguments, option):
            parser.error(f"--{option}: takes one folder of --data, not {folds}")
    for option in ("checkpoints", "compare"):
        count = len(getattr(arguments, option) or [])
        if count != folds and (count or option == "checkpoints"):
            parser.error(f"--{option}: name the network of each of {folds} --data, not {count}")


def constants():
    """Return the constants above that can be unusable, and what each must be."""
    return {
        "TEMPERATURE": (TEMPERATURE, one_of(None, "validation")),
        "THRESHOLD": (THRESHOLD, number(above=0, below=1) | one_of("validation")),
        "THRESHOLDS": (THRESHOLDS, numbers(above=0, below=1)),
        "BATCH_SIZE": (BATCH_SIZE, whole(1)),
    }


def main():
    """Do what the command line asks for: score, choose a threshold, or segment."""
    arguments = parse_arguments()
    check_constants("evaluation.py", constants())
    if arguments.pictures or arguments.list:
        segment(arguments)
    elif arguments.thresholds:
        choose_threshold(arguments)
    else:
        score(arguments)


if __name__ == "__main__":
    run(main)
