"""Turn pictures and polyp masks into a data set that is ready for training.

    python data_preprocessing.py                            download HyperKvasir (46 MB)
    python data_preprocessing.py --archive FILE             use a copy of that archive
    python data_preprocessing.py --images DIR --masks DIR   use your own pictures
    python data_preprocessing.py --normals DIR ...          add pictures that show no polyp
    python data_preprocessing.py --demo                     draw 120 synthetic pairs, no download
    python data_preprocessing.py --fold K                   test on fold K, 0 to 4, instead of 0
    python data_preprocessing.py --agreement                how far two annotations of a frame agree

Every pair is decoded, its mask made binary, both are reduced to IMAGE_SIZE x IMAGE_SIZE, and the
pairs are split so that frames of the same scene stay together. In data/processed/ this leaves

    images.npy    (N, IMAGE_SIZE, IMAGE_SIZE, 3) uint8, RGB, 0 to 255
    masks.npy     (N, IMAGE_SIZE, IMAGE_SIZE, 1) uint8, 0 or 1
    splits.csv    name, group, split and fold of each row of the arrays
    dataset.json  source, sizes, counts, polyp fraction, test fold, hashes, warnings, notes
    preview.png   a contact sheet: look at it before you train

Other files in that folder stay as they are. With --agreement it prepares nothing, and prints a
table: the Dice of the two annotations of each frame that stands twice among the pairs.
"""

import argparse
import csv
import json
import tempfile
import time
from pathlib import Path

import numpy as np

from utils.command import (
    Check,
    InputError,
    Progress,
    check_constants,
    command_line,
    named_path,
    next_command,
    one_line,
    parallel,
    run,
    whole,
)
from utils.data.dataset import FILES, Rows, load_summary
from utils.data.demo import draw_demo_pair
from utils.data.download import download_archive
from utils.data.folds import deal_normals, fold_scenes, split_by_fold
from utils.data.normals import add_normals, normal_source
from utils.data.pictures import DECODERS, border_fraction, reduce_pair
from utils.data.scenes import UNKNOWN, FeatureFile, fill_scenes, sift_features
from utils.data.sources import (
    Source,
    add_mask_arguments,
    archive_source,
    check_mask_arguments,
    folder_source,
    mask_convention,
    mask_doubts,
    watch_decoders,
)
from utils.data.splits import (
    SPLIT_COLUMNS,
    SPLITS,
    Splits,
    check_folds,
    read_splits,
    tested_fold,
)
from utils.files import file_sha256, replace_files
from utils.scoring.agreement import describe_agreement

# Where things are
DATA_DIR = "data/processed"
ARCHIVE_PATH = "data/hyper-kvasir-segmented-images.zip"
SPLITS_PATH = Path(__file__).parent / "data/hyperkvasir_splits.csv"

# The official archive. It has changed before: on a mismatch the download says how to go on.
ARCHIVE_URL = "https://datasets.simula.no/downloads/hyper-kvasir/hyper-kvasir-segmented-images.zip"
ARCHIVE_BYTES = 46_179_365
ARCHIVE_SHA256 = "4463011f991dcdc74ec56399788b1a93822593f17ed18a662bdeb7392ffcdd9a"

IMAGE_SIZE = 128  # pixels; a multiple of 16, since the network halves it four times
DEMO_PAIRS = 120
# How to train on them, in minutes
DEMO_TRAINING = ["--filters", 16, "--epochs", 20, 5, "--batch-size", 4]
DEMO_TRAINING += ["--checkpoints", "checkpoints/demo"]

# The split: a fifth of all pairs for testing, a tenth of the rest for validation. HyperKvasir's
# stands in SPLITS_PATH; after a change of these or of the scenes, --regroup computes it anew
SEED = 42
FOLDS = 5  # fold 0 is the test split, unless --fold names another
VALIDATION_PARTS = 10


# Where the pairs come from


