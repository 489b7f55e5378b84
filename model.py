"""The U-Net, the Dice loss and score, and the precision that the network computes in.

    python model.py                print the network's summary and draw docs/architecture.png

The network takes pictures of 0 to 255 as they are, and returns each pixel's probability of polyp.
"""

import re
import zipfile
import zlib
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops

BASE_FILTERS = 64  # of the first block; each further block doubles them, up to 1,024
BLOCKS = 4  # encoder blocks, and as many decoder blocks
THRESHOLD = 0.5  # a pixel is called polyp from this probability on
PRECISION = "auto"  # or "float32" or "mixed_bfloat16"
FLOAT32_LAYERS = ("rescaling", "polyp")  # grey levels, and probabilities near 0 and 1, need digits


def build_unet(
    size=128,
    channels=3,
    filters=BASE_FILTERS,
    polyp_fraction=0.5,
    precision="float32",
):
    """Build the U-Net of Ronneberger et al. 2015 (arXiv:1505.04597), padded, for one class.

    size: side of the square pictures in pixels, a multiple of 16. channels: 1 (grey) or 3 (RGB).
    filters: of the first block. polyp_fraction: the training masks' mean, 0 to 1; the output's
    bias starts at its log-odds, so that training does not begin by unlearning "half of everything
    is polyp" (Lin et al. 2017, arXiv:1708.02002, section 4.1). precision: see `choose_precision`.
    Returns a Keras model from (batch, size, size, channels), 0 to 255, to (batch, size, size, 1)
    float32, 0 to 1. Raises ValueError for a size that cannot be halved BLOCKS times.
    """
    if size % 2**BLOCKS:
        raise ValueError(f"size {size}: must be a multiple of {2**BLOCKS}")
    fraction = min(max(polyp_fraction, 1e-3), 1 - 1e-3)
    log_odds = float(np.log(fraction / (1 - fraction)))

    inputs = keras.Input((size, size, channels), name="picture")
    x = layers.Rescaling(1 / 127.5, offset=-1, dtype="float32", name="rescaling")(inputs)
    skips = []
    for block in range(BLOCKS):
        x = conv_block(x, filters * 2**block, precision, f"encoder{block + 1}")
        skips.append(x)
        x = layers.MaxPooling2D(2, dtype=precision, name=f"encoder{block + 1}_pool")(x)
    x = conv_block(x, filters * 2**BLOCKS, precision, "bottleneck")
    up_convolution = layers.Conv2DTranspose if precision == "float32" else UpConvolution
    for block in reversed(range(BLOCKS)):
        name = f"decoder{block + 1}"
        x = up_convolution(filters * 2**block, 2, strides=2, dtype=precision, name=f"{name}_up")(x)
        x = layers.Concatenate(dtype=precision, name=f"{name}_skip")([x, skips[block]])
        x = conv_block(x, filters * 2**block, precision, name)
    bias = keras.initializers.Constant(log_odds)
    outputs = layers.Conv2D(
        1, 1, activation="sigmoid", bias_initializer=bias, dtype="float32", name="polyp"
    )(x)
    return keras.Model(inputs, outputs, name="unet")


def conv_block(x, filters, precision, name):
    """Apply two 3x3 convolutions with ReLU, He-initialised (He et al. 2015, arXiv:1502.01852)."""
    for number in "ab":
        x = layers.Conv2D(
            filters,
            3,
            padding="same",
            activation="relu",
            kernel_initializer="he_normal",
            dtype=precision,
            name=f"{name}_{number}",
        )(x)
    return x


class UpConvolution(layers.Conv2DTranspose):
    """A 2x2 transposed convolution with strides of 2, computed as a 1x1 convolution.

    On CPUs TensorFlow 2.21 sums the gradient of a transposed convolution's bias in bfloat16, where
    262,144 pixels add up to a fifth of what they should; that of a convolution it sums in float32.
    """

    def call(self, inputs):
        kernel = ops.transpose(self.kernel, (3, 0, 1, 2))  # from (2, 2, out, in)
        kernel = ops.reshape(kernel, (1, 1, -1, 4 * self.filters))
        outputs = ops.conv(inputs, kernel) + ops.tile(self.bias, 4)
        return tf.nn.depth_to_space(outputs, 2)


@keras.saving.register_keras_serializable("polyp")
def dice_loss(y_true, y_pred):
    """Return 1 - the soft Dice coefficient of each image (Milletari et al. 2016, arXiv:1606.04797).

    y_true: (batch, height, width, 1), 0 or 1; y_pred: likewise, probabilities 0 to 1.
    Returns (batch,) float32, 0 to 1. One pixel is added to numerator and denominator, so that an
    empty mask predicted empty costs nothing.
    """
    return 1.0 - dice_per_image(y_true, y_pred, smooth=1.0)


