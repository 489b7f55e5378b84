"""Train the U-Net in two phases, each on a weighted sum of binary cross-entropy and Dice loss.

    python train.py                 the network of 32 filters: an hour on two cores
    python train.py --filters 64    twice the width: four hours, or four minutes on a large GPU
    python train.py --original      all settings of the original, on the split that leaks nothing

Stopped in the middle, the same command goes on where it was. In checkpoints/ this leaves

    unet.keras     the model of the last phase's best epoch by validation Dice, in Keras's format
    history.csv    losses and scores of every epoch
    curves.png     the same, drawn
    augmented.png  a sheet of training pairs as the network sees them
    config.json    every setting, the versions, the machine, the data set's hash
"""

import argparse
import json
import math
import shlex
import sys
import time
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from utils.command import (
    InputError,
    check_choice,
    check_number,
    check_whole,
    constant_error,
    input_errors,
    named_path,
    run,
)
from utils.data.dataset import check_unchanged, load_split, load_summary
from utils.devices import describe_machine, make_strategy, start_tensorflow
from utils.drawing import SKY, outline, save_sheet
from utils.files import cannot_write, lock_folder, read_whole, reading, write_beside
from utils.prediction.networks import descent_doubts, line_of_descent, trained_settings
from utils.training.augmentation import Pairs, make_generator
from utils.training.backups import KEPT, RESUME, drop_backups, restore, save_backup
from utils.training.history import best_row, read_history, save_curves, write_history

DATA_DIR = "data/processed"
CHECKPOINTS_DIR = "checkpoints"

THRESHOLD = 0.5  # of the validation Dice: a pixel is called polyp from this probability on
PRECISION = "auto"  # bfloat16 where the hardware is made for it; or "float32", "mixed_bfloat16"
SEED = 42

# Where these differ from the ORIGINAL below, docs/experiments.md says what each brought.

# The network: 64 filters of the first block, as in the original, take four times as long on CPUs
FILTERS = 32
# How its kernels are trained: "plain" like those of unet.keras; "standardized", which Muon needs;
# "equivariant", which stand in eight orientations too, for a multiple of 8 FILTERS (see model.py).
# With --from the width is that of the network begun with, and the kernels the less shared of both
KERNELS = "equivariant"
DROPPED = 0.3  # of the channels of the two deepest levels, in each training step

# The schedule. An epoch is one pass over the training split. With DECAY the learning rate falls to
# 0 along a cosine in each phase, but for a second one with DICE_AVERAGED. Muon takes rates of about
# 5 times Adam's ("adam").
BCE_EPOCHS, BCE_LEARNING_RATE = 76, 5e-3  # of the first phase, "bce"
BCE_DICE_WEIGHT = 1.0  # of the Dice loss in the first: with it, learning is faster; 0: none
DICE_EPOCHS, DICE_LEARNING_RATE = 8, 3e-3  # of the second, "dice"
DICE_BCE_WEIGHT = 1.0  # of the cross-entropy in the second; 0: none
# Above 0, the second phase keeps its rate, and the network is the running mean of its weights over
# about this part of it (Polyak and Juditsky 1992); not of a phase that begins with random weights
DICE_AVERAGED = 0.7
OPTIMIZER, DECAY = "muon", True
# The wider a layer, the more a step changes what it answers, and the first ones can silence it for
# good. So with DECAY the rate of a network of more filters than this rises over so many steps first
WARM_UP_ABOVE, WARM_UP = 24, 90
CLIP_NORM = 1.0  # of the whole gradient, None for no limit: a wild step can kill the ReLUs
BATCH_SIZE = 16  # over all devices together

# What ImageDataGenerator may do to a picture and its mask; it also knows brightness_range,
# channel_shift_range and cval. A gut has no up or down.
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
    "kernels": "plain",
    "dropped": 0,
    "prior": False,
    "bce_epochs": 300,
    "bce_learning_rate": 1e-3,
    "bce_dice_weight": 0,
    "dice_epochs": 150,
    "dice_learning_rate": 1e-4,
    "dice_bce_weight": 0,
    "dice_averaged": 0,
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
COLLAPSED_EPOCHS = 10  # in a row without a polyp on the validation split: training gives up
DRAWING_INTERVAL = 60  # seconds between two drawings of curves.png
KERNEL_KINDS = ["plain", "standardized", "equivariant"]  # each shares more than the one before
PRECISIONS = ["auto", "float32", "mixed_bfloat16"]
ADVICE = "try a lower learning rate, a smaller CLIP_NORM or another --seed, with --fresh"
OUTPUTS = ["unet.keras", "history.csv", "curves.png", "augmented.png", "config.json"]


