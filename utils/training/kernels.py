"""Kernels to train with: other forms of a U-Net's layers, which fold back into Keras's own.

`to_train` makes the network that is trained of the plain one that model.py builds, `fold` gives the
plain one its weights, and `start_from` those of an earlier network to the one that is trained.
"""

import hashlib

import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops

from utils.devices import FLOAT32_LAYERS

# Orientations of each kernel, 0 for layers of Keras's own; each kind shares more than that before
SYMMETRIES = {"plain": 0, "standardized": 1, "equivariant": 8}
ROUNDING = 0.02  # what bfloat16 may change of the mean probability between a network and its folded


def to_train(plain, kernels="plain", precision="float32"):
    """Return the network to train in place of a plain one, layer by layer.

    plain: a Keras model as `build_unet` returns it. kernels: one of SYMMETRIES: "plain" leaves the
    layers as they are, "standardized" makes a StandardizedConv2D of each 3x3 convolution, and
    "equivariant" lets each kernel stand in eight orientations too, see `orientations`. precision:
    "float32" or "mixed_bfloat16", of all layers but FLOAT32_LAYERS.
    All weights are those of `plain`, but for the kernels of StandardizedConv2D and InvariantOutput,
    which are drawn anew.
    Raises ValueError for filters that the orientations do not divide.
    """
    symmetries = SYMMETRIES[kernels]

    def form(layer):
        dtype = "float32" if layer.name in FLOAT32_LAYERS else precision
        common = {"activation": layer.activation} if hasattr(layer, "activation") else {}
        common |= {"dtype": dtype, "name": layer.name}
        filters = getattr(layer, "filters", 0)
        if symmetries and is_like(layer, layers.Conv2D, filters, 3, padding="same"):
            check_filters(layer, symmetries, kernels)
            return StandardizedConv2D(filters, symmetries, **common)
        twice = is_like(layer, layers.Conv2DTranspose, filters, 2, strides=2)
        if twice and (symmetries or precision != "float32"):
            return UpConvolution(filters, symmetries or 1, **common)
        if kernels == "equivariant" and is_like(layer, layers.Conv2D, 1, 1):
            return InvariantOutput(1, symmetries, **common)
        return type(layer).from_config(layer.get_config() | {"dtype": dtype})

    network = keras.models.clone_model(plain, clone_function=form)
    for layer in network.layers:
        ours = plain.get_layer(layer.name)
        if not isinstance(layer, OrientedLayer):
            layer.set_weights(ours.get_weights())
        elif isinstance(layer, UpConvolution):
            layer.unfold_weights(*ours.get_weights())
        elif isinstance(layer, InvariantOutput):
            layer.bias.assign(ours.bias)
    return network


def is_like(layer, kind, *arguments, **options):
    """Tell whether a layer is a `kind` of these arguments, whatever its activation and start.

    Only then does another form leave nothing out: no stride, no missing bias, no regulariser.
    """
    if type(layer) is not kind:
        return False
    options |= {"activation": layer.activation, "name": layer.name}
    like = kind(*arguments, kernel_initializer="zeros", **options).get_config()  # draws nothing
    left_open = {"kernel_initializer", "bias_initializer", "dtype"}
    return all(
        value == like[key] for key, value in layer.get_config().items() if key not in left_open
    )


def check_filters(layer, symmetries, kernels):
    """Raise ValueError for a layer whose filters cannot be orientations of fewer kernels."""
    if layer.filters % symmetries:
        raise ValueError(
            f"filters {layer.filters}: must be a multiple of {symmetries} for {kernels} kernels;"
            " choose such a number, or other KERNELS in train.py"
        )


def is_equivariant(network):
    """Tell whether a network to train answers a turned or flipped picture with its mask, turned.

    So it does if each layer with weights is oriented, and no other looks at a pixel's place.
    """
    placeless = (layers.Rescaling, layers.MaxPooling2D, layers.Concatenate, layers.Activation)
    placeless += (layers.SpatialDropout2D, layers.InputLayer)
    return all(
        layer.symmetries == 8 if isinstance(layer, OrientedLayer) else isinstance(layer, placeless)
        for layer in network.layers
        if layer.name != "grey"
    )


def fold(network, plain):
    """Give a plain network the weights of the one that was trained in its place."""
    for layer in plain.layers:
        ours = network.get_layer(layer.name)
        oriented = isinstance(ours, OrientedLayer)
        layer.set_weights(ours.folded_weights() if oriented else ours.get_weights())


def check_fold(network, plain, pictures):
    """Raise ValueError if a folded network's answer differs from the trained one's by more than
    rounding.

    pictures: (n, size, size, 3) uint8, a few of them.
    """
    answers = [each(pictures, training=False).numpy() for each in (network, plain)]
    difference = float(np.abs(np.subtract(*answers)).mean())
    if not difference <= ROUNDING:
        raise ValueError(
            f"model.py: the network to be saved differs by {difference:.2g} in its mean probability"
            ' from the one that was trained; train it with KERNELS = "plain" in train.py'
        )


