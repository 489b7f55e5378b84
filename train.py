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
import csv
import json
import math
import platform
import shutil
import sys
import threading
import time
from pathlib import Path

import cv2
import keras
import numpy as np
import tensorflow as tf
from matplotlib.figure import Figure
from tensorflow.keras.preprocessing.image import ImageDataGenerator

from data_preprocessing import (
    BLUE,
    DATA_DIR,
    IMAGE_SIZE,
    ORANGE,
    SKY,
    InputError,
    load_split,
    load_summary,
    outline,
    run,
    save_sheet,
    write_beside,
)
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
)

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
HISTORY_COLUMNS = [
    *("phase", "epoch", "loss", "dice_score", "predicted_fraction"),
    *("val_loss", "val_dice_score", "val_predicted_fraction", "seconds"),
]
BORDERS = {
    "nearest": cv2.BORDER_REPLICATE,
    "reflect": cv2.BORDER_REFLECT,
    "constant": cv2.BORDER_CONSTANT,
}
DRAW_LOCK = threading.Lock()  # ImageDataGenerator draws from NumPy's one global state


# Augmentation: one draw of a transform for picture and mask


def make_generator(augmentation):
    """Return the ImageDataGenerator that draws the transforms.

    Raises InputError for a setting that it does not know, or that would not be carried out.
    """
    light_and_shape = {
        *("rotation_range", "width_shift_range", "height_shift_range", "shear_range"),
        *("zoom_range", "horizontal_flip", "vertical_flip", "fill_mode", "cval"),
        *("brightness_range", "channel_shift_range"),
    }
    unknown = sorted(augmentation.keys() - light_and_shape)
    if unknown:
        raise InputError(f"AUGMENTATION: {unknown[0]!r} is none of {sorted(light_and_shape)}")
    if augmentation.get("fill_mode", "nearest") not in BORDERS:
        raise InputError(f"AUGMENTATION: fill_mode must be one of {', '.join(BORDERS)}")
    try:
        return ImageDataGenerator(**augmentation)
    except (TypeError, ValueError) as error:
        raise InputError(f"AUGMENTATION: {error}") from error


def draw_transform(generator, shape, seed):
    """Draw the parameters of one transform, which depend on `seed` (0 to 2**32 - 1) alone."""
    with DRAW_LOCK:
        return generator.get_random_transform(shape, seed=seed)


def affine_matrix(transform, height, width):
    """Return the (2, 3) matrix that takes a point (x, y) of the result to one of the source.

    It is the product that Keras's apply_affine_transform computes, with the flips, which Keras
    does afterwards, multiplied in.
    """
    angle, shear = math.radians(transform["theta"]), math.radians(transform["shear"])
    cos, sin = math.cos(angle), math.sin(angle)
    rotation = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])
    shift = np.array([[1, 0, transform["tx"]], [0, 1, transform["ty"]], [0, 0, 1]])
    sheared = np.array([[1, -math.sin(shear), 0], [0, math.cos(shear), 0], [0, 0, 1]])
    zoom = np.diag([transform["zx"], transform["zy"], 1])
    x, y = width / 2 - 0.5, height / 2 - 0.5
    to_center = np.array([[1, 0, x], [0, 1, y], [0, 0, 1]])
    from_center = np.array([[1, 0, -x], [0, 1, -y], [0, 0, 1]])
    matrix = to_center @ rotation @ shift @ sheared @ zoom @ from_center
    if transform["flip_horizontal"]:
        matrix = matrix @ [[-1, 0, width - 1], [0, 1, 0], [0, 0, 1]]
    if transform["flip_vertical"]:
        matrix = matrix @ [[1, 0, 0], [0, -1, height - 1], [0, 0, 1]]
    return matrix[:2]


def augment(image, mask, transform, fill_mode="nearest", cval=0):
    """Apply one drawn transform to a picture and its mask: one bilinear warp each, by OpenCV.

    image: (height, width, 3) uint8; mask: (height, width, 1) uint8, 0 or 1. Returns the same
    shapes and types; the mask is binary again, and 0 outside where fill_mode is "constant".
    Brightness and channel shift change the picture alone.
    """
    height, width = mask.shape[:2]
    matrix = affine_matrix(transform, height, width)
    warp = {"flags": cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, "borderMode": BORDERS[fill_mode]}
    image = cv2.warpAffine(image, matrix, (width, height), **warp, borderValue=(cval,) * 3)
    mask = cv2.warpAffine(mask * np.uint8(255), matrix, (width, height), **warp)
    if transform["channel_shift_intensity"] is not None:
        shifted = image + transform["channel_shift_intensity"]
        image = np.clip(shifted, image.min(), image.max()).round().astype(np.uint8)
    if transform["brightness"] is not None:
        image = cv2.convertScaleAbs(image, alpha=transform["brightness"])
    return image, (mask >= 128).astype(np.uint8)[..., None]