def choose_source(arguments):
    """Return the source that the arguments ask for; downloads the archive if it is the default."""
    if arguments.demo:
        return demo_source()
    convention, regroup = mask_convention(arguments), arguments.regroup
    by_folder = not (arguments.splits or regroup)
    # First: what is refused should not wait for a download
    normals = normal_source(arguments.normals, not regroup) if arguments.normals else None
    if arguments.images:
        source = folder_source(arguments.images, arguments.masks, convention, by_folder)
    else:
        if not arguments.archive:
            download_archive(ARCHIVE_URL, ARCHIVE_PATH, ARCHIVE_BYTES, ARCHIVE_SHA256)
        source = archive_source(arguments.archive or ARCHIVE_PATH, convention, by_folder)
    return add_normals(source, normals) if normals else source


def demo_source():
    """Return DEMO_PAIRS synthetic pairs, drawn with integers only: the same on every machine."""
    names = [f"demo_{i:03d}" for i in range(DEMO_PAIRS)]
    return Source("demo", names, draw_demo_pair, np.full(DEMO_PAIRS, UNKNOWN))


# Which pairs train, validate and test


def choose_splits(arguments, names=None):
    """Return the splits file that the arguments ask for, or None: to be computed.

    By default, pictures of HyperKvasir's names get the split that the repository keeps. names: of
    the pairs; None before they are known, when only the official archive is sure to have those.
    Raises InputError if the repository's file is missing where it may be needed.
    """
    if arguments.splits or arguments.regroup or arguments.demo:
        return arguments.splits
    if not SPLITS_PATH.is_file():
        raise InputError(
            f"{SPLITS_PATH}: is missing; get it back with git checkout, or split anew by --regroup"
        )
    if names is None:
        return None if arguments.images or arguments.archive else SPLITS_PATH
    return SPLITS_PATH if set(read_splits(SPLITS_PATH).names) == set(names) else None


def check_splits(arguments):
    """Raise InputError for a splits file or a fold that is of no use, before any download."""
    if path := choose_splits(arguments):
        given = read_splits(path)
        complete_splits(path, given, np.ones(len(given.names)), arguments.fold)
    elif arguments.regroup:
        check_computed_fold(arguments.fold)


def check_computed_fold(fold):
    """Raise InputError for a fold that a split which is computed does not have."""
    if fold is not None and not 0 <= fold < FOLDS:
        raise InputError(f"--fold {fold}: there are the folds 0 to {FOLDS - 1}")


def complete_splits(path, given, fractions, fold):
    """Return Splits in which what a file does not say is computed, and said in the notes.

    path: the file's, or None; given: the Splits as far as they are known; fractions: (n,) float, 0
    to 1, the polyp's part of each mask; fold: the one that is to be the test split, or None.
    Raises InputError for a fold that there is not, and for too few scenes.
    """
    names, groups, split, folds, notes = given
    notes = list(notes)
    if groups is None:
        groups = np.arange(len(names))
        notes.append(
            f"{path}: names no groups, so each picture counts as a scene of its own; frames of one"
            " scene may stand in two splits"
        )
    if folds is not None:  # the lowest is tested, unless the file or --fold says another
        fold = folds.min() if fold is None and split is None else fold
        if fold is not None:
            check_folds(path, groups, folds, fold)
    elif split is not None:
        if fold is not None:
            raise InputError(f"--fold {fold}: {path} names no folds; leave out --fold")
        folds = np.where(split == "test", 0, 1)
    else:
        fold = fold or 0
        check_computed_fold(fold)
        folds = fold_scenes(groups, fractions, FOLDS, SEED)
    if split is None or fold not in (None, tested_fold(split, folds)):
        split = split_by_fold(groups, fractions, folds, fold, VALIDATION_PARTS, SEED)
    elif "validation" not in split:
        tested = np.where(split == "test", 0, 1)
        split = split_by_fold(groups, fractions, tested, 0, VALIDATION_PARTS, SEED)
        notes.append(
            f"{path}: names no validation split; {(split == 'validation').sum():,} of its"
            f" {tested.sum():,} training pictures became it"
        )
    return Splits(names, groups, split, folds, notes)