def check_constants():
    """Raise InputError for a constant above that cannot be worked with."""
    file = "train.py"
    check_choice("PRECISION", PRECISION, file, PRECISIONS)
    check_choice("OPTIMIZER", OPTIMIZER, file, ["muon", "adam"])
    check_choice("KERNELS", KERNELS, file, KERNEL_KINDS)
    check_choice("DECAY", DECAY, file, [True, False])
    check_number("DROPPED", DROPPED, file, least=0, below=1)
    check_number("THRESHOLD", THRESHOLD, file, above=0, below=1)
    for name in ("BCE_EPOCHS", "DICE_EPOCHS"):
        check_whole(name, globals()[name], file, 0, MOST_EPOCHS)
    if not BCE_EPOCHS + DICE_EPOCHS:
        raise constant_error("DICE_EPOCHS", 0, file, "above 0 where BCE_EPOCHS is 0")
    for name in ("BCE_LEARNING_RATE", "DICE_LEARNING_RATE"):
        check_number(name, globals()[name], file, above=0)
    for name in ("BCE_DICE_WEIGHT", "DICE_BCE_WEIGHT"):
        check_number(name, globals()[name], file, least=0)
    check_number("DICE_AVERAGED", DICE_AVERAGED, file, least=0)
    if CLIP_NORM is not None:
        check_number("CLIP_NORM", CLIP_NORM, file, above=0)
    check_whole("FILTERS", FILTERS, file, 1, MOST_FILTERS)
    for name in ("WARM_UP_ABOVE", "WARM_UP"):
        check_whole(name, globals()[name], file, 0)
    check_whole("BATCH_SIZE", BATCH_SIZE, file, 1, MOST_PAIRS)
    for name in ("WORKERS", "COLLAPSED_EPOCHS"):
        check_whole(name, globals()[name], file, 1)
    check_whole("SEED", SEED, file, 0, 2**32 - 1)
    check_number("DRAWING_INTERVAL", DRAWING_INTERVAL, file, least=0)
    if not isinstance(COLOURS, dict):
        raise constant_error("COLOURS", COLOURS, file, "a dict, as it stands there, or {}")
    for name, extent in COLOURS.items():
        check_choice("COLOURS", name, file, ["gamma", "contrast", "brightness", "gain"])
        check_number(f"COLOURS[{name!r}]", extent, file, least=0, below=1)


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


def save_augmented(path, pairs, count=8):
    """Save a sheet of the first training pairs as they are, and as the network sees them."""
    images, masks = pairs.batch(0)
    count = min(count, len(images))
    originals = pairs.split.images[pairs.draw(0)[0][:count]]
    chosen = list(zip(images[:count], masks[:count], strict=True))
    rows = {
        "stored": originals,
        "augmented": [image for image, _ in chosen],
        "with mask": [outline(image, [(mask, SKY)]) for image, mask in chosen],
    }
    titles = [f"pair {number + 1}" for number in range(count)]
    save_sheet(path, rows, titles, "The first training pairs of the first epoch")


def check_weights(model, epoch):
    """End the training, with status 1 and a line, if a weight is no number.

    The loss may still be finite: a ReLU makes 0 of what is no number.
    """
    if not all(np.isfinite(weights).all() for weights in model.get_weights()):
        sys.exit(f"train.py: the weights of epoch {epoch} are not finite; {ADVICE}")


def check_health(rows, phase):
    """End the training, with status 1 and a line, if it has broken down.

    It has if the last loss is not finite, or if COLLAPSED_EPOCHS in a row called no pixel of the
    validation split polyp, or all of them.
    """
    last = rows[-1]
    if not (math.isfinite(last["loss"]) and math.isfinite(last["val_loss"])):
        sys.exit(f"train.py: the loss of epoch {last['epoch']} is not finite; {ADVICE}")
    recent = [row for row in rows if row["phase"] == phase][-COLLAPSED_EPOCHS:]
    varied = any(0 < row["val_predicted_fraction"] < 1 for row in recent)
    if len(recent) == COLLAPSED_EPOCHS and not varied:
        sys.exit(
            "train.py: no polyp predicted on the validation split, or nothing else, for"
            f" {COLLAPSED_EPOCHS} epochs: the network has collapsed; {ADVICE}"
        )


