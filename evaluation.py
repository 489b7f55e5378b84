"""Score a trained network on labelled pictures, or segment pictures of your own.

    python evaluation.py                            scores and figures of the test split
    python evaluation.py --split S                  of another: train, validation, test or all
    python evaluation.py --images DIR --masks DIR   of labelled pictures that were never prepared
    python evaluation.py --archive FILE             the same, of .../images/ and .../masks/ in a zip
    python evaluation.py --normals DIR ...          of pictures that show no polyp, with others too
    python evaluation.py --archive FILE --split S   of a split, at the pictures' own size too
    python evaluation.py --compare C                and of the network in C on the same pictures
    python evaluation.py --thresholds               choose on the validation split, or on labelled
                                                    pictures, from where on a polyp is an alarm
    python evaluation.py PICTURE_OR_FOLDER ...      a mask for each, at the picture's own size
    python evaluation.py FILM ...                   a film with the outlines of its polyps

Several folders after --checkpoints or --compare are averaged; --tta averages over each picture's
flips and turns. With --data F G and --checkpoints A B, two folds and their networks, A predicts the
test split of F, and B that of G. The test split is for this alone: nothing was chosen by its
scores. The terminal shows mean IoU, precision, recall, F1 and Dice. In results/ scores leave

    index.html            a page of all scores, pictures (from gallery/) and figures
    metrics.md            all scores with definitions and intervals, as tables for a paper
    metrics.json          the same, and how they came about
    per_image.csv         name, scene, and scores and polyp fraction of each image
    predictions.png       the best, median and worst cases, and eight more figures

and own pictures and films leave

    masks/NAME.png        0 and 255, of the picture's own size; overlays/NAME.jpg with its outlines
    pictures.csv          a row for each polyp
    films/NAME.mp4, .csv  the outlined film, and the polyps of each frame

They replace those of an earlier run, which are listed in written.jsonl. A picture or film that
cannot be read is named, the others are done, and the exit status is 1. Prepared data take the
network in checkpoints/, and without any SHIPPED_CHECKPOINTS, which comes with these scripts. Other
pictures take the one in checkpoints/ once it is finished, and else SHIPPED_FOR_PICTURES.
--thresholds prints a table and leaves thresholds.json in the network's folder: the level of alarms,
which LEVEL below takes, and a threshold and a temperature, for THRESHOLD and TEMPERATURE =
"validation".
"""

import argparse
import sys
import time
from pathlib import Path
from typing import NamedTuple

