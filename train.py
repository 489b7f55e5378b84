"""Train the U-Net of model.py in phases, each on a weighted sum of cross-entropy and Dice loss.

    python train.py                 the network of 32 filters: an hour on two cores
    python train.py --filters 64    twice the width: four hours, or four minutes on a large GPU
    python train.py --original      all settings of the original, on the split that leaks nothing

Stopped in the middle, the same command goes on where it was. In checkpoints/ this leaves

    unet.keras     the network of the last phase's best epoch by validation Dice, in Keras's format
    history.csv    losses and scores of every epoch
    curves.png     the same, drawn
    augmented.png  a sheet of training pairs as the network sees them
    config.json    every setting, the versions, the machine, the data set's hash
    trained_on.txt fingerprints of these pictures, to warn when the network is scored on them
"""

import argparse
import json
import sys
from collections.abc import Callable
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import cv2

from utils.command import (
    Check,
    InputError,
    check_constants,
    command_line,
    counted,
    input_errors,
    named_path,
    next_command,
    number,
    one_of,
    run,
    whole,
)
from utils.data.dataset import check_unchanged, load_split, load_summary, write_trained_on
from utils.devices import (
    PRECISIONS,
    choose_precision,
    describe_machine,
    make_strategy,
    start_tensorflow,
)
from utils.files import lock_folder
from utils.prediction.networks import (
    descent_doubts,
    line_of_descent,
    load_unet,
    trained_settings,
)
from utils.training.augmentation import Pairs, make_generator, save_augmented
from utils.training.backups import RESUME, drop_backups
from utils.training.epochs import EpochKeeper, best_row, draw_curves
from utils.training.history import LOSSES, describe_loss, name_epoch, read_history
from utils.training.resume import begin, check_built, earlier_training, go_on_from

DATA_DIR = "data/processed"
CHECKPOINTS_DIR = "checkpoints"

THRESHOLD = 0.5  # of the validation Dice: a pixel is called polyp from this probability on
PRECISION = "auto"  # bfloat16 where the hardware is made for it; or "float32", "mixed_bfloat16"
SEED = 42

# Where these differ from the ORIGINAL below, docs/experiments.md says what each brought.

# The network. Its blocks stand in model.py
FILTERS = 32  # of the first block; the original's 64 take four times as long on CPUs
GREY = False  # whether pictures are made grey first
PRIOR = True  # whether the output starts at the polyps' share of the pixels, not at a half
# How 3x3 kernels are trained: "plain", as in unet.keras; "standardized", which Muon needs; or
# "equivariant", in eight orientations too, for a multiple of 8 FILTERS (utils/training/kernels.py).
# --from keeps that network's width, and takes the simpler of the two kinds of kernels
KERNELS = "equivariant"
DROPPED = 0.3  # of the channels of the two deepest levels, in each training step

# The phases, one after the other. An epoch is one pass over the training split, but for what
# NORMALS leaves out. "bce" and "dice" weigh the two losses. With DECAY the learning rate falls to 0
# along a cosine in each phase. A phase with "average" keeps its rate instead, and its network is
# the running mean of the weights over about that part of it (Polyak and Juditsky 1992). The first
# phase ignores "average", unless --from.
PHASES = [
    {"epochs": 76, "learning_rate": 5e-3, "bce": 1, "dice": 1},
    {"epochs": 8, "learning_rate": 3e-3, "bce": 1, "dice": 1, "average": 0.7},
]
OPTIMIZER, DECAY = "muon", True  # Muon takes rates of about 5 times those of "adam"
# The wider a layer, the more a step changes what it answers, and the first steps can silence it for
# good. So with DECAY and more than WARM_UP_ABOVE filters, the rate first rises over WARM_UP steps
WARM_UP_ABOVE, WARM_UP = 24, 90
CLIP_NORM = 1.0  # of the whole gradient, None for no limit: a wild step can kill the ReLUs
BATCH_SIZE = 16  # over all devices together

