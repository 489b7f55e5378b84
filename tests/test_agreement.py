"""Frames shown twice: found, laid on each other, and their two annotations compared."""

import sys

import cv2
import numpy as np
import pytest

import data_preprocessing as data
from shell import assert_mistake, run_script
from test_data_preprocessing import REAL_ARCHIVE, needs_real_data
from utils.data import scenes
from utils.data.demo import draw_demo_pair
from utils.data.sources import archive_source
from utils.scoring import agreement
from utils.scoring.pixels import image_scores

SCALE, TURN, SHIFT = 0.8, np.deg2rad(4), (25.5, 31.25)
COPY_SIZE = (480, 440)  # width and height
TO_COPY = np.array(
    [
        [SCALE * np.cos(TURN), -SCALE * np.sin(TURN), SHIFT[0]],
        [SCALE * np.sin(TURN), SCALE * np.cos(TURN), SHIFT[1]],
    ]
)


def copied(image):
    """Return an image reduced, turned and shifted, on black; the widest are cut at the right."""
    return cv2.warpAffine(image, TO_COPY, COPY_SIZE)


def copied_mask(mask, right):
    """Return the copy of a mask that is moved by `right` pixels before, 0 and 255."""
    return 255 * (copied(np.roll(mask, right, axis=1)) >= 128).astype(np.uint8)


@pytest.fixture(scope="module")
def drawn():
    return {name: draw_demo_pair(name) for name in ("demo_0", "demo_1", "demo_2", "demo_3")}


def dice(frame):
    return image_scores([frame.counts])["dice"][0]


def found(pairs):
    return agreement.doubled_frames(list(pairs), pairs.__getitem__)


def test_the_transform_is_found_to_within_a_pixel(drawn):
    for picture, _ in drawn.values():
        copy = copied(picture)
        features = [scenes.sift_features(image) for image in (picture, copy)]
        transform = scenes.fit_similarity(*features, picture.shape, copy.shape)
        corners = np.float64([[0, 0, 1], [500, 0, 1], [0, 350, 1], [500, 350, 1]])
        there = corners @ TO_COPY.T
        back = np.column_stack([there, np.ones(4)]) @ transform.T
        np.testing.assert_allclose(back, corners[:, :2], atol=1)


def test_pictures_without_common_keypoints_have_no_transform(drawn):
    empty = scenes.sift_features(np.zeros((300, 400, 3), np.uint8))
    assert scenes.fit_similarity(empty, empty, (300, 400), (300, 400)) is None
    features = scenes.sift_features(drawn["demo_0"][0])
    assert scenes.fit_similarity(features, empty, (300, 400), (300, 400)) is None


@pytest.mark.parametrize("right", [0, 6, 20])
def test_the_dice_is_that_of_the_masks_moved_apart(right, drawn):
    for name, (picture, mask) in drawn.items():
        other = np.roll(mask, right, axis=1)
        pairs = drawn | {"twice": (copied(picture), copied_mask(mask, right))}
        (frame,) = found(pairs)
        assert (frame.first, frame.second) == (name, "twice")
        assert frame.inliers >= 30
        assert frame.correlation > 0.9
        inside = np.full(COPY_SIZE[::-1], 255, np.uint8)
        shown = cv2.warpAffine(inside, TO_COPY, mask.shape[::-1], flags=cv2.WARP_INVERSE_MAP) > 0
        shown &= agreement.picture_area(picture) == 255
        first, second = mask[shown] > 0, other[shown] > 0
        by_hand = 2 * (first & second).sum() / (first.sum() + second.sum())
        assert dice(frame) == pytest.approx(by_hand, abs=0.01)


def square(left, right):
    mask = np.zeros((400, 600), np.uint8)
    mask[150:250, left:right] = 255
    return mask


def textured(seed=0):
    """Return a picture, (400, 600, 3) uint8, of detail everywhere, too faint for glare."""
    noise = np.random.default_rng(seed).integers(100, 150, (50, 75, 3), np.uint8)
    return cv2.resize(noise, (600, 400), interpolation=cv2.INTER_CUBIC)


def with_border(image):
    return cv2.copyMakeBorder(image[:, 300:], 20, 20, 70, 10, cv2.BORDER_CONSTANT)


