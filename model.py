"""The U-Net, the Dice loss and score, and the precision that the network computes in.

    python model.py                print the network's summary and draw docs/architecture.png

The network takes pictures of 0 to 255 as they are, and returns each pixel's probability of polyp.
"""

from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from data_preprocessing import (
    BLUE,
    GREEN,
    IMAGE_SIZE,
    ORANGE,
    SKY,
    YELLOW,
    InputError,
    run,
    write_beside,
)

BASE_FILTERS = 64  # of the first block; each further block doubles them, up to 1,024
BLOCKS = 4  # encoder blocks, and as many decoder blocks
THRESHOLD = 0.5  # a pixel is called polyp from this probability on
PRECISION = "auto"  # or "float32" or "mixed_bfloat16"
FLOAT32_LAYERS = ("rescaling", "polyp")  # grey levels, and probabilities near 0 and 1, need digits
ARCHITECTURE_PATH = "docs/architecture.png"


def build_unet(
    size=IMAGE_SIZE,
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
    float32, 0 to 1. Raises InputError for a size that cannot be halved BLOCKS times.
    """
    if size % 2**BLOCKS:
        raise InputError(f"IMAGE_SIZE {size}: must be a multiple of {2**BLOCKS}")
    fraction = min(max(polyp_fraction, 1e-3), 1 - 1e-3)
    log_odds = float(np.log(fraction / (1 - fraction)))

    inputs = keras.Input((size, size, channels), name="picture")
    x = layers.Rescaling(1 / 127.5, offset=-1, name="rescaling")(inputs)
    skips = []
    for block in range(BLOCKS):
        x = two_convolutions(x, filters * 2**block, f"encoder{block + 1}")
        skips.append(x)
        x = layers.MaxPooling2D(2, name=f"encoder{block + 1}_pool")(x)
    x = two_convolutions(x, filters * 2**BLOCKS, "bridge")
    up_convolution = layers.Conv2DTranspose if precision == "float32" else UpConvolution
    for block in reversed(range(BLOCKS)):
        name = f"decoder{block + 1}"
        x = up_convolution(filters * 2**block, 2, strides=2, name=f"{name}_up")(x)
        x = layers.Concatenate(name=f"{name}_skip")([x, skips[block]])
        x = two_convolutions(x, filters * 2**block, name)
    bias = keras.initializers.Constant(log_odds)
    outputs = layers.Conv2D(1, 1, activation="sigmoid", bias_initializer=bias, name="polyp")(x)
    model = keras.Model(inputs, outputs, name="unet")
    set_precision(model, precision)
    return model


def two_convolutions(x, filters, name):
    """Apply two 3x3 convolutions with ReLU, He-initialised (He et al. 2015, arXiv:1502.01852)."""
    for number in "ab":
        x = layers.Conv2D(
            filters,
            3,
            padding="same",
            activation="relu",
            kernel_initializer="he_normal",
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
    Raises InputError for an unknown setting.
    """
    if setting in ("float32", "mixed_bfloat16"):
        return setting
    if setting != "auto":
        raise InputError(f'PRECISION {setting!r}: must be "auto", "float32" or "mixed_bfloat16"')
    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        details = [tf.config.experimental.get_device_details(gpu) for gpu in gpus]
        made_for_it = all(d.get("compute_capability", (0, 0)) >= (8, 0) for d in details)
    else:
        cpuinfo = Path("/proc/cpuinfo")
        flags = cpuinfo.read_text() if cpuinfo.exists() else ""
        made_for_it = "amx_bf16" in flags or "avx512_bf16" in flags
    return "mixed_bfloat16" if made_for_it else "float32"


def set_precision(model, precision):
    """Let a model compute in `precision` from its next trace on; its weights stay float32.

    FLOAT32_LAYERS compute in float32 always.
    """
    for layer in model.layers:
        layer.dtype_policy = "float32" if layer.name in FLOAT32_LAYERS else precision


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
    """Load a model that train.py has saved, to predict with in a precision that it names.

    Raises InputError if there is none or it is damaged.
    """
    if not Path(path).is_file():
        raise InputError(f"{path}: no trained model there yet; run python train.py")
    try:
        model = keras.models.load_model(path, compile=False)
    except (ValueError, OSError, KeyError) as error:
        raise InputError(f"{path}: not a model that Keras can load; train it again") from error
    return round_weights(model) if precision == "mixed_bfloat16" else model


def draw_architecture(path, size=IMAGE_SIZE, filters=BASE_FILTERS):
    """Draw the network as a U of its blocks, each with its filters and its size in pixels."""
    figure = Figure((10, 4.8), layout="constrained")
    axes = figure.subplots()
    axes.axis("off")
    axes.set(xlim=(-1.9, 12.7), ylim=(-5.0, 0.75))
    width, height, right, down = 1.5, 0.66, 1.16, 1.14  # of a box, and from box to box
    levels = [*range(BLOCKS + 1), *reversed(range(BLOCKS))]
    corners = [(right * column, -down * level) for column, level in enumerate(levels)]

    def arrow(start, end, colour, style="-"):
        line = {"arrowstyle": "-|>", "color": colour, "linewidth": 1.6, "linestyle": style}
        axes.annotate("", end, start, arrowprops=line)

    for column, (level, (x, y)) in enumerate(zip(levels, corners, strict=True)):
        colour = SKY if column < BLOCKS else YELLOW if column == BLOCKS else ORANGE
        axes.add_patch(Rectangle((x, y), width, height, facecolor=colour, edgecolor="0.2"))
        text = f"{filters * 2**level} filters\n{size // 2**level} x {size // 2**level}"
        axes.text(x + width / 2, y + height / 2, text, ha="center", va="center", fontsize=9.5)
        if column < BLOCKS:
            partner = corners[-1 - column]
            arrow((x + width, y + height / 2), (partner[0], y + height / 2), "0.5", "--")
            arrow((x + width * 0.75, y), (x + width * 0.75 + 0.4, y - down + height), BLUE)
        elif column < 2 * BLOCKS:
            above = y + down
            arrow((x + width * 0.75 - 0.15, y + height), (x + width * 0.75 + 0.25, above), GREEN)
    arrow((-0.75, height / 2), (0, height / 2), "0.2")
    arrow((corners[-1][0] + width, height / 2), (corners[-1][0] + width + 0.75, height / 2), "0.2")
    axes.text(-0.8, height / 2, f"picture\n{size} x {size}\nRGB", ha="right", va="center")
    end = corners[-1][0] + width + 0.8
    axes.text(end, height / 2, f"polyp\n{size} x {size}\n0 to 1", ha="left", va="center")
    legend = {
        "a block: two 3 x 3 convolutions with ReLU": "0.2",
        "2 x 2 max pooling": BLUE,
        "2 x 2 transposed convolution": GREEN,
        "skip connection, concatenated": "0.5",
    }
    for row, (text, colour) in enumerate(legend.items()):
        axes.text(-1.8, -3.65 - 0.42 * row, text, color=colour, fontsize=9.5)
    with write_beside(path) as beside:
        figure.savefig(beside, dpi=100)


def main():
    """Print the network's summary and draw it."""
    build_unet().summary()
    draw_architecture(ARCHITECTURE_PATH)
    print(f"{ARCHITECTURE_PATH}: drawn")


if __name__ == "__main__":
    run(main)
