"""Frames of the same scene, and splits that part none."""

import cv2
import numpy as np
import pytest

from utils import scenes
from utils.dataset import SPLITS
from utils.demo import draw_demo_pair
from utils.files import InputError

PARTS = (5, 10, 42)  # folds, validation parts, seed


def test_the_split_parts_no_group_and_keeps_its_proportions():
    random = np.random.default_rng(0)
    groups = random.integers(0, 700, 1000)
    fractions = random.random(1000)
    split, folds = scenes.split_scenes(groups, fractions, *PARTS)
    for group in np.unique(groups):
        assert len(set(split[groups == group])) == 1
        assert len(set(folds[groups == group])) == 1
    np.testing.assert_array_equal(split == "test", folds == 0)
    assert np.bincount(folds) == pytest.approx(np.full(5, 200), abs=3)
    counts = [(split == name).sum() for name in SPLITS]
    assert counts == pytest.approx([720, 80, 200], abs=4)
    for name in SPLITS:
        assert fractions[split == name].mean() == pytest.approx(fractions.mean(), abs=0.03)


def test_the_split_depends_on_the_seed_alone():
    groups, fractions = np.arange(200), np.linspace(0, 0.5, 200)
    first, again = (scenes.split_scenes(groups, fractions, 5, 10, seed=1)[0] for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert (first != scenes.split_scenes(groups, fractions, 5, 10, seed=2)[0]).any()


def test_five_scenes_can_be_split_and_four_cannot():
    split, _ = scenes.split_scenes(np.arange(5), np.full(5, 0.1), *PARTS)
    assert set(split) == set(SPLITS)
    with pytest.raises(InputError, match="8 pairs of 4 scenes are too few"):
        scenes.split_scenes(np.arange(8) // 2, np.full(8, 0.1), *PARTS)


def drawn_pictures(count):
    return [draw_demo_pair(f"demo_{number}")[0] for number in range(count)]


def bordered(picture):
    return cv2.copyMakeBorder(picture, 40, 40, 90, 30, cv2.BORDER_CONSTANT)


def with_inset(picture):
    picture = picture[20:-10, 30:-40].copy()
    picture[-110:, :150] = (10, 60, 20)
    return picture


def jpeg_and_brighter(picture):
    bright = cv2.convertScaleAbs(picture, alpha=1.15, beta=5)
    return cv2.imdecode(cv2.imencode(".jpg", bright, [cv2.IMWRITE_JPEG_QUALITY, 80])[1], 1)


COPIES = {
    "cropped": lambda picture: picture[30:-50, 60:-20],
    "another border": bordered,
    "inset": with_inset,
    "another size": lambda picture: cv2.resize(picture, None, fx=0.6, fy=0.6, interpolation=3),
    "turned": lambda picture: np.rot90(picture).copy(),
    "brighter JPEG": jpeg_and_brighter,
}


@pytest.fixture(scope="module")
def originals():
    return [scenes.sift_features(picture) for picture in drawn_pictures(8)]


@pytest.mark.parametrize("copy", COPIES.values(), ids=COPIES)
def test_copies_join_their_originals(copy, originals):
    copies = [scenes.sift_features(copy(picture)) for picture in drawn_pictures(8)]
    for row, original in enumerate(originals):
        agreeing = [scenes.count_inliers(original, other) for other in copies]
        assert agreeing.pop(row) >= 30
        assert max(agreeing) <= 5  # by chance
    groups = scenes.group_scenes(originals + copies, 4)
    np.testing.assert_array_equal(groups[:8], groups[8:])
    assert len(np.unique(groups)) >= 7


@pytest.mark.parametrize("size", [(1, 1, 3), (3, 500, 3), (300, 400, 3)])
@pytest.mark.parametrize("value", [0, 120, 255])
def test_pictures_without_features_stand_alone(size, value):
    features = [scenes.sift_features(np.full(size, value, np.uint8)) for _ in range(3)]
    assert [len(item.keypoints) for item in features] == [0, 0, 0]
    np.testing.assert_array_equal(scenes.group_scenes(features, 4), [0, 1, 2])


def made_up_features(keypoints, seed=0):
    descriptors = np.random.default_rng(seed).integers(0, 256, (len(keypoints), 128), np.uint8)
    return scenes.Features(np.float32(keypoints), descriptors)


def test_features_that_move_together_agree():
    random = np.random.default_rng(0)
    x, y = random.uniform(20, 300, (2, 30))
    here = np.column_stack([x, y, random.uniform(3, 9, 30), random.uniform(0, 360, 30)])
    there = np.column_stack([40 - 1.5 * y, 10 + 1.5 * x, 1.5 * here[:, 2], here[:, 3] + 90])
    first, second = made_up_features(here), made_up_features(there)
    assert scenes.count_inliers(first, second) == 30
    scattered = made_up_features(np.column_stack([*random.uniform(20, 300, (2, 30)), here[:, 2:]]))
    assert scenes.count_inliers(first, scattered) < 6
    assert scenes.count_inliers(first, made_up_features(here, seed=1)) == 0


def test_what_hangs_together_by_pairs_is_one_group(monkeypatch):
    joined = {(1, 4), (2, 4), (3, 5)}
    monkeypatch.setattr(scenes, "candidate_pairs", lambda features: sorted(joined | {(0, 1)}))
    monkeypatch.setattr(scenes, "count_inliers", lambda *pair: 4 * (pair in joined))
    np.testing.assert_array_equal(scenes.group_scenes(range(6), 4), [0, 1, 1, 2, 1, 2])