@keras.saving.register_keras_serializable("polyp")
def dice_score(y_true, y_pred):
    """Return the Dice coefficient of each image at THRESHOLD, (batch,) float32, 0 to 1.

    y_true: (batch, height, width, 1), 0 or 1; y_pred: likewise, probabilities 0 to 1.
    An empty mask predicted empty scores 1.
    """
    return dice_per_image(y_true, y_pred >= THRESHOLD, smooth=keras.config.epsilon())


@keras.saving.register_keras_serializable("polyp")
def predicted_fraction(y_true, y_pred):
    """Return the fraction of each image that is called polyp at THRESHOLD, (batch,) float32."""
    return ops.mean(ops.cast(y_pred >= THRESHOLD, "float32"), axis=(1, 2, 3))


def dice_per_image(y_true, y_pred, smooth):
    """Return (2 |A and B| + smooth) / (|A| + |B| + smooth) of each image, (batch,) float32."""
    y_true, y_pred = ops.cast(y_true, "float32"), ops.cast(y_pred, "float32")
    axes = (1, 2, 3)
    common = ops.sum(y_true * y_pred, axis=axes)
    total = ops.sum(y_true, axis=axes) + ops.sum(y_pred, axis=axes)
    return (2.0 * common + smooth) / (total + smooth)


def choose_precision(setting=PRECISION):
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

    It computes what mixed_bfloat16 does, bit for bit, which rounds the weights for each batch anew.
    """
    config = model.get_config()
    for layer in config["layers"]:
        if layer["class_name"] != "InputLayer" and layer["config"]["name"] not in FLOAT32_LAYERS:
            layer["config"]["dtype"] = "bfloat16"
    copy = keras.Model.from_config(config)
    copy.set_weights(model.get_weights())
    return copy


def load_unet(path, precision="float32"):
    """Load a network that train.py has saved, to predict with in a precision that it names.

    Returns a Keras model from (batch, size, size, 3), 0 to 255, to (batch, size, size, 1) float32,
    0 to 1. Raises ValueError, in one line that names the file, if there is none, if Keras cannot
    load it, and if it is a network of another shape.
    """
    if not Path(path).is_file():
        raise ValueError(f"{path}: no trained model there yet; run python train.py")
    # A damaged .keras file, a zip of JSON and HDF5, raises whatever the reader that met it raises
    broken = (ValueError, TypeError, LookupError, AttributeError, OSError, EOFError, RuntimeError)
    try:
        model = keras.models.load_model(path, compile=False)
    except (*broken, zipfile.BadZipFile, zlib.error) as error:
        unknown = re.search(r"Could not locate class '(\w+)'", str(error))
        if "`Lambda` layer" in str(error):
            problem = "holds a Lambda layer, which is code that Keras does not run from a file"
        elif unknown:
            problem = f"holds a layer that Keras does not know, {unknown[1]}"
        else:
            problem = "not a model that Keras can load"
        raise ValueError(f"{path}: {problem}; train it again with python train.py") from error
    shapes = getattr(model, "input_shape", None), getattr(model, "output_shape", None)
    size = shapes[0][1] if isinstance(shapes[0], tuple) and len(shapes[0]) == 4 else None
    if size is None or shapes != ((None, size, size, 3), (None, size, size, 1)):
        raise ValueError(
            f"{path}: a network from {shapes[0]} to {shapes[1]}, not from square RGB pictures,"
            " (None, size, size, 3), to one probability a pixel, (None, size, size, 1);"
            " train one with python train.py"
        )
    ours = {layer.name for layer in model.layers}.issuperset(FLOAT32_LAYERS)
    return round_weights(model) if ours and precision == "mixed_bfloat16" else model


def save_model(model, path):
    """Save the U-Net in float32, of Keras's own layers and not compiled: it loads anywhere."""
    size, channels = model.input_shape[2:]
    copy = build_unet(size, channels, model.get_layer("encoder1_a").filters)
    copy.set_weights(model.get_weights())
    copy.save(path)


def main():
    """Print the network's summary and draw it."""
    from utils.figures import draw_architecture  # here: model.py alone can be copied anywhere

    network = build_unet()
    network.summary()
    path = "docs/architecture.png"
    draw_architecture(path, network.input_shape[1], BASE_FILTERS, BLOCKS)
    print(f"{path}: drawn")


if __name__ == "__main__":
    from utils.files import run

    run(main)
