"""The network, its loss and score, its precision, and what loads a saved model."""

import subprocess
import sys

import cv2
import keras
import numpy as np
import pytest
import tensorflow as tf
from sklearn.metrics import f1_score

import model as unet


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
    for weights in ((1, 0.25), (0.5, 1), (1, 1), (2, 0)):
        expected = weights[0] * cross_entropy + weights[1] * dice
        np.testing.assert_allclose(unet.add_losses(*weights)(truth, guess), [expected], rtol=1e-6)
    assert unet.add_losses(1, 0) is keras.losses.binary_crossentropy
    assert unet.add_losses(0, 1) is unet.dice_loss


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


def test_a_compiled_model_loads_with_plain_keras(small, tmp_path):
    small.compile("adam", unet.dice_loss, metrics=[unet.dice_score, unet.predicted_fraction])
    small.optimizer.build(small.trainable_variables)
    small.save(tmp_path / "unet.keras")
    loaded = keras.models.load_model(tmp_path / "unet.keras")
    pictures = np.zeros((1, 32, 32, 3), np.uint8)
    np.testing.assert_array_equal(loaded(pictures), small(pictures))


def test_precision_changes_the_computation_and_not_the_weights(small):
    network = unet.build_unet(size=32, filters=4, precision="mixed_bfloat16")
    unet.start_from(network, small, "unet.keras")
    pictures = np.random.default_rng(0).integers(0, 256, (1, 32, 32, 3), np.uint8)
    assert network.get_layer("bottleneck_a").compute_dtype == "bfloat16"
    assert {weight.dtype for weight in network.weights} == {"float32"}
    rounded = network(pictures).numpy()
    assert rounded.dtype == np.float32
    assert 0 < np.abs(rounded - small(pictures).numpy()).max() < 0.02


def test_a_saved_network_of_mixed_precision_is_made_of_keras_layers(tmp_path):
    network = unet.build_unet(32, filters=2, precision="mixed_bfloat16")
    unet.save_model(network, tmp_path / "unet.keras")
    saved = keras.models.load_model(tmp_path / "unet.keras")
    assert {type(layer).__module__.split(".")[0] for layer in saved.layers} == {"keras"}
    assert {layer.compute_dtype for layer in saved.layers} == {"float32"}
    again = unet.build_unet(32, filters=2, precision="mixed_bfloat16")
    unet.start_from(again, saved, "unet.keras")
    for ours, theirs in zip(network.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def network_to_train(kernels):
    """Return a network to train, with gains and biases as training leaves them."""
    keras.utils.set_random_seed(1)
    network = unet.build_unet(size=32, filters=8, kernels=kernels)
    random = np.random.default_rng(0)
    for layer in network.layers:
        if isinstance(layer, unet.StandardizedConv2D):
            layer.kernel.assign(layer.kernel + 0.3)
            layer.gain.assign(random.uniform(0.5, 1.5, layer.gain.shape))
            layer.bias.assign(random.normal(0, 0.1, layer.bias.shape))
    return network


@pytest.fixture(scope="module")
def standardized():
    return network_to_train("standardized")


@pytest.fixture(scope="module")
def equivariant():
    return network_to_train("equivariant")


@pytest.fixture(params=["standardized", "equivariant"])
def to_train(request):
    return request.getfixturevalue(request.param)


def random_pictures():
    return np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)


@pytest.mark.parametrize("turns", [0, 1, 2, 3])
@pytest.mark.parametrize("flip", [1, -1])
def test_an_equivariant_networks_mask_is_turned_and_flipped_with_the_picture(
    equivariant, turns, flip
):
    pictures = random_pictures()
    expected = np.rot90(equivariant(pictures)[:, :, ::flip], turns, axes=(1, 2))
    turned = np.rot90(pictures[:, :, ::flip], turns, axes=(1, 2))
    np.testing.assert_allclose(equivariant(turned), expected, atol=1e-6)
    assert expected.std() > 0.01


def test_a_standardised_network_alone_is_not_equivariant(standardized):
    turned = standardized(np.rot90(random_pictures(), axes=(1, 2)))
    assert np.abs(np.rot90(turned, -1, axes=(1, 2)) - standardized(random_pictures())).max() > 0.01


def test_a_kernel_on_the_picture_stands_in_all_flips_and_turns_once():
    index = unet.orientations(3, 1, 8)
    kernel = np.arange(9).reshape(3, 3)
    expected = [np.rot90(one, turns) for one in (kernel, kernel[:, ::-1]) for turns in range(4)]
    np.testing.assert_array_equal(index.T.reshape(8, 3, 3), expected)
    assert len({column.tobytes() for column in index.T}) == 8


def test_a_kernel_in_one_orientation_stays_as_it_is():
    kernel = np.random.default_rng(0).normal(size=(36, 5)).astype(np.float32)
    np.testing.assert_array_equal(unet.orient(kernel, unet.orientations(3, 4, 1)), kernel)


