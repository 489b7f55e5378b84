"""Pictures and masks: what counts as one, decoding, masks made binary, pairs reduced."""

from pathlib import PurePosixPath

import cv2
import numpy as np

from utils.files import InputError

PICTURE_SUFFIXES = {
    *(".bmp", ".dib", ".gif", ".jp2", ".jpe", ".jpeg", ".jpg", ".pbm", ".pgm", ".png"),
    *(".pnm", ".ppm", ".tif", ".tiff", ".webp"),
}
HALF = 128  # a mask's pixel is polyp from this value on
MASK_NOISE = 48  # how far a mask's 0 and 255 may stray: JPEG does 37 at quality 75, HyperKvasir 8


def is_picture(name):
    """Tell by its name, without folders, whether a file is a picture; hidden files are not."""
    return not name.startswith(".") and PurePosixPath(name).suffix.lower() in PICTURE_SUFFIXES


def decode_image(data, file, flags):
    """Decode the bytes of a picture with OpenCV's `flags`.

    Raises InputError, naming `file`, for bytes that OpenCV cannot decode or that end too early.
    """
    if not data:
        raise InputError(f"{file}: is empty (zero bytes); replace or remove it")
    if data[:2] == b"\xff\xd8" and b"\xff\xd9" not in data[len(data) // 2 :]:
        raise InputError(f"{file}: a JPEG that is cut off; replace or remove it")
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error:
        image = None
    if image is None:
        raise InputError(f"{file}: not a picture that OpenCV can decode; replace or remove it")
    return image


def reduce_pair(picture, mask, name, size):
    """Reduce a picture and its mask by area interpolation.

    picture: (height, width, 3) uint8; mask: (height, width) of an integer type.
    Returns (size, size, 3) uint8 and (size, size, 1) uint8, 0 or 1: the mask is made binary at
    its own resolution, and again after the reduction, where half a pixel's area decides.
    Raises InputError if the two differ in size or the mask is not two-valued.
    """
    if picture.shape[:2] != mask.shape:
        sizes = [f"{width} x {height}" for height, width in (picture.shape[:2], mask.shape)]
        raise InputError(f"{name}: picture is {sizes[0]}, mask {sizes[1]}; they must be the same")
    picture = cv2.resize(picture, (size, size), interpolation=cv2.INTER_AREA)
    mask = cv2.resize(binary_mask(mask, name), (size, size), interpolation=cv2.INTER_AREA)
    return picture, (mask >= HALF).astype(np.uint8)[..., None]


def binary_mask(mask, name):
    """Return a stored mask, 0/1 or 0/255 with some noise, as (height, width) uint8 of 0 and 255.

    Raises InputError, with the values it has, if it is anything else.
    """
    if mask.dtype == np.uint16:
        mask = (mask >> 8 if mask.max() > 255 else mask).astype(np.uint8)
    if mask.dtype != np.uint8:
        raise InputError(f"{name}: mask of type {mask.dtype}; store it with 8 bits, 0 and 255")
    counts = cv2.calcHist([mask], [0], None, [256], [0, 256]).ravel()
    if not counts[2:].any():
        return mask * np.uint8(255)
    between = counts[MASK_NOISE + 1 : 255 - MASK_NOISE].any()
    if between or not counts[255 - MASK_NOISE :].any():  # the latter: labels like 0 and 38
        values = [str(value) for value in np.flatnonzero(counts)]
        values = ", ".join(values if len(values) <= 8 else [*values[:4], "...", *values[-3:]])
        raise InputError(f"{name}: mask is not two-valued, it has {values}; store 0 and 255")
    return cv2.threshold(mask, HALF - 1, 255, cv2.THRESH_BINARY)[1]