def known_splits(source, splits_file):
    """Return the Splits of a Source as far as they are known before any picture is decoded.

    Of normal pictures, a file that names the pairs alone says nothing. Returns the groups of all,
    (n,) int, too: UNKNOWN where they are to be looked for, and 0 where the file tells them.
    """
    names, groups = source.names, source.groups
    if not splits_file:
        alone = np.where(groups == UNKNOWN, UNKNOWN - np.arange(len(names)), groups)
        return Splits(names, alone, None, None, []), groups
    named = len(names)
    if source.normals and len(read_splits(splits_file).names) != named:
        named -= source.normals
    given = read_splits(splits_file, names[:named])
    return given, np.append(np.zeros(named, int), groups[named:])


def join_normals(splits, names, groups):
    """Return Splits of pairs with normal pictures joined, of which their file says nothing.

    names: of the normal pictures; groups: (n,) int, their scenes.
    """
    tested = tested_fold(splits.split, splits.folds)
    first, last = splits.folds.min(), splits.folds.max()
    tested = 0 if tested is None else tested - first
    count = max(FOLDS, last - first + 1)
    split, folds = deal_normals(groups, count, tested, VALIDATION_PARTS, SEED)
    return Splits(
        splits.names + names,
        np.append(splits.groups, groups - groups.min() + splits.groups.max() + 1),
        np.append(splits.split, split),
        np.append(splits.folds, folds + first),
        splits.notes,
    )


# The data set


def prepare(source, data_dir, splits_file=None, fold=None):
    """Write the data set of a source; an earlier one stays as it was unless all goes well.

    Without `splits_file` the pictures are grouped by their look, where the source has no groups,
    and dealt into folds. fold: the one that becomes the test split; by default the file's own test
    split, or fold 0. Normal pictures are dealt apart where the file names the pairs alone. Returns
    what dataset.json says.
    """
    names, pairs = source.names, len(source.names) - source.normals
    given, groups = known_splits(source, splits_file)
    shown = np.arange(len(given.names)) < pairs
    complete_splits(splits_file, given, shown.astype(float), fold)  # before the work
    with replace_files(data_dir, FILES) as folder, tempfile.TemporaryFile(dir=folder) as file:
        features = FeatureFile(file)
        sizes, fractions, borders = write_arrays(source, folder, features, groups == UNKNOWN)
        warnings = mask_doubts(source, fractions, borders)
        if not fractions.any():
            raise InputError(f"{source.label}: no mask shows a polyp; are these the right masks?")
        groups = fill_scenes(groups, features)
        given = given if splits_file else given._replace(groups=groups)
        splits = complete_splits(splits_file, given, fractions[: len(given.names)], fold)
        if rest := names[len(given.names) :]:
            splits = join_normals(splits, rest, groups[len(given.names) :])
        write_splits(folder / "splits.csv", splits)
        summary = summarise(source, sizes, fractions, splits)
        summary["sha256"] = file_sha256(*(folder / name for name in FILES[:3]))
        summary["splits_sha256"] = file_sha256(folder / "splits.csv")
        summary["warnings"], summary["notes"] = warnings, [*source.notes(), *splits.notes]
        text = json.dumps(summary, indent=2) + "\n"
        (folder / "dataset.json").write_text(text, encoding="utf-8")
        save_preview(folder, names, fractions)
    return json.loads(text)


def write_arrays(source, folder, features, described):
    """Decode and reduce all pairs, and write images.npy and masks.npy pair by pair.

    features: a list to which those of some pictures are added, for `fill_scenes`; described: (n,)
    bool, of which. Returns the pictures' original sizes, (n, 2) int of height and width, the
    polyp's part of each mask and of its border, (n,) float each, 0 to 1.
    """

    def work(row):
        picture, mask = source.decode(source.names[row])
        found = sift_features(picture) if described[row] else None
        return *reduce_pair(picture, mask, IMAGE_SIZE), picture.shape[:2], found

    sizes, fractions, borders = [], [], []
    progress = Progress("pairs", len(source.names))
    with open(folder / "images.npy", "wb") as images, open(folder / "masks.npy", "wb") as masks:
        for file, channels in ((images, 3), (masks, 1)):
            shape = (len(source.names), IMAGE_SIZE, IMAGE_SIZE, channels)
            header = {"descr": "|u1", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, header)
        with watch_decoders(source, source.names):
            for picture, mask, size, found in parallel(work, range(len(described)), DECODERS):
                images.write(picture.tobytes())
                masks.write(mask.tobytes())
                sizes.append(size)
                fractions.append(mask.mean())
                borders.append(border_fraction(mask))
                if found:
                    features.append(found)
                progress.advance()
    return np.array(sizes), np.array(fractions), np.array(borders)