def test_an_equivariant_network_has_an_eighth_of_the_weights():
    ours, plain = (
        sum(weight.numpy().size for weight in unet.build_unet(16, 8, **more).trainable_weights)
        for more in ({"kernels": "equivariant"}, {})
    )
    assert ours / plain == pytest.approx(1 / 8, rel=0.01)


def test_filters_that_the_orientations_do_not_divide_are_refused():
    with pytest.raises(ValueError, match="filters 12: must be a multiple of 8"):
        unet.build_unet(size=16, filters=12, kernels="equivariant")


@pytest.mark.parametrize("seed", range(5))
def test_an_equivariant_output_begins_with_both_signs(seed):
    """Where all weights were negative, networks learnt to answer nowhere and stayed there."""
    keras.utils.set_random_seed(seed)
    network = unet.build_unet(size=16, filters=16, kernels="equivariant")
    kernel = network.get_layer("polyp").kernel.numpy()
    assert kernel.min() < 0 < kernel.max()
    assert kernel.sum() == 0


def test_channels_are_dropped_in_training_alone(equivariant):
    network = unet.build_unet(size=32, filters=8, kernels="equivariant", dropped=0.5)
    network.set_weights(equivariant.get_weights())
    pictures = random_pictures()
    np.testing.assert_array_equal(network(pictures), equivariant(pictures))
    assert np.abs(network(pictures, training=True) - equivariant(pictures)).max() > 1e-3
    deep = [network.get_layer(f"{name}_dropped") for name in ("encoder4", "bottleneck")]
    for layer in deep:
        kept = layer(np.ones((2, 4, 4, 64), np.float32), training=True).numpy()
        assert set(np.unique(kept)) == {0, 2}
        assert (kept == kept[:, :1, :1]).all()  # whole channels


def test_a_standardised_kernel_has_no_mean_and_hes_variance_times_its_gain(standardized):
    layer = standardized.get_layer("encoder2_a")
    kernel, _ = layer.folded_weights()
    filters = kernel.reshape(-1, 16)
    np.testing.assert_allclose(filters.mean(axis=0), 0, atol=1e-7)
    he = np.sqrt(2 / len(filters))
    np.testing.assert_allclose(filters.std(axis=0), he * np.abs(layer.gain.numpy()), rtol=1e-4)


def test_a_network_to_train_is_saved_as_the_plain_one_that_predicts_the_same(to_train, tmp_path):
    unet.save_model(to_train, tmp_path / "unet.keras")
    saved = keras.models.load_model(tmp_path / "unet.keras")
    assert saved.count_params() == unet.build_unet(size=32, filters=8).count_params()
    assert {type(layer).__module__.split(".")[0] for layer in saved.layers} == {"keras"}
    np.testing.assert_allclose(saved(random_pictures()), to_train(random_pictures()), atol=1e-5)