# Of an epoch's pictures at most this part shows no polyp, drawn anew where there are more of them
NORMALS = 0.2

# What ImageDataGenerator may do to a picture and its mask; it also knows brightness_range,
# channel_shift_range and cval. A gut has no up or down. To "equivariant" kernels a flip or a
# quarter turn is nothing new: to them the other transforms matter
AUGMENTATION = {
    "rotation_range": 180,  # degrees
    "width_shift_range": 0.12,  # of the width
    "height_shift_range": 0.12,
    "shear_range": 11.5,  # degrees
    "zoom_range": (0.7, 1.35),  # drawn for each axis; below 1 enlarges
    "horizontal_flip": True,
    "vertical_flip": True,
    "fill_mode": "reflect",
}
# What light and camera may do to a picture, see draw_colour_table; {} leaves colours alone
COLOURS = {"gamma": 0.35, "contrast": 0.25, "brightness": 0.12, "gain": 0.12}

# The original's own settings, for --original; its epochs were 100 and 50, of three passes each
ORIGINAL = {
    "filters": 64,
    "grey": True,
    "prior": False,
    "kernels": "plain",
    "dropped": 0,
    "phases": [
        {"epochs": 300, "learning_rate": 1e-3, "bce": 1, "dice": 0},
        {"epochs": 150, "learning_rate": 1e-4, "bce": 0, "dice": 1},
    ],
    "optimizer": "adam",
    "decay": False,
    "clip_norm": None,
    "batch_size": 32,
    "augmentation": {
        "width_shift_range": 0.05,
        "height_shift_range": 0.05,
        "shear_range": 0.2,
        "zoom_range": 0.1,
        "horizontal_flip": True,
        "vertical_flip": True,
    },
    "colours": {},
}

WORKERS = 2  # threads that augment while the network computes

MOST_FILTERS, MOST_EPOCHS, MOST_PAIRS = 4096, 99_999, 100_000  # more is a slip of the keyboard
FEW_STEPS = 500  # of all phases: fewer hardly teach a network that begins with random weights
KERNEL_KINDS = ["plain", "standardized", "equivariant"]  # from simple on

# The settings: each constant that decides what comes out of a training, and what it may be

PHASE = {
    "epochs": whole(0, MOST_EPOCHS),
    "learning_rate": number(above=0),
    **dict.fromkeys(LOSSES, number(least=0)),
    "average": number(least=0),
}
COLOUR = dict.fromkeys(("gamma", "contrast", "brightness", "gain"), number(least=0, below=1))


def fits(values, checks):
    """Tell whether a dict holds nothing but what `checks`, by the same names, let pass."""
    known = isinstance(values, dict) and values.keys() <= checks.keys()
    return known and all(checks[name].fits(value) for name, value in values.items())


def fits_phases(phases):
    """Tell whether PHASES can be trained: each is whole, has a loss, and one has an epoch."""
    needed = PHASE.keys() - {"average"}
    return (
        isinstance(phases, (list, tuple))
        and all(fits(phase, PHASE) and phase.keys() >= needed for phase in phases)
        and all(any(phase[loss] for loss in LOSSES) for phase in phases)
        and any(phase["epochs"] for phase in phases)
    )


