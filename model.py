"""The U-Net, the Dice loss and score, and the precision that the network computes in.

    python model.py     print the network's summary and draw docs/architecture.png

The network takes pictures of 0 to 255 as they are, and returns each pixel's probability of polyp.
"""

import argparse
import os
import re
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops

BLOCKS = 4  # encoder blocks, and as many decoder blocks
# Orientations of each kernel; 0 for layers of Keras's own
SYMMETRIES = {"plain": 0, "standardized": 1, "equivariant": 8}
LUMA = (0.299, 0.587, 0.114)  # of red, green and blue in grey (ITU-R BT.601), as OpenCV has it
FLOAT32_LAYERS = ("rescaling", "grey", "polyp")  # levels and probabilities need the digits


def build_unet(
    size=128,
    filters=64,
    polyp_fraction=0.5,
    precision="float32",
    kernels="plain",
    dropped=0.0,
    grey=False,
):
    """Build the U-Net of Ronneberger et al. 2015 (arXiv:1505.04597), padded, for one class.

    size: side of the square pictures in pixels, a multiple of 16. filters: of the first block;
    each further block doubles them. polyp_fraction: the training masks' mean, 0 to 1; the output's
    bias starts at its log-odds, so that training does not begin by unlearning "half of everything
    is polyp" (Lin et al. 2017, arXiv:1708.02002, section 4.1). precision: see `choose_precision`.
    kernels: "plain" for Keras's own layers; "standardized" (see `StandardizedConv2D`) or
    "equivariant" too (see `orientations`) to train with, which `save_model` folds into plain ones.
    dropped: the share of the two deepest levels' channels that each training step leaves out
    (Tompson et al. 2015, arXiv:1411.4280). grey: whether the pictures are made grey first.
    Returns a Keras model from (batch, size, size, 3), 0 to 255, to (batch, size, size, 1)
    float32, 0 to 1. Raises ValueError for a size that cannot be halved BLOCKS times, and for
    filters that their orientations do not divide.
    """
    if size % 2**BLOCKS:
        raise ValueError(f"size {size}: must be a multiple of {2**BLOCKS}")
    symmetries = SYMMETRIES[kernels]
    if symmetries and filters % symmetries:
        raise ValueError(
            f"filters {filters}: must be a multiple of {symmetries} for {kernels} kernels; choose"
            " such a number, or other KERNELS in train.py"
        )
    fraction = min(max(polyp_fraction, 1e-3), 1 - 1e-3)
    log_odds = float(np.log(fraction / (1 - fraction)))

    inputs = keras.Input((size, size, 3), name="picture")
    x = layers.Rescaling(1 / 127.5, offset=-1, dtype="float32", name="rescaling")(inputs)
    if grey:
        x = layers.Conv2D(1, 1, use_bias=False, trainable=False, dtype="float32", name="grey")(x)
    skips = []
    for block in range(BLOCKS):
        name = f"encoder{block + 1}"
        x = conv_block(x, filters * 2**block, precision, symmetries, name)
        if block == BLOCKS - 1:
            x = drop_channels(x, dropped, precision, name)
        skips.append(x)
        x = layers.MaxPooling2D(2, dtype=precision, name=f"{name}_pool")(x)
    x = conv_block(x, filters * 2**BLOCKS, precision, symmetries, "bottleneck")
    x = drop_channels(x, dropped, precision, "bottleneck")
    for block in reversed(range(BLOCKS)):
        name = f"decoder{block + 1}"
        x = up_convolution(x, filters * 2**block, precision, symmetries, f"{name}_up")
        x = layers.Concatenate(dtype=precision, name=f"{name}_skip")([x, skips[block]])
        x = conv_block(x, filters * 2**block, precision, symmetries, name)
    common = {"dtype": "float32", "name": "polyp"}
    if kernels == "equivariant":
        outputs = InvariantOutput(1, symmetries, **common)(x)
    else:
        outputs = layers.Conv2D(1, 1, activation="sigmoid", **common)(x)
    unet = keras.Model(inputs, outputs, name="unet")
    unet.get_layer("polyp").bias.assign([log_odds])
    if grey:
        unet.get_layer("grey").set_weights([np.reshape(LUMA, (1, 1, 3, 1))])
    return unet