from utils.command import (
    InputError,
    check_constants,
    command_line,
    counted,
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
from utils.data.normals import add_normals, normal_source
from utils.data.sources import (
    add_mask_arguments,
    archive_source,
    check_mask_arguments,
    folder_source,
    mask_convention,
)
from utils.data.splits import SPLITS, read_splits
from utils.devices import choose_precision, describe_machine, start_tensorflow
from utils.files import lock_folder
from utils.prediction.films import FilmError, Watch, is_film, segment_film
from utils.prediction.networks import (
    THRESHOLDS_FILE,
    Networks,
    find_checkpoints,
    hash_weights,
    is_equivariant,
    load_unet,
    read_networks,
    store_choices,
    stored_choices,
)
from utils.prediction.own_pictures import (
    OWN_TABLE,
    Segmenter,
    find_files,
    read_list,
    result_names,
    segment_pictures,
)
from utils.prediction.predictors import (
    average_networks,
    average_views,
    describe_prediction,
    level_text,
    make_predictor,
    scale_predictor,
    scale_probabilities,
)
from utils.reporting.gallery import report_names, save_gallery
from utils.reporting.plots import save_figures
from utils.reporting.report import make_report, per_image_table, save_report
from utils.reporting.tables import most_different, terminal_lines, threshold_lines
from utils.results import Results
from utils.scoring.choices import choose, score_thresholds
from utils.scoring.labelled import FoldPictures, PreparedPictures, SourcePictures
from utils.scoring.scored import Scored, score_pictures

DATA_DIR = "data/processed"
CHECKPOINTS_DIR = "checkpoints"
# Beside this script, wherever it is run from: what train.py leaves; and for pictures that were
# never prepared one that was trained on normal pictures, too, and marks little where no polyp is
SHIPPED_CHECKPOINTS = "checkpoints/hyperkvasir-32"
SHIPPED_FOR_PICTURES = "checkpoints/hyperkvasir-normals-32"
RESULTS_DIR = "results"

# A pixel is called polyp from this probability on; "validation": the one that --thresholds chose
THRESHOLD = 0.5
# "validation": probabilities are scaled by the temperature that --thresholds chose
TEMPERATURE = None
# A region that is less sure is no alarm, see docs/scores.md; "validation": the level that
# --thresholds chose, and if none is stored, every region is an alarm, as with 0
LEVEL = "validation"
REACHED = 0.98  # of the pictures with a polyp: --thresholds sets the level that this share reaches
# An alarm of a film begins after so many frames in a row with one, and ends after so many without:
# shorter ones are mostly false
ALARM_BEGINS, ALARM_ENDS = 7, 7
THRESHOLDS = (*(0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5), *(0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99))
BATCH_SIZE = 32  # images predicted at once


# The networks


class Prediction(NamedTuple):
    """The networks of one prediction, loaded.

    networks: their Networks; predictors: see predictors.py: a list of one, or by fold of one for
    each; size: of the pictures that they take, in pixels; precision: in which they compute.
    """

    networks: Networks
    predictors: list
    size: int
    precision: str


def find_networks(named, prepared):
    """Return the folders of the networks to predict with, as `find_checkpoints` does.

    named: those that the user names, or None; prepared: whether it is for a prepared data set. For
    other pictures one whose training goes on is none.
    """
    shipped = SHIPPED_CHECKPOINTS if prepared else SHIPPED_FOR_PICTURES
    beside = Path(__file__).resolve().parent / shipped
    return find_checkpoints(named, CHECKPOINTS_DIR, beside, finished=not prepared)


def choose_networks(named, tta, by_fold=False, prepared=True):
    """Return the Networks of one prediction, before TensorFlow starts.

    named, prepared: see `find_networks`; tta: whether views are averaged; by_fold: see Networks.
    Raises InputError for a folder without a network, a damaged config.json, or where a constant
    asks for what is not stored with the network.
    """
    folders = find_networks(named, prepared)
    networks, scaled = read_networks(folders, by_fold), TEMPERATURE == "validation"
    try:
        threshold, temperature, level = stored_choices(*networks[:3], tta)
    except InputError as error:
        if "validation" in (THRESHOLD, TEMPERATURE):
            raise
        threshold, temperature, level = None, None, 0.0  # reports then mention no temperature
        if LEVEL == "validation" and (folders[0] / THRESHOLDS_FILE).is_file():
            print(f"Beware: every region is an alarm, without a level: {error}")
    if scaled:  # they were chosen on probabilities as they are: the same pixels are called polyp
        threshold, level = (
            float(scale_probabilities(chosen, temperature)) for chosen in (threshold, level)
        )
    if THRESHOLD != "validation":
        threshold = THRESHOLD
    if LEVEL != "validation":
        level = LEVEL
    return networks._replace(
        threshold=threshold, temperature=temperature, scaled=scaled, level=level
    )


def load_prediction(networks, tta):
    """Return the Prediction of Networks; TensorFlow has started.

    tta: whether to average over each picture's eight views (test-time augmentation). Where a
    training has replaced a network meanwhile, they are chosen anew. Raises InputError for a file
    that holds no such network, and for networks of several sizes.
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
    return Prediction(networks, predictors, sizes[0], precision)


def load_predictions(chosen, pictures, tta):
    """Start TensorFlow, and return the Prediction of each of the Networks for labelled pictures.

    Raises InputError as `load_prediction` does, and for networks that do not go with the pictures.
    """
    for networks in chosen:
        pictures.check_networks(networks)
    start_tensorflow()
    predictions = [load_prediction(networks, tta) for networks in chosen]
    size, first = predictions[0].size, chosen[0].folders[0]
    for prediction in predictions:
        folder = prediction.networks.folders[0]
        pictures.check_networks(prediction.networks)
        pictures.check_size(prediction.size, folder)
        if prediction.size != size:
            raise InputError(
                f"{folder}: its network takes {prediction.size} pixels a side, that of {first}"
                f" {size}; compare networks of one size"
            )
    return predictions


# Scores


def are_prepared(arguments):
    """Tell whether the arguments ask for pictures of a prepared data set."""
    source = arguments.images or arguments.archive or arguments.normals
    return bool(arguments.split or arguments.data or not source)


def choose_pictures(arguments, split="test"):
    """Return the labelled pictures that the arguments ask for, as scoring/labelled.py has them.

    split: of prepared ones, if they name none.
    """
    source, convention, by_folder = None, mask_convention(arguments), not arguments.splits
    if arguments.images:
        source = folder_source(arguments.images, arguments.masks, convention, by_folder)
    elif arguments.archive:
        source = archive_source(arguments.archive, convention, by_folder)
    if arguments.normals:
        normals = normal_source(arguments.normals, by_folder)
        source = add_normals(source, normals) if source else normals
    if not are_prepared(arguments):
        return SourcePictures(take_groups(arguments.splits, source))
    folders = arguments.data or [DATA_DIR]
    if len(folders) > 1:
        return FoldPictures(folders, source)
    return PreparedPictures(arguments.split or split, folders[0], source)


def take_groups(path, source):
    """Return a Source with the groups that a table names, if there is one.

    Raises InputError for a table that names none, and as `read_splits` does.
    """
    if not path:
        return source
    groups = read_splits(path, source.names).groups
    if groups is None:
        raise InputError(f"{path}: names no groups; add a column group, or leave out --splits")
    return source._replace(groups=groups)


def score(arguments):
    """Score labelled pictures, compare two predictions if asked to, and leave all in `results`."""
    by_fold, tta, prepared = len(arguments.data or []) > 1, arguments.tta, are_prepared(arguments)
    asked = [arguments.checkpoints] + ([arguments.compare] if arguments.compare else [])
    chosen = [choose_networks(folders, tta, by_fold, prepared) for folders in asked]
    pictures = choose_pictures(arguments)
    named = arguments.images, arguments.masks, arguments.archive, *(arguments.normals or [])
    read = [path for path in named if path]
    results = Results(arguments.results, read)
    with results.begin(report_names(len(pictures.names))):
        predictions = load_predictions(chosen, pictures, tta)
        start, size = time.monotonic(), predictions[0].size
        chosen = [prediction.networks for prediction in predictions]
        scored = [
            Scored(each.threshold, each.temperature, each.scaled, each.level) for each in chosen
        ]
        predictors = [prediction.predictors for prediction in predictions]
        properties = score_pictures(predictors, scored, pictures, size, BATCH_SIZE)
        seconds = time.monotonic() - start
        groups, machine = pictures.scenes(), describe_machine(predictions[0].precision, 1)
        report = make_report(pictures, groups, chosen, scored, size, tta, machine)
        table = per_image_table(pictures.names, groups, scored, properties)
        with hold_back_stderr():  # what decoders say again of whole pictures
            save_report(results, report, table)
            save_figures(results, pictures, scored[0], properties, groups, report)
            save_gallery(results, report, pictures, table, scored[0].packed)
        pictures.check_unchanged()
    lines = terminal_lines(report, seconds, results.folder)
    print(*lines, *(most_different(table) if arguments.compare else []), sep="\n")


# A threshold


def choose_threshold(arguments):
    """Score labelled pictures over THRESHOLDS, print the table, and store what is best."""
    folders = find_networks(arguments.checkpoints, are_prepared(arguments))
    if len(folders) > 1:
        raise InputError("--thresholds: is stored with one network; name one with --checkpoints")
    (folder,), pictures = folders, choose_pictures(arguments, "validation")
    with lock_folder(folder):  # against a training that would replace the network
        networks = read_networks(folders)
        (config,) = networks.configs
        if pictures.is_trained_on_by(config) is False:
            raise InputError(
                f"{folder}: was trained on other data or another split than {pictures.folder},"
                " and may have seen its validation split; name its own with --data"
            )
        (prediction,) = load_predictions([networks], pictures, arguments.tta)
        (predict,), size = prediction.predictors, prediction.size
        scored = score_thresholds(predict, pictures, size, THRESHOLDS, BATCH_SIZE)
        if not len(scored.with_polyp):
            raise InputError(f"{pictures.title}: none shows a polyp; add pictures that do")
        choices, images = choose(scored, REACHED), len(pictures.names)
        pictures.check_unchanged()
        chosen_on = f"{images:,} images, {pictures.title}"
        store_choices(networks, arguments.tta, chosen_on, choices, scored.rows)
    threshold, temperature, level = choices.values()
    reached = f"{(scored.with_polyp >= level).mean():.0%} of the pictures with a polyp"
    if len(scored.without):
        reached += f" and {(scored.without >= level).mean():.1%} of those without"
    print(
        f"Network: {networks.names[0]}",
        f"{pictures.title}: {images:,} images, pixels pooled but for Dice per image;"
        f" in {prediction.precision}",
        *threshold_lines(scored.rows),
        f"{folder / THRESHOLDS_FILE}: the level of alarms, {level_text(level)}, which {reached}"
        " reach; from now on a region that is less sure is no alarm",
        f"  and threshold {threshold:g}, the best by Dice per image, and temperature"
        f' {temperature:.3g}, that of the smallest cross-entropy; "validation" for THRESHOLD or'
        " TEMPERATURE in evaluation.py takes them",
        *(f"Beware: {line}" for line in pictures.doubts({folder: config})),
        *(f"Note: {line}" for line in pictures.notes()),
        sep="\n",
    )


# Pictures and films of one's own


def segment(arguments):
    """Segment pictures and films at their own size; end with status 1 if any cannot be read."""
    listed, failures = read_list(arguments.list) if arguments.list else ([], [])
    files = find_files(arguments.pictures + listed, arguments.results)
    count = len(files) + len(failures)
    films = {name: file for name, file in files.items() if is_film(file)}
    pictures = {name: file for name, file in files.items() if name not in films}
    results = Results(arguments.results, files.values())
    if films and arguments.probabilities:
        raise InputError("--probabilities: is for pictures alone; segment films without it")
    networks = choose_networks(arguments.checkpoints, arguments.tta, prepared=False)
    with results.begin(result_names(pictures, films, arguments.probabilities)):
        start_tensorflow()
        prediction = load_prediction(networks, arguments.tta)
        networks, (predict,) = prediction.networks, prediction.predictors
        if networks.scaled:
            predict = scale_predictor(predict, networks.temperature)
        print(*(f"Network: {name}" for name in networks.names), sep="\n")
        print(f"Prediction: {describe_prediction(networks, arguments.tta)}", flush=True)
        segmenter = Segmenter(
            predict, prediction.size, networks.threshold, networks.level, BATCH_SIZE
        )
        lines = []
        if pictures:
            probabilities = arguments.probabilities
            done, alarming, failed = segment_pictures(pictures, segmenter, results, probabilities)
            failures = failures + failed
            if done:
                lines.append(told_of_pictures(results.folder, done, alarming))
        for name, file in films.items():
            start, watch = time.monotonic(), Watch(ALARM_BEGINS, ALARM_ENDS)
            try:
                frames, seconds, events = segment_film(file, name, segmenter, watch, results)
            except FilmError as error:
                failures = [*failures, error]
            else:
                rate = frames / (time.monotonic() - start)
                lines.append(
                    f"{results.folder / f'films/{name}.mp4'}: {counted(frames, 'frame')}, segmented"
                    f" at {rate:.0f} a second; {told_of_events(events, seconds)}; each polyp and"
                    " alarm in the .csv beside it"
                )
    for line in lines:
        print(line)
    for error in failures:
        fail(error, status=1)
    if failures:
        sys.exit(fail(f"{len(failures):,} of {count:,} could not be read whole", status=1))


def told_of_pictures(folder, done, alarming):
    """Return what is said of so many pictures, in so many of which there is an alarm."""
    return (
        f"{folder / 'masks'}: {counted(done, 'mask')}, an alarm in {alarming:,}; outlined in"
        f" {folder / 'overlays'}, each polyp in {folder / OWN_TABLE}"
    )


def told_of_events(events, seconds, most=5):
    """Return what is said of the Events of a film of so many seconds."""
    if not events:
        return "no alarm"
    begins = [round(event.begin, 1) for event in events]  # or 59.96 would be 0:60.0
    told = [
        f"at {int(begin // 60)}:{begin % 60:04.1f} for {event.end - event.begin:.1f} s"
        for begin, event in zip(begins[:most], events, strict=False)
    ]
    more = f" and {len(events) - most:,} more" if len(events) > most else ""
    rate = 60 * len(events) / seconds
    return f"{counted(len(events), 'alarm')}, {rate:.1f} a minute: {', '.join(told)}{more}"


# The command line

# What each command takes, besides --checkpoints, --tta and --results
LABELLED = {"data", "images", "masks", "archive", "normals"}
COMMANDS = {
    "PICTURE_OR_FOLDER": (segment, {"pictures", "list", "probabilities"}),
    "--thresholds": (choose_threshold, {"thresholds", *LABELLED}),
    "scores of labelled pictures": (score, {"split", "compare", "splits", *LABELLED}),
}


def parse_arguments():
    """Return the command line's arguments, and the function of the command that they ask for."""
    usage = "%(prog)s [PICTURE_OR_FOLDER ...] [options]"  # not behind --checkpoints
    parser = argparse.ArgumentParser(usage=usage, description=__doc__.splitlines()[0])
    file = {"type": named_path, "metavar": "FILE"}
    folder = {"type": named_path, "metavar": "DIR"}
    several = folder | {"nargs": "+", "action": "extend"}
    parser.add_argument(
        "pictures",
        nargs="*",
        type=named_path,
        metavar="PICTURE_OR_FOLDER",
        help="your own, films too",
    )
    add = parser.add_argument
    add("--list", **file, help="a file of paths, one a line; - for stdin")
    add("--probabilities", action="store_true", help="write those of your own pictures too, as PNG")
    add(
        "--data",
        **several,
        help=f"several: folds; the first goes with the first of --checkpoints; default: {DATA_DIR}",
    )
    add("--split", choices=(*SPLITS, "all"), help="default: test")
    add("--images", **folder, help="labelled, with --masks; not prepared")
    add("--masks", **folder, help="with the same file names")
    add("--archive", **file, help="a zip, or a folder, of such images/ and masks/")
    add("--normals", **several, help="pictures that show no polyp")
    add("--splits", **file, help="a table with the groups of --images or --archive")
    add_mask_arguments(parser)
    add(
        "--checkpoints",
        **several,
        help="of one network, or of several, whose mean is taken;"
        f" default: {CHECKPOINTS_DIR}, and without a network there {SHIPPED_CHECKPOINTS}, or for"
        f" pictures that are not prepared {SHIPPED_FOR_PICTURES}",
    )
    add("--compare", **several, help="another network, or several, to compare")
    add(
        "--thresholds",
        action="store_true",
        help="choose a threshold, a temperature and the level of alarms",
    )
    add("--tta", action="store_true", help="average over each picture's flips and quarter turns")
    add("--results", default=RESULTS_DIR, **folder, help="default: %(default)s")
    arguments = parser.parse_args(command_line())
    return arguments, choose_command(parser, arguments)


def choose_command(parser, arguments):
    """Return the function of a command; end with a line if the arguments do not go together."""
    words = "scores of labelled pictures"
    if arguments.pictures or arguments.list:
        words = "PICTURE_OR_FOLDER"
    elif arguments.thresholds:
        words = "--thresholds"
    command, takes = COMMANDS[words]
    others = set().union(*(options for _, options in COMMANDS.values())) - takes
    for name in sorted(others):
        if getattr(arguments, name):
            parser.error(f"{words} and --{name} do not go together")
    if arguments.images and arguments.archive:
        parser.error("--images and --archive do not go together")
    if arguments.splits and are_prepared(arguments):
        parser.error("--splits: names groups of --images or --archive alone; leave it out")
    check_mask_arguments(parser, arguments)
    if (folds := len(arguments.data or [])) > 1:
        check_folds(parser, arguments, folds)
    return command


def check_folds(parser, arguments, folds):
    """End with a line if the arguments ask for more than scores of folds, each by its network."""
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
        "LEVEL": (LEVEL, number(least=0, below=1) | one_of("validation")),
        "REACHED": (REACHED, number(above=0, below=1)),
        "ALARM_BEGINS": (ALARM_BEGINS, whole(1)),
        "ALARM_ENDS": (ALARM_ENDS, whole(1)),
        "TEMPERATURE": (TEMPERATURE, one_of(None, "validation")),
        "THRESHOLD": (THRESHOLD, number(above=0, below=1) | one_of("validation")),
        "THRESHOLDS": (THRESHOLDS, numbers(above=0, below=1)),
        "BATCH_SIZE": (BATCH_SIZE, whole(1)),
    }


def main():
    """Do what the command line asks for: score, choose a threshold, or segment."""
    arguments, command = parse_arguments()
    check_constants("evaluation.py", constants())
    command(arguments)


if __name__ == "__main__":
    run(main)