def write_splits(path, splits):
    """Write Splits as a table that `read_splits` reads, and `--splits` takes."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(SPLIT_COLUMNS)
        writer.writerows(zip(*splits[:4], strict=True))


def summarise(source, sizes, fractions, splits):
    """Return what dataset.json says of the pairs: the source, sizes, counts and fractions."""
    heights, widths = sizes.T
    parts = {"all": np.full(len(sizes), True)} | {name: splits.split == name for name in SPLITS}
    frames = np.unique(splits.groups, return_counts=True)[1]
    return {
        "source": source.label,
        "archive_sha256": source.archive_sha256,
        "mask_convention": source.convention._asdict(),
        "image_size": IMAGE_SIZE,
        "pairs": {name: int(rows.sum()) for name, rows in parts.items()},
        "polyp_fraction": {name: float(fractions[rows].mean()) for name, rows in parts.items()},
        "without_polyp": {name: int((fractions[rows] == 0).sum()) for name, rows in parts.items()},
        "groups": len(frames),
        "largest_group": int(frames.max()),
        "original_width": [int(widths.min()), int(np.median(widths)), int(widths.max())],
        "original_height": [int(heights.min()), int(np.median(heights)), int(heights.max())],
        "test_fold": tested_fold(splits.split, splits.folds),
    }


def save_preview(folder, names, fractions, count=8):
    """Save preview.png: pairs from the smallest to the largest polyp, with the masks' outlines."""
    # Here, since it imports Matplotlib: half a second, which no refusal should wait for
    from utils.drawing import MASK, outline, save_sheet

    order = np.argsort(fractions, kind="stable")
    rows = order[np.linspace(0, len(order) - 1, min(count, len(order))).astype(int)]
    pictures, masks = (Rows(folder / name, rows)[:] for name in ("images.npy", "masks.npy"))
    pairs = list(zip(pictures, masks, strict=True))
    sheet = {
        "picture": pictures,
        "mask": masks[..., 0],
        "outline": [outline(picture, [(mask, MASK)]) for picture, mask in pairs],
    }
    parts = [f"{fractions[row]:.1%} polyp" if fractions[row] else "no polyp" for row in rows]
    titles = [f"{names[row][-12:]}\n{part}" for row, part in zip(rows, parts, strict=True)]
    title, without = "From the smallest to the largest polyp", int((fractions == 0).sum())
    title += f"; {without:,} of {len(names):,} show none" if without else ""
    save_sheet(folder / "preview.png", sheet, titles, title)


# The command


def constants():
    """Return the constants above that can be unusable, and what each must be."""
    return {
        "IMAGE_SIZE": (IMAGE_SIZE, whole(16, 4096, multiple_of=16)),
        "SEED": (SEED, whole(0, 2**32 - 1)),
        "FOLDS": (FOLDS, whole(2)),
        "VALIDATION_PARTS": (VALIDATION_PARTS, whole(2)),
        "DEMO_PAIRS": (  # as fold_scenes asks
            DEMO_PAIRS,
            Check("a whole number, at least 3 and FOLDS", lambda n: whole(max(3, FOLDS)).fits(n)),
        ),
    }


