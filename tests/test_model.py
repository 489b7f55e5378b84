"""The U-Net, its losses and its scores."""

import os
import subprocess
import sys

import cv2
import keras
import numpy as np
import pytest
import tensorflow as tf
from sklearn.metrics import f1_score

import model as unet
import train
from shell import assert_mistake
from utils.training.history import LOSSES


@pytest.fixture
def small():
    keras.utils.set_random_seed(0)
    return unet.build_unet(size=32, filters=4, polyp_fraction=0.15)


def random_masks(shape=(3, 16, 16, 1), seed=0):
    return (np.random.default_rng(seed).random(shape) < 0.3).astype(np.uint8)


def test_the_original_network_has_its_number_of_parameters():
    network = unet.build_unet(filters=64, grey=True)
    assert sum(weight.numpy().size for weight in network.trainable_weights) == 31_030_593


def test_a_grey_network_sees_the_grey_picture_that_opencv_makes():
    network = unet.build_unet(size=32, filters=2, grey=True)
    assert network.get_layer("encoder1_a").input.shape[-1] == 1
    picture = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    layers = [network.get_layer(name) for name in ("rescaling", "grey")]
    expected = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY) / 127.5 - 1
    grey = keras.Sequential(layers)(picture[None].astype(np.float32))[0, ..., 0]
    np.testing.assert_allclose(grey, expected, atol=0.6 / 127.5)  # OpenCV rounds
    assert layers[1].trainable_weights == []


def test_blocks_are_those_of_the_readme(small):
    kinds = [type(layer).__name__ for layer in small.layers]
    assert kinds.count("MaxPooling2D") == kinds.count("Conv2DTranspose") == 4
    assert kinds.count("Concatenate") == 4
    assert kinds.count("Conv2D") == 2 * 9 + 1
    filters = [small.get_layer(f"encoder{block}_a").filters for block in (1, 2, 3, 4)]
    assert [*filters, small.get_layer("bottleneck_a").filters] == [4, 8, 16, 32, 64]


def test_prediction_is_a_probability_for_each_pixel(small):
    pictures = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)
    probabilities = small(pictures).numpy()
    assert probabilities.shape == (2, 32, 32, 1)
    assert probabilities.dtype == np.float32
    assert 0 <= probabilities.min() <= probabilities.max() <= 1


@pytest.mark.parametrize("fraction", [0.05, 0.15, 0.5])
def test_training_starts_from_the_polyp_fraction(fraction):
    network = unet.build_unet(size=32, filters=4, polyp_fraction=fraction)
    grey = np.full((1, 32, 32, 3), 127.5, np.float32)  # 0 after rescaling: only the biases speak
    np.testing.assert_allclose(network(grey).numpy(), fraction, rtol=1e-5)


@pytest.mark.parametrize("fraction", [0.0, 1.0])
def test_a_split_without_polyps_or_without_background_still_builds(fraction):
    network = unet.build_unet(size=16, filters=1, polyp_fraction=fraction)
    assert np.isfinite(network.get_layer("polyp").bias.numpy()).all()


def test_a_size_that_cannot_be_halved_four_times_is_refused():
    with pytest.raises(ValueError, match="size 100: must be a multiple of 16"):
        unet.build_unet(size=100)


def test_dice_loss_by_hand():
    truth = np.array([1, 1, 0, 0], np.float32).reshape(1, 2, 2, 1)
    guess = np.array([0.5, 1.0, 0.5, 0.0], np.float32).reshape(1, 2, 2, 1)
    expected = 1 - (2 * 1.5 + 1) / (2 + 2 + 1)
    np.testing.assert_allclose(unet.dice_loss(truth, guess), [expected], rtol=1e-6)


def test_dice_loss_is_kerass_per_image_but_for_the_one_pixel_of_smoothing():
    truth = random_masks((4, 64, 64, 1)).astype(np.float32)
    guess = np.random.default_rng(1).random(truth.shape, np.float32)
    reference = keras.losses.Dice(axis=(1, 2, 3), reduction=None)(truth, guess)
    np.testing.assert_allclose(unet.dice_loss(truth, guess), reference, atol=5e-4)


