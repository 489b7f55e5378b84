"""What a prediction is: one network's, several networks', several views', at a picture's size."""

import re

import cv2
import keras
import numpy as np
import pytest
import tensorflow as tf

from model import build_unet
from shell import ROOT, segment_picture
from utils.command import InputError
from utils.data.demo import draw_demo_pair
from utils.prediction.networks import Networks
from utils.prediction.predictors import (
    VIEWS,
    average_networks,
    average_views,
    describe_prediction,
    enlarge,
    make_predictor,
    scale_predictor,
    view,
    view_back,
)


def pictures_of(*shape):
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def test_the_predictor_is_traced_once_for_batches_of_any_length():
    network = build_unet(size=32, filters=2)
    traces = []
    call = network.call
    network.call = lambda *args, **kwargs: traces.append(1) or call(*args, **kwargs)
    predict = make_predictor(network)
    pictures = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), np.uint8)
    whole = predict(pictures)
    assert whole.shape == (5, 32, 32, 1)
    np.testing.assert_allclose(predict(pictures[:2]), whole[:2], atol=1e-6)
    np.testing.assert_allclose(predict(pictures[4:]), whole[4:], atol=1e-6)
    assert len(traces) == 1


def test_probabilities_are_enlarged_to_a_pictures_own_size():
    left_half = np.zeros((32, 32, 1), np.float32)
    left_half[:, :16] = 1
    enlarged = enlarge(left_half, (90, 200, 3))
    assert enlarged.shape == (90, 200)
    assert (enlarged[:, :96] == 1).all()
    assert ((enlarged[:, 97:103] > 0) & (enlarged[:, 97:103] < 1)).all()
    assert (enlarged[:, 104:] == 0).all()


def test_two_networks_are_averaged_by_hand():
    first, second = (lambda pictures, p=p: np.full((1, 2, 2, 1), p, np.float32) for p in (0.2, 0.7))
    mean = average_networks([first, second])(pictures_of(1, 2, 2, 3))
    assert mean.dtype == np.float32
    np.testing.assert_allclose(mean, np.full((1, 2, 2, 1), 0.45), rtol=1e-6)
    assert average_networks([first]) is first


def test_the_eight_views_are_distinct_and_turned_back_rightly():
    pictures = pictures_of(2, 6, 6, 3)  # of noise, so without any symmetry
    views = [view(pictures, *way) for way in VIEWS]
    assert len({turned.tobytes() for turned in views}) == 8
    for turned, way in zip(views, VIEWS, strict=True):
        np.testing.assert_array_equal(view_back(turned, *way), pictures)
        np.testing.assert_array_equal(np.sort(turned, axis=None), np.sort(pictures, axis=None))
    np.testing.assert_array_equal(views[0], pictures)


def test_views_change_nothing_where_the_predictor_turns_with_the_picture():
    def redness(pictures):
        return (pictures[..., :1] / 255).astype(np.float32)

    pictures = pictures_of(3, 8, 8, 3)
    np.testing.assert_allclose(average_views(redness, 32)(pictures), redness(pictures), atol=1e-6)


def test_views_average_the_predictions_by_hand():
    def left_quarter(pictures):
        probabilities = np.zeros((len(pictures), 4, 4, 1), np.float32)
        probabilities[:, :, 0] = 1
        return probabilities

    expected = np.array([[4, 2, 2, 4], [2, 0, 0, 2], [2, 0, 0, 2], [4, 2, 2, 4]]) / 8
    views = average_views(left_quarter, 32)(pictures_of(1, 4, 4, 3))
    np.testing.assert_allclose(views[0, ..., 0], expected)


def test_views_are_predicted_in_batches_that_are_no_larger():
    lengths = []

    def redness(pictures):
        lengths.append(len(pictures))
        return (pictures[..., :1] / 255).astype(np.float32)

    pictures = pictures_of(2, 4, 4, 3)
    mean = average_views(redness, 3)(pictures)
    np.testing.assert_allclose(mean, redness(pictures), atol=1e-6)
    assert lengths[:-1] == [3, 3, 3, 3, 3, 1]