def constants():
    """Return the value and the Check of each constant that is a setting, by its name."""
    phases = "a list of phases as they stand there, each with a loss, at least one with an epoch"
    transforms, is_dict = "a dict; {} augments nothing", lambda value: isinstance(value, dict)
    colours = "a dict of gamma, contrast, brightness and gain, each from 0 to below 1, or {}"
    return {
        "FILTERS": (FILTERS, whole(1, MOST_FILTERS)),
        "GREY": (GREY, one_of(True, False)),
        "PRIOR": (PRIOR, one_of(True, False)),
        "KERNELS": (KERNELS, one_of(*KERNEL_KINDS)),
        "DROPPED": (DROPPED, number(least=0, below=1)),
        "PHASES": (PHASES, Check(phases, fits_phases)),
        "OPTIMIZER": (OPTIMIZER, one_of("muon", "adam")),
        "DECAY": (DECAY, one_of(True, False)),
        "WARM_UP": (WARM_UP, whole(0)),
        "CLIP_NORM": (CLIP_NORM, one_of(None) if CLIP_NORM is None else number(above=0)),
        "BATCH_SIZE": (BATCH_SIZE, whole(1, MOST_PAIRS)),
        "NORMALS": (NORMALS, number(least=0, most=1)),
        "AUGMENTATION": (AUGMENTATION, Check(transforms, is_dict)),
        "COLOURS": (COLOURS, Check(colours, partial(fits, checks=COLOUR))),
        "PRECISION": (PRECISION, one_of("auto", *PRECISIONS)),
        "THRESHOLD": (THRESHOLD, number(above=0, below=1)),
        "SEED": (SEED, whole(0, 2**32 - 1)),
    }


def other_constants():
    """Return the value and the Check of each constant that config.json does not keep, by its name.

    WARM_UP_ABOVE decides whether it keeps WARM_UP or 0.
    """
    return {
        "WARM_UP_ABOVE": (WARM_UP_ABOVE, whole(0)),
        "WORKERS": (WORKERS, whole(1)),
    }


def collect_settings(arguments, summary):
    """Return everything that decides what comes out of a training, as config.json keeps it."""
    settings = {name.lower(): value for name, (value, _) in constants().items()}
    if arguments.original:
        settings |= ORIGINAL
    if arguments.start:
        theirs = trained_settings(arguments.start)
        settings |= {name: theirs.get(name, settings[name]) for name in ("filters", "grey")}
        both = settings["kernels"], theirs.get("kernels")
        settings["kernels"] = next(kernels for kernels in KERNEL_KINDS if kernels in both)
    if arguments.epochs:
        settings["phases"] = change_epochs(settings["phases"], arguments.epochs)
    settings["filters"] = arguments.filters or settings["filters"]
    settings["batch_size"] = arguments.batch_size or settings["batch_size"]
    settings["seed"] = arguments.seed
    if not (settings["decay"] and settings["filters"] > WARM_UP_ABOVE):
        settings["warm_up"] = 0
    settings |= line_of_descent(arguments.start) if arguments.start else {"from": None}
    settings |= {
        "image_size": summary["image_size"],
        "data_source": summary["source"],
        "data_sha256": summary["sha256"],
    }
    try:
        return json.loads(json.dumps(settings))  # as they come back from the file: no tuples
    except (TypeError, ValueError) as error:
        raise InputError(
            f"train.py: a constant holds more than plain numbers, texts, lists and dicts ({error});"
            " edit it"
        ) from error


def change_epochs(phases, epochs):
    """Return phases of other numbers of epochs; raises InputError unless there is one for each."""
    if len(epochs) != len(phases):
        raise InputError(
            f"--epochs {' '.join(map(str, epochs))}: must be {len(phases)} numbers, one for each"
            " phase"
        )
    return [phase | {"epochs": count} for phase, count in zip(phases, epochs, strict=True)]


def check_masks(summary, data_dir):
    """Raise InputError if all masks of a split are empty, or full: there is nothing to learn."""
    for split in ("train", "validation"):
        fraction = summary["polyp_fraction"][split]
        if fraction in (0, 1):
            kind = "full" if fraction else "empty"
            raise InputError(
                f"{data_dir}: all masks of the split {split} are {kind}, so nothing can be learnt;"
                " prepare it with the right masks, or with another split by --splits FILE"
            )


# The network, and the pairs that it learns from


class Training(NamedTuple):
    """What all phases of a training share.

    settings: see `collect_settings`. folder: of its checkpoints. plain: the network that
    `build_unet` makes, and that is saved; network: the one that is trained in its place. pairs,
    validation: the Pairs of both splits. check_data: raises InputError if the data set has been
    prepared anew. rows: of the history.
    """

    settings: dict
    folder: Path
    plain: Any
    network: Any
    strategy: Any
    pairs: Pairs
    validation: Pairs
    check_data: Callable
    rows: list