def test_the_losses_are_weighted_and_added():
    truth = np.array([1, 1, 0, 0], np.float32).reshape(1, 2, 2, 1)
    guess = np.array([0.5, 0.9, 0.5, 0.1], np.float32).reshape(1, 2, 2, 1)
    cross_entropy = -(np.log(0.5) + np.log(0.9)) / 2
    dice = 1 - (2 * 1.4 + 1) / (2 + 2 + 1)
    for bce, weight in ((1, 0.25), (0.5, 1), (1, 1), (2, 0)):
        loss = unet.add_losses({"bce": bce, "dice": weight})
        expected = bce * cross_entropy + weight * dice
        np.testing.assert_allclose(loss(truth, guess), [expected], rtol=1e-6)
    assert unet.add_losses({"bce": 1, "dice": 0}) is keras.losses.binary_crossentropy
    assert unet.add_losses({"bce": 0, "dice": 1}) is unet.dice_loss


def test_a_loss_of_ones_own_is_added_too(monkeypatch):
    """By pixel as Keras's own, or by image."""
    truth = guess = np.ones((2, 4, 4, 1), np.float32)
    monkeypatch.setitem(unet.LOSSES, "own", lambda y_true, y_pred: 3 * y_pred[..., 0])
    np.testing.assert_allclose(
        unet.add_losses({"bce": 0, "dice": 1, "own": 2})(truth, guess), [6, 6], rtol=1e-6
    )


def test_every_loss_has_its_words():
    assert unet.LOSSES.keys() == LOSSES.keys()


def test_an_empty_mask_predicted_empty_costs_nothing():
    empty = np.zeros((2, 8, 8, 1), np.float32)
    np.testing.assert_array_equal(unet.dice_loss(empty, empty), [0, 0])
    np.testing.assert_array_equal(unet.dice_score(empty, empty), [1, 1])


def test_dice_loss_has_a_gradient_where_nothing_is_predicted():
    truth = random_masks((1, 8, 8, 1)).astype(np.float32)
    guess = tf.Variable(np.full((1, 8, 8, 1), 1e-3, np.float32))
    with tf.GradientTape() as tape:
        loss = unet.dice_loss(truth, guess)
    assert (tape.gradient(loss, guess).numpy()[truth > 0] < 0).all()


def test_dice_score_is_scikit_learns_f1_of_each_image():
    truth = random_masks()
    guess = np.random.default_rng(2).random(truth.shape, np.float32)
    expected = [f1_score(t.ravel(), g.ravel() >= 0.5) for t, g in zip(truth, guess, strict=True)]
    np.testing.assert_allclose(unet.dice_score(truth, guess), expected, atol=1e-6)


def test_the_threshold_is_the_callers():
    truth = np.array([1, 1, 0, 0], np.float32).reshape(1, 2, 2, 1)
    guess = np.array([0.4, 0.6, 0.4, 0.1], np.float32).reshape(1, 2, 2, 1)
    assert float(unet.dice_score(truth, guess)[0]) == pytest.approx(2 / 3)
    assert float(unet.dice_score(truth, guess, threshold=0.3)[0]) == pytest.approx(4 / 5)
    assert float(unet.predicted_fraction(truth, guess, threshold=0.3)[0]) == 0.75


def test_predicted_fraction_counts_from_the_threshold_on():
    guess = np.array([0.49, 0.5, 0.51, 0.0], np.float32).reshape(1, 2, 2, 1)
    assert float(unet.predicted_fraction(guess, guess)[0]) == 0.5


def test_the_script_prints_the_summary_and_draws_the_network(tmp_path):
    (tmp_path / "docs").mkdir()
    script = [sys.executable, unet.__file__]
    done = subprocess.run(script, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "WARNING" not in done.stderr  # of TensorFlow's start
    assert "7,760,097" in done.stdout  # 32 filters, in colour
    assert "31,030,596" in done.stdout  # the original's, and the three fixed weights that make grey
    assert (tmp_path / "docs/architecture.png").read_bytes().startswith(b"\x89PNG")


def test_the_script_refuses_another_backend_in_a_line(tmp_path):
    script, environment = [sys.executable, unet.__file__], os.environ | {"KERAS_BACKEND": "torch"}
    done = subprocess.run(script, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert_mistake(done, "KERAS_BACKEND=torch")


def test_the_network_that_the_script_draws_is_that_of_train():
    network = unet.build_unet()
    assert network.get_layer("encoder1_a").filters == train.FILTERS
    assert not train.GREY
    original = unet.build_unet(filters=train.ORIGINAL["filters"], grey=train.ORIGINAL["grey"])
    assert original.count_params() == 31_030_596
