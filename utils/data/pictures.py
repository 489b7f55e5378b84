"""Pictures and masks: what counts as one, decoding, masks made binary, pairs reduced."""

import contextlib
import os
import threading
from pathlib import PurePosixPath
from typing import NamedTuple

import cv2
import numpy as np

from utils import MAX_PIXELS
from utils.command import InputError, Progress, hold_back_stderr
from utils.files import read_whole, reading

PICTURE_SUFFIXES = {
    *(".bmp", ".dib", ".gif", ".jp2", ".jpe", ".jpeg", ".jpg", ".pbm", ".pgm", ".png"),
    *(".pnm", ".ppm", ".tif", ".tiff", ".webp"),
}
MAX_BYTES = 50_000_000  # of a picture's file; two threads hold a picture's and a mask's each
DECODERS = 2  # threads that decode pairs: one of MAX_PIXELS takes each of them 430 MB
MAX_SCANS = 50  # of a progressive JPEG, which usually has 10; each takes as long as a whole picture
HALF = 128  # a mask's pixel is polyp from this value on
GREY = cv2.IMREAD_GRAYSCALE | cv2.IMREAD_ANYDEPTH
JPEG, PNG = b"\xff\xd8", b"\x89PNG\r\n\x1a\n"
JPEG_2000 = (b"\0\0\0\x0cjP  ", b"\xff\x4f\xff\x51")
LOSSY_BEGINNINGS = (JPEG, b"RIFF", *JPEG_2000)  # RIFF: WebP
MASK_NOISE = 48  # how far a mask's 0 and 255 may stray: JPEG does 37 at quality 75, HyperKvasir 8

ONE_AT_A_TIME = threading.Lock()  # JPEG 2000 takes three times the memory of others

# libjpeg's words on stderr for what it goes on decoding after, in grey; others are of no harm
JPEG_DAMAGE = (b"Corrupt JPEG data", b"Premature end of JPEG", b"Inconsistent progression")


class MaskConvention(NamedTuple):
    """How masks say what is polyp, and which picture they belong to.

    suffix: what a mask's name has after its picture's. value: of the pixels that are polyp, a grey
    value or three, of red, green and blue; None: 0 and 255, or 0 and 1. inverted: those pixels are
    what is no polyp. resize: a mask may have another size of the picture's aspect ratio.
    """

    suffix: str = ""
    value: int | tuple | None = None
    inverted: bool = False
    resize: bool = False


PLAIN = MaskConvention()  # 0 and 255, or 0 and 1, of the pictures' names and sizes


def is_picture(name):
    """Tell by its name, without folders, whether a file is a picture; hidden files are not."""
    return not name.startswith(".") and PurePosixPath(name).suffix.lower() in PICTURE_SUFFIXES


def read_bytes(path):
    """Return the bytes of a picture's file; raises InputError if it cannot be read or is too large.

    It is too large beyond MAX_BYTES, whatever it holds.
    """
    with reading(path, "replace or remove it"):
        check_bytes(os.path.getsize(path), path)
        return read_whole(path, MAX_BYTES)


def check_bytes(size, file):
    """Raise InputError for a picture's file of more than MAX_BYTES bytes."""
    if size > MAX_BYTES:
        raise InputError(
            f"{file}: is too large, {size:,} bytes; the limit is {MAX_BYTES:,}: reduce it"
        )


def decode_image(data, file, flags):
    """Decode the bytes of a picture with OpenCV's `flags`.

    Of an animation, or of several pages, the first is taken. Raises InputError, naming `file`, for
    bytes that OpenCV cannot decode or that end too early, and for more than MAX_PIXELS pixels.
    """
    if not data:
        raise InputError(f"{file}: is empty (zero bytes); replace or remove it")
    if data.startswith(JPEG) and b"\xff\xd9" not in data[data.rfind(b"\xff\xda") :]:
        raise InputError(f"{file}: a JPEG that is cut off; replace or remove it")
    if data.startswith(JPEG) and data.count(b"\xff\xda") > MAX_SCANS:  # nothing else holds these
        raise InputError(
            f"{file}: a JPEG of more than {MAX_SCANS} scans, which take too long; save it anew"
        )
    if data.startswith(PNG) and lacks_chunks(data):
        raise InputError(f"{file}: a PNG that is cut off or damaged; replace or remove it")
    turn = ONE_AT_A_TIME if data.startswith(JPEG_2000) else contextlib.nullcontext()
    try:
        with turn:
            image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as error:
        if "MAX_IMAGE_PIXELS" in str(error):
            raise InputError(
                f"{file}: has too many pixels; the limit is {MAX_PIXELS:,}: reduce it"
            ) from error
        image = None
    if image is None:
        raise InputError(f"{file}: not a picture that OpenCV can decode; replace or remove it")
    return image


