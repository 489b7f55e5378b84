"""Frames of the same scene, and splits that part none."""

import time

import cv2
import numpy as np
import pytest

from utils.command import InputError
from utils.data import scenes
from utils.data.dataset import SPLITS
from utils.data.demo import draw_demo_pair
from utils.data.folds import deal_normals, fold_scenes, split_by_fold


def split_scenes(groups, fractions, fold_count=5, parts=10, seed=42, test_fold=0):
    folds = fold_scenes(groups, fractions, fold_count, seed)
    return split_by_fold(groups, fractions, folds, test_fold, parts, seed), folds


def assert_whole(groups, *labels):
    for group in np.unique(groups):
        assert all(len(set(label[groups == group])) == 1 for label in labels)


def test_the_split_parts_no_group_and_keeps_its_proportions():
    random = np.random.default_rng(0)
    groups = random.integers(0, 700, 1000)
    fractions = random.random(1000)
    split, folds = split_scenes(groups, fractions)
    assert_whole(groups, split, folds)
    np.testing.assert_array_equal(split == "test", folds == 0)
    assert np.bincount(folds) == pytest.approx(np.full(5, 200), abs=3)
    counts = [(split == name).sum() for name in SPLITS]
    assert counts == pytest.approx([720, 80, 200], abs=4)
    for name in SPLITS:
        assert fractions[split == name].mean() == pytest.approx(fractions.mean(), abs=0.03)