def conv_block(x, filters, precision, symmetries, name):
    """Apply two 3x3 convolutions with ReLU, He-initialised (He et al. 2015, arXiv:1502.01852)."""
    for number in "ab":
        common = {"dtype": precision, "name": f"{name}_{number}"}
        if symmetries:
            x = StandardizedConv2D(filters, symmetries, **common)(x)
        else:
            x = layers.Conv2D(
                filters,
                3,
                padding="same",
                activation="relu",
                kernel_initializer="he_normal",
                **common,
            )(x)
    return x


def up_convolution(x, filters, precision, symmetries, name):
    """Apply a 2x2 transposed convolution with strides of 2."""
    common = {"dtype": precision, "name": name}
    if symmetries or precision != "float32":
        return UpConvolution(filters, symmetries or 1, **common)(x)
    return layers.Conv2DTranspose(filters, 2, strides=2, **common)(x)


def drop_channels(x, share, precision, name):
    """Leave out a share of the channels, others for each picture of each training step."""
    if not share:
        return x
    return layers.SpatialDropout2D(share, dtype=precision, name=f"{name}_dropped")(x)


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

    def __init__(self, filters, symmetries=1, **options):
        super().__init__(**options)
        self.filters, self.symmetries = filters, symmetries

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], self.filters)

    def plain_bias(self):
        """Return the bias of each filter."""
        return ops.repeat(self.bias, self.symmetries)

    def folded_weights(self):
        """Return kernel and bias of the plain layer that computes the same."""
        return [ops.convert_to_numpy(x) for x in (self.plain_kernel(), self.plain_bias())]


class StandardizedConv2D(OrientedLayer):
    """A 3x3 convolution with ReLU whose kernel is standardised whenever it is used.

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
        return ops.relu(tf.nn.bias_add(outputs, self.plain_bias()))

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
        return tf.nn.depth_to_space(outputs, 2)

    def compute_output_shape(self, input_shape):
        batch, height, width, _ = input_shape
        return (batch, 2 * height, 2 * width, self.filters)

    def unfold_weights(self, kernel, bias):
        """Take over the kernel and bias of a Conv2DTranspose."""
        kernel = np.reshape(np.transpose(kernel, (0, 1, 3, 2)), (-1, self.filters))
        self.set_weights([kernel[:, :: self.symmetries, None], bias[:: self.symmetries]])


class InvariantOutput(OrientedLayer):
    """A 1x1 convolution with a sigmoid that weighs the orientations of each kernel alike.

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
        return ops.sigmoid(ops.conv(inputs, self.plain_kernel()) + self.bias)

    def unfold_weights(self, kernel, bias):
        """Take over the kernel and bias of a plain Conv2D that `folded_weights` has made."""
        self.set_weights([np.reshape(kernel, (-1, 1, 1))[:: self.symmetries], bias])


@keras.saving.register_keras_serializable("polyp")
def dice_loss(y_true, y_pred):
    """Return 1 - the soft Dice coefficient of each image (Milletari et al. 2016, arXiv:1606.04797).

    y_true: (batch, height, width, 1), 0 or 1; y_pred: likewise, probabilities 0 to 1.
    Returns (batch,) float32, 0 to 1. One pixel is added to numerator and denominator, so that an
    empty mask predicted empty costs nothing.
    """
    return 1.0 - dice_per_image(y_true, y_pred, smooth=1.0)