class Pairs:
    """Batches of one split, read from disk as they are needed.

    With a generator the pairs come in a new order and augmented in every epoch; order and draws
    depend on the seed, the epoch and the position alone. Without one they come as they are.
    """

    def __init__(self, split, batch_size, generator=None, seed=()):
        self.split, self.batch_size, self.generator, self.seed = split, batch_size, generator, seed
        self.epoch = 0  # set before each epoch by EpochKeeper

    def __len__(self):
        return math.ceil(len(self.split.names) / self.batch_size)

    def batch(self, step):
        """Return (n, size, size, 3) uint8 pictures and (n, size, size, 1) uint8 masks, 0 or 1."""
        count = len(self.split.names)
        positions = slice(step * self.batch_size, min((step + 1) * self.batch_size, count))
        if self.generator is None:
            return self.split.images[positions], self.split.masks[positions]
        random = np.random.default_rng([*self.seed, self.epoch])
        order = random.permutation(count)[positions]
        draws = random.integers(2**32, size=count)[positions]
        images, masks = self.split.images[order], self.split.masks[order]
        fill = {"fill_mode": self.generator.fill_mode, "cval": self.generator.cval}
        for row, draw in enumerate(draws):
            transform = draw_transform(self.generator, images.shape[1:], int(draw))
            images[row], masks[row] = augment(images[row], masks[row], transform, **fill)
        return images, masks

    def dataset(self):
        """Return one epoch as a tf.data.Dataset, made ahead of the training by WORKERS threads."""
        size = self.split.images.shape[1]

        def load(step):
            types = [tf.uint8, tf.uint8]
            images, masks = tf.numpy_function(self.batch, [step], types, stateful=False)
            images.set_shape((None, size, size, 3))
            masks.set_shape((None, size, size, 1))
            return images, masks

        # The autotuner sleeps ever longer, and the end of an epoch would wait until it wakes up
        options = tf.data.Options()
        options.autotune.enabled = False
        steps = tf.data.Dataset.range(len(self)).with_options(options)
        return steps.map(load, num_parallel_calls=WORKERS, deterministic=True).prefetch(2)


def save_augmented(path, pairs, count=8):
    """Save a sheet of the first training pairs as they are, and as the network sees them."""
    images, masks = pairs.batch(0)
    count = min(count, len(images))
    random = np.random.default_rng([*pairs.seed, 0])
    originals = pairs.split.images[random.permutation(len(pairs.split.names))[:count]]
    chosen = list(zip(images[:count], masks[:count], strict=True))
    rows = {
        "stored": originals,
        "augmented": [image for image, _ in chosen],
        "with mask": [outline(image, [(mask, SKY)]) for image, mask in chosen],
    }
    titles = [f"pair {number + 1}" for number in range(count)]
    save_sheet(path, rows, titles, "The first training pairs of the first epoch")


# The history, and what follows from it


def read_history(path):
    """Return the rows of history.csv, as numbers; an empty list if there is no file."""
    if not path.exists():
        return []
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    types = dict.fromkeys(HISTORY_COLUMNS, float) | {"phase": str, "epoch": int}
    return [{key: types[key](value) for key, value in row.items()} for row in rows]