def test_the_split_depends_on_the_seed_alone():
    groups, fractions = np.arange(200), np.linspace(0, 0.5, 200)
    first, again = (split_scenes(groups, fractions, seed=1)[0] for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert (first != split_scenes(groups, fractions, seed=2)[0]).any()


def test_as_many_scenes_as_folds_can_be_split_and_fewer_cannot():
    split, _ = split_scenes(np.arange(5), np.full(5, 0.1))
    assert set(split) == set(SPLITS)
    with pytest.raises(InputError, match="8 pairs of 4 scenes are too few"):
        split_scenes(np.arange(8) // 2, np.full(8, 0.1))
    assert set(split_scenes(np.arange(4), np.full(4, 0.1), fold_count=2)[0]) == set(SPLITS)
    with pytest.raises(InputError, match="2 scenes are too few to split; at least 3"):
        split_scenes(np.arange(2), np.full(2, 0.1), fold_count=2)


@pytest.mark.parametrize(("fold_count", "parts"), [(2, 10), (2, 2), (80, 10), (5, 90)])
@pytest.mark.filterwarnings("error")
def test_any_number_of_folds_and_parts_gives_three_splits(fold_count, parts):
    groups, fractions = np.arange(120), np.linspace(0, 0.5, 120)
    split, folds = split_scenes(groups, fractions, fold_count, parts)
    assert set(split) == set(SPLITS)
    assert np.array_equal(np.unique(folds), np.arange(fold_count))
    assert (split == "test").sum() == pytest.approx(120 / fold_count, abs=1)


LARGE_SCENES = {
    "one huge": [80, 18, 16, 14, 12, 10, 8],
    "two huge": [50, 50, 9, 8, 7],
    "as many large as folds": [34, 31, 28, 25, 22],
}


@pytest.mark.parametrize("large", LARGE_SCENES.values(), ids=LARGE_SCENES)
def test_large_scenes_do_not_make_up_what_is_tested_and_validated(large):
    sizes = large + [1] * (240 - sum(large))
    groups = np.repeat(np.arange(len(sizes)), sizes)
    fractions = np.random.default_rng(0).random(240)
    split, folds = split_scenes(groups, fractions)
    assert_whole(groups, split, folds)
    for name, share in (("test", 240 / 5), ("validation", 240 * 4 / 5 / 10)):
        counts = np.unique(groups[split == name], return_counts=True)[1]
        assert counts.sum() == pytest.approx(share, rel=0.4)
        assert counts.max() <= 0.55 * counts.sum()


def test_every_fold_can_be_the_test_split():
    random = np.random.default_rng(1)
    groups, fractions = random.integers(0, 70, 120), random.random(120)
    tested = np.zeros(120, int)
    for fold in range(5):
        split, folds = split_scenes(groups, fractions, test_fold=fold)
        assert_whole(groups, split, folds)
        assert set(split) == set(SPLITS)
        tested += split == "test"
    np.testing.assert_array_equal(tested, 1)


def test_a_fold_that_leaves_one_scene_is_refused():
    groups, folds = np.int64([0, 0, 1, 2]), np.int64([1, 1, 0, 0])
    with pytest.raises(
        InputError, match="fold 0 as the test split leaves too few scenes with a polyp, 1, to"
    ):
        split_by_fold(groups, np.full(4, 0.1), folds, 0, 10, 42)


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
    groups = scenes.group_scenes(originals + copies)
    np.testing.assert_array_equal(groups[:8], groups[8:])
    assert len(np.unique(groups)) >= 7


def test_doubles_of_hardly_any_texture_join_too():
    """Their features are too few for visual words."""
    blurred = [cv2.GaussianBlur(picture, (0, 0), 14) for picture in drawn_pictures(3)]
    features = [scenes.sift_features(picture) for picture in blurred * 2]
    assert 0 < sum(len(item.descriptors[::8]) for item in features) < 32
    groups = scenes.group_scenes(features)
    np.testing.assert_array_equal(groups[:3], groups[3:])
    plain = scenes.sift_features(np.zeros((30, 40, 3), np.uint8))
    assert scenes.candidate_pairs([plain] * 100 + features[:2]).tolist() == [[100, 101]]


def test_copies_join_their_originals_where_not_all_pairs_are_compared(originals, monkeypatch):
    """But those that look alike by their visual words."""
    monkeypatch.setattr(scenes, "NEIGHBOURS", 3)
    copies = [jpeg_and_brighter(picture) for picture in drawn_pictures(8)]
    features = originals + [scenes.sift_features(copy) for copy in copies]
    pairs = scenes.candidate_pairs(features)
    assert len(pairs) <= 16 * 3
    assert {(row, row + 8) for row in range(8)} <= set(map(tuple, pairs))
    groups = scenes.group_scenes(features)
    np.testing.assert_array_equal(groups[:8], groups[8:])
    assert len(np.unique(groups)) >= 7


def test_what_is_burnt_into_every_picture_joins_none():
    pictures = [cv2.resize(picture, (400, 300)) for picture in drawn_pictures(4)]
    for picture in pictures:
        inset = picture[190:290, 10:140]
        inset[:] = 0
        for line in range(5):
            cv2.putText(inset, f"case {line * 7919} x", (4, 16 + 19 * line), 0, 0.45, (255,) * 3)
    features = [scenes.sift_features(picture) for picture in pictures]
    for item in features:
        x, y = item.keypoints[:, :2].T
        assert not ((x > 12) & (x < 138) & (y > 192) & (y < 288)).any()
    np.testing.assert_array_equal(scenes.group_scenes(features), np.arange(4))


@pytest.mark.parametrize("size", [(1, 1, 3), (3, 500, 3), (300, 400, 3)])
@pytest.mark.parametrize("value", [0, 120, 255])
def test_pictures_without_features_stand_alone(size, value):
    features = [scenes.sift_features(np.full(size, value, np.uint8)) for _ in range(3)]
    assert [len(item.keypoints) for item in features] == [0, 0, 0]
    np.testing.assert_array_equal(scenes.group_scenes(features), [0, 1, 2])


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


def test_keypoints_of_one_spot_count_once():
    here = np.column_stack([np.linspace(20, 23, 9), np.full((9, 1), 41), np.full((9, 2), 5)])
    here = np.vstack([here, [80, 90, 5, 5], [150, 40, 5, 5]])
    features = made_up_features(here)
    assert scenes.count_inliers(features, features) == 3


def test_descriptors_match_where_each_is_the_others_nearest():
    one, other = np.eye(128, dtype=np.uint8)[:2] * 200
    near = one + np.uint8(3) * np.eye(128, dtype=np.uint8)[5]
    rows, columns = scenes.match_descriptors(np.stack([near, one]), np.stack([other, one]))
    np.testing.assert_array_equal((rows, columns), ([1], [1]))


def test_a_transform_lays_pixels_on_pixels_at_all_sizes():
    """Their centres: 0.5 behind where the pixel begins."""
    random = np.random.default_rng(0)
    features = made_up_features(
        np.column_stack([random.uniform(10, 290, (30, 2)), np.full((30, 2), 5)])
    )
    transform = scenes.fit_similarity(features, features, (300, 400), (1200, 1600))
    np.testing.assert_allclose(transform, [[1 / 4, 0, -3 / 8], [0, 1 / 4, -3 / 8]], atol=1e-3)


def test_what_hangs_together_by_pairs_is_one_group(monkeypatch):
    joined = {(1, 4), (2, 4), (3, 5)}
    pairs = np.array(sorted(joined | {(0, 1)}))
    monkeypatch.setattr(scenes, "candidate_pairs", lambda features: pairs)
    monkeypatch.setattr(scenes, "count_inliers", lambda *pair: 4 * (pair in joined))
    np.testing.assert_array_equal(scenes.group_scenes(range(6)), [0, 1, 1, 2, 1, 2])


def links_between(count, monkeypatch):
    """Let `group_scenes` find these links instead: {(first, second): keypoints that agree}."""

    def grouped(links):
        found = sorted((*pair, inliers) for pair, inliers in links.items())
        monkeypatch.setattr(scenes, "scene_pairs", lambda _: found)
        return scenes.group_scenes(range(count)).tolist()

    return grouped


def test_few_keypoints_join_groups_only_where_half_of_their_pairs_are_joined(monkeypatch):
    sure = {(0, 1): 8, (2, 3): 30}
    grouped = links_between(4, monkeypatch)
    assert grouped(sure | {(1, 2): 4}) == [0, 0, 1, 1]  # one of four pairs
    assert grouped(sure | {(1, 2): 4, (0, 2): 7}) == [0, 0, 0, 0]
    assert grouped(sure | {(1, 2): 8}) == [0, 0, 0, 0]
    assert grouped({(0, 1): 8, (1, 2): 4}) == [0, 0, 0, 1]  # one of two
    assert grouped({(0, 1): 4, (1, 2): 4, (2, 3): 4}) == [0, 0, 0, 1]  # one of three
    assert grouped({(0, 3): 5, (1, 2): 4}) == [0, 1, 1, 0]


def test_many_links_are_weighed_in_seconds(monkeypatch):
    """Frames of 10 films of 250: 57,000 pairs, of which a third are sure, and 800 by chance."""
    random, links = np.random.default_rng(0), {}
    for film in range(0, 2500, 250):
        for shift in range(1, 25):
            for row in range(film, film + 250 - shift):
                links[row, row + shift] = 9 if shift <= 8 else 4
    for low, high in np.sort(random.integers(0, 2500, (800, 2)), axis=1).tolist():
        links.setdefault((low, high), 4)
    links = {pair: inliers for pair, inliers in links.items() if pair[0] < pair[1]}
    start = time.process_time()
    groups = links_between(2500, monkeypatch)(links)
    assert time.process_time() - start < 10
    np.testing.assert_array_equal(groups, np.arange(2500) // 250)


def test_features_in_a_file_are_those_that_were_put_there(originals, tmp_path):
    originals = [*originals, scenes.sift_features(np.zeros((9, 9, 3), np.uint8))]
    with open(tmp_path / "features", "w+b") as file:
        stored = scenes.FeatureFile(file)
        for features in originals:
            stored.append(features)
        assert len(stored) == 9
        for row in (8, 3, 0):
            for array, expected in zip(stored[row], originals[row], strict=True):
                np.testing.assert_array_equal(array, expected)
                assert array.dtype == expected.dtype
        pairs = [scenes.candidate_pairs(features) for features in (stored, originals)]
        np.testing.assert_array_equal(*pairs)


def test_copies_are_found_among_more_pictures_than_a_sample(originals, monkeypatch):
    monkeypatch.setattr(scenes, "NEIGHBOURS", 6)
    monkeypatch.setattr(scenes, "SAMPLE", 8)
    copies = [scenes.sift_features(jpeg_and_brighter(picture)) for picture in drawn_pictures(8)]
    pairs = scenes.candidate_pairs(originals + copies)
    assert {(row, row + 8) for row in range(8)} <= set(map(tuple, pairs))
    assert len(pairs) <= 16 * 6


@pytest.mark.parametrize("seed", range(5))
def test_each_split_and_fold_has_its_share_of_pictures_without_a_polyp(seed):
    random = np.random.default_rng(seed)
    fractions = np.where(np.arange(100) % 10 == 0, random.random(100), 0)  # 90 masks are empty
    groups = np.arange(100) // 2  # a frame with a polyp, mostly, beside one without
    for test_fold in range(5):
        split, folds = split_scenes(groups, fractions, seed=seed, test_fold=test_fold)
        assert_whole(groups, split, folds)
        for name in SPLITS:
            assert (fractions[split == name] > 0).any()
            assert (fractions[split == name] == 0).any()
    assert [(fractions[folds == fold] > 0).sum() for fold in range(5)] == [2] * 5
    with pytest.raises(InputError, match=r"4 pairs with a polyp of 4 scenes are too few to split"):
        fold_scenes(groups, np.where(np.arange(100) < 60, 0, fractions), 5, seed)


def test_few_scenes_without_a_polyp_are_for_training():
    split, folds = deal_normals(np.repeat([7, 9, 4], 10), 5, 0, 10, 42)
    assert set(split) == {"train"}
    assert len(set(folds)) == 3
    assert 0 not in folds
    split, folds = deal_normals(np.repeat(np.arange(20), 10), 5, 3, 10, 42)
    np.testing.assert_array_equal(split == "test", folds == 3)
    assert [(split == name).sum() for name in SPLITS] == [140, 20, 40]
