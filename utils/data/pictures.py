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
    *(".bmp", ".dib", ".gif", ".jp2", ".jpe", ".jfif", ".jpeg", ".jpg", ".pbm", ".pgm"),
    *(".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp"),
}
MAX_BYTES = 50_000_000  # of a picture's file; two threads hold a picture's and a mask's each
DECODERS = 2  # threads that decode pairs: one of MAX_PIXELS takes each of them 430 MB
MAX_SCANS = 50  # of a progressive JPEG, which usually has 10; each takes as long as a whole picture
DARK = 16  # all that 12 bits leave in 8 if they are stored as 16
HALF = 128  # a pixel of a mask of 0 and 255 is polyp from this value on
GREY = cv2.IMREAD_GRAYSCALE | cv2.IMREAD_ANYDEPTH
JPEG, PNG = b"\xff\xd8", b"\x89PNG\r\n\x1a\n"
JPEG_2000 = (b"\0\0\0\x0cjP  ", b"\xff\x4f\xff\x51")
LOSSY_BEGINNINGS = (JPEG, b"RIFF", *JPEG_2000)  # RIFF: WebP
MASK_NOISE = 48  # how far a mask's 0 and 255 may stray: JPEG does 37 at quality 75, HyperKvasir 8
SPECKS = 1 / 2000  # of a mask's pixels: so few are no class

ONE_AT_A_TIME = threading.Lock()  # JPEG 2000 takes three times the memory of others

# libjpeg's words on stderr for what it goes on decoding after, in grey; others are of no harm
JPEG_DAMAGE = (b"Corrupt JPEG data", b"Premature end of JPEG", b"Inconsistent progression")


class MaskConvention(NamedTuple):
    """How masks say what is polyp, and which picture they belong to.

    names: how the names of a picture and of its mask are made of what both have in common, without
    extensions. values: those of the pixels that are polyp, each a grey value or three, of red,
    green and blue, or a number of the palette; none: 255, or 1 in masks of 0 and 1. threshold: the
    grey value from which on a pixel is polyp. inverted: those pixels are what is no polyp. resize:
    a mask may have another size of the picture's aspect ratio, or "stretch", any other. unite: a
    picture may have several masks, of a polyp each.
    """

    names: str = "NAME=NAME"
    values: tuple = ()
    threshold: int | None = None
    inverted: bool = False
    resize: bool | str = False
    unite: bool = False


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
            if image is not None and image.dtype == np.uint8 and image.max() <= DARK:
                check_depth(data, file)
    except cv2.error as error:
        if "MAX_IMAGE_PIXELS" in str(error):
            raise InputError(
                f"{file}: has too many pixels; the limit is {MAX_PIXELS:,}: reduce it"
            ) from error
        image = None
    if image is None:
        raise InputError(f"{file}: not a picture that OpenCV can decode; replace or remove it")
    return image


def check_depth(data, file):
    """Raise InputError for a picture of 16 bits that uses 12 at most, and with 8 would be black."""
    stored = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    most = int(stored.max()) if stored.dtype == np.uint16 else 0
    if 255 < most < 4096:
        raise InputError(
            f"{file}: its values end at {most:,} of 65,535, so it would be all but black; store it"
            " with 8 bits, or with values up to 65,535"
        )


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


def decode_pair(
    picture_data, mask_data, picture_file, mask_file, convention=PLAIN, tell=lambda *_: None
):
    """Decode the bytes of a picture and of its mask, which is in a MaskConvention.

    Returns (height, width, 3) uint8 RGB, and (height, width) uint8 of 0 and 255.
    Both are taken as they are stored, without their EXIF orientation. Where only one of them has
    such an orientation, a mask may have been drawn on the picture as stored or as shown: the way
    in which the sizes agree is taken, and both ways agreeing is refused, unless the mask is of one
    value, and so fits either way.
    tell: is called with what was done for the user, and how much: "grey" and "classes", with the
    share of the mask's pixels on edges, or of values that nobody named, 0 to 1; "dim", with how
    much darker than white its one bright value is, 0 to 1; "stretched", with what the aspect ratio
    was changed by, 0.25 for a quarter.
    Raises InputError for that, for different sizes, and for what cannot be decoded; and for a mask
    that is transparent in places or does not keep to the convention.
    """
    lossy = mask_data.startswith(LOSSY_BEGINNINGS)
    convention = convention._replace(values=look_up(convention.values, mask_data))
    colours = any(isinstance(value, tuple) for value in convention.values)
    # The mask first: no picture is held meanwhile
    if not mask_data.startswith(JPEG) or convention.threshold is not None:
        check_channels(mask_data, mask_file, colours, lossy)
    flags = cv2.IMREAD_COLOR_RGB if colours else GREY
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
        wanted = "of one aspect ratio, to less than a pixel" if convention.resize else "the same"
        way_out = "--mask-resize" if fits(picture, mask, True) else "--mask-resize stretch"
        raise InputError(
            f"{picture_file}: is {sizes[0]}, its mask {mask_file} {sizes[1]}; they must be"
            f" {wanted}, or add {way_out}"
        )
    try:
        mask = binary_mask(mask, mask_file, lossy, convention, tell)
    except InputError:
        check_channels(mask_data, mask_file, colours, lossy)  # in colour, there is more to say
        raise
    if convention.inverted:
        mask = 255 - mask
    if not fits(picture, mask, True):
        (height, width), (mask_height, mask_width) = picture.shape[:2], mask.shape
        stretch = width * mask_height / (height * mask_width)
        if tell:
            tell("stretched", max(stretch, 1 / stretch) - 1)
    if mask.shape != picture.shape[:2]:
        mask = cv2.resize(mask, picture.shape[1::-1], interpolation=cv2.INTER_NEAREST_EXACT)
    return picture, mask