def write_history(path, rows):
    """Write history.csv."""
    with write_beside(path) as beside, open(beside, "w", newline="") as file:
        writer = csv.DictWriter(file, HISTORY_COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def best_row(rows):
    """Return the row of the highest validation Dice, the first of equals."""
    return max(rows, key=lambda row: row["val_dice_score"])


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


def save_curves(path, rows):
    """Save curves.png: loss, and Dice on the training and validation split, over both phases."""
    figure = Figure((9, 3.6), layout="constrained")
    loss_axes, dice_axes = figure.subplots(1, 2)
    epochs = np.arange(1, len(rows) + 1)
    best = rows.index(best_row(rows))
    for axes, key in ((loss_axes, "loss"), (dice_axes, "dice_score")):
        for phase, begin in {row["phase"]: None for row in rows}.items():
            these = [i for i, row in enumerate(rows) if row["phase"] == phase]
            begin = these[0]
            for name, colour, label in (("", BLUE, "training"), ("val_", ORANGE, "validation")):
                values = [rows[i][name + key] for i in these]
                axes.plot(epochs[these], values, color=colour, label=None if begin else label)
            if begin:
                axes.axvline(begin + 0.5, color="0.6", linestyle=":", linewidth=1)
        axes.set_xlabel("epoch")
        axes.grid(alpha=0.3)
    loss_axes.set_ylabel("loss: cross-entropy, then Dice")
    dice_axes.set_ylabel("Dice, mean over images, threshold 0.5")
    dice_axes.set_ylim(0, 1)
    score = rows[best]["val_dice_score"]
    label = f"kept: epoch {best + 1}, {score:.3f}"
    dice_axes.plot(best + 1, score, "o", color=ORANGE, label=label)
    loss_axes.legend()
    dice_axes.legend(loc="lower right")
    with write_beside(path) as beside:
        figure.savefig(beside, dpi=100)


# Training


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
            save_model(self.model, self.folder / "unet.keras")
        write_history(self.folder / "history.csv", self.rows)
        if time.monotonic() - self.drawn > DRAWING_INTERVAL:
            save_curves(self.folder / "curves.png", self.rows)
            self.drawn = time.monotonic()
        with write_beside(self.backup) as beside:
            self.model.save_weights(beside)
        self.model.stop_training = phase_is_over(self.rows, self.phase, self.epochs)


def save_model(model, path):
    """Save the U-Net in float32, of Keras's own layers and not compiled: it loads anywhere."""
    size, channels = model.input_shape[2:]
    copy = build_unet(size, channels, model.get_layer("encoder1_a").filters)
    copy.set_weights(model.get_weights())
    with write_beside(path) as beside:
        copy.save(beside)


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
    fraction = load_summary(data_dir)["polyp_fraction"]["train"]
    generator = make_generator(settings["augmentation"])
    batch_size, seed = settings["batch_size"], settings["seed"]
    resume = folder / "resume"
    rows = read_history(folder / "history.csv")
    phases = {"bce": keras.losses.binary_crossentropy, "dice": dice_loss}
    for number, (phase, loss) in enumerate(phases.items()):
        epochs = settings[f"{phase}_epochs"]
        pairs = Pairs(training, batch_size, generator, seed=(seed, number))
        if number == 0:
            save_augmented(folder / "augmented.png", pairs)
        if phase_is_over(rows, phase, epochs):
            continue
        if phase == "dice" and rows and not (resume / "bce.keras").exists():
            with write_beside(resume / "bce.keras") as beside:
                shutil.copyfile(folder / "unet.keras", beside)
        keras.utils.set_random_seed(seed)
        with strategy.scope():
            model = build_unet(IMAGE_SIZE, 3, settings["filters"], fraction, precision)
            learning_rate = settings[f"{phase}_learning_rate"]
            compile_unet(model, loss, learning_rate, settings["clip_norm"])
        if (resume / "bce.keras").exists():
            model.set_weights(load_unet(resume / "bce.keras").get_weights())
        print(f"{phase}: up to {epochs} epochs of {len(pairs)} steps", flush=True)
        keeper = EpochKeeper(folder, rows, phase, epochs, pairs)
        with strategy.scope():
            initial_epoch = keeper.restore(model)
        model.fit(
            pairs.dataset(),
            initial_epoch=initial_epoch,
            epochs=epochs,
            validation_data=Pairs(validation, batch_size).dataset(),
            callbacks=[keeper],
            shuffle=False,  # Pairs does it, by the seed
            verbose=1 if sys.stdout.isatty() else 2,
        )
    save_curves(folder / "curves.png", rows)
    shutil.rmtree(resume)
    return rows


# The command


def collect_settings(arguments, summary):
    """Return everything that decides what comes out of a training, as config.json keeps it."""
    return {
        "filters": arguments.filters,
        "image_size": IMAGE_SIZE,
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
    if summary["image_size"] != IMAGE_SIZE:
        raise InputError(
            f"{arguments.data}: its pictures have {summary['image_size']} pixels a side, IMAGE_SIZE"
            f" is {IMAGE_SIZE}; run python data_preprocessing.py again"
        )
    folder = Path(arguments.checkpoints)
    settings = collect_settings(arguments, summary)
    precision, strategy = choose_precision(), make_strategy()
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
    pairs = summary["pairs"]
    print(
        f"{', '.join(machine['devices'])}; precision {precision}; {pairs['train']:,} training and"
        f" {pairs['validation']:,} validation pairs of {IMAGE_SIZE} x {IMAGE_SIZE};"
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
