"""Kernels to train with: what they compute, that they fold, and what a user's layers become."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from model import build_unet, conv_block
from utils.devices import choose_precision
from utils.prediction.networks import load_unet
from utils.training import kernels as room


def to_train_of(size=128, filters=8, kernels="plain", precision="float32", **options):
    """Return a network to train in place of the U-Net of these options."""
    return room.to_train(build_unet(size, filters, **options), kernels, precision)


def save_folded(network, path):
    """Save a network to train as train.py does."""
    first = network.get_layer("encoder1_a")
    plain = build_unet(network.input_shape[1], first.filters)
    room.fold(network, plain)
    plain.save(path)


@pytest.fixture
def small():
    keras.utils.set_random_seed(0)
    return build_unet(size=32, filters=4, polyp_fraction=0.15)


def network_to_train(kernels):
    """Return a network to train, with gains and biases as training leaves them."""
    keras.utils.set_random_seed(1)
    network = to_train_of(size=32, filters=8, kernels=kernels)
    random = np.random.default_rng(0)
    for layer in network.layers:
        if isinstance(layer, room.StandardizedConv2D):
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
    index = room.orientations(3, 1, 8)
    kernel = np.arange(9).reshape(3, 3)
    expected = [np.rot90(one, turns) for one in (kernel, kernel[:, ::-1]) for turns in range(4)]
    np.testing.assert_array_equal(index.T.reshape(8, 3, 3), expected)
    assert len({column.tobytes() for column in index.T}) == 8


def test_a_kernel_in_one_orientation_stays_as_it_is():
    kernel = np.random.default_rng(0).normal(size=(36, 5)).astype(np.float32)
    np.testing.assert_array_equal(room.orient(kernel, room.orientations(3, 4, 1)), kernel)


def test_an_equivariant_network_has_an_eighth_of_the_weights():
    ours, plain = (
        sum(weight.numpy().size for weight in to_train_of(16, 8, **more).trainable_weights)
        for more in ({"kernels": "equivariant"}, {})
    )
    assert ours / plain == pytest.approx(1 / 8, rel=0.01)


def test_filters_that_the_orientations_do_not_divide_are_refused():
    with pytest.raises(ValueError, match="filters 12: must be a multiple of 8"):
        to_train_of(size=16, filters=12, kernels="equivariant")


@pytest.mark.parametrize("seed", range(5))
def test_an_equivariant_output_begins_with_both_signs(seed):
    """Where all weights were negative, networks learnt to answer nowhere and stayed there."""
    keras.utils.set_random_seed(seed)
    network = to_train_of(size=16, filters=16, kernels="equivariant")
    kernel = network.get_layer("polyp").kernel.numpy()
    assert kernel.min() < 0 < kernel.max()
    assert kernel.sum() == 0


def test_channels_are_dropped_in_training_alone(equivariant):
    network = to_train_of(size=32, filters=8, kernels="equivariant", dropped=0.5)
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
    save_folded(to_train, tmp_path / "unet.keras")
    saved = keras.models.load_model(tmp_path / "unet.keras")
    assert saved.count_params() == build_unet(size=32, filters=8).count_params()
    assert {type(layer).__module__.split(".")[0] for layer in saved.layers} == {"keras"}
    np.testing.assert_allclose(saved(random_pictures()), to_train(random_pictures()), atol=1e-5)


def test_all_weights_are_kept(to_train, tmp_path):
    """Keras's own Conv2D writes kernel and bias alone, whatever a subclass adds."""
    to_train.save_weights(tmp_path / "a.weights.h5")
    kernels = "equivariant" if to_train.get_layer("decoder1_a").symmetries == 8 else "standardized"
    other = to_train_of(size=32, filters=8, kernels=kernels)
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
    save_folded(start, tmp_path / "unet.keras")
    network = to_train_of(size=32, filters=8, kernels=kernels, dropped=0.2)
    room.start_from(network, load_unet(tmp_path / "unet.keras"), "unet.keras")
    np.testing.assert_allclose(network(random_pictures()), start(random_pictures()), atol=1e-5)


def test_a_network_does_not_start_from_one_that_differs(small, standardized, tmp_path):
    for settings, words in (
        ({"filters": 2}, "filters 4, this one 2"),
        ({"grey": True}, "grey False, this one True"),
        ({"kernels": "standardized"}, "other KERNELS"),
    ):
        network = to_train_of(**{"size": 32, "filters": 4} | settings)
        with pytest.raises(ValueError, match=f"a.keras: .*{words}"):
            room.start_from(network, small, "a.keras")
    save_folded(standardized, tmp_path / "unet.keras")
    network = to_train_of(size=32, filters=8, kernels="equivariant")
    with pytest.raises(ValueError, match=r"^a\.keras: .*other KERNELS"):
        room.start_from(network, load_unet(tmp_path / "unet.keras"), "a.keras")
    picture = keras.Input((32, 32, 3))
    foreign = keras.Model(picture, keras.layers.Conv2D(1, 1)(picture))
    with pytest.raises(ValueError, match=r"^a\.keras: its layers are not those of this U-Net"):
        room.start_from(network, foreign, "a.keras")


def test_the_up_convolution_is_the_transposed_convolution():
    plain = keras.layers.Conv2DTranspose(3, 2, strides=2, bias_initializer="random_normal")
    fast = room.UpConvolution(3)
    x = np.random.default_rng(0).normal(size=(2, 5, 6, 4)).astype(np.float32)
    expected = plain(x)
    fast.build(x.shape)
    fast.unfold_weights(*plain.get_weights())
    np.testing.assert_allclose(fast(x), expected, atol=1e-5)
    for folded, weights in zip(fast.folded_weights(), plain.get_weights(), strict=True):
        np.testing.assert_array_equal(folded, weights)


