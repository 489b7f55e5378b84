"""Augmentation: one transform for a picture and its mask, and the batches of a split."""

import math
import threading

import cv2
import numpy as np

from utils.command import InputError
from utils.drawing import MASK, outline, save_sheet

BORDERS = {
    "nearest": cv2.BORDER_REPLICATE,
    "reflect": cv2.BORDER_REFLECT,
    "constant": cv2.BORDER_CONSTANT,
}
EXCHANGED = {
    "width_shift_range": "height_shift_range",
    "height_shift_range": "width_shift_range",
}
DRAW_LOCK = threading.Lock()  # ImageDataGenerator draws from NumPy's one global state


def make_generator(augmentation):
    """Return the ImageDataGenerator that draws the transforms.

    Keras 3.15 shifts up and down by width_shift_range, and sideways by height_shift_range: the two
    are exchanged here, so that they do what they say. Raises InputError for a setting that it does
    not know, or that would not be carried out.
    """
    from tensorflow.keras.preprocessing.image import ImageDataGenerator

    if not isinstance(augmentation, dict):
        raise InputError(f"AUGMENTATION = {augmentation!r}: must be a dict; {{}} augments nothing")
    light_and_shape = {
        *("rotation_range", "width_shift_range", "height_shift_range", "shear_range"),
        *("zoom_range", "horizontal_flip", "vertical_flip", "fill_mode", "cval"),
        *("brightness_range", "channel_shift_range"),
    }
    unknown = sorted(augmentation.keys() - light_and_shape)
    if unknown:
        raise InputError(f"AUGMENTATION: {unknown[0]!r} is none of {sorted(light_and_shape)}")
    if augmentation.get("fill_mode", "nearest") not in BORDERS:
        raise InputError(f"AUGMENTATION: fill_mode must be one of {', '.join(BORDERS)}")
    kerass = {EXCHANGED.get(name, name): value for name, value in augmentation.items()}
    picture, mask = np.zeros((16, 16, 3), np.uint8), np.zeros((16, 16, 1), np.uint8)
    try:
        generator = ImageDataGenerator(**kerass)
        # Some settings are looked at by the draw, or by the warp, alone
        transform = draw_transform(generator, picture.shape, 0)
        augment(picture, mask, transform, generator.fill_mode, generator.cval)
    except (TypeError, ValueError, OverflowError, cv2.error) as error:
        raise InputError(f"AUGMENTATION: {augmentation}: {error}") from error
    return generator


def draw_transform(generator, shape, seed):
    """Draw the parameters of one transform, which depend on `seed` (0 to 2**32 - 1) alone."""
    with DRAW_LOCK:
        return generator.get_random_transform(shape, seed=seed)


def affine_matrix(transform, height, width):
    """Return the (2, 3) matrix that takes a point (x, y) of the result to one of the source.

    It is the product that Keras's apply_affine_transform computes, with the flips, which Keras
    does afterwards, multiplied in.
    """
    angle, shear = math.radians(transform["theta"]), math.radians(transform["shear"])
    cos, sin = math.cos(angle), math.sin(angle)
    rotation = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])
    shift = np.array([[1, 0, transform["tx"]], [0, 1, transform["ty"]], [0, 0, 1]])
    sheared = np.array([[1, -math.sin(shear), 0], [0, math.cos(shear), 0], [0, 0, 1]])
    zoom = np.diag([transform["zx"], transform["zy"], 1])
    x, y = width / 2 - 0.5, height / 2 - 0.5
    to_center = np.array([[1, 0, x], [0, 1, y], [0, 0, 1]])
    from_center = np.array([[1, 0, -x], [0, 1, -y], [0, 0, 1]])
    matrix = to_center @ rotation @ shift @ sheared @ zoom @ from_center
    if transform["flip_horizontal"]:
        matrix = matrix @ [[-1, 0, width - 1], [0, 1, 0], [0, 0, 1]]
    if transform["flip_vertical"]:
        matrix = matrix @ [[1, 0, 0], [0, -1, height - 1], [0, 0, 1]]
    return matrix[:2]