def test_all_weights_are_kept(to_train, tmp_path):
    """Keras's own Conv2D writes kernel and bias alone, whatever a subclass adds."""
    to_train.save_weights(tmp_path / "a.weights.h5")
    kernels = "equivariant" if to_train.get_layer("decoder1_a").symmetries == 8 else "standardized"
    other = unet.build_unet(size=32, filters=8, kernels=kernels)
    other.load_weights(tmp_path / "a.weights.h5")
    for ours, theirs in zip(to_train.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(
    ("kernels", "start"),
    [
        *(("plain", "standardized"), ("standardized", "standardized")),
        *(("plain", "equivariant"), ("standardized", "equivariant")),
        ("equivariant", "equivariant"),
    ],
)
def test_a_network_starts_from_a_saved_one(kernels, start, request, tmp_path):
    start = request.getfixturevalue(start)
    unet.save_model(start, tmp_path / "unet.keras")
    network = unet.build_unet(size=32, filters=8, kernels=kernels, dropped=0.2)
    unet.start_from(network, unet.load_unet(tmp_path / "unet.keras"), "unet.keras")
    np.testing.assert_allclose(network(random_pictures()), start(random_pictures()), atol=1e-5)


def test_a_network_does_not_start_from_one_that_differs(small, standardized, tmp_path):
    for settings, words in (
        ({"filters": 2}, "filters 4, this one 2"),
        ({"size": 16}, "size 32, this one 16"),
        ({"grey": True}, "grey False, this one True"),
        ({"kernels": "standardized"}, "other KERNELS"),
    ):
        network = unet.build_unet(**{"size": 32, "filters": 4} | settings)
        with pytest.raises(ValueError, match=f"a.keras: .*{words}"):
            unet.start_from(network, small, "a.keras")
    unet.save_model(standardized, tmp_path / "unet.keras")
    network = unet.build_unet(size=32, filters=8, kernels="equivariant")
    with pytest.raises(ValueError, match=r"^a\.keras: .*other KERNELS"):
        unet.start_from(network, unet.load_unet(tmp_path / "unet.keras"), "a.keras")
    picture = keras.Input((32, 32, 3))
    foreign = keras.Model(picture, keras.layers.Conv2D(1, 1)(picture))
    with pytest.raises(ValueError, match=r"^a\.keras: its layers are not those of this U-Net"):
        unet.start_from(network, foreign, "a.keras")


def test_the_up_convolution_is_the_transposed_convolution():
    plain = keras.layers.Conv2DTranspose(3, 2, strides=2, bias_initializer="random_normal")
    fast = unet.UpConvolution(3)
    x = np.random.default_rng(0).normal(size=(2, 5, 6, 4)).astype(np.float32)
    expected = plain(x)
    fast.build(x.shape)
    fast.unfold_weights(*plain.get_weights())
    np.testing.assert_allclose(fast(x), expected, atol=1e-5)
    for folded, weights in zip(fast.folded_weights(), plain.get_weights(), strict=True):
        np.testing.assert_array_equal(folded, weights)


@pytest.mark.skipif(unet.choose_precision() == "float32", reason="no hardware for bfloat16 here")
@pytest.mark.parametrize("name", ["decoder1_up", "decoder1_b"])
@pytest.mark.parametrize("kernels", ["plain", "standardized"])
def test_mixed_precision_sums_the_gradient_of_a_bias_over_all_pixels(name, kernels):
    network = unet.build_unet(filters=2, precision="mixed_bfloat16", kernels=kernels)
    layer = network.get_layer(name)
    inputs = tf.zeros((16, *layer.input.shape[1:]))

    @tf.function
    def gradients():
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(tf.cast(layer(inputs), "float32"))
        return tape.gradient(loss, [layer.kernel.value, layer.bias.value])

    layer.bias.assign(np.ones(2))  # above the kink of the ReLU
    np.testing.assert_allclose(gradients()[1], 16 * 128 * 128, rtol=0.01)


def test_rounded_weights_predict_what_mixed_precision_does(small, tmp_path):
    small.save(tmp_path / "unet.keras")
    network = unet.load_unet(tmp_path / "unet.keras", "mixed_bfloat16")
    assert {weight.dtype for weight in network.weights[:-2]} == {"bfloat16"}
    assert {weight.dtype for weight in network.weights[-2:]} == {"float32"}  # the output layer's
    pictures = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)
    loaded = unet.load_unet(tmp_path / "unet.keras")
    np.testing.assert_array_equal(loaded(pictures), small(pictures))
    mixed = unet.build_unet(size=32, filters=4, precision="mixed_bfloat16")
    unet.start_from(mixed, small, "unet.keras")
    np.testing.assert_array_equal(network(pictures), mixed(pictures))


def test_precision_is_the_users_or_the_hardwares():
    assert unet.choose_precision("float32") == "float32"
    assert unet.choose_precision("mixed_bfloat16") == "mixed_bfloat16"
    assert unet.choose_precision("auto") in ("float32", "mixed_bfloat16")
    with pytest.raises(ValueError, match="float16"):
        unet.choose_precision("float16")


def test_a_missing_model_says_what_to_run(tmp_path):
    with pytest.raises(ValueError, match=r"unet\.keras: .*run python train\.py"):
        unet.load_unet(tmp_path / "unet.keras")


def test_a_damaged_model_is_named(tmp_path):
    (tmp_path / "unet.keras").write_bytes(b"not a model")
    with pytest.raises(ValueError, match=r"unet\.keras: not a model"):
        unet.load_unet(tmp_path / "unet.keras")


def test_a_model_that_is_no_file_or_no_numbers_is_named(small, tmp_path):
    path = tmp_path / "unet.keras"
    path.mkdir()
    with pytest.raises(ValueError, match=r"unet\.keras: is a folder, .*; move it away"):
        unet.load_unet(path)
    path.rmdir()
    small.get_layer("polyp").bias.assign([np.nan])
    unet.save_model(small, path)
    with pytest.raises(ValueError, match=r"unet\.keras: holds weights that are no numbers; train"):
        unet.load_unet(path)


def test_the_script_prints_the_summary_and_draws_the_network(tmp_path):
    (tmp_path / "docs").mkdir()
    script = [sys.executable, unet.__file__]
    done = subprocess.run(script, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "31,031,745" in done.stdout
    assert (tmp_path / "docs/architecture.png").read_bytes().startswith(b"\x89PNG")


def test_a_network_that_cannot_be_loaded_is_named_with_the_way_out(tmp_path):
    path = tmp_path / "unet.keras"
    path.write_bytes(b"no network")
    with pytest.raises(ValueError, match=r"unet\.keras: not a model .*; train it again"):
        unet.load_unet(path)
    with pytest.raises(ValueError, match=r"unet\.keras: not a model that Keras can load; mend it$"):
        unet.load_unet(path, way_out="mend it")
    path.unlink()
    with pytest.raises(ValueError, match=r"unet\.keras: no trained model there; mend it$"):
        unet.load_unet(path, way_out="mend it")