def with_inset(picture):
    picture = picture.copy()
    picture[260:, :200] = (20, 160, 130)
    return picture


def test_what_the_second_frame_does_not_show_is_not_counted():
    """The first mask has 200 columns, the second 150; of them 100 and 100 are shown, 50 in both."""
    picture = textured()
    first, second = square(200, 400), square(350, 450)
    pairs = {"a": (picture, first), "b": (with_border(picture), with_border(second))}
    (frame,) = found(pairs)
    assert frame.counts[:3] == pytest.approx([5000, 5000, 5000], abs=200)
    assert frame.counts.sum() == pytest.approx(300 * 400, rel=0.03)
    assert dice(frame) == pytest.approx(0.5, abs=0.02)


def test_a_mask_drawn_over_the_border_is_not_counted():
    pairs = {"a": (with_border(textured()), with_border(square(300, 400)))}
    other = with_border(square(300, 400))
    other[170:270, :70] = 255
    pairs["b"] = (pairs["a"][0], other)
    (frame,) = found(pairs)
    assert frame.counts[1:3].sum() <= 200
    assert frame.counts[0] == pytest.approx(10_000, abs=200)


@pytest.mark.parametrize("insets", [(False, True), (True, False)])
def test_an_inset_of_one_of_both_is_not_counted(insets):
    mask = np.zeros((400, 600), np.uint8)
    mask[100:360, 20:180] = 255
    seen = mask.copy()
    seen[260:, :200] = 0
    pairs = {
        name: (with_inset(textured()), seen) if inset else (textured(), mask)
        for name, inset in zip("ab", insets, strict=True)
    }
    (frame,) = found(pairs)
    assert dice(frame) > 0.97
    assert frame.counts[0] == pytest.approx(160 * 160, rel=0.06)


def test_a_brighter_copy_is_compared_as_a_whole(drawn):
    for name, (picture, mask) in drawn.items():
        bright = cv2.convertScaleAbs(picture, alpha=1.2, beta=40)
        (frame,) = found({"a": drawn[name], "b": (bright, mask)})
        area = agreement.picture_area(picture) == 255
        assert frame.counts.sum() == pytest.approx(area.sum(), rel=0.01)
        assert dice(frame) == pytest.approx(1, abs=0.001)


def moment_later(picture):
    """Return the picture bent by up to 4 pixels, as tissue and light move from frame to frame."""
    rows, columns = np.mgrid[: picture.shape[0], : picture.shape[1]].astype(np.float32)
    bent = columns + 4 * np.sin(rows / 25), rows + 4 * np.sin(columns / 30)
    return cv2.remap(picture, *bent, cv2.INTER_LINEAR)


def test_the_same_scene_a_moment_later_is_another_frame(drawn):
    for name, (picture, mask) in drawn.items():
        later = moment_later(picture)
        inliers = scenes.count_inliers(*map(scenes.sift_features, (picture, later)))
        assert inliers >= 30, name
        assert found({"a": (picture, mask), "b": (later, mask)}) == []


def test_different_scenes_and_too_few_pictures_are_no_pair(drawn):
    assert found(drawn) == []
    assert found({name: drawn[name] for name in ("demo_0",)}) == []


@pytest.mark.parametrize("size", [(1, 1), (3, 500), (300, 400)])
def test_the_area_of_dark_and_of_tiny_pictures(size):
    for value, part in ((0, 0), (30, 0), (31, 255), (255, 255)):
        area = agreement.picture_area(np.full((*size, 3), value, np.uint8))
        np.testing.assert_array_equal(area, np.full(size, part, np.uint8))


def test_the_area_takes_in_a_dark_lumen_and_leaves_out_an_inset_on_the_border():
    picture = np.zeros((300, 400, 3), np.uint8)
    picture[20:280, 120:380] = 150
    picture[120:180, 220:280] = 5
    picture[200:280, 10:100] = (20, 160, 130)
    expected = np.zeros((300, 400), np.uint8)
    expected[20:280, 120:380] = 255
    np.testing.assert_array_equal(agreement.picture_area(picture), expected)