def start_from(network, source, path):
    """Give a network to train the weights of one that `load_unet` has loaded from `path`.

    Both may take pictures of different sizes. Raises ValueError if they differ in their layers or
    filters, or if the kernels of `source` cannot be made of those of `network`.
    """
    ours, theirs = (  # in their order, for Keras numbers the names that nobody has given
        [layer for layer in each.layers if layer.weights and layer.name != "grey"]
        for each in (network, source)
    )
    others = ValueError(f"{path}: its layers are not those of this U-Net")
    if len(ours) != len(theirs):
        raise others
    for what, value in describe(source).items():
        if value != describe(network)[what]:
            raise ValueError(
                f"{path}: its network has {what} {value}, this one {describe(network)[what]}"
            )
    if [plain_shapes(layer) for layer in ours] != [plain_shapes(layer) for layer in theirs]:
        raise others
    for layer, other in zip(ours, theirs, strict=True):
        weights = other.get_weights()
        if not isinstance(layer, OrientedLayer):
            layer.set_weights(weights)
            continue
        layer.unfold_weights(*weights)
        pairs = zip(weights, layer.folded_weights(), strict=True)
        if max(np.abs(before - after).max() for before, after in pairs) > 1e-4:
            raise ValueError(f"{path}: was trained with other KERNELS; set them in train.py")


def plain_shapes(layer):
    """Return the shapes of a layer's weights, of an OrientedLayer those that it folds into."""
    oriented = isinstance(layer, OrientedLayer)
    return [x.shape for x in (layer.folded_weights() if oriented else layer.get_weights())]


def describe(network):
    """Return the filters of a network's first block, and whether it makes pictures grey."""
    grey = any(layer.name == "grey" for layer in network.layers)
    filters = [layer.filters for layer in network.layers if getattr(layer, "filters", 1) > 1]
    return {"filters": filters[0] if filters else None, "grey": grey}


def fingerprint(plain):
    """Return the SHA-256 of what a plain network is built of, hex digits, whatever its weights.

    Names count by their order alone: Keras numbers those that nobody has given.
    """
    text = plain.to_json()
    for number, name in enumerate([plain.name, *(layer.name for layer in plain.layers)]):
        text = text.replace(f'"{name}"', f'"{number}"')
    return hashlib.sha256(text.encode()).hexdigest()


def orientations(size, channels, symmetries):
    """Return where a kernel's weights stand in each of its orientations.

    In an equivariant network (Cohen and Welling 2016, arXiv:1602.07576) each filter's kernel stands
    in eight orientations, flips and quarter turns, on as many channels, one after the other: the
    picture turned gives the same mask turned, and an eighth of the weights does.
    size: side of the kernel in pixels; channels: of its input, which are oriented too, but for the
    one or three of the picture; symmetries: 1 or 8.
    Returns int (size * size * channels, symmetries): rows of the kernel as a matrix.
    """
    index = np.arange(size * size * channels)
    if symmetries == 1:
        return index[:, None]
    oriented = (2, 4) if channels % symmetries == 0 else (1, 1)  # flipped or not, quarter turns
    index = index.reshape(size, size, -1, *oriented)
    flipped = np.roll(index[:, ::-1, :, ::-1, ::-1], 1, axis=-1)  # mirrored, turns go back
    turned = [
        np.roll(np.rot90(one, turns), turns, axis=-1)
        for one in (index, flipped)
        for turns in range(4)
    ]
    return np.stack([one.ravel() for one in turned], axis=1)


def orient(kernel, index):
    """Return a kernel, (rows, filters), in all orientations, (rows, filters * symmetries).

    index: the result of `orientations`.
    """
    oriented = ops.transpose(tf.gather(kernel, index), (0, 2, 1))
    return ops.reshape(oriented, (index.shape[0], -1))


class OrientedLayer(layers.Layer):
    """A convolution to train with, whose weights fold into those of a layer of Keras's own.

    It keeps filters / symmetries kernels, each of which stands in `symmetries` orientations.
    """

    def __init__(self, filters, symmetries=1, activation=None, **options):
        super().__init__(**options)
        self.filters, self.symmetries = filters, symmetries
        self.activation = keras.activations.get(activation)

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], self.filters)

    def plain_bias(self):
        """Return the bias of each filter."""
        return ops.repeat(self.bias, self.symmetries)

    def folded_weights(self):
        """Return kernel and bias of the plain layer that computes the same."""
        return [ops.convert_to_numpy(x) for x in (self.plain_kernel(), self.plain_bias())]


