"""One pair: what counts as a mask, and what is left of both at another size."""

import cv2
import numpy as np
import pytest

from utils.files import InputError
from utils.pictures import binary_mask, reduce_pair


def test_reduction_by_hand():
    picture = np.zeros((4, 4, 3), np.uint8)
    picture[:2, :2, 0] = [[0, 100], [200, 100]]
    mask = np.zeros((4, 4), np.uint8)
    mask[:2, :2] = [[255, 255], [0, 0]]  # half of the area: polyp
    mask[2:, :2] = [[255, 0], [0, 0]]  # a quarter: not
    mask[2:, 2:] = 255
    small, small_mask = reduce_pair(picture, mask, "name", size=2)
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
    binary = binary_mask(mask, "name")
    assert set(np.unique(binary)) == {0, 255}
    assert (binary != ROUND_MASK).mean() <= 0.002


@pytest.mark.parametrize("value", [0, 255])
def test_masks_of_one_value_are_taken(value):
    mask = np.full((8, 8), value, np.uint8)
    np.testing.assert_array_equal(binary_mask(mask, "name"), mask)


BAD_MASKS = {
    "three labels": (np.repeat(np.uint8([[0, 128, 255]]), 3, axis=0), "0, 128, 255"),
    "labels 0 and 38": (np.repeat(np.uint8([[0, 38]]), 3, axis=0), "0, 38"),
    "labels 0, 1, 2": (np.repeat(np.uint8([[0, 1, 2]]), 3, axis=0), "0, 1, 2"),
    "grey": (np.full((3, 3), 100, np.uint8), "100"),
    "a ramp": (np.arange(256, dtype=np.uint8).reshape(16, 16), "0, 1, 2, 3, ..., 253, 254, 255"),
    "fractions": (np.eye(3, dtype=np.float32), "float32"),
}


@pytest.mark.parametrize(("mask", "words"), BAD_MASKS.values(), ids=BAD_MASKS)
def test_other_masks_are_refused_with_their_values(mask, words):
    with pytest.raises(InputError) as error:
        binary_mask(mask, "a.png")
    assert str(error.value).startswith("a.png: mask")
    assert words in str(error.value)