def add_losses(bce_weight, dice_weight):
    """Return binary cross-entropy and `dice_loss`, weighted and added, as a Keras loss."""
    if not bce_weight and dice_weight == 1:
        return dice_loss
    if bce_weight == 1 and not dice_weight:
        return keras.losses.binary_crossentropy

    def bce_dice_loss(y_true, y_pred):
        cross_entropy = ops.mean(keras.losses.binary_crossentropy(y_true, y_pred), axis=(1, 2))
        return bce_weight * cross_entropy + dice_weight * dice_loss(y_true, y_pred)

    return bce_dice_loss


@keras.saving.register_keras_serializable("polyp")
def dice_score(y_true, y_pred, threshold=0.5):
    """Return the Dice coefficient of each image at a threshold, (batch,) float32, 0 to 1.

    y_true: (batch, height, width, 1), 0 or 1; y_pred: likewise, probabilities 0 to 1, polyp from
    `threshold` on. An empty mask predicted empty scores 1.
    """
    return dice_per_image(y_true, y_pred >= threshold, smooth=keras.config.epsilon())


@keras.saving.register_keras_serializable("polyp")
def predicted_fraction(y_true, y_pred, threshold=0.5):
    """Return the fraction of each image that is called polyp, (batch,) float32."""
    return ops.mean(ops.cast(y_pred >= threshold, "float32"), axis=(1, 2, 3))


def dice_per_image(y_true, y_pred, smooth):
    """Return (2 |A and B| + smooth) / (|A| + |B| + smooth) of each image, (batch,) float32."""
    y_true, y_pred = ops.cast(y_true, "float32"), ops.cast(y_pred, "float32")
    axes = (1, 2, 3)
    common = ops.sum(y_true * y_pred, axis=axes)
    total = ops.sum(y_true, axis=axes) + ops.sum(y_pred, axis=axes)
    return (2.0 * common + smooth) / (total + smooth)


def choose_precision(setting="auto"):
    """Return "mixed_bfloat16" where the hardware multiplies in bfloat16, "float32" elsewhere.

    A GPU does from compute capability 8.0 on, a CPU with the flags amx_bf16 or avx512_bf16.
    Raises ValueError for an unknown setting.
    """
    if setting in ("float32", "mixed_bfloat16"):
        return setting
    if setting != "auto":
        raise ValueError(f'PRECISION {setting!r}: must be "auto", "float32" or "mixed_bfloat16"')
    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        details = [tf.config.experimental.get_device_details(gpu) for gpu in gpus]
        made_for_it = all(d.get("compute_capability", (0, 0)) >= (8, 0) for d in details)
    else:
        cpuinfo = Path("/proc/cpuinfo")
        flags = cpuinfo.read_text() if cpuinfo.exists() else ""
        made_for_it = "amx_bf16" in flags or "avx512_bf16" in flags
    return "mixed_bfloat16" if made_for_it else "float32"


def round_weights(model):
    """Return a copy of a model with bfloat16 weights, but for FLOAT32_LAYERS, to predict with.

    It predicts, bit for bit, what mixed_bfloat16 does, without rounding them anew for each batch.
    """
    config = model.get_config()
    for layer in config["layers"]:
        if layer["class_name"] != "InputLayer" and layer["config"]["name"] not in FLOAT32_LAYERS:
            layer["config"]["dtype"] = "bfloat16"
    copy = keras.Model.from_config(config)
    copy.set_weights(model.get_weights())
    return copy


