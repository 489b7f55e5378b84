"""The U-Net, its losses and its scores: what `python train.py` trains is built here.

    python model.py     print the layers, and draw docs/architecture.png

The network takes pictures of 0 to 255 as they are, and returns each pixel's probability of polyp.
All layers are Keras's own. While they are trained, the 3x3 kernels take another form
(utils/training/kernels.py): filters, activations and the order of the layers are those that stand
here. Only 3x3 convolutions like those of `conv_block` take it: any other layer is trained as it is
written, and the network may then answer a turned picture otherwise.
"""

import argparse

if __name__ == "__main__":  # Keras starts as in the other scripts: without a page of warnings
    from utils.command import run
    from utils.devices import start_tensorflow

    run(start_tensorflow)

import keras
import numpy as np
from keras import layers, ops

BLOCKS = 4  # encoder blocks, and as many decoder blocks
LUMA = (0.299, 0.587, 0.114)  # of red, green and blue in grey (ITU-R BT.601), as OpenCV has it


def build_unet(size=128, filters=32, polyp_fraction=0.5, dropped=0.0, grey=False):
    """Build the U-Net of Ronneberger et al. 2015 (arXiv:1505.04597), padded, for one class.

    size: side of the square pictures in pixels, a multiple of 16. filters: of the first block;
    each further block doubles them. polyp_fraction: the training masks' mean, 0 to 1; the output's
    bias starts at its log-odds, so that training does not begin by unlearning "half of everything
    is polyp" (Lin et al. 2017, arXiv:1708.02002, section 4.1). dropped: the share of the two
    deepest levels' channels that each training step leaves out (Tompson et al. 2015,
    arXiv:1411.4280). grey: whether the pictures are made grey first.
    Returns a Keras model from (batch, size, size, 3), 0 to 255, to (batch, size, size, 1)
    float32, 0 to 1. Raises ValueError for a size that cannot be halved BLOCKS times.
    """
    if size % 2**BLOCKS:
        raise ValueError(f"size {size}: must be a multiple of {2**BLOCKS}")
    inputs = keras.Input((size, size, 3), name="picture")
    x = layers.Rescaling(1 / 127.5, offset=-1, name="rescaling")(inputs)
    if grey:
        x = layers.Conv2D(1, 1, use_bias=False, trainable=False, name="grey")(x)
    skips = []
    for block in range(BLOCKS):
        name = f"encoder{block + 1}"
        x = conv_block(x, filters * 2**block, name)
        if block == BLOCKS - 1:
            x = drop_channels(x, dropped, name)
        skips.append(x)
        x = layers.MaxPooling2D(2, name=f"{name}_pool")(x)
    x = conv_block(x, filters * 2**BLOCKS, "bottleneck")
    x = drop_channels(x, dropped, "bottleneck")
    for block in reversed(range(BLOCKS)):
        name = f"decoder{block + 1}"
        x = layers.Conv2DTranspose(filters * 2**block, 2, strides=2, name=f"{name}_up")(x)
        x = layers.Concatenate(name=f"{name}_skip")([x, skips[block]])
        x = conv_block(x, filters * 2**block, name)
    outputs = layers.Conv2D(1, 1, activation="sigmoid", name="polyp")(x)
    unet = keras.Model(inputs, outputs, name="unet")
    fraction = min(max(polyp_fraction, 1e-3), 1 - 1e-3)
    unet.get_layer("polyp").bias.assign([np.log(fraction / (1 - fraction))])
    if grey:
        unet.get_layer("grey").set_weights([np.reshape(LUMA, (1, 1, 3, 1))])
    return unet


def conv_block(x, filters, name):
    """Apply two 3x3 convolutions with ReLU, He-initialised (He et al. 2015, arXiv:1502.01852)."""
    for part in ("a", "b"):
        x = layers.Conv2D(
            filters,
            3,
            padding="same",
            activation="relu",
            kernel_initializer="he_normal",
            name=f"{name}_{part}",
        )(x)
    return x


def drop_channels(x, share, name):
    """Leave out a share of the channels, others for each picture of each training step."""
    if not share:
        return x
    return layers.SpatialDropout2D(share, name=f"{name}_dropped")(x)


def dice_loss(y_true, y_pred):
    """Return 1 - the soft Dice coefficient of each image (Milletari et al. 2016, arXiv:1606.04797).

    y_true: (batch, height, width, 1), 0 or 1; y_pred: likewise, probabilities 0 to 1.
    Returns (batch,) float32, 0 to 1. One pixel is added to numerator and denominator, so that an
    empty mask predicted empty costs nothing.
    """
    return 1.0 - dice_per_image(y_true, y_pred, smooth=1.0)


# What PHASES in train.py weighs; a new one also gets its words in utils/training/history.py
LOSSES = {"bce": keras.losses.binary_crossentropy, "dice": dice_loss}


def add_losses(weights):
    """Return the sum of the LOSSES, weighted, as a Keras loss; weights: a dict by their names."""
    used = {name: weights[name] for name in LOSSES if weights.get(name)}
    if list(used.values()) == [1]:
        return LOSSES[next(iter(used))]

    def weighted_losses(y_true, y_pred):
        losses = {name: LOSSES[name](y_true, y_pred) for name in used}  # by image, or by pixel
        means = {
            name: ops.mean(loss, axis=(1, 2)) if len(loss.shape) > 1 else loss
            for name, loss in losses.items()
        }
        first, *others = (used[name] * mean for name, mean in means.items())
        return sum(others, first)

    return weighted_losses


def dice_score(y_true, y_pred, threshold=0.5):
    """Return the Dice coefficient of each image at a threshold, (batch,) float32, 0 to 1.

    y_true: (batch, height, width, 1), 0 or 1; y_pred: likewise, probabilities 0 to 1, polyp from
    `threshold` on. An empty mask predicted empty scores 1.
    """
    return dice_per_image(y_true, y_pred >= threshold, smooth=keras.config.epsilon())


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


def main():
    """Print the layers of the default's network, draw it, and tell the original's size."""
    from utils.command import command_line
    from utils.reporting.architecture import draw_architecture  # here: the rest can be copied

    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args(command_line())
    network, original = build_unet(), build_unet(filters=64, grey=True)
    network.summary()
    parameters, path = original.count_params(), "docs/architecture.png"
    print(f"python train.py --original: of grey pictures, 64 filters, {parameters:,} parameters")
    filters = network.get_layer("encoder1_a").filters
    draw_architecture(path, network.input_shape[1], filters, BLOCKS)
    print(f"{path}: drawn, as python train.py trains it")


if __name__ == "__main__":
    run(main)