class StandardizedConv2D(OrientedLayer):
    """A 3x3 convolution whose kernel is standardised whenever it is used.

    Each filter has its mean taken away and is scaled to He's variance and by a gain that is learnt
    (Qiao et al. 2019, arXiv:1903.10520; Brock et al. 2021, arXiv:2101.08692). That keeps deep
    networks trainable without normalising activations, and `folded_weights` turns it into a plain
    Conv2D. The kernel is stored as a matrix, (9 * channels, filters / symmetries), since Muon takes
    its step for matrices alone.
    """

    def build(self, input_shape):
        fan_in, own = 9 * input_shape[-1], self.filters // self.symmetries
        he_normal = keras.initializers.RandomNormal(stddev=(2 / fan_in) ** 0.5)
        float32 = {"autocast": False}  # standardised before it is rounded
        self.kernel = self.add_weight((fan_in, own), he_normal, name="kernel", **float32)
        self.gain = self.add_weight((own,), "ones", name="gain", **float32)
        self.bias = self.add_weight((own,), "zeros", name="bias")
        self.index = orientations(3, input_shape[-1], self.symmetries)

    def plain_kernel(self):
        """Return the kernel to convolve with, (3, 3, channels, filters) float32."""
        kernel = self.kernel - ops.mean(self.kernel, axis=0)
        norm = ops.sqrt(ops.sum(ops.square(kernel), axis=0) + 1e-8)
        kernel = orient(kernel * (2**0.5 * self.gain / norm), self.index)
        return ops.reshape(kernel, (3, 3, -1, self.filters))

    def call(self, inputs):
        kernel = ops.cast(self.plain_kernel(), self.compute_dtype)
        outputs = ops.conv(inputs, kernel, padding="same")
        # bias_add, whose gradient TensorFlow sums in float32
        return self.activation(tf.nn.bias_add(outputs, self.plain_bias()))

    def unfold_weights(self, kernel, bias):
        """Take over the kernel and bias of a plain Conv2D that `folded_weights` has made."""
        kernel = np.reshape(kernel, (-1, self.filters))[:, :: self.symmetries]
        gain = np.linalg.norm(kernel, axis=0) / 2**0.5
        self.set_weights([kernel, gain, bias[:: self.symmetries]])


class UpConvolution(OrientedLayer):
    """A 2x2 transposed convolution with strides of 2, computed as a 1x1 convolution.

    On CPUs TensorFlow 2.21 sums the gradient of a transposed convolution's bias in bfloat16, where
    262,144 pixels add up to a fifth of what they should; that of a convolution it sums in float32.
    The kernel is stored with three dimensions, (4 * channels, filters / symmetries, 1), so that
    Muon leaves it to Adam.
    """

    def build(self, input_shape):
        channels, own = input_shape[-1], self.filters // self.symmetries
        float32 = {"autocast": False}  # rounded when it is oriented
        self.kernel = self.add_weight((4 * channels, own, 1), "zeros", name="kernel", **float32)
        self.bias = self.add_weight((own,), "zeros", name="bias")
        self.index = orientations(2, channels, self.symmetries)
        plain = keras.initializers.GlorotUniform()((2, 2, self.filters, channels))
        self.unfold_weights(ops.convert_to_numpy(plain), np.zeros(self.filters))

    def plain_kernel(self):
        """Return the kernel of the Conv2DTranspose, (2, 2, filters, channels) float32."""
        kernel = orient(ops.squeeze(self.kernel, -1), self.index)
        return ops.transpose(ops.reshape(kernel, (2, 2, -1, self.filters)), (0, 1, 3, 2))

    def call(self, inputs):
        kernel = ops.cast(ops.transpose(self.plain_kernel(), (3, 0, 1, 2)), self.compute_dtype)
        kernel = ops.reshape(kernel, (1, 1, -1, 4 * self.filters))
        outputs = ops.conv(inputs, kernel) + ops.tile(self.plain_bias(), 4)
        return self.activation(tf.nn.depth_to_space(outputs, 2))

    def compute_output_shape(self, input_shape):
        batch, height, width, _ = input_shape
        return (batch, 2 * height, 2 * width, self.filters)

    def unfold_weights(self, kernel, bias):
        """Take over the kernel and bias of a Conv2DTranspose."""
        kernel = np.reshape(np.transpose(kernel, (0, 1, 3, 2)), (-1, self.filters))
        self.set_weights([kernel[:, :: self.symmetries, None], bias[:: self.symmetries]])


class InvariantOutput(OrientedLayer):
    """A 1x1 convolution that weighs the orientations of each kernel alike.

    Its few weights begin with both signs and Glorot's standard deviation: where chance makes all of
    them negative, the network learns to answer nowhere, and stays there.
    """

    def build(self, input_shape):
        channels = input_shape[-1]
        signs = (-1.0) ** np.arange(channels // self.symmetries)[:, None, None]
        self.kernel = self.add_weight(signs.shape, "zeros", name="kernel")
        self.bias = self.add_weight((1,), "zeros", name="bias")
        self.set_weights([(2 / (channels + 1)) ** 0.5 * signs, np.zeros(1)])

    def plain_kernel(self):
        """Return the kernel to convolve with, (1, 1, channels, 1) float32."""
        return ops.reshape(ops.repeat(self.kernel, self.symmetries, axis=0), (1, 1, -1, 1))

    def plain_bias(self):
        return self.bias

    def call(self, inputs):
        return self.activation(ops.conv(inputs, self.plain_kernel()) + self.bias)

    def unfold_weights(self, kernel, bias):
        """Take over the kernel and bias of a plain Conv2D that `folded_weights` has made."""
        self.set_weights([np.reshape(kernel, (-1, 1, 1))[:: self.symmetries], bias])