def fits(picture, mask, resize):
    """Tell whether a mask has its picture's size; `resize`: or one that is resized to it.

    picture, mask: arrays whose shapes begin with height and width. resize: as a MaskConvention has
    it; the aspect ratio is the same if a side would be off by less than a pixel.
    """
    (height, width), (mask_height, mask_width) = picture.shape[:2], mask.shape[:2]
    if not resize:
        return (height, width) == (mask_height, mask_width)
    return resize == "stretch" or (
        abs(width * mask_height - height * mask_width) < max(height, width)
    )


def decode_both_ways(data, file, flags):
    """Return an image as it is stored, and as its EXIF orientation shows it: None if it has none.

    Raises InputError as `decode_image` does.
    """
    stored = decode_image(data, file, flags | cv2.IMREAD_IGNORE_ORIENTATION)
    if not any(word in data for word in (b"Exif", b"EXIF", b"eXIf")):
        return stored, None
    shown = decode_image(data, file, flags)
    return stored, None if np.array_equal(stored, shown) else shown


def check_channels(data, file, colours, lossy):
    """Raise InputError for a mask of which grey levels would not tell what it shows.

    That is one that is transparent in places, and a coloured one, unless the polyp's `colours` are
    known. The noise of a `lossy` format is no colour, nor is it where a mask was saved anew without
    loss: it has many colours then, all of them nearly grey, and white.
    """
    mask = decode_image(data, file, cv2.IMREAD_UNCHANGED)
    channels = 1 if mask.ndim == 2 else mask.shape[2]
    # OpenCV leaves out the grey value that a PNG of one channel calls transparent
    clear_grey = channels == 1 and data.startswith(PNG) and b"tRNS" in data[: data.find(b"IDAT")]
    if clear_grey or (channels in (2, 4) and np.ptp(mask[..., -1])):
        raise InputError(
            f"{file}: mask is transparent in places; store it without an alpha channel, 0 and 255"
        )
    if channels > 2 and not colours:
        rgb = mask[..., 2::-1]
        spread = np.ptp(rgb, axis=2)
        some = rgb[spread > 0][:: max(1, rgb.size // 100_000)]
        saved_anew = len(np.unique(some, axis=0)) > 16 and rgb.max() >= 255 - MASK_NOISE
        noisy = lossy or saved_anew
        if (spread > (MASK_NOISE if noisy else 0)).mean() > (SPECKS if noisy else 0):
            held = list_values(rgb, lossy, read_palette(data))
            number = ", or its number in the palette" if read_palette(data) else ""
            raise InputError(
                f"{file}: mask is in colour, it has {held}; name what is"
                f" polyp: --mask-value R,G,B{number}"
            )


def read_palette(data):
    """Return the colours of a PNG's palette, a list of tuples of three; none if all are grey."""
    place = data[: data.find(b"IDAT")].find(b"PLTE") if data.startswith(PNG) else -1
    if place < 0:
        return []
    count = int.from_bytes(data[place - 4 : place], "big") // 3
    colours = [tuple(data[place + 4 + 3 * i :][:3]) for i in range(count)]
    return colours if any(len(set(colour)) > 1 for colour in colours) else []


def look_up(values, data):
    """Return the values of a MaskConvention, with colours for numbers of a mask's own palette."""
    palette = read_palette(data) if values else []
    return tuple(palette[v] if v in range(len(palette)) else v for v in values)


def list_values(mask, lossy, palette=()):
    """Return what stands in a mask, the commonest first, with its share, as a text.

    mask: (height, width), or (height, width, 3) RGB; lossy: then values count with a commoner one
    that noise may have made them of. palette: a list of colours, whose numbers are named.
    """
    values = mask.reshape(mask.shape[0] * mask.shape[1], -1).astype(np.int64)
    packed = values @ (
        1 << 16 * np.arange(values.shape[1])[::-1]
    )  # unique numbers are found faster
    _, rows, counts = np.unique(packed, return_index=True, return_counts=True)
    noise, shares = MASK_NOISE // 2 * (257 if mask.max() > 255 else 1), {}
    noise *= lossy and len(counts) > 16  # so few are no noise
    for row in np.argsort(-counts, kind="stable"):
        value = values[rows[row]]
        alike = (v for v in shares if np.abs(value - v).max() <= noise)
        value = next(alike, tuple(value.tolist())) if noise else tuple(value.tolist())
        shares[value] = shares.get(value, 0) + counts[row] / len(values)
    numbers = {}
    for number, colour in enumerate(palette):  # which black fills up, in some files
        numbers.setdefault(colour, f"number {number}, ")
    texts = [
        f"{','.join(map(str, value))} ({numbers.get(value, '')}{100 * share:.3g}%)"
        for value, share in sorted(shares.items(), key=lambda item: -item[1])[:6]
    ]
    return ", ".join(texts) + (f" and {len(shares) - 6:,} more" if len(shares) > 6 else "")


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


def binary_mask(mask, file, lossy, convention=PLAIN, tell=None):
    """Return a stored mask as (height, width) uint8: 255 for what its MaskConvention calls polyp.

    mask: (height, width), or if a value is a colour (height, width, 3), RGB; uint8, or uint16,
    whose white is 65535 if it has more than 255. lossy: whether its format adds noise.
    A pixel that is neither black, white nor a value that is named counts as the nearest of these,
    if it is noise or lies on an edge, which `tell` is told of, see `decode_pair`. If it belongs to
    another class, it is no polyp where values are named, and else refused: InputError says what
    the mask has. A mask of black and one value near white is taken, and `tell` is told of that.
    """
    if mask.dtype not in (np.uint8, np.uint16):
        raise InputError(f"{file}: mask of type {mask.dtype}; store it with 8 bits, 0 and 255")
    if convention.threshold is not None:
        return 255 * (mask >= convention.threshold).astype(np.uint8)
    if not convention.values and mask.max() <= 1:
        return mask.astype(np.uint8) * np.uint8(255)
    brightest = int(mask.max())
    unit = 257 if brightest > 255 else 1
    if not (convention.values or lossy) and brightest >= (255 - MASK_NOISE) * unit:
        polyp = mask == brightest
        if (polyp | (mask == 0)).all():
            if tell and brightest < 255 * unit:
                tell("dim", 1 - brightest / (255 * unit))
            return 255 * polyp.astype(np.uint8)
    ends = [(0,) * 3, (255 * unit,) * 3]
    named = [v if isinstance(v, tuple) else (v,) * 3 for v in convention.values] or ends[1:]
    near = distance_to(named, mask)
    away = distance_to([end for end in ends if end not in named], mask)
    nearest, polyp = np.minimum(near, away), near < away
    odd, far = nearest > (MASK_NOISE * unit if lossy else 0), nearest > MASK_NOISE * unit
    classes = odd.any() and not are_edges(mask, odd, far, unit)
    if not convention.values:
        noise = MASK_NOISE * unit
        ends_missing = near.min() > noise or (odd.any() and away.min() > noise)
        if classes or ends_missing:
            raise InputError(
                f"{file}: mask is not two-valued, it has {list_values(mask, lossy)}; store 0 and"
                " 255, or name what is polyp: --mask-value V, or from V on, --mask-threshold V"
            )
    elif classes and not lossy:
        polyp = near == 0
    elif classes and (polyp & far).any() and not are_edges(mask, *[polyp & far] * 2, unit):
        raise InputError(
            f"{file}: mask has {list_values(mask, lossy)}, and its format may change values: which"
            " are those of --mask-value cannot be told; name others too, or store PNG"
        )
    if tell and odd.any():
        tell("classes" if classes else "grey", float(odd.mean()))
    return 255 * polyp.astype(np.uint8)


def distance_to(values, mask):
    """Return how far each pixel of a mask is from the nearest value, (height, width) like the mask.

    values: tuples of three, all alike for a grey mask. The distance of colours is the largest of
    their channels'. Without values, all is as far as can be.
    """
    nearest = np.full(mask.shape[:2], np.iinfo(mask.dtype).max, mask.dtype)
    for value in values:
        distance = cv2.absdiff(mask, (*map(float, value), 0.0))
        nearest = np.minimum(nearest, distance if mask.ndim == 2 else distance.max(axis=2))
    return nearest


def are_edges(mask, odd, far, unit):
    """Tell whether the odd pixels of a mask are grey edges and noise, and no class of their own.

    odd, far: (height, width) bool: the pixels that are not, or not nearly, of an expected value;
    unit: 257 for a mask whose white is 65535, or 1. A class is flat: it holds areas of one value,
    or of nearly one after JPEG; or it is thin, and then of few values. Edges are neither. Masks of
    polyps that were blurred by 3 to 31 pixels, resized or stored as JPEG of quality 50 are flat in
    at most 8 % of the odd, and nearly flat in 12 % of the far pixels; classes are mostly flat.
    """
    values = mask[odd]
    values = np.unique(values[:: max(1, len(values) // 10_000)], axis=0)
    spread = cv2.dilate(mask, np.ones((3, 3))) - cv2.erode(mask, np.ones((3, 3)))
    spread = spread if mask.ndim == 2 else spread.max(axis=2)
    flat, nearly_flat = (spread == 0) & odd, (spread <= 8 * unit) & far
    return not (
        (len(values) <= 4 and odd.mean() > SPECKS)
        or far.mean() > 1 / 2
        or flat.sum() > odd.sum() / 2
        or nearly_flat.sum() > max(9, far.sum() / 8)
    )


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