def augment(image, mask, transform, fill_mode="nearest", cval=0):
    """Apply one drawn transform to a picture and its mask: one bilinear warp each, by OpenCV.

    image: (height, width, 3) uint8; mask: (height, width, 1) uint8, 0 or 1. Returns the same
    shapes and types; the mask is binary again, and 0 outside where fill_mode is "constant".
    Brightness and channel shift change the picture alone.
    """
    height, width = mask.shape[:2]
    matrix = affine_matrix(transform, height, width)
    warp = {"flags": cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, "borderMode": BORDERS[fill_mode]}
    image = cv2.warpAffine(image, matrix, (width, height), **warp, borderValue=(cval,) * 3)
    mask = cv2.warpAffine(mask * np.uint8(255), matrix, (width, height), **warp)
    if transform["channel_shift_intensity"] is not None:
        shifted = image + transform["channel_shift_intensity"]
        image = np.clip(shifted, image.min(), image.max()).round().astype(np.uint8)
    if transform["brightness"] is not None:
        image = cv2.convertScaleAbs(image, alpha=transform["brightness"])
    return image, (mask >= 128).astype(np.uint8)[..., None]


def draw_colour_table(colours, seed):
    """Draw one change of light and colour: what each level of R, G and B becomes, (256, 3) uint8.

    With v from 0 to 1, that is contrast * (gain * v ** gamma - 0.5) + 0.5 + brightness, clipped.
    colours: how far each may go, 0 where it is left out: the exponent from exp(-"gamma") to
    exp("gamma"), the factors from 1 - "contrast" to 1 + "contrast" and from 1 - "gain" to
    1 + "gain", drawn for each channel, so that it tints, the summand from -"brightness" to
    "brightness". seed: 0 to 2**32 - 1, on which alone the draw depends.
    """
    ranges = {"gamma": 0, "contrast": 0, "brightness": 0, "gain": 0} | colours
    random = np.random.default_rng(seed)
    gamma, contrast, brightness, *gains = random.uniform(-1, 1, 6)
    levels = np.linspace(0, 1, 256)[:, None] ** np.exp(ranges["gamma"] * gamma)
    levels = levels * (1 + ranges["gain"] * np.array(gains))
    levels = (1 + ranges["contrast"] * contrast) * (levels - 0.5) + 0.5
    levels += ranges["brightness"] * brightness
    return (255 * levels.clip(0, 1)).round().astype(np.uint8)


def normal_rows(split):
    """Return the rows of a Split that show no polyp, (k,) int."""
    begins = range(0, len(split.names), 1000)
    parts = (split.masks[begin : begin + 1000].any(axis=(1, 2, 3)) for begin in begins)
    return np.flatnonzero(~np.concatenate(list(parts)))