class EpochKeeper:
    """Keep the history, the best model and all that a phase needs to go on.

    keras.callbacks.BackupAndRestore leaves out the first two, and a kill while it writes can leave
    a half-written file; here each file is whole at every moment.
    """

    def __init__(
        self, model, folder, rows, phase, pairs, validation_pairs, check_data, loss_weights
    ):
        self.model, self.folder, self.rows, self.phase = model, folder, rows, phase
        self.pairs, self.validation_pairs = pairs, validation_pairs
        self.check_data, self.loss_weights = check_data, loss_weights
        self.drawn = time.monotonic()

    def begin_epoch(self, epoch, logs=None):
        """Before an epoch, counted from 0."""
        self.pairs.epoch, self.begin = epoch, time.monotonic()
        # An epoch that was written down but not backed up before an interruption runs once more
        ahead = [r for r in self.rows if r["phase"] == self.phase and r["epoch"] > epoch]
        for row in ahead:
            self.rows.remove(row)

    def end_epoch(self, epoch, logs):
        """After an epoch: its training losses and scores are `logs`, which get the validation's."""
        from model import save_model

        validation = self.validation_pairs.dataset()
        with averaged_weights(self.model):
            scores = self.model.evaluate(validation, verbose=0, return_dict=True)
            logs |= {f"val_{name}": score for name, score in scores.items()}
            for pairs in (self.pairs, self.validation_pairs):
                if pairs.failure:
                    raise pairs.failure
            self.check_data()
            seconds = round(time.monotonic() - self.begin, 2)
            row = {"phase": self.phase, "epoch": epoch + 1, "seconds": seconds} | logs
            self.rows.append(row)
            check_health(self.rows, self.phase)
            check_weights(self.model, epoch + 1)
            if best_row(self.rows) is row:
                with write_beside(self.folder / "unet.keras") as beside:
                    save_model(self.model, beside)
        write_history(self.folder / "history.csv", self.rows)
        if time.monotonic() - self.drawn > DRAWING_INTERVAL:
            save_curves(self.folder / "curves.png", self.rows, THRESHOLD, self.loss_weights)
            self.drawn = time.monotonic()
        save_backup(self.folder, self.phase, epoch + 1, self.model, self.model.optimizer)


def first_phase(settings):
    """Return the phase that a training begins with."""
    return "bce" if settings["bce_epochs"] else "dice"


