"""Train the U-Net: first on binary cross-entropy, then on Dice loss.

    python train.py                 the full network, 64 filters: for a GPU, or a patient machine
    python train.py --filters 16    the small one: under half an hour on two cores

Stopped in the middle, the same command goes on where it was. In checkpoints/ this leaves

    unet.keras     the model of the best epoch by validation Dice; keras.models.load_model reads it
    history.csv    losses and scores of every epoch
    curves.png     the same, drawn
    augmented.png  a sheet of training pairs as the network sees them
    config.json    every setting, the versions, the machine, the data set's hash
"""

import argparse
import json
import math
import platform
import shutil
import sys
import time
from pathlib import Path

import cv2
import keras
import numpy as np
import tensorflow as tf

from model import (
    BASE_FILTERS,
    PRECISION,
    THRESHOLD,
    build_unet,
    choose_precision,
    dice_loss,
    dice_score,
    load_unet,
    predicted_fraction,
    save_model,
)
from utils.augmentation import Pairs, make_generator
from utils.dataset import load_split, load_summary
from utils.figures import SKY, outline, save_sheet
from utils.files import InputError, input_errors, run, write_beside
from utils.history import best_row, read_history, save_curves, write_history

DATA_DIR = "data/processed"
CHECKPOINTS_DIR = "checkpoints"

# The schedule. An epoch is one pass over the training split.
BCE_EPOCHS, BCE_LEARNING_RATE = 100, 1e-3  # at most, of binary cross-entropy, with Adam
DICE_EPOCHS, DICE_LEARNING_RATE = 50, 1e-4  # at most, of Dice loss, from the best epoch before
PATIENCE = 30  # epochs without a better validation Dice that end a phase
BATCH_SIZE = 16  # over all devices together
CLIP_NORM = 1.0  # of the whole gradient: a single wild step early on can kill the ReLUs
SEED = 42

# What ImageDataGenerator may do to a picture and its mask, as in the original. It also knows
# rotation_range (degrees), brightness_range, channel_shift_range, fill_mode and cval.
AUGMENTATION = {
    "width_shift_range": 0.05,  # of the width
    "height_shift_range": 0.05,
    "shear_range": 0.2,  # degrees, so next to nothing
    "zoom_range": 0.1,
    "horizontal_flip": True,
    "vertical_flip": True,
}
WORKERS = 2  # threads that augment while the network computes

COLLAPSED_EPOCHS = 10  # in a row without a polyp on the validation split: training gives up
DRAWING_INTERVAL = 60  # seconds between two drawings of curves.png
OUTPUTS = ["unet.keras", "history.csv", "curves.png", "augmented.png", "config.json"]


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


def phase_is_over(rows, phase, epochs):
    """Tell whether a phase has had all its epochs, or PATIENCE ones without a better score."""
    rows = [row for row in rows if row["phase"] == phase]
    if len(rows) >= epochs:
        return True
    return bool(rows) and rows[-1]["epoch"] - best_row(rows)["epoch"] >= PATIENCE


def check_health(rows, phase):
    """End the training, with status 1 and a line, if it has broken down.

    It has if the last loss is not finite, or if COLLAPSED_EPOCHS in a row called no pixel of the
    validation split polyp.
    """
    advice = "try a lower learning rate, a smaller CLIP_NORM or another --seed, with --fresh"
    last = rows[-1]
    if not (math.isfinite(last["loss"]) and math.isfinite(last["val_loss"])):
        sys.exit(f"train.py: the loss of epoch {last['epoch']} is not finite; {advice}")
    recent = [row for row in rows if row["phase"] == phase][-COLLAPSED_EPOCHS:]
    if len(recent) == COLLAPSED_EPOCHS and not any(r["val_predicted_fraction"] for r in recent):
        sys.exit(
            f"train.py: no polyp predicted on the validation split for {COLLAPSED_EPOCHS} epochs:"
            f" the network has collapsed; {advice}"
        )


class EpochKeeper(keras.callbacks.Callback):
    """Keep the history, the best model and all that a training needs to go on; stop it in time.

    keras.callbacks.BackupAndRestore leaves out the first two, and a kill while it writes can leave
    a half-written file; here each file is whole at every moment.
    """

    def __init__(self, folder, rows, phase, epochs, pairs):
        super().__init__()
        self.folder, self.rows, self.phase, self.epochs = folder, rows, phase, epochs
        self.pairs, self.drawn = pairs, time.monotonic()
        self.backup = folder / "resume" / f"{phase}.weights.h5"

    def restore(self, model):
        """Give a compiled model the weights and optimizer of the last backup; return its epoch."""
        if not self.backup.exists():
            return 0
        model.load_weights(self.backup)
        return int(model.optimizer.iterations) // len(self.pairs)

    def on_epoch_begin(self, epoch, logs=None):
        self.pairs.epoch, self.begin = epoch, time.monotonic()
        # An epoch that was written down but not backed up before an interruption runs once more
        ahead = [r for r in self.rows if r["phase"] == self.phase and r["epoch"] > epoch]
        for row in ahead:
            self.rows.remove(row)

    def on_epoch_end(self, epoch, logs=None):
        seconds = round(time.monotonic() - self.begin, 2)
        row = {"phase": self.phase, "epoch": epoch + 1, "seconds": seconds} | logs
        self.rows.append(row)
        check_health(self.rows, self.phase)
        if best_row(self.rows) is row:
            with write_beside(self.folder / "unet.keras") as beside:
                save_model(self.model, beside)
        write_history(self.folder / "history.csv", self.rows)
        if time.monotonic() - self.drawn > DRAWING_INTERVAL:
            save_curves(self.folder / "curves.png", self.rows, THRESHOLD)
            self.drawn = time.monotonic()
        with write_beside(self.backup) as beside:
            self.model.save_weights(beside)
        self.model.stop_training = phase_is_over(self.rows, self.phase, self.epochs)


