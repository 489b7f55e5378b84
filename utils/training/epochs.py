"""Epochs: which one is kept, what is written after each, and when a training gives up."""

import math
import sys
import time
from contextlib import contextmanager

import numpy as np

from utils.command import input_errors
from utils.files import write_beside
from utils.training.backups import save_backup
from utils.training.history import name_epoch, save_curves, write_history

COLLAPSED_STEPS = 450  # in a row without a polyp on the validation split: training gives up
DRAWING_INTERVAL = 60  # seconds between two drawings of curves.png
ADVICE = "try a lower learning rate, a smaller CLIP_NORM or another --seed, with --fresh"
ADVICE_COLLAPSED = (
    "try another --seed, a smaller --batch-size or a lower learning rate, with --fresh, or"
    " --from checkpoints/hyperkvasir-32"
)


def best_row(rows):
    """Return the row of the epoch that is kept: that of the last phase's highest validation Dice.

    Of equals it is the first. Earlier phases do not count: the highest score of their many epochs
    is more luck than learning.
    """
    last = [row for row in rows if row["phase"] == rows[-1]["phase"]]
    return max(last, key=lambda row: row["val_dice_score"])


def check_health(rows, steps):
    """End the training, with status 1 and a line, if it has broken down.

    It has if the last loss is not finite, or if no pixel of the validation split was called polyp,
    or all of them were, for COLLAPSED_STEPS of a phase and three epochs. steps: of an epoch.
    """
    last = rows[-1]
    if not (math.isfinite(last["loss"]) and math.isfinite(last["val_loss"])):
        sys.exit(f"train.py: the loss of {name_epoch(last)} is not finite; {ADVICE}")
    epochs = max(3, math.ceil(COLLAPSED_STEPS / steps))
    recent = [row for row in rows if row["phase"] == last["phase"]][-epochs:]
    varied = any(0 < row["val_predicted_fraction"] < 1 for row in recent)
    if len(recent) == epochs and not varied:
        sys.exit(
            "train.py: no polyp predicted on the validation split, or nothing else, for"
            f" {epochs} epochs: the network has collapsed; {ADVICE_COLLAPSED}"
        )


def check_weights(network, row):
    """End the training, with status 1 and a line, if a weight is no number.

    row: of the epoch. The loss may still be finite: a ReLU makes 0 of what is no number.
    """
    if not all(np.isfinite(weights).all() for weights in network.get_weights()):
        sys.exit(f"train.py: the weights of {name_epoch(row)} are not finite; {ADVICE}")


@contextmanager
def averaged_weights(network, pairs):
    """Give a network the running mean of its weights meanwhile, if its optimizer keeps one.

    pairs: the training Pairs, for `measure_statistics`.
    """
    own = network.get_weights()
    if network.optimizer.use_ema:
        network.optimizer.finalize_variable_values(network.trainable_variables)
        measure_statistics(network, pairs)
    yield
    network.set_weights(own)


def measure_statistics(network, pairs):
    """Give each BatchNormalization of a network the means over one pass through training Pairs.

    Its own statistics are those of the weights before they were averaged (Izmailov et al. 2018,
    arXiv:1803.05407, section 3.2).
    """
    import keras

    layers = [each for each in network.layers if isinstance(each, keras.layers.BatchNormalization)]
    momenta = [layer.momentum for layer in layers]
    for step in range(len(pairs)) if layers else ():
        for layer in layers:
            layer.momentum = step / (step + 1)  # so that all batches count alike
        network(pairs.batch(step)[0], training=True)
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum


class EpochKeeper:
    """Keep the history, the best network and all that a phase needs to go on.

    keras.callbacks.BackupAndRestore leaves out the first two, and a kill while it writes can leave
    a half-written file; here each file is whole at every moment.
    """

    def __init__(self, training, phase):
        self.training, self.phase = training, phase
        self.drawn, self.ended = time.monotonic(), 0

    def begin_epoch(self, epoch, logs=None):
        """Before an epoch, counted from 0."""
        self.training.pairs.epoch, self.began = epoch, time.monotonic()
        # An epoch that was written down but not backed up before an interruption runs once more
        rows = self.training.rows
        for row in [r for r in rows if r["phase"] == self.phase and r["epoch"] > epoch]:
            rows.remove(row)

    def end_epoch(self, epoch, logs):
        """After an epoch: its training losses and scores are `logs`, which get the validation's."""
        training, network = self.training, self.training.network
        rows, folder = training.rows, training.folder
        with averaged_weights(network, training.pairs):
            validation = training.validation.dataset()
            scores = network.evaluate(validation, verbose=0, return_dict=True)
            logs |= {f"val_{name}": score for name, score in scores.items()}
            for pairs in (training.pairs, training.validation):
                if pairs.failure:
                    raise pairs.failure
            training.check_data()
            seconds = round(time.monotonic() - self.began, 2)
            row = {"phase": self.phase, "epoch": epoch + 1, "seconds": seconds} | logs
            rows.append(row)
            check_health(rows, len(training.pairs))
            check_weights(network, row)
            if best_row(rows) is row:
                save_network(training)
        write_history(folder / "history.csv", rows)
        if time.monotonic() - self.drawn > DRAWING_INTERVAL:
            draw_curves(training)
            self.drawn = time.monotonic()
        save_backup(folder, self.phase, epoch + 1, network, network.optimizer)
        self.estimate(seconds)

    def estimate(self, seconds):
        """Print after two epochs how long the rest will take, at so many seconds each."""
        phases = self.training.settings["phases"]
        left = sum(phase["epochs"] for phase in phases) - len(self.training.rows)
        self.ended += 1
        if self.ended <= 2 and left * seconds > 90:
            less = ", or less: the first epoch also traced the step" if self.ended == 1 else ""
            print(f"about {left * seconds / 60:.0f} minutes to go{less}", flush=True)


def save_network(training):
    """Save what is trained as unet.keras, in float32 and of Keras's own layers: it loads anywhere.

    Raises InputError if it would answer otherwise than what was trained.
    """
    from utils.training.kernels import check_fold, fold

    fold(training.network, training.plain)
    with input_errors():
        check_fold(training.network, training.plain, training.validation.split.images[:4])
    with write_beside(training.folder / "unet.keras") as beside:
        training.plain.save(beside)


def draw_curves(training):
    """Draw curves.png from the history as it stands."""
    rows, settings = training.rows, training.settings
    path = training.folder / "curves.png"
    save_curves(path, rows, best_row(rows), settings["phases"], settings["threshold"])