def test_a_batch_that_memory_does_not_hold_is_a_line():
    class Greedy:
        input_shape = (None, 4, 4, 3)

        def __call__(self, pictures, training):
            raise tf.errors.ResourceExhaustedError(None, None, "no room")

    with pytest.raises(InputError, match=r"^greedy: out of memory with batches of 2; take a small"):
        make_predictor(Greedy(), "greedy")(pictures_of(2, 4, 4, 3))


def test_what_a_prediction_is_says_all_that_is_averaged():
    def say(count, tta, threshold, kernels=("plain",), **others):
        configs = [{"settings": {"kernels": kind}} for kind in kernels]
        return describe_prediction(Networks(["a"] * count, configs, [], threshold, **others), tta)

    views = "the 8 flips and quarter turns of each picture"
    assert say(1, False, 0.5) == "a pixel is called polyp if its probability is 0.5 or more"
    assert "probability, the mean over 2 networks, is 0.3 or more" in say(2, False, 0.3)
    assert f"probability, the mean over {views}, is" in say(1, True, 0.5)
    assert "probability, by the network of its fold, is 0.5" in say(2, False, 0.5, by_fold=True)
    both = f"probability, by the network of its fold, the mean over {views}, is"
    assert both in say(2, True, 0.5, by_fold=True)
    assert f"probability, the mean over 3 networks and {views}, is" in say(3, True, 0.5)
    mixed = f"mean over 2 networks and {views}, one view for equivariant networks, to which"
    assert mixed in say(2, True, 0.5, ["plain", "equivariant"])
    alike = f"probability, which equivariant kernels make the same for {views}, is"
    assert alike in say(1, True, 0.5, ["equivariant"])
    assert "equivariant" not in say(1, False, 0.5, ["equivariant"])
    assert "probability is" in say(1, False, 0.5, temperature=2.5)
    scaled = say(1, False, 0.5, temperature=2.5, scaled=True)
    assert scaled.endswith("its probability scaled by a temperature of 2.5 is 0.5 or more")


def test_a_temperature_moves_probabilities_but_not_what_is_above_a_half():
    def levels(pictures):
        return np.array([0, 0.1, 0.5, 0.9, 1], np.float32).reshape(1, 5, 1, 1)

    scaled = scale_predictor(levels, 2)(None)
    assert scaled.dtype == np.float32
    np.testing.assert_allclose(scaled[0, 1:4, 0, 0], [0.25, 0.5, 0.75], atol=1e-6)
    assert 0 < scaled[0, 0, 0, 0] < 0.001
    assert 0.999 < scaled[0, 4, 0, 0] < 1


@pytest.mark.parametrize("activation", ["linear", "nan"])
def test_a_network_without_probabilities_is_refused(activation):
    network = build_unet(16, filters=1)
    layer = network.get_layer("polyp")
    if activation == "linear":
        layer.activation = keras.activations.linear
        layer.bias.assign([7.0])
    else:
        layer.bias.assign([np.nan])
    predict = make_predictor(network, "a/unet.keras")
    with pytest.raises(InputError, match=r"^a/unet\.keras: gives values from .*no probabilities"):
        predict(pictures_of(1, 16, 16, 3))


def test_the_readmes_function_segments_as_evaluation_does(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    (code,) = [block for block in blocks if "def segment" in block]
    assert len([line for line in code.splitlines() if line]) <= 8
    names = {}
    exec(code, names)
    picture, drawn = draw_demo_pair("demo_005")
    path = tmp_path / "息肉.png"
    path.write_bytes(cv2.imencode(".png", picture[..., ::-1])[1])
    mask = names["segment"](path)
    network = names["network"]
    expected = segment_picture(make_predictor(network), picture, network.input_shape[1], 0.5)
    assert (mask != expected).mean() < 1e-4  # Keras's predict may round the last digit otherwise
    assert mask.dtype == np.uint8
    assert set(np.unique(mask)) == {0, 255}
    overlap = (mask & drawn).sum() / (mask | drawn).sum()
    assert overlap > 0.3  # of a drawn polyp, by a network that has never seen one
    with pytest.raises(FileNotFoundError):
        names["segment"](tmp_path / "none.png")