@pytest.mark.filterwarnings("error")
def test_the_correlation_of_copies_of_others_and_of_nothing(drawn):
    picture, other = textured(0), textured(1)
    everywhere = np.full(picture.shape[:2], True)
    assert agreement.detail_correlation(picture, picture, everywhere) == pytest.approx(1)
    assert abs(agreement.detail_correlation(picture, other, everywhere)) < 0.1
    assert agreement.detail_correlation(picture, picture, ~everywhere) == 0
    flat = np.full_like(picture, 100)
    assert agreement.detail_correlation(picture, flat, everywhere) == 0


@pytest.fixture
def folders(drawn, tmp_path):
    """Return folders of the drawn pairs and of a copy of the first, its mask moved 20 pixels."""
    images, masks = tmp_path / "images", tmp_path / "masks"
    picture, mask = drawn["demo_0"]
    for folder in (images, masks):
        folder.mkdir()
    twice = copied(picture), copied_mask(mask, 20)
    for name, (shown, its) in (drawn | {"twice": twice}).items():
        cv2.imwrite(str(images / f"{name}.png"), shown[..., ::-1])
        cv2.imwrite(str(masks / f"{name}.png"), its)
    return images, masks


def test_the_script_prints_each_pair_and_the_agreement_and_writes_nothing(folders, tmp_path):
    options = ["--images", folders[0], "--masks", folders[1], "--agreement"]
    before = sorted(tmp_path.rglob("*"))
    done = run_script("data_preprocessing.py", *options, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert sorted(tmp_path.rglob("*")) == before
    _, line, count, scores, *_ = done.stdout.splitlines()
    first, second, keypoints, correlation, score = line.split()
    assert (first, second) == ("demo_0", "twice")
    assert int(keypoints) >= 30
    assert 0.9 < float(correlation) <= 1
    assert count.endswith("frames that stand there twice, with two annotations: 1")
    assert f"mean {score}, median {score}, lowest {score}; pixels pooled, F1 {score}" in scores


def test_no_frame_twice_is_said_in_a_line(monkeypatch, capsys):
    monkeypatch.setattr(data, "DEMO_PAIRS", 5)
    monkeypatch.setattr(sys, "argv", ["data_preprocessing.py", "--demo", "--agreement"])
    data.main()
    *progress, line = capsys.readouterr().out.splitlines()
    assert line == "demo: no frame stands there twice, so no annotations can be compared"
    assert all("pictures: " in line for line in progress)


@pytest.mark.parametrize(
    "options", [["--fold", 0], ["--data", "here"], ["--regroup"], ["--splits", "mine.csv"]]
)
def test_the_agreement_goes_with_no_option_that_prepares(options):
    done = run_script("data_preprocessing.py", "--demo", "--agreement", *options)
    assert_mistake(done, "--agreement", "--" if options[0] == "--fold" else options[0])


def test_a_mistake_in_a_pair_is_a_line(folders):
    cv2.imwrite(str(folders[1] / "demo_1.png"), np.zeros((9, 9), np.uint8))
    options = ["--images", folders[0], "--masks", folders[1], "--agreement"]
    assert_mistake(run_script("data_preprocessing.py", *options), "demo_1.png", "must be the same")


@needs_real_data
def test_frames_of_hyperkvasir_shown_twice_and_a_second_apart():
    twice = {
        ("cju13hp5rnbjx0835bf0jowgx", "cjyzu9th0qt4r0a46pyl4zik0"): 0.871,
        ("cju2i6acqvo6l0799u20fift8", "cjz14qsk2wci60794un9ozwmw"): 0.979,
        ("cju30bmab08bi0835mvlr6e0r", "cju77k828z46w0871r0avuoo9"): 0.979,
        ("cju33za6l2qy70988jhrlp2ev", "cjyzjzssvd8pq0838f4nolj5l"): 0.837,
    }
    apart = [("cju5fydrud94708507vo6oy21", "cju7avvi51iox0817ym55y6tt")]
    names = sorted(name for pair in [*twice, *apart] for name in pair)
    source = archive_source(REAL_ARCHIVE)
    frames = agreement.doubled_frames(names, source.decode)
    assert {(frame.first, frame.second): dice(frame) for frame in frames} == pytest.approx(
        twice, abs=0.002
    )