def split_evenly(count, batch_size, replicas=1):
    """Return the ends of batches of nearly equal size, of at most `batch_size` if that can be.

    None is smaller than `replicas`, for a device without a picture ends the training. Raises
    InputError if there are fewer pictures than that.
    """
    batches = min(math.ceil(count / batch_size), count // replicas)
    if not batches:
        raise InputError(f"{count} pictures are too few for {replicas} devices")
    return [count * (number + 1) // batches for number in range(batches)]


class Pairs:
    """Batches of one split, read from disk as they are needed.

    With a generator the pairs come in a new order and augmented in every epoch; order and draws
    depend on the seed, the epoch and the position alone. Without one they come as they are.
    colours: see `draw_colour_table`; {} changes none. normals: with a generator, at most this part
    of an epoch's pairs show no polyp, drawn anew for each epoch where there are more. replicas:
    devices that share a batch.

    `epoch` is set from outside before each epoch, and `seed` before each phase: a training that
    goes on does not start from 0, of which Keras tells its own PyDataset nothing.
    """

    def __init__(
        self,
        split,
        batch_size,
        workers,
        generator=None,
        colours=None,
        seed=(),
        replicas=1,
        normals=1,
    ):
        self.split, self.workers = split, workers
        self.generator, self.colours, self.seed = generator, colours or {}, seed
        self.count, self.normals = len(split.names), np.zeros(0, int)
        if normals < 1:
            self.normals = normal_rows(split)
            polyps = self.count - len(self.normals)
            self.count = min(self.count, round(polyps / (1 - normals)))
        self.ends = split_evenly(self.count, batch_size, replicas)
        self.epoch = 0
        self.failure = None  # the InputError that a batch of `dataset` met

    def __len__(self):
        return len(self.ends)

    def draw(self, step):
        """Return the rows of a batch and the seeds of their transforms, (n,) int each."""
        positions = slice(self.ends[step - 1] if step else 0, self.ends[step])
        if self.generator is None:
            return np.arange(self.count)[positions], np.zeros(self.count, int)[positions]
        random = np.random.default_rng([*self.seed, self.epoch])
        order = random.permutation(len(self.split.names))
        too_many = len(order) - self.count
        left_out = order[np.isin(order, self.normals)][:too_many]
        order = order[~np.isin(order, left_out)]
        return order[positions], random.integers(2**32, size=self.count)[positions]

    def batch(self, step):
        """Return (n, size, size, 3) uint8 pictures and (n, size, size, 1) uint8 masks, 0 or 1."""
        rows, draws = self.draw(step)
        images, masks = self.split.images[rows], self.split.masks[rows]
        if self.generator is None:
            return images, masks
        fill = {"fill_mode": self.generator.fill_mode, "cval": self.generator.cval}
        for row, draw in enumerate(draws):
            transform = draw_transform(self.generator, images.shape[1:], int(draw))
            images[row], masks[row] = augment(images[row], masks[row], transform, **fill)
            if self.colours:
                images[row] = cv2.LUT(images[row], draw_colour_table(self.colours, draw)[None])
        return images, masks

    def dataset(self):
        """Return one epoch as a tf.data.Dataset, made ahead by `workers` threads.

        TensorFlow would print an error in a thread as a traceback of its own: `failure` keeps it
        for whoever uses the epoch, and the batch comes black.
        """
        import tensorflow as tf

        size = self.split.images.shape[1]

        def make(step):
            try:
                return self.batch(step)
            except InputError as error:
                self.failure = error
                shape = (len(self.draw(step)[0]), size, size)
                return np.zeros((*shape, 3), np.uint8), np.zeros((*shape, 1), np.uint8)

        def load(step):
            images, masks = tf.numpy_function(make, [step], [tf.uint8, tf.uint8], stateful=False)
            images.set_shape((None, size, size, 3))
            masks.set_shape((None, size, size, 1))
            return images, masks

        # The autotuner sleeps ever longer, and the end of an epoch would wait until it wakes up
        options = tf.data.Options()
        options.autotune.enabled = False
        steps = tf.data.Dataset.range(len(self)).with_options(options)
        return steps.map(load, num_parallel_calls=self.workers, deterministic=True).prefetch(2)


def save_augmented(path, pairs, count=8):
    """Save a sheet of the first training pairs as they are, and as the network sees them."""
    images, masks = pairs.batch(0)
    count = min(count, len(images))
    originals = pairs.split.images[pairs.draw(0)[0][:count]]
    chosen = list(zip(images[:count], masks[:count], strict=True))
    rows = {
        "stored": originals,
        "augmented": [image for image, _ in chosen],
        "with mask": [outline(image, [(mask, MASK)]) for image, mask in chosen],
    }
    titles = [f"pair {number + 1}" for number in range(count)]
    title = "The first training pairs of the first epoch"
    title += f'\nBeyond the borders: fill_mode "{pairs.generator.fill_mode}"'
    save_sheet(path, rows, titles, title)