def build_training(settings, arguments, strategy, precision):
    """Return the Training of these settings, its network as it begins, its history as it stands.

    arguments: the command line's, which name the folders. precision: of `to_train`.
    """
    import keras

    from model import build_unet
    from utils.training.kernels import start_from, to_train

    data_dir, folder = arguments.data, Path(arguments.checkpoints)
    replicas = strategy.num_replicas_in_sync
    make = partial(Pairs, batch_size=settings["batch_size"], workers=WORKERS, replicas=replicas)
    validation = make(load_split("validation", data_dir))
    pairs = make(
        load_split("train", data_dir),
        generator=make_generator(settings["augmentation"]),
        colours=settings["colours"],
        normals=settings["normals"],
    )
    fraction = load_summary(data_dir)["polyp_fraction"]["train"]
    keras.utils.set_random_seed(settings["seed"])
    with input_errors():
        plain = build_unet(
            settings["image_size"],
            filters=settings["filters"],
            polyp_fraction=fraction if settings["prior"] else 0.5,
            dropped=settings["dropped"],
            grey=settings["grey"],
        )
        keras.utils.set_random_seed(settings["seed"])  # no draw below hangs on those of build_unet
        with strategy.scope():
            network = to_train(plain, settings["kernels"], precision)
            if arguments.start:
                source = Path(arguments.start) / "unet.keras"
                start_from(network, load_unet(source), source)
    way_out = "prepare it again as it was to go on, or begin anew with --fresh"
    check_data = partial(check_unchanged, data_dir, settings["data_sha256"], way_out)
    rows = [] if arguments.fresh else read_history(folder / "history.csv")
    return Training(settings, folder, plain, network, strategy, pairs, validation, check_data, rows)


# The step


def first_phase(settings):
    """Return the phase that a training begins with, counted from 1."""
    return next(n for n, phase in enumerate(settings["phases"], 1) if phase["epochs"])


