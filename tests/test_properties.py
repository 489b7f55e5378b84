"""Properties of drawn pictures, and the parts that they make."""

import cv2
import numpy as np
import pytest

from shell import property_rows
from utils.scoring import properties


def noise(seed=0, size=64):
    """Return a picture of grey noise around 128, bright enough to be no border."""
    random = np.random.default_rng(seed)
    return np.repeat(random.integers(78, 179, (size, size, 1), np.uint8), 3, axis=2)


def mask_of(*boxes, size=64):
    mask = np.zeros((size, size), np.uint8)
    for top, bottom, left, right in boxes:
        mask[top:bottom, left:right] = 1
    return mask


def test_properties_of_polyps_by_hand():
    found = properties.picture_properties(noise(), mask_of((0, 4, 0, 4), (50, 64, 50, 64)))
    assert found["size"] == pytest.approx(100 * (16 + 196) / 64**2)
    assert found["polyps"] == 2
    assert found["edge"] == 1
    assert found["distance"] == pytest.approx((56.5 - 31.5) / 31.5)  # of the larger one
    middle = properties.picture_properties(noise(), mask_of((30, 34, 30, 34)))
    assert (middle["distance"], middle["edge"], middle["polyps"]) == (0, 0, 1)
    for box in ((0, 9, 9, 19), (9, 19, 0, 9), (55, 64, 9, 19), (9, 19, 55, 64)):
        assert properties.picture_properties(noise(), mask_of(box))["edge"] == 1


def test_a_picture_without_a_polyp_has_none_of_its_properties():
    found = properties.picture_properties(noise(), mask_of())
    assert found["polyps"] == 0
    assert [name for name, value in found.items() if np.isnan(value)] == [
        "size",
        "distance",
        "edge",
    ]
    assert found["brightness"] == pytest.approx(128, abs=3)


def test_blur_takes_sharpness_and_light_adds_brightness():
    mask, picture = mask_of(), noise()
    sharp = properties.picture_properties(picture, mask)
    blurred = properties.picture_properties(cv2.blur(picture, (5, 5)), mask)
    lit = properties.picture_properties(picture + np.uint8(50), mask)
    assert blurred["sharpness"] < 0.1 * sharp["sharpness"]
    assert lit["sharpness"] == pytest.approx(sharp["sharpness"])
    assert lit["brightness"] == pytest.approx(sharp["brightness"] + 50)


def test_the_black_border_changes_neither():
    picture, mask = np.full((64, 64, 3), 150, np.uint8), mask_of()
    picture[:, :20] = 0
    found = properties.picture_properties(picture, mask)
    assert (found["brightness"], found["sharpness"]) == (150, 0)
    black = properties.picture_properties(np.zeros((64, 64, 3), np.uint8), mask)
    assert (black["brightness"], black["sharpness"]) == (0, 0)


def test_parts_are_quarters_or_counts():
    sizes, numbers = np.arange(8.0), [0, 1, 1, 1, 2, 2, 3, 5]
    dice = np.array([0.0, 0.2, 0.4, 0.6, 0.8, 0.8, 1.0, 0.9])
    parts = properties.dice_by_property(
        property_rows(size=sizes, polyps=numbers), dice, np.arange(8)
    )
    assert [(part.low, part.high, part.count) for part in parts["size"]] == [
        (0, 1, 2),
        (2, 3, 2),
        (4, 5, 2),
        (6, 7, 2),
    ]
    assert [part.mean for part in parts["size"]] == pytest.approx([0.1, 0.5, 0.8, 0.95])
    assert [(part.low, part.high, part.count) for part in parts["polyps"]] == [
        (0, 1, 4),
        (2, 2, 2),
        (3, 5, 2),
    ]
    assert parts["size"][0].interval == (0.0, 0.2)
    assert [part.count for part in parts["brightness"]] == [8]  # equal values are not parted


def test_parts_leave_out_pictures_without_a_value():
    rows = property_rows(size=[np.nan, 3.0], edge=[np.nan, np.nan])
    parts = properties.dice_by_property(rows, np.array([0.2, 0.4]), np.arange(2))
    assert [(part.count, part.mean) for part in parts["size"]] == [(1, 0.4)]
    assert parts["edge"] == []