def make_optimizer(settings, phase, steps):
    """Return the optimizer of a phase of `steps` steps in all; settings: see `collect_settings`."""
    import keras

    from utils.training.muon import GramMuon

    rate, common = settings[f"{phase}_learning_rate"], {"global_clipnorm": settings["clip_norm"]}
    averaged = settings["dice_averaged"] if phase == "dice" else 0
    if averaged and (settings["bce_epochs"] or settings["from"]):
        reach = max(1, averaged * steps)
        common |= {"use_ema": True, "ema_momentum": 1 - 1 / reach}
    elif settings["decay"]:
        warm_up = min(settings["warm_up"], steps // 2) if phase == first_phase(settings) else 0
        schedule = keras.optimizers.schedules.CosineDecay
        if warm_up:
            rate = schedule(0.0, steps - warm_up, warmup_target=rate, warmup_steps=warm_up)
        else:
            rate = schedule(rate, steps)
    if settings["optimizer"] == "adam":
        return keras.optimizers.Adam(rate, **common)
    # What is no matrix (biases, gains, transposed convolutions) takes Adam's step, at its rate
    return GramMuon(rate, adam_lr_ratio=0.2, weight_decay=None, adam_weight_decay=None, **common)


@contextmanager
def averaged_weights(model):
    """Give a model the running mean of its weights meanwhile, if its optimizer keeps one."""
    own = model.get_weights()
    model.optimizer.finalize_variable_values(model.trainable_variables)
    yield
    model.set_weights(own)


def compile_unet(model, loss, optimizer, threshold):
    """Compile a model with the scores of history.csv.

    All variables of both are made here: any that the first step made would have it traced twice.
    """
    import keras

    from model import dice_score, predicted_fraction

    optimizer.build(model.trainable_variables)
    metrics = [
        keras.metrics.MeanMetricWrapper(score, score.__name__, threshold=threshold)
        for score in (dice_score, predicted_fraction)
    ]
    model.compile(optimizer, loss, metrics=metrics)


def train(settings, arguments, machine, strategy):
    """Train through both phases, or what is left of them; return the rows of the history.

    settings: see `collect_settings`; arguments: the command line's, which name the folders, that of
    the checkpoints locked. machine: see `describe_machine`.
    """
    import keras

    from model import add_losses, build_unet, load_unet, start_from

    folder, seed, batch_size = Path(arguments.checkpoints), settings["seed"], settings["batch_size"]
    training, validation = (load_split(name, arguments.data) for name in ("train", "validation"))
    fraction = load_summary(arguments.data)["polyp_fraction"]["train"]
    replicas = strategy.num_replicas_in_sync
    generator = make_generator(settings["augmentation"])
    validation_pairs = Pairs(validation, batch_size, WORKERS, replicas=replicas)
    keras.utils.set_random_seed(seed)
    with strategy.scope(), input_errors():
        model = build_unet(
            settings["image_size"],
            filters=settings["filters"],
            grey=settings["grey"],
            polyp_fraction=fraction if settings["prior"] else 0.5,
            precision=machine["precision"],
            kernels=settings["kernels"],
            dropped=settings["dropped"],
        )
        if arguments.start:
            source = Path(arguments.start) / "unet.keras"
            start_from(model, load_unet(source), source)
    begin(folder, settings, machine, arguments.fresh)
    rows = read_history(folder / "history.csv")
    if rows:
        with input_errors():
            load_unet(folder / "unet.keras", way_out="--fresh begins anew")
    way_out = "prepare it again as it was to go on, or begin anew with --fresh"
    check_data = partial(check_unchanged, arguments.data, settings["data_sha256"], way_out)
    loss_weights = {
        "bce": (1, settings["bce_dice_weight"]),
        "dice": (settings["dice_bce_weight"], 1),
    }
    for number, phase in enumerate(loss_weights):
        pairs = Pairs(
            *(training, batch_size, WORKERS, generator, settings["colours"]),
            seed=(seed, number),
            replicas=replicas,
        )
        if phase == first_phase(settings):
            save_augmented(folder / "augmented.png", pairs)
        every_pair = pairs, validation_pairs
        keeper = EpochKeeper(model, folder, rows, phase, *every_pair, check_data, loss_weights)
        train_phase(keeper, add_losses(*loss_weights[phase]), settings, strategy)
    save_curves(folder / "curves.png", rows, THRESHOLD, loss_weights)
    drop_backups(folder)
    return rows


def train_phase(keeper, loss, settings, strategy):
    """Train through the phase of `keeper`, an EpochKeeper, or what is left of it."""
    import keras

    model, folder, phase, pairs = keeper.model, keeper.folder, keeper.phase, keeper.pairs
    epochs = settings[f"{phase}_epochs"]
    done = [row["phase"] for row in keeper.rows]
    if not epochs or (phase == "bce" and "dice" in done):
        return
    with strategy.scope():
        optimizer = make_optimizer(settings, phase, epochs * len(pairs))
        compile_unet(model, loss, optimizer, settings["threshold"])
        epoch = restore(folder, phase, model, optimizer)
        if phase == "dice" and not epoch:
            lacking = restore(folder, "bce", model) < settings["bce_epochs"]
        else:  # two epochs may be written down and not backed up: the last, and a damaged one
            lacking = done.count(phase) - epoch > KEPT
    if lacking:
        raise InputError(f"{folder / RESUME}: lacks a whole backup; --fresh begins anew")
    if epoch > done.count(phase):
        raise InputError(f"{folder / 'history.csv'}: lacks epochs; --fresh begins anew")
    if epoch == epochs:
        return
    print(f"{phase}: {epochs - epoch} epochs of {len(pairs)} steps", flush=True)
    model.fit(
        pairs.dataset(),
        initial_epoch=epoch,
        epochs=epochs,
        callbacks=[keras.callbacks.LambdaCallback(keeper.begin_epoch, keeper.end_epoch)],
        shuffle=False,  # Pairs does it, by the seed
        verbose=1 if sys.stdout.isatty() else 2,
    )


# The command


def collect_settings(arguments, summary):
    """Return everything that decides what comes out of a training, as config.json keeps it."""
    settings = {
        "filters": FILTERS,
        "grey": False,
        "kernels": KERNELS,
        "dropped": DROPPED,
        "prior": True,  # the output starts at the polyps' share of the pixels
        "bce_epochs": BCE_EPOCHS,
        "bce_learning_rate": BCE_LEARNING_RATE,
        "bce_dice_weight": BCE_DICE_WEIGHT,
        "dice_epochs": DICE_EPOCHS,
        "dice_learning_rate": DICE_LEARNING_RATE,
        "dice_bce_weight": DICE_BCE_WEIGHT,
        "dice_averaged": DICE_AVERAGED,
        "optimizer": OPTIMIZER,
        "decay": DECAY,
        "clip_norm": CLIP_NORM,
        "batch_size": BATCH_SIZE,
        "augmentation": AUGMENTATION,
        "colours": COLOURS,
    }
    if arguments.original:
        settings |= ORIGINAL
    if arguments.start:
        theirs = trained_settings(arguments.start)
        settings |= {name: theirs.get(name, settings[name]) for name in ("filters", "grey")}
        both = settings["kernels"], theirs.get("kernels")
        settings["kernels"] = next(kernels for kernels in KERNEL_KINDS if kernels in both)
    if arguments.epochs:
        settings["bce_epochs"], settings["dice_epochs"] = arguments.epochs
    filters = arguments.filters or settings["filters"]
    settings |= {
        "filters": filters,
        "warm_up": WARM_UP if settings["decay"] and filters > WARM_UP_ABOVE else 0,
        "batch_size": arguments.batch_size or settings["batch_size"],
        "precision": PRECISION,
        "threshold": THRESHOLD,
        "seed": arguments.seed,
        **(line_of_descent(arguments.start) if arguments.start else {"from": None}),
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


def earlier_training(folder, settings):
    """Return config.json of the training that a folder holds, or None if it holds none.

    Raises InputError if it is one of other settings, or of unknown ones, or cannot be read.
    """
    path = folder / "config.json"
    if not path.exists():
        for name in ("history.csv", "unet.keras"):
            if (folder / name).exists():
                raise InputError(f"{path}: is missing, and belongs to {name}; --fresh begins anew")
        return None
    with reading(path, "--fresh begins anew in its folder"):
        config = json.loads(read_whole(path))
        before = config["settings"]
        own = {key: value for key, value in settings.items() if key != "descent"}  # "from" decides
        differing = [key for key, value in own.items() if before.get(key) != value]
        if config["machine"]["precision"] not in PRECISIONS[1:]:  # a training goes on in it
            raise ValueError
    if differing:
        key = differing[0]
        raise InputError(
            f"{folder}: holds a training with {key} {before.get(key)}, not {settings[key]};"
            " --fresh replaces it, --checkpoints DIR keeps both"
        )
    return config


def begin(folder, settings, machine, fresh):
    """Make the folder ready for a training, or for the rest of one; `fresh` clears it first."""
    try:
        if fresh:
            for name in OUTPUTS:
                (folder / name).unlink(missing_ok=True)
            drop_backups(folder)  # last: without them a training counts as finished
        (folder / RESUME).mkdir(exist_ok=True)
    except OSError as error:
        raise cannot_write(error.filename or folder, error) from error
    with write_beside(folder / "config.json") as beside:
        beside.write_text(json.dumps({"settings": settings, "machine": machine}, indent=2) + "\n")


def whole_number(least, most=None):
    """Return an argparse type for whole numbers from `least` on."""

    def convert(text):
        if not text.isdecimal() or int(text) < least or (most and int(text) > most):
            ends = f"from {least} to {most}" if most else f"from {least} on"
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number {ends}")
        return int(text)

    return convert


def parse_arguments():
    """Return the command line's arguments."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    show = {"help": "default: %(default)s"}

    def default(value):
        return {"help": f"default: {value}, or the original's"}

    parser.add_argument("--original", action="store_true", help="with the original's settings")
    parser.add_argument(
        "--filters",
        type=whole_number(1, MOST_FILTERS),
        help=f"default: {FILTERS}, the original's, or those of --from",
    )
    parser.add_argument(
        "--epochs",
        type=whole_number(0, MOST_EPOCHS),
        nargs=2,
        metavar=("BCE", "DICE"),
        **default(f"{BCE_EPOCHS} {DICE_EPOCHS}"),
    )
    parser.add_argument("--batch-size", type=whole_number(1, MOST_PAIRS), **default(BATCH_SIZE))
    parser.add_argument("--seed", type=whole_number(0, 2**32 - 1), default=SEED, **show)
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
    arguments = parser.parse_args()
    if arguments.epochs and not any(arguments.epochs):
        parser.error("--epochs: at least one phase needs an epoch")
    if arguments.start and not (Path(arguments.start) / "unet.keras").is_file():
        parser.error(f"--from {arguments.start}: there is no unet.keras in it")
    if arguments.start and Path(arguments.start).resolve() == Path(arguments.checkpoints).resolve():
        parser.error("--from: name another folder for the new training with --checkpoints DIR")
    return arguments


def main():
    """Train with the constants above and the command line's changes to them."""
    arguments = parse_arguments()
    check_constants()
    summary, folder = load_summary(arguments.data), Path(arguments.checkpoints)
    check_masks(summary, arguments.data)
    settings = collect_settings(arguments, summary)
    evaluate = ["python", "evaluation.py"]
    evaluate += ["--data", arguments.data] if arguments.data != DATA_DIR else []
    evaluate += ["--checkpoints", str(folder)] if arguments.checkpoints != CHECKPOINTS_DIR else []
    with lock_folder(folder):
        before = None if arguments.fresh else earlier_training(folder, settings)
        if before and not (folder / RESUME).exists():
            drop_backups(folder)
            if not (folder / "unet.keras").exists():
                raise InputError(f"{folder}: its unet.keras is gone; --fresh trains it again")
            end = f"{folder}: holds this very training, finished; --fresh repeats it"
        else:
            end = launch(settings, arguments, summary, before)
    print(f"{end}\nRun next: {shlex.join(evaluate)}")


def launch(settings, arguments, summary, before):
    """Start TensorFlow, train, and return what there is to say of the network that is kept.

    before: config.json of the training that goes on, None for a new one.
    """
    start_tensorflow()
    import tensorflow as tf

    from model import choose_precision

    precision = before["machine"]["precision"] if before else choose_precision(PRECISION)
    strategy = make_strategy()
    tf.config.experimental.enable_op_determinism()
    cv2.setNumThreads(1)
    pairs, size = summary["pairs"], summary["image_size"]
    config = {"settings": settings}
    doubts = descent_doubts(arguments.checkpoints, config, settings["data_sha256"])
    machine = describe_machine(precision, strategy.num_replicas_in_sync)
    print(
        f"{', '.join(machine['devices'])}; precision {precision}; {pairs['train']:,} training and"
        f" {pairs['validation']:,} validation pairs of {size} x {size};"
        f" {settings['filters']} filters; batch {settings['batch_size']}; seed {settings['seed']}",
        *(f"Beware: {line}" for line in doubts),
        sep="\n",
        flush=True,
    )
    try:
        rows = train(settings, arguments, machine, strategy)
    except tf.errors.ResourceExhaustedError as error:
        raise InputError(
            f"out of memory with batches of {settings['batch_size']}: take a smaller --batch-size"
            " or fewer --filters, with --fresh"
        ) from error
    best = best_row(rows)
    return (
        f"{Path(arguments.checkpoints) / 'unet.keras'}: epoch {best['epoch']} of phase"
        f" {best['phase']}, validation Dice {best['val_dice_score']:.3f} (mean over"
        f" {pairs['validation']} images, threshold {THRESHOLD}), loss {best['val_loss']:.3f};"
        f" {sum(row['seconds'] for row in rows) / 60:.1f} minutes for {len(rows)} epochs"
    )


if __name__ == "__main__":
    run(main, "interrupted; the same command, without --fresh, goes on after the last whole epoch")