def lacks_chunks(data):
    """Tell whether a PNG's chunks are longer than the file, or its end chunk is not there.

    OpenCV takes the memory that a chunk claims, up to 4 GB, before it finds out.
    """
    begin = len(PNG)
    while begin + 12 <= len(data):  # length, type, content, check sum
        length, kind = int.from_bytes(data[begin : begin + 4], "big"), data[begin + 4 : begin + 8]
        begin += 12 + length
        if kind == b"IEND":
            return begin > len(data)
    return True


def tells_damage(held_back):
    """Tell whether libjpeg complains, in bytes held back from stderr, of what it has decoded."""
    return any(words in held_back for words in JPEG_DAMAGE)


def damaged_files(files, count):
    """Return the paths of pictures that libjpeg complains of, decoded one by one. Not for threads.

    files: paths and bytes of `count` pictures. libjpeg does not say which one it means.
    """
    progress, damaged = Progress("looking for the damaged JPEG, files", count), []
    for file, data in files:
        with hold_back_stderr() as held_back:
            decode_image(data, file, GREY)
            if tells_damage(held_back()):
                damaged.append(file)
        progress.advance()
    return damaged


def decode_pair(picture_data, mask_data, picture_file, mask_file, convention=PLAIN):
    """Decode the bytes of a picture and of its mask, which is in a MaskConvention.

    Returns (height, width, 3) uint8 RGB, and (height, width) uint8 of 0 and 255.
    Both are taken as they are stored, without their EXIF orientation. Where only one of them has
    such an orientation, a mask may have been drawn on the picture as stored or as shown: the way
    in which the sizes agree is taken, and both ways agreeing is refused, unless the mask is of one
    value, and so fits either way.
    Raises InputError for that, for different sizes, and for what cannot be decoded; and for a mask
    that is transparent in places or does not keep to the convention.
    """
    lossy, value = mask_data.startswith(LOSSY_BEGINNINGS), convention.value
    if value is not None and lossy:
        raise InputError(
            f"{mask_file}: its format may change values, so --mask-value cannot be told; store PNG"
        )
    # The mask first: no picture is held meanwhile
    if not mask_data.startswith(JPEG):
        check_channels(mask_data, mask_file, value, lossy)
    flags = cv2.IMREAD_COLOR_RGB if isinstance(value, tuple) else GREY
    mask, shown_mask = decode_both_ways(mask_data, mask_file, flags)
    picture, shown_picture = decode_both_ways(picture_data, picture_file, cv2.IMREAD_COLOR_RGB)
    if (shown_picture is None) != (shown_mask is None):
        shown_picture = picture if shown_picture is None else shown_picture
        shown_mask = mask if shown_mask is None else shown_mask
        as_stored = fits(picture, mask, convention.resize)
        as_shown = fits(shown_picture, shown_mask, convention.resize)
        if as_stored and as_shown and np.ptp(mask):
            raise InputError(
                f"{picture_file}: either it or its mask {mask_file} is turned by an EXIF"
                " orientation, which leaves open how they belong together; save both unturned"
            )
        if as_shown and not as_stored:
            picture, mask = shown_picture, shown_mask
    if not fits(picture, mask, convention.resize):
        sizes = [f"{width} x {height}" for height, width in (picture.shape[:2], mask.shape[:2])]
        wanted = "of one aspect ratio" if convention.resize else "the same"
        way_out = "" if convention.resize or not fits(picture, mask, True) else ", or --mask-resize"
        raise InputError(
            f"{picture_file}: is {sizes[0]}, its mask {mask_file} {sizes[1]}; they must be"
            f" {wanted}{way_out}"
        )
    mask = binary_mask(mask, mask_file, lossy, value)
    if convention.inverted:
        mask = 255 - mask
    if mask.shape != picture.shape[:2]:
        mask = cv2.resize(mask, picture.shape[1::-1], interpolation=cv2.INTER_NEAREST_EXACT)
    return picture, mask


def fits(picture, mask, resize):
    """Tell whether a mask has its picture's size; `resize`: or is less than a pixel from its shape.

    picture, mask: arrays whose shapes begin with height and width.
    """
    (height, width), (mask_height, mask_width) = picture.shape[:2], mask.shape[:2]
    if not resize:
        return (height, width) == (mask_height, mask_width)
    return abs(width * mask_height - height * mask_width) < max(height, width)