def make_strategy(devices=None):
    """Return the tf.distribute strategy: all GPUs together if there are several.

    devices: names such as "CPU:0" instead of the GPUs.
    """
    devices = devices or [f"GPU:{i}" for i in range(len(tf.config.list_physical_devices("GPU")))]
    if len(devices) > 1:
        return tf.distribute.MirroredStrategy(devices)
    return tf.distribute.get_strategy()


def compile_unet(model, loss, learning_rate, clip_norm):
    """Compile a model with Adam and the scores of history.csv.

    All variables of both are made here: any that the first step made would have it traced twice.
    """
    optimizer = keras.optimizers.Adam(learning_rate, global_clipnorm=clip_norm)
    optimizer.build(model.trainable_variables)
    scores = (dice_score, predicted_fraction)
    metrics = [keras.metrics.MeanMetricWrapper(score, score.__name__) for score in scores]
    model.compile(optimizer, loss, metrics=metrics)


def train(settings, data_dir, folder, precision, strategy):
    """Train through both phases, or what is left of them; return the rows of the history.

    settings: see `collect_settings`; folder: the checkpoints, where an interrupted training of
    the same settings goes on.
    """
    training, validation = load_split("train", data_dir), load_split("validation", data_dir)
    summary = load_summary(data_dir)
    size, fraction = summary["image_size"], summary["polyp_fraction"]["train"]
    generator = make_generator(settings["augmentation"])
    batch_size, seed = settings["batch_size"], settings["seed"]
    resume = folder / "resume"
    rows = read_history(folder / "history.csv")
    phases = {"bce": keras.losses.binary_crossentropy, "dice": dice_loss}
    for number, (phase, loss) in enumerate(phases.items()):
        epochs = settings[f"{phase}_epochs"]
        pairs = Pairs(training, batch_size, WORKERS, generator, (seed, number))
        if number == 0:
            save_augmented(folder / "augmented.png", pairs)
        if phase_is_over(rows, phase, epochs):
            continue
        if phase == "dice" and rows and not (resume / "bce.keras").exists():
            with write_beside(resume / "bce.keras") as beside:
                shutil.copyfile(folder / "unet.keras", beside)
        keras.utils.set_random_seed(seed)
        with strategy.scope(), input_errors():
            model = build_unet(size, 3, settings["filters"], fraction, precision)
            learning_rate = settings[f"{phase}_learning_rate"]
            compile_unet(model, loss, learning_rate, settings["clip_norm"])
        if (resume / "bce.keras").exists():
            with input_errors():
                model.set_weights(load_unet(resume / "bce.keras").get_weights())
        print(f"{phase}: up to {epochs} epochs of {len(pairs)} steps", flush=True)
        keeper = EpochKeeper(folder, rows, phase, epochs, pairs)
        with strategy.scope():
            initial_epoch = keeper.restore(model)
        model.fit(
            pairs.dataset(),
            initial_epoch=initial_epoch,
            epochs=epochs,
            validation_data=Pairs(validation, batch_size, WORKERS).dataset(),
            callbacks=[keeper],
            shuffle=False,  # Pairs does it, by the seed
            verbose=1 if sys.stdout.isatty() else 2,
        )
    save_curves(folder / "curves.png", rows, THRESHOLD)
    shutil.rmtree(resume)
    return rows


# The command


def collect_settings(arguments, summary):
    """Return everything that decides what comes out of a training, as config.json keeps it."""
    return {
        "filters": arguments.filters,
        "image_size": summary["image_size"],
        "bce_epochs": arguments.epochs[0],
        "bce_learning_rate": BCE_LEARNING_RATE,
        "dice_epochs": arguments.epochs[1],
        "dice_learning_rate": DICE_LEARNING_RATE,
        "patience": PATIENCE,
        "batch_size": arguments.batch_size,
        "clip_norm": CLIP_NORM,
        "augmentation": AUGMENTATION,
        "precision": PRECISION,
        "seed": arguments.seed,
        "data_source": summary["source"],
        "data_sha256": summary["sha256"],
    }


