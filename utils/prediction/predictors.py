"""Predictors: functions from pictures to probabilities of polyp, alone or averaged."""

import math

import cv2
import numpy as np

from utils.command import InputError
from utils.prediction.networks import is_equivariant

# The eight views of a square picture: so many quarter turns, and then mirrored or not
VIEWS = [(turns, mirrored) for mirrored in (False, True) for turns in range(4)]


def make_predictor(network, name="the network"):
    """Return a function from (n, size, size, 3) uint8 pictures to probabilities of polyp.

    Those are (n, size, size, 1) float32, 0 to 1. It is traced once, for batches of any length. It
    raises InputError, by `name`, if the network gives anything but probabilities, or if memory is
    not enough for it.
    """
    import tensorflow as tf

    signature = [tf.TensorSpec((None, *network.input_shape[1:]), tf.uint8)]
    traced = tf.function(lambda pictures: network(pictures, training=False), signature)

    def predict(pictures):
        try:
            probabilities = traced(pictures).numpy()
        except tf.errors.ResourceExhaustedError as error:
            raise InputError(
                f"{name}: out of memory with batches of {len(pictures)}; take a smaller BATCH_SIZE"
                " in evaluation.py"
            ) from error
        low, high = probabilities.min(), probabilities.max()
        if not (low >= 0 and high <= 1):  # NaN is neither
            raise InputError(
                f"{name}: gives values from {low:g} to {high:g}, which are no probabilities;"
                " train it again"
            )
        return probabilities

    return predict


def average_networks(predictors):
    """Return a predictor of the mean of several predictors' probabilities."""
    if len(predictors) == 1:
        return predictors[0]
    return lambda pictures: np.mean([predict(pictures) for predict in predictors], axis=0)


def average_views(predict, batch_size):
    """Return a predictor of the mean over the eight VIEWS of each picture, turned back.

    predict: the predictor of a view, which is given `batch_size` of them at once.
    """

    def predict_views(pictures):
        views = np.concatenate([view(pictures, *way) for way in VIEWS])
        batches = range(0, len(views), batch_size)
        predicted = [predict(views[begin : begin + batch_size]) for begin in batches]
        predicted = np.split(np.concatenate(predicted), len(VIEWS))
        back = [view_back(part, *way) for part, way in zip(predicted, VIEWS, strict=True)]
        return np.mean(back, axis=0)

    return predict_views


def view(pictures, turns, mirrored):
    """Return square pictures, (n, size, size, channels), turned by quarters, then mirrored."""
    turned = np.rot90(pictures, turns, (1, 2))
    return turned[:, :, ::-1] if mirrored else turned


def view_back(pictures, turns, mirrored):
    """Return what `view` was given for what it returned."""
    unmirrored = pictures[:, :, ::-1] if mirrored else pictures
    return np.rot90(unmirrored, -turns, (1, 2))


def scale_predictor(predict, temperature):
    """Return a predictor of another's probabilities, as `scale_probabilities` scales them."""
    return lambda pictures: scale_probabilities(predict(pictures), temperature).astype(np.float32)


def enlarge(probability, shape):
    """Return a predicted (size, size, 1) probability at a picture's `shape`, height first.

    By bilinear interpolation; (height, width) float32.
    """
    return cv2.resize(probability, shape[1::-1], interpolation=cv2.INTER_LINEAR)


def describe_prediction(networks, tta):
    """Return the definition of a predicted pixel, and of an alarm, as a line.

    networks: see `Networks` in networks.py; tta: whether the VIEWS are averaged.
    """
    count = len(networks.folders)
    averaged = [f"{count} networks"] if count > 1 and not networks.by_fold else []
    views = f"the {len(VIEWS)} flips and quarter turns of each picture"
    equivariant = [is_equivariant(config) for config in networks.configs]
    alike = f"which equivariant kernels make the same for {views}"
    if tta and not all(equivariant):
        averaged.append(views)
        alike = "one view for equivariant networks, to which all are the same"
    how = ["by the network of its fold"] if networks.by_fold else []
    how += [f"the mean over {' and '.join(averaged)}"] if averaged else []
    how += [alike] if tta and any(equivariant) else []
    how = f", {', '.join(how)}," if how else ""
    scaled = f" scaled by a temperature of {networks.temperature:.3g}" if networks.scaled else ""
    threshold, level = networks.threshold, networks.level
    sure = f"; a region is an alarm if it is as sure as {level_text(level)}"
    alarm = sure if level > threshold else ""
    return f"a pixel is called polyp if its probability{how}{scaled} is {threshold} or more{alarm}"


def level_text(level):
    """Return a level of sureness, 0 to 1, as text of two digits after the nines, such as 0.9959."""
    return f"{level:.{max(2, 1 - math.floor(math.log10(1 - level)))}f}" if level < 1 else "1"


# Before their log-odds are taken, probabilities are kept so far from 0 and 1: log-odds of -16.6 to
# 16.6. Nearer to 1 float32 has no number, nearer to 0 it has many. Both ends are cut alike, lest a
# polyp missed there outweigh a false alarm.
CLIP = 2.0**-24


def log_odds(probabilities):
    """Return the log-odds of probabilities that have been clipped by CLIP, as float64."""
    clipped = np.clip(np.asarray(probabilities, float), CLIP, 1 - CLIP)
    return np.log(clipped) - np.log1p(-clipped)


def sigmoid(values):
    """Return the probabilities of log-odds, float of the same shape; no value is too large."""
    return (1 + np.tanh(values / 2)) / 2


def scale_probabilities(probabilities, temperature):
    """Return probabilities whose log-odds are divided by a temperature, as float64, 0 to 1.

    A temperature above 1 takes them nearer to 0.5 (Guo et al. 2017, arXiv:1706.04599, section 4.2,
    for two classes). What is called polyp at 0.5 stays the same.
    """
    return sigmoid(log_odds(probabilities) / temperature)