def parse_arguments():
    """Return the command line's arguments."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    source = parser.add_mutually_exclusive_group()
    source.add_argument(
        "--archive",
        type=named_path,
        metavar="FILE",
        help="a zip, or a folder, of images/ and masks/",
    )
    source.add_argument(
        "--images", type=named_path, metavar="DIR", help="your own pictures; takes --masks too"
    )
    source.add_argument("--demo", action="store_true", help="draw synthetic pairs")
    parser.add_argument(
        "--masks", type=named_path, metavar="DIR", help="your own masks, of the pictures' names"
    )
    parser.add_argument(
        "--normals",
        type=named_path,
        metavar="DIR",
        nargs="+",
        action="extend",
        help="pictures that show no polyp, to add; folders in it are scenes or films",
    )
    splits = parser.add_mutually_exclusive_group()
    splits.add_argument(
        "--splits", type=named_path, metavar="FILE", help="your own: a table, or a folder of lists"
    )
    splits.add_argument("--regroup", action="store_true", help="look for scenes in the pictures")
    splits.add_argument("--agreement", action="store_true", help="compare doubled frames' masks")
    parser.add_argument("--fold", metavar="K", type=int, help="the fold that is the test split")
    parser.add_argument(
        "--data", type=named_path, metavar="DIR", default=DATA_DIR, help="default: %(default)s"
    )
    add_mask_arguments(parser)
    arguments = parser.parse_args(command_line())
    check_mask_arguments(parser, arguments)
    if arguments.normals and (arguments.demo or arguments.agreement):
        parser.error("--normals goes with pairs of --archive, --images, or the download")
    if arguments.agreement and (arguments.fold is not None or arguments.data != DATA_DIR):
        parser.error("--agreement prepares nothing: leave out --fold and --data")
    return arguments


def describe_replaced(data_dir, source):
    """Return a line, mostly none, on the data set of another source that this one replaces."""
    if not (Path(data_dir) / "dataset.json").is_file():
        return []
    try:
        earlier = load_summary(data_dir)
    except InputError:  # a damaged one may well be replaced
        return []
    if earlier["source"] == source.label:
        return []
    return [f"{data_dir}: {earlier['pairs']['all']:,} pairs of {earlier['source']} were replaced"]


def describe_parts(counts):
    """Return the counts of all pictures and of each split as text; counts: a dict of these."""
    each = ", ".join(f"{counts[name]:,} {name}" for name in SPLITS)
    return f"{counts['all']:,} ({each})" if counts["all"] else "none"


def main():
    """Prepare the data set that the command line asks for, or print the agreement on it."""
    arguments = parse_arguments()
    check_constants(Path(__file__).name, constants())
    if not arguments.agreement:
        check_splits(arguments)
    start = time.monotonic()
    source = choose_source(arguments)
    if arguments.agreement:
        print(*describe_agreement(source), sep="\n")
        return
    splits_file = choose_splits(arguments, source.names[: len(source.names) - source.normals])
    replaced = describe_replaced(arguments.data, source)
    summary = prepare(source, arguments.data, splits_file, arguments.fold)
    pairs, seconds = summary["pairs"], time.monotonic() - start
    origin = Path(splits_file).name if splits_file else f"computed, seed {SEED}"
    origin += f", fold {arguments.fold}" if arguments.fold is not None else ""
    options = [*DEMO_TRAINING] if arguments.demo else []
    options += ["--data", arguments.data] if arguments.data != DATA_DIR else []
    for word, lines in (("Beware", summary["warnings"]), ("Note", summary["notes"] + replaced)):
        for line in lines:
            print(f"{word}: {one_line(line)}")
    print(
        f"{arguments.data}: {pairs['all']:,} pairs of {IMAGE_SIZE} x {IMAGE_SIZE} from"
        f" {source.label} in {seconds:.0f} s\n"
        f"  splits: {pairs['train']:,} train, {pairs['validation']:,} validation,"
        f" {pairs['test']:,} test ({origin})\n"
        f"  scenes: {summary['groups']:,}, the largest of {summary['largest_group']} frames\n"
        f"  polyp: {summary['polyp_fraction']['all']:.1%} of the average mask;"
        f" pictures without one: {describe_parts(summary['without_polyp'])}\n"
        f"Look at {Path(arguments.data) / 'preview.png'}, then run:"
        f" {next_command('train.py', *options)}"
    )


if __name__ == "__main__":
    run(main)