def describe_machine(precision, strategy):
    """Return what a training ran on: device, processor, precision and versions."""
    gpus = tf.config.list_physical_devices("GPU")
    names = [tf.config.experimental.get_device_details(gpu).get("device_name") for gpu in gpus]
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    models = [line.split(": ")[1] for line in lines if line.startswith("model name")]
    return {
        "devices": names or [f"{len(models)} x {models[0]}" if models else platform.machine()],
        "replicas": strategy.num_replicas_in_sync,
        "precision": precision,
        "python": platform.python_version(),
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
        "numpy": np.__version__,
        "opencv": cv2.__version__,
    }


def begin(folder, settings, machine, fresh):
    """Make the folder ready for a training; return whether it holds that very one, finished.

    An interrupted training of the same settings stays as it is, to be gone on with; `fresh`
    clears whatever there is. Raises InputError if the folder holds a training of other settings.
    """
    config, resume = folder / "config.json", folder / "resume"
    if fresh:
        shutil.rmtree(resume, ignore_errors=True)
        for name in OUTPUTS:
            (folder / name).unlink(missing_ok=True)
    if config.exists():
        before = json.loads(config.read_text())["settings"]
        differing = [key for key, value in settings.items() if before.get(key) != value]
        if differing:
            key = differing[0]
            raise InputError(
                f"{folder}: holds a training with {key} {before.get(key)}, not {settings[key]};"
                " --fresh replaces it, --checkpoints DIR keeps both"
            )
        if (folder / "unet.keras").exists() and not resume.exists():
            return True
    resume.mkdir(parents=True, exist_ok=True)
    with write_beside(config) as beside:
        beside.write_text(json.dumps({"settings": settings, "machine": machine}, indent=2) + "\n")
    return False


def whole_number(least):
    """Return an argparse type for whole numbers from `least` on."""

    def convert(text):
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {least} on")
        return int(text)

    return convert


def parse_arguments():
    """Return the command line's arguments."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    show = {"help": "default: %(default)s"}
    parser.add_argument("--filters", type=whole_number(1), default=BASE_FILTERS, **show)
    parser.add_argument(
        "--epochs",
        type=whole_number(0),
        nargs=2,
        metavar=("BCE", "DICE"),
        default=[BCE_EPOCHS, DICE_EPOCHS],
        **show,
    )
    parser.add_argument("--batch-size", type=whole_number(1), default=BATCH_SIZE, **show)
    parser.add_argument("--seed", type=whole_number(0), default=SEED, **show)
    parser.add_argument("--data", metavar="DIR", default=DATA_DIR, **show)
    parser.add_argument("--checkpoints", metavar="DIR", default=CHECKPOINTS_DIR, **show)
    parser.add_argument("--fresh", action="store_true", help="start over")
    arguments = parser.parse_args()
    if not any(arguments.epochs):
        parser.error("--epochs: at least one phase needs an epoch")
    return arguments


def main():
    """Train with the constants above and the command line's changes to them."""
    arguments = parse_arguments()
    summary = load_summary(arguments.data)
    folder = Path(arguments.checkpoints)
    settings = collect_settings(arguments, summary)
    with input_errors():
        precision = choose_precision()
    strategy = make_strategy()
    machine = describe_machine(precision, strategy)
    evaluate = "python evaluation.py"
    for flag, value, default in (
        ("--data", arguments.data, DATA_DIR),
        ("--checkpoints", arguments.checkpoints, CHECKPOINTS_DIR),
    ):
        evaluate += f" {flag} {value}" if value != default else ""
    if begin(folder, settings, machine, arguments.fresh):
        print(f"{folder}: holds this very training, finished; --fresh repeats it; {evaluate}")
        return

    tf.config.experimental.enable_op_determinism()
    cv2.setNumThreads(1)
    pairs, size = summary["pairs"], summary["image_size"]
    print(
        f"{', '.join(machine['devices'])}; precision {precision}; {pairs['train']:,} training and"
        f" {pairs['validation']:,} validation pairs of {size} x {size};"
        f" {arguments.filters} filters; batch {arguments.batch_size}; seed {arguments.seed}",
        flush=True,
    )
    try:
        rows = train(settings, arguments.data, folder, precision, strategy)
    except tf.errors.ResourceExhaustedError as error:
        raise InputError(
            f"out of memory with batches of {arguments.batch_size}: take a smaller --batch-size"
            " or fewer --filters"
        ) from error
    best = best_row(rows)
    print(
        f"{folder / 'unet.keras'}: epoch {best['epoch']} of phase {best['phase']}, validation"
        f" Dice {best['val_dice_score']:.3f} (mean over {pairs['validation']} images, threshold"
        f" {THRESHOLD}), loss {best['val_loss']:.3f};"
        f" {sum(row['seconds'] for row in rows) / 60:.1f} minutes for {len(rows)} epochs\n"
        f"Run next: {evaluate}"
    )


if __name__ == "__main__":
    run(main, "interrupted; the same command goes on after the last whole epoch")