def make_optimizer(settings, phase, steps):
    """Return the optimizer of a phase, counted from 1, of `steps` steps in all."""
    import keras

    from utils.training.muon import GramMuon

    own, begins = settings["phases"][phase - 1], phase == first_phase(settings)
    rate, common = own["learning_rate"], {"global_clipnorm": settings["clip_norm"]}
    average = own.get("average", 0)
    if average and (settings["from"] or not begins):
        reach = max(1, average * steps)
        common |= {"use_ema": True, "ema_momentum": 1 - 1 / reach}
    elif settings["decay"]:
        warm_up = min(settings["warm_up"], steps // 2) if begins else 0
        schedule = keras.optimizers.schedules.CosineDecay
        if warm_up:
            rate = schedule(0.0, steps - warm_up, warmup_target=rate, warmup_steps=warm_up)
        else:
            rate = schedule(rate, steps)
    if settings["optimizer"] == "adam":
        return keras.optimizers.Adam(rate, **common)
    # What is no matrix (biases, gains, transposed convolutions) takes Adam's step, at its rate
    return GramMuon(rate, adam_lr_ratio=0.2, weight_decay=None, adam_weight_decay=None, **common)


def compile_unet(network, loss, optimizer, threshold):
    """Compile a network with the scores of history.csv.

    All variables of both are made here: any that the first step made would have it traced twice.
    """
    import keras

    from model import dice_score, predicted_fraction

    optimizer.build(network.trainable_variables)
    metrics = [
        keras.metrics.MeanMetricWrapper(score, score.__name__, threshold=threshold)
        for score in (dice_score, predicted_fraction)
    ]
    network.compile(optimizer, loss, metrics=metrics)


# The phases


def train_phase(training, phase):
    """Train through a phase, counted from 1, or what is left of it."""
    import keras

    from model import add_losses

    settings, folder, network = training.settings, training.folder, training.network
    own, done = settings["phases"][phase - 1], [row["phase"] for row in training.rows]
    epochs = own["epochs"]
    if not epochs or any(other > phase for other in done):
        return
    pairs = training.pairs
    pairs.seed = settings["seed"], phase - 1
    if phase == first_phase(settings):
        save_augmented(folder / "augmented.png", pairs)
    with training.strategy.scope():
        optimizer = make_optimizer(settings, phase, epochs * len(pairs))
        loss = add_losses(own)
        compile_unet(network, loss, optimizer, settings["threshold"])
        epoch = go_on_from(training, phase, optimizer)
    if epoch == epochs:
        return
    print(
        f"phase {phase} of {len(settings['phases'])}, {describe_loss(own)}:"
        f" {counted(epochs - epoch, 'epoch')} of {counted(len(pairs), 'step')}",
        flush=True,
    )
    keeper = EpochKeeper(training, phase)
    network.fit(
        pairs.dataset(),
        initial_epoch=epoch,
        epochs=epochs,
        callbacks=[keras.callbacks.LambdaCallback(keeper.begin_epoch, keeper.end_epoch)],
        shuffle=False,  # Pairs does it, by the seed
        verbose=1 if sys.stdout.isatty() else 2,
    )


def train(training, machine, arguments):
    """Train through all phases, or what is left of them."""
    begin(training, machine, arguments.fresh)
    splits = training.pairs.split, training.validation.split
    write_trained_on(training.folder, splits, arguments.start)
    if training.rows:
        with input_errors():
            load_unet(training.folder / "unet.keras", way_out="--fresh begins anew")
    for phase in range(1, len(training.settings["phases"]) + 1):
        train_phase(training, phase)
    draw_curves(training)
    drop_backups(training.folder)


# The command


def argument(check):
    """Return an argparse type for whole numbers that pass a Check."""

    def convert(text):
        value = int(text) if text.isdecimal() else None
        if not check.fits(value):
            raise argparse.ArgumentTypeError(f"{text!r} is not {check.wanted}")
        return value

    return convert


def parse_arguments():
    """Return the command line's arguments."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    show = {"help": "default: %(default)s"}
    parser.add_argument(
        "--original",
        action="store_true",
        help="with the settings of the replaced pipeline",
    )
    parser.add_argument(
        "--filters",
        type=argument(whole(1, MOST_FILTERS)),
        help=f"default: {FILTERS}, the original's, or those of --from",
    )
    parser.add_argument(
        "--epochs",
        type=argument(whole(0, MOST_EPOCHS)),
        nargs="+",
        metavar="N",
        help="one number for each phase; default: those of PHASES, or the original's",
    )
    parser.add_argument(
        "--batch-size",
        type=argument(whole(1, MOST_PAIRS)),
        help=f"default: {BATCH_SIZE}, or the original's",
    )
    parser.add_argument("--seed", type=argument(whole(0, 2**32 - 1)), default=SEED, **show)
    parser.add_argument("--data", type=named_path, metavar="DIR", default=DATA_DIR, **show)
    parser.add_argument(
        "--checkpoints", type=named_path, metavar="DIR", default=CHECKPOINTS_DIR, **show
    )
    parser.add_argument(
        "--from",
        type=named_path,
        metavar="DIR",
        dest="start",
        help="begin with the network of another training",
    )
    parser.add_argument("--fresh", action="store_true", help="start over")
    arguments = parser.parse_args(command_line())
    if arguments.epochs and not any(arguments.epochs):
        parser.error("--epochs: at least one phase needs an epoch")
    if arguments.start and not (Path(arguments.start) / "unet.keras").is_file():
        parser.error(f"--from {arguments.start}: there is no unet.keras in it")
    if arguments.start and Path(arguments.start).resolve() == Path(arguments.checkpoints).resolve():
        parser.error("--from: name another folder for the new training with --checkpoints DIR")
    return arguments


def start_computing(before):
    """Start TensorFlow; return the strategy, and the precision: that of `before`, if it goes on."""
    start_tensorflow()
    import tensorflow as tf

    tf.config.experimental.enable_op_determinism()
    cv2.setNumThreads(1)
    precision = before["machine"]["precision"] if before else choose_precision(PRECISION)
    return make_strategy(), precision


def describe_start(training, machine, summary):
    """Return the lines that a training begins with."""
    settings, pairs, size = training.settings, summary["pairs"], summary["image_size"]
    lines = [
        f"{', '.join(machine['devices'])}; precision {machine['precision']}; {pairs['train']:,}"
        f" training and {pairs['validation']:,} validation pairs of {size} x {size};"
        f" {settings['filters']} filters; batch {settings['batch_size']}; seed {settings['seed']}",
        "predicted_fraction is the part of the pixels that is called polyp; val_ means the"
        " validation pairs",
    ]
    doubts = descent_doubts(training.folder, {"settings": settings}, settings["data_sha256"])
    steps = len(training.pairs) * sum(phase["epochs"] for phase in settings["phases"])
    if steps < FEW_STEPS and not settings["from"]:
        doubts.append(
            f"only {counted(steps, 'step')} to learn from: a smaller --batch-size or more --epochs"
            " make more, or begin with --from checkpoints/hyperkvasir-32"
        )
    return lines + [f"Beware: {line}" for line in doubts]


def describe_end(training, summary):
    """Return what there is to say of the network that is kept."""
    rows, threshold = training.rows, training.settings["threshold"]
    best = best_row(rows)
    return (
        f"{training.folder / 'unet.keras'}: {name_epoch(best)}, validation Dice"
        f" {best['val_dice_score']:.3f} (mean over"
        f" {counted(summary['pairs']['validation'], 'image')}, threshold {threshold}), loss"
        f" {best['val_loss']:.3f}; {sum(row['seconds'] for row in rows) / 60:.1f} minutes for"
        f" {counted(len(rows), 'epoch')}"
    )


def main():
    """Train with the constants above and the command line's changes to them."""
    arguments = parse_arguments()
    check_constants("train.py", constants() | other_constants())
    summary, folder = load_summary(arguments.data), Path(arguments.checkpoints)
    check_masks(summary, arguments.data)
    settings = collect_settings(arguments, summary)
    with lock_folder(folder):
        before = None if arguments.fresh else earlier_training(folder, settings)
        finished = before and not (folder / RESUME).exists()
        if finished:
            drop_backups(folder)
            if not (folder / "unet.keras").exists():
                raise InputError(f"{folder}: its unet.keras is gone; --fresh trains it again")
        strategy, precision = start_computing(before)
        training = build_training(settings, arguments, strategy, precision)
        if before:
            check_built(before, training)
        if finished:
            print(f"{folder}: holds this very training, finished; --fresh repeats it")
        else:
            machine = describe_machine(precision, strategy.num_replicas_in_sync)
            print(*describe_start(training, machine, summary), sep="\n", flush=True)
            with out_of_memory(settings):
                train(training, machine, arguments)
            print(describe_end(training, summary))
    evaluate = ["--data", arguments.data] if arguments.data != DATA_DIR else []
    if arguments.checkpoints != CHECKPOINTS_DIR:
        evaluate += ["--checkpoints", str(folder), "--results", f"results/{folder.name}"]
    print(f"Run next: {next_command('evaluation.py', *evaluate)}")


@contextmanager
def out_of_memory(settings):
    """Let TensorFlow's error for a lack of memory become an InputError."""
    import tensorflow as tf

    try:
        yield
    except tf.errors.ResourceExhaustedError as error:
        raise InputError(
            f"out of memory with batches of {settings['batch_size']}: take a smaller --batch-size"
            " or fewer --filters, with --fresh"
        ) from error


if __name__ == "__main__":
    run(
        main,
        "interrupted; the same command, without --fresh, goes on after the last whole epoch, if"
        " one has ended",
    )