def decode_both_ways(data, file, flags):
    """Return an image as it is stored, and as its EXIF orientation shows it: None if it has none.

    Raises InputError as `decode_image` does.
    """
    stored = decode_image(data, file, flags | cv2.IMREAD_IGNORE_ORIENTATION)
    if not any(word in data for word in (b"Exif", b"EXIF", b"eXIf")):
        return stored, None
    shown = decode_image(data, file, flags)
    return stored, None if np.array_equal(stored, shown) else shown


def check_channels(data, file, value, lossy):
    """Raise InputError for a mask of which grey levels would not tell what it shows.

    That is one that is transparent in places, and a coloured one unless `value` is a colour, or the
    format `lossy`, whose noise colours what is grey.
    """
    mask = decode_image(data, file, cv2.IMREAD_UNCHANGED)
    channels = 1 if mask.ndim == 2 else mask.shape[2]
    # OpenCV leaves out the grey value that a PNG of one channel calls transparent
    clear_grey = channels == 1 and data.startswith(PNG) and b"tRNS" in data[: data.find(b"IDAT")]
    if clear_grey or (channels in (2, 4) and np.ptp(mask[..., -1])):
        raise InputError(
            f"{file}: mask is transparent in places; store it without an alpha channel, 0 and 255"
        )
    if channels > 2 and not isinstance(value, tuple) and not lossy:
        blue, green, red = (mask[..., channel] for channel in range(3))
        if not (np.array_equal(blue, green) and np.array_equal(green, red)):
            raise InputError(
                f"{file}: mask is in colour; name that of the polyp, --mask-value R,G,B"
            )


def reduce_pair(picture, mask, size):
    """Reduce a picture and its mask by area interpolation.

    picture: (height, width, 3) uint8; mask: (height, width) uint8, 0 and 255, as `decode_pair`
    returns them. Returns (size, size, 3) uint8 and (size, size, 1) uint8, 0 or 1: of the reduced
    mask, half a pixel's area decides.
    """
    mask = reduce_picture(mask, size)
    return reduce_picture(picture, size), (mask >= HALF).astype(np.uint8)[..., None]


def reduce_picture(picture, size):
    """Return a picture, or a mask, of size x size pixels, each the mean of the area that it covers.

    picture: (height, width) or (height, width, channels) uint8. A smaller one is enlarged.
    """
    return cv2.resize(picture, (size, size), interpolation=cv2.INTER_AREA)


def binary_mask(mask, file, lossy, value=None):
    """Return a stored mask, 0/1 or 0/255, as (height, width) uint8 of 0 and 255.

    mask: (height, width); lossy: whether its format adds noise, which is then taken off 0/255.
    16 bits may also be 0/65535. Raises InputError, with the values it has, if it is anything else.
    With a `value`, as MaskConvention has it, the pixels of that value become 255, all others 0; if
    it is a colour, the mask is (height, width, 3), RGB.
    """
    if mask.dtype not in (np.uint8, np.uint16):
        raise InputError(f"{file}: mask of type {mask.dtype}; store it with 8 bits, 0 and 255")
    if value is not None:
        return cv2.inRange(mask, value, value)
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
        raise InputError(
            f"{file}: mask is not two-valued, it has {values}; store 0 and 255, or name the polyp's"
            " value: --mask-value V, or R,G,B"
        )
    return cv2.threshold(levels, HALF - 1, 255, cv2.THRESH_BINARY)[1]


def border_fraction(mask):
    """Return the polyp's part, 0 to 1, of the outermost pixels of a mask.

    mask: (size, size, 1) uint8, 0 or 1. It is small but in inverted masks.
    """
    return float(np.concatenate([mask[0], mask[-1], mask[1:-1, 0], mask[1:-1, -1]]).mean())


def picture_area(picture):
    """Return (height, width) uint8: 255 where a picture shows something, 0 on its black border.

    picture: (height, width, 3) uint8, RGB. The largest bright area with whatever it encloses, so
    that a dark lumen belongs to it, and text and an inset on the border do not.
    """
    bright = (picture.max(axis=2) > 30).astype(np.uint8)
    bright = cv2.morphologyEx(bright, cv2.MORPH_OPEN, np.ones((9, 9), np.uint8))
    contours, _ = cv2.findContours(bright, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    area = np.zeros_like(bright)
    if contours:
        cv2.drawContours(area, [max(contours, key=cv2.contourArea)], -1, 255, cv2.FILLED)
    return area
