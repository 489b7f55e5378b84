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
GREY = cv2.IMREAD_GRAYSCALE | cv2.IMREAD_ANYDEPTH
JPEG = b"\xff\xd8"
LOSSY_BEGINNINGS = (JPEG, b"RIFF", b"\0\0\0\x0cjP  ", b"\xff\x4f\xff\x51")  # and WebP, JPEG 2000
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
    if data.startswith(JPEG) and b"\xff\xd9" not in data[len(data) // 2 :]:
        raise InputError(f"{file}: a JPEG that is cut off; replace or remove it")
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error:
        image = None
    if image is None:
        raise InputError(f"{file}: not a picture that OpenCV can decode; replace or remove it")
    return image


def decode_pair(picture_data, mask_data, picture_file, mask_file):
    """Decode the bytes of a picture and its mask; the files' names are for the messages.

    Returns (height, width, 3) uint8 RGB, and (height, width) uint8 of 0 and 255.
    Both are taken as they are stored, without their EXIF orientation. Where only one of them has
    such an orientation, a mask may have been drawn on the picture as stored or as shown: the way
    in which the sizes agree is taken, and both ways agreeing is refused.
    Raises InputError for that, for different sizes, and for what cannot be decoded; and for a mask
    that is transparent in places or not two-valued.
    """
    picture, shown_picture = decode_both_ways(picture_data, picture_file, cv2.IMREAD_COLOR_RGB)
    mask, shown_mask = decode_both_ways(mask_data, mask_file, GREY)
    if (shown_picture is None) != (shown_mask is None):
        shown_picture = picture if shown_picture is None else shown_picture
        shown_mask = mask if shown_mask is None else shown_mask
        if shown_picture.shape[:2] == shown_mask.shape:
            if picture.shape[:2] == mask.shape:
                raise InputError(
                    f"{picture_file}: either it or its mask {mask_file} is turned by an EXIF"
                    " orientation, which leaves open how they belong together; save both unturned"
                )
            picture, mask = shown_picture, shown_mask
    if picture.shape[:2] != mask.shape:
        sizes = [f"{width} x {height}" for height, width in (picture.shape[:2], mask.shape)]
        raise InputError(
            f"{picture_file}: is {sizes[0]}, its mask {mask_file} {sizes[1]}; they must be the same"
        )
    lossy = mask_data.startswith(LOSSY_BEGINNINGS)
    if not mask_data.startswith(JPEG):
        check_opaque(mask_data, mask_file)
    return picture, binary_mask(mask, mask_file, lossy)


def decode_both_ways(data, file, flags):
    """Return an image as it is stored, and as its EXIF orientation shows it: None if it has none.

    Raises InputError as `decode_image` does.
    """
    stored = decode_image(data, file, flags | cv2.IMREAD_IGNORE_ORIENTATION)
    if not any(word in data for word in (b"Exif", b"EXIF", b"eXIf")):
        return stored, None
    shown = decode_image(data, file, flags)
    return stored, None if np.array_equal(stored, shown) else shown


def check_opaque(data, file):
    """Raise InputError for a mask whose alpha channel varies: grey levels would not tell it."""
    mask = decode_image(data, file, cv2.IMREAD_UNCHANGED)
    if mask.ndim == 3 and mask.shape[2] in (2, 4) and np.ptp(mask[..., -1]):
        raise InputError(
            f"{file}: mask is transparent in places; store it without an alpha channel, 0 and 255"
        )


def reduce_pair(picture, mask, size):
    """Reduce a picture and its mask by area interpolation.

    picture: (height, width, 3) uint8; mask: (height, width) uint8, 0 and 255, as `decode_pair`
    returns them. Returns (size, size, 3) uint8 and (size, size, 1) uint8, 0 or 1: of the reduced
    mask, half a pixel's area decides.
    """
    picture = cv2.resize(picture, (size, size), interpolation=cv2.INTER_AREA)
    mask = cv2.resize(mask, (size, size), interpolation=cv2.INTER_AREA)
    return picture, (mask >= HALF).astype(np.uint8)[..., None]


def binary_mask(mask, file, lossy):
    """Return a stored mask, 0/1 or 0/255, as (height, width) uint8 of 0 and 255.

    mask: (height, width); lossy: whether its format adds noise, which is then taken off 0/255.
    16 bits may also be 0/65535. Raises InputError, with the values it has, if it is anything else.
    """
    if mask.dtype not in (np.uint8, np.uint16):
        raise InputError(f"{file}: mask of type {mask.dtype}; store it with 8 bits, 0 and 255")
    wide = mask.dtype == np.uint16 and mask.max() > 255
    levels = (mask >> 8 if wide else mask).astype(np.uint8, copy=False)
    counts = cv2.calcHist([levels], [0], None, [256], [0, 256]).ravel()
    if not wide and not counts[2:].any():
        return levels * np.uint8(255)
    noise = MASK_NOISE if lossy else 0
    between = counts[noise + 1 : 255 - noise].any()
    between |= wide and not lossy and ((mask > 0) & (mask < 65535)).any()
    if between or not counts[255 - noise :].any():  # the latter: labels like 0 and 38
        values = [str(value) for value in np.unique(mask)]
        values = ", ".join(values if len(values) <= 8 else [*values[:4], "...", *values[-3:]])
        raise InputError(f"{file}: mask is not two-valued, it has {values}; store 0 and 255")
    return cv2.threshold(levels, HALF - 1, 255, cv2.THRESH_BINARY)[1]


def border_fraction(mask):
    """Return the polyp's part, 0 to 1, of the outermost pixels of a mask.

    mask: (size, size, 1) uint8, 0 or 1. It is small but in inverted masks.
    """
    return float(np.concatenate([mask[0], mask[-1], mask[1:-1, 0], mask[1:-1, -1]]).mean())