@pytest.mark.skipif(choose_precision() == "float32", reason="no hardware for bfloat16 here")
@pytest.mark.parametrize("name", ["decoder1_up", "decoder1_b"])
@pytest.mark.parametrize("kernels", ["plain", "standardized"])
def test_mixed_precision_sums_the_gradient_of_a_bias_over_all_pixels(name, kernels):
    network = to_train_of(filters=2, precision="mixed_bfloat16", kernels=kernels)
    layer = network.get_layer(name)
    inputs = tf.zeros((16, *layer.input.shape[1:]))

    @tf.function
    def gradients():
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(tf.cast(layer(inputs), "float32"))
        return tape.gradient(loss, [layer.kernel.value, layer.bias.value])

    layer.bias.assign(np.ones(2))  # above the kink of the ReLU
    np.testing.assert_allclose(gradients()[1], 16 * 128 * 128, rtol=0.01)


def test_precision_changes_the_computation_and_not_the_weights(small):
    network = to_train_of(size=32, filters=4, precision="mixed_bfloat16")
    room.start_from(network, small, "unet.keras")
    pictures = np.random.default_rng(0).integers(0, 256, (1, 32, 32, 3), np.uint8)
    assert network.get_layer("bottleneck_a").compute_dtype == "bfloat16"
    assert {weight.dtype for weight in network.weights} == {"float32"}
    rounded = network(pictures).numpy()
    assert rounded.dtype == np.float32
    assert 0 < np.abs(rounded - small(pictures).numpy()).max() < 0.02


def test_a_saved_network_of_mixed_precision_is_made_of_keras_layers(tmp_path):
    network = to_train_of(32, filters=2, precision="mixed_bfloat16")
    save_folded(network, tmp_path / "unet.keras")
    saved = keras.models.load_model(tmp_path / "unet.keras")
    assert {type(layer).__module__.split(".")[0] for layer in saved.layers} == {"keras"}
    assert {layer.compute_dtype for layer in saved.layers} == {"float32"}
    again = to_train_of(32, filters=2, precision="mixed_bfloat16")
    room.start_from(again, saved, "unet.keras")
    for ours, theirs in zip(network.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_network_goes_on_with_pictures_of_another_size(equivariant, tmp_path):
    save_folded(equivariant, tmp_path / "unet.keras")
    network = to_train_of(size=64, kernels="equivariant")
    room.start_from(network, load_unet(tmp_path / "unet.keras"), "unet.keras")
    for name in ("encoder1_a", "decoder2_up", "polyp"):
        folded = (each.get_layer(name).folded_weights() for each in (network, equivariant))
        for ours, theirs in zip(*folded, strict=True):
            np.testing.assert_allclose(ours, theirs, atol=1e-6)


def edited_unet(activation="relu", extra=None):
    """Return a small U-Net of one level, as if its blocks had been edited in model.py."""
    inputs = keras.Input((32, 32, 3), name="picture")
    x = conv_block(keras.layers.Rescaling(1 / 127.5, -1, name="rescaling")(inputs), 8, "encoder1")
    x = extra(x) if extra else x
    x = keras.layers.Conv2D(8, 3, padding="same", activation=activation, name="last")(x)
    return keras.Model(inputs, keras.layers.Conv2D(1, 1, activation="sigmoid", name="polyp")(x))


@pytest.mark.parametrize("kernels", list(room.SYMMETRIES))
@pytest.mark.parametrize(
    "extra",
    [
        None,
        lambda x: keras.layers.BatchNormalization()(x),
        lambda x: keras.layers.Dropout(0.5, name="mine")(x),
        lambda x: keras.layers.Conv2D(8, 5, padding="same", use_bias=False)(x),
    ],
)
def test_edited_blocks_are_trained_and_saved_as_they_are(kernels, extra, tmp_path):
    plain = edited_unet("elu", extra)
    network = room.to_train(plain, kernels, "float32")
    network.compile("adam", "binary_crossentropy")
    pictures = random_pictures()
    network.fit(pictures, np.ones((2, 32, 32, 1)), verbose=0)
    room.fold(network, plain)
    room.check_fold(network, plain, pictures)
    plain.save(tmp_path / "unet.keras")
    loaded = load_unet(tmp_path / "unet.keras")
    np.testing.assert_allclose(loaded(pictures), network(pictures), atol=1e-5)
    rounded = load_unet(tmp_path / "unet.keras", "mixed_bfloat16")
    assert np.abs(rounded(pictures) - network(pictures).numpy()).mean() < 0.02
    again = room.to_train(edited_unet("elu", extra), kernels, "float32")
    room.start_from(again, loaded, "unet.keras")
    np.testing.assert_allclose(again(pictures), network(pictures), atol=1e-5)
    oriented = kernels == "equivariant" and extra is None
    assert room.is_equivariant(network) == oriented


def test_a_network_that_would_be_saved_otherwise_is_refused():
    network, other = room.to_train(edited_unet("elu")), edited_unet("relu")
    pictures = random_pictures()
    room.fold(network, other)
    other.get_layer("polyp").bias.assign([3.0])
    with pytest.raises(ValueError, match=r"model\.py: the network to be saved differs by 0\.\d+"):
        room.check_fold(network, other, pictures)


def test_a_fingerprint_tells_edits_apart_and_no_names_that_keras_counts_up():
    batch = [room.fingerprint(edited_unet(extra=keras.layers.BatchNormalization())) for _ in "12"]
    assert batch[0] == batch[1]
    others = [batch[0], *(room.fingerprint(edited_unet(a)) for a in ("relu", "elu"))]
    assert len(set(others)) == 3