def load_unet(path, precision="float32", way_out=None):
    """Load a network that train.py has saved, to predict with in a precision that it names.

    Returns a Keras model from (batch, size, size, 3), 0 to 255, to (batch, size, size, 1) float32,
    0 to 1. Raises ValueError, in one line that names the file, if there is none, if Keras cannot
    load it, and if it is a network of another shape, or of weights that are not finite. way_out:
    what that line says to do then.
    """
    if Path(path).is_dir():
        raise ValueError(f"{path}: is a folder, not a trained model; move it away")
    if not Path(path).is_file():
        raise ValueError(f"{path}: no trained model there; {way_out or 'run python train.py'}")
    way_out = way_out or "train it again with python train.py"
    if not os.access(path, os.R_OK):
        raise ValueError(f"{path}: cannot be read; get the right to read it")
    try:
        model = keras.models.load_model(path, compile=False)
    except Exception as error:  # whatever the reader of a damaged zip, JSON or HDF5 stumbles over
        unknown = re.search(r"Could not locate class '(\w+)'", str(error))
        if "`Lambda` layer" in str(error):
            problem = "holds a Lambda layer, which is code that Keras does not run from a file"
        elif unknown:
            problem = f"holds a layer that Keras does not know, {unknown[1]}"
        else:
            problem = "not a model that Keras can load"
        raise ValueError(f"{path}: {problem}; {way_out}") from error
    shapes = getattr(model, "input_shape", None), getattr(model, "output_shape", None)
    size = shapes[0][1] if isinstance(shapes[0], tuple) and len(shapes[0]) == 4 else None
    if size is None or shapes != ((None, size, size, 3), (None, size, size, 1)):
        raise ValueError(
            f"{path}: a network from {shapes[0]} to {shapes[1]}, not from square RGB pictures,"
            f" (None, size, size, 3), to one probability a pixel, (None, size, size, 1); {way_out}"
        )
    if not all(np.isfinite(weights).all() for weights in model.get_weights()):
        raise ValueError(f"{path}: holds weights that are no numbers; {way_out}")
    ours = {layer.name for layer in model.layers}.issuperset({"rescaling", "polyp"})
    return round_weights(model) if ours and precision == "mixed_bfloat16" else model


def describe_unet(model):
    """Return the arguments of `build_unet` that make a plain U-Net like this one, as a dict."""
    grey = any(layer.name == "grey" for layer in model.layers)
    filters = model.get_layer("encoder1_a").filters
    return {"size": model.input_shape[1], "filters": filters, "grey": grey}


def save_model(model, path):
    """Save a U-Net in float32, of Keras's own layers and not compiled: it loads anywhere."""
    copy = build_unet(**describe_unet(model))
    for layer in copy.layers:
        ours = model.get_layer(layer.name)
        oriented = isinstance(ours, OrientedLayer)
        layer.set_weights(ours.folded_weights() if oriented else ours.get_weights())
    copy.save(path)


def start_from(model, plain, path):
    """Give a U-Net, of whatever kernels, the weights of one that `load_unet` loaded from `path`.

    Raises ValueError if the two differ in their layers, or in what `describe_unet` tells, or if
    the kernels of `plain` cannot be made of those of `model`.
    """
    ours, theirs = (
        {layer.name: layer for layer in each.layers if layer.weights and layer.name != "grey"}
        for each in (model, plain)
    )
    if ours.keys() != theirs.keys():
        raise ValueError(f"{path}: its layers are not those of this U-Net")
    shape = describe_unet(model)
    for key, value in describe_unet(plain).items():
        if value != shape[key]:
            raise ValueError(f"{path}: its network has {key} {value}, this one {shape[key]}")
    for name, layer in ours.items():
        weights = theirs[name].get_weights()
        if not isinstance(layer, OrientedLayer):
            layer.set_weights(weights)
            continue
        layer.unfold_weights(*weights)
        pairs = zip(weights, layer.folded_weights(), strict=True)
        if max(np.abs(before - after).max() for before, after in pairs) > 1e-4:
            raise ValueError(f"{path}: was trained with other KERNELS; set them in train.py")


def main():
    """Print the network's summary and draw it."""
    from utils.reporting.architecture import draw_architecture

    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    network = build_unet()
    network.summary()
    path = "docs/architecture.png"
    filters = network.get_layer("encoder1_a").filters
    draw_architecture(path, network.input_shape[1], filters, BLOCKS)
    print(f"{path}: drawn")


if __name__ == "__main__":
    from utils.command import run

    run(main)
