"""One pair: what counts as a mask, and what is left of both at another size."""

import struct
import zlib

import cv2
import numpy as np
import pytest

from utils.files import InputError
from utils.pictures import binary_mask, border_fraction, decode_pair, reduce_pair


def test_reduction_by_hand():
    picture = np.zeros((4, 4, 3), np.uint8)
    picture[:2, :2, 0] = [[0, 100], [200, 100]]
    mask = np.zeros((4, 4), np.uint8)
    mask[:2, :2] = [[255, 255], [0, 0]]  # half of the area: polyp
    mask[2:, :2] = [[255, 0], [0, 0]]  # a quarter: not
    mask[2:, 2:] = 255
    small, small_mask = reduce_pair(picture, mask, size=2)
    np.testing.assert_array_equal(small[..., 0], [[100, 0], [0, 0]])
    np.testing.assert_array_equal(small_mask[..., 0], [[1, 0], [0, 1]])
    assert small.dtype == small_mask.dtype == np.uint8


def jpeg(mask, quality):
    encoded = cv2.imencode(".jpg", mask, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return cv2.imdecode(encoded, cv2.IMREAD_GRAYSCALE)


ROUND_MASK = cv2.circle(np.zeros((60, 60), np.uint8), (30, 30), 20, 255, -1)


GOOD_MASKS = {
    "0 and 255": ROUND_MASK,
    "JPEG of quality 75": jpeg(ROUND_MASK, 75),
    "JPEG of quality 95": jpeg(ROUND_MASK, 95),
    "0 and 1": ROUND_MASK // 255,
    "16 bits": ROUND_MASK.astype(np.uint16) * 257,
    "0 and 1 in 16 bits": ROUND_MASK.astype(np.uint16) // 255,
}


@pytest.mark.parametrize("mask", GOOD_MASKS.values(), ids=GOOD_MASKS)
def test_two_valued_masks_are_taken(mask):
    binary = binary_mask(mask, "name", lossy=True)
    assert set(np.unique(binary)) == {0, 255}
    assert (binary != ROUND_MASK).mean() <= 0.002


@pytest.mark.parametrize("value", [0, 255])
def test_masks_of_one_value_are_taken(value):
    mask = np.full((8, 8), value, np.uint8)
    np.testing.assert_array_equal(binary_mask(mask, "name", lossy=True), mask)


BAD_MASKS = {
    "three labels": (np.repeat(np.uint8([[0, 128, 255]]), 3, axis=0), "0, 128, 255"),
    "labels 0 and 38": (np.repeat(np.uint8([[0, 38]]), 3, axis=0), "0, 38"),
    "labels 0, 1, 2": (np.repeat(np.uint8([[0, 1, 2]]), 3, axis=0), "0, 1, 2"),
    "grey": (np.full((3, 3), 100, np.uint8), "100"),
    "a ramp": (np.arange(256, dtype=np.uint8).reshape(16, 16), "0, 1, 2, 3, ..., 253, 254, 255"),
    "0 and 256": (np.uint16([[0, 256]]), "0, 256"),
    "fractions": (np.eye(3, dtype=np.float32), "float32"),
}


@pytest.mark.parametrize(("mask", "words"), BAD_MASKS.values(), ids=BAD_MASKS)
def test_other_masks_are_refused_with_their_values(mask, words):
    with pytest.raises(InputError) as error:
        binary_mask(mask, "a.png", lossy=True)
    assert str(error.value).startswith("a.png: mask")
    assert words in str(error.value)


LOSSLESS_MASKS = {
    "0, 15, 255": (np.uint8([[0, 15, 255]]), "0, 15, 255"),
    "0 and 254": (np.uint8([[0, 254]]), "0, 254"),
    "1 and 255": (np.uint8([[1, 255]]), "1, 255"),
    "0, 300, 65535": (np.uint16([[0, 300, 65535]]), "0, 300, 65535"),
}


@pytest.mark.parametrize(("mask", "words"), LOSSLESS_MASKS.values(), ids=LOSSLESS_MASKS)
def test_without_loss_there_are_two_values(mask, words):
    with pytest.raises(InputError, match=rf"a\.png: mask is not two-valued, it has {words}; store"):
        binary_mask(mask, "a.png", lossy=False)


@pytest.mark.parametrize("mask", [m for n, m in GOOD_MASKS.items() if "JPEG" not in n])
def test_two_values_without_loss_are_taken(mask):
    np.testing.assert_array_equal(binary_mask(mask, "name", lossy=False), ROUND_MASK)


def encoded(image, suffix, orientation=None):
    """Return the bytes of a picture file; orientation: of its EXIF, 1 to 8, in a JPEG."""
    data = cv2.imencode(suffix, image)[1].tobytes()
    if orientation:
        tags = b"Exif\0\0II*\0" + struct.pack("<IHHHIII", 8, 1, 0x112, 3, 1, orientation, 0)
        data = data[:2] + b"\xff\xe1" + struct.pack(">H", len(tags) + 2) + tags + data[2:]
    return data


def shaded(height, width):
    """Return a picture that is bright at its left end, and a mask of that end."""
    picture = np.zeros((height, width, 3), np.uint8)
    mask = np.zeros((height, width), np.uint8)
    picture[:, : width // 4] = mask[:, : width // 4] = 255
    return picture, mask


def assert_together(picture, mask):
    """The mask is where the picture is bright."""
    assert picture.shape[:2] == mask.shape
    assert ((picture[..., 0] > 127) == (mask > 0)).mean() > 0.98


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".webp", ".jp2", ".jpg", ".pgm"])
@pytest.mark.parametrize("factor", [1, 255])
def test_masks_of_all_formats_are_taken(suffix, factor):
    if factor == 1 and suffix in (".jpg", ".webp"):
        pytest.skip("0 and 1 do not survive in it")
    picture, mask = shaded(64, 96)
    data = encoded(picture, ".png"), encoded(mask // 255 * np.uint8(factor), suffix)
    assert_together(*decode_pair(*data, "a.png", f"b{suffix}"))


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_an_orientation_that_both_have_is_ignored_in_both(orientation):
    picture, mask = shaded(64, 96)
    files = encoded(picture, ".jpg", orientation), encoded(mask, ".jpg", orientation)
    decoded = decode_pair(*files, "a.jpg", "b.jpg")
    assert decoded[0].shape == (64, 96, 3)
    assert_together(*decoded)


@pytest.mark.parametrize("turned", [False, True], ids=["as stored", "as shown"])
def test_a_mask_is_taken_in_the_orientation_in_which_it_fits(turned):
    picture, mask = shaded(64, 96)
    mask = cv2.rotate(mask, cv2.ROTATE_90_CLOCKWISE) if turned else mask
    files = encoded(picture, ".jpg", 6), encoded(mask, ".png")
    assert_together(*decode_pair(*files, "a.jpg", "b.png"))


@pytest.mark.parametrize(("orientation", "width"), [(3, 96), (6, 64)], ids=["over head", "square"])
def test_a_mask_that_fits_in_both_orientations_is_refused(orientation, width):
    picture, mask = shaded(64, width)
    files = encoded(picture, ".jpg", orientation), encoded(mask, ".png")
    with pytest.raises(InputError, match=r"a\.jpg: either it or its mask b\.png .*EXIF.*unturned"):
        decode_pair(*files, "a.jpg", "b.png")


def test_other_sizes_are_refused_by_both_files():
    files = encoded(shaded(64, 96)[0], ".png"), encoded(shaded(96, 64)[1], ".png")
    with pytest.raises(InputError, match=r"a\.png: is 96 x 64, its mask b\.png 64 x 96; they must"):
        decode_pair(*files, "a.png", "b.png")


def grey_with_alpha(grey, alpha):
    """Return a PNG of grey and alpha, which OpenCV reads and does not write."""
    height, width = grey.shape
    lines = np.zeros((height, 1 + 2 * width), np.uint8)
    lines[:, 1::2], lines[:, 2::2] = grey, alpha
    header = struct.pack(">IIBBBBB", width, height, 8, 4, 0, 0, 0)
    chunks = (b"IHDR", header), (b"IDAT", zlib.compress(lines.tobytes())), (b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in chunks
    )


def test_a_mask_in_the_alpha_channel_is_refused():
    picture, mask = shaded(64, 96)
    black, opaque = np.zeros_like(mask), np.full_like(mask, 255)
    picture = encoded(picture, ".png")
    for suffix in (".png", ".webp", ".tif"):
        data = encoded(np.dstack([black] * 3 + [mask]), suffix)
        with pytest.raises(InputError, match=r"b: mask is transparent in places; .*without an alp"):
            decode_pair(picture, data, "a", "b")
        data = encoded(np.dstack([mask] * 3 + [opaque]), suffix)
        assert_together(*decode_pair(picture, data, "a", "b"))
    with pytest.raises(InputError, match="b: mask is transparent"):
        decode_pair(picture, grey_with_alpha(black, mask), "a", "b")
    assert_together(*decode_pair(picture, grey_with_alpha(mask, opaque), "a", "b"))


def test_noise_is_forgiven_by_what_the_file_is_and_not_by_its_name():
    picture, mask = shaded(64, 96)
    mask[:8] = 15
    picture = encoded(picture, ".png")
    assert set(np.unique(decode_pair(picture, encoded(mask, ".jpg"), "a", "b.png")[1])) == {0, 255}
    with pytest.raises(InputError, match=r"b\.jpg: mask is not two-valued, it has 0, 15, 255; st"):
        decode_pair(picture, encoded(mask, ".png"), "a", "b.jpg")


def test_the_border_is_the_outermost_pixels_once():
    mask = np.zeros((4, 4, 1), np.uint8)
    mask[1:3, 1:3] = 1
    assert border_fraction(mask) == 0
    mask[:, 0] = 1
    assert border_fraction(mask) == 4 / 12
