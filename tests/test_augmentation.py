"""Picture and mask in step, draws that repeat, batches of a split."""

from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest
from tensorflow.keras.preprocessing.image import ImageDataGenerator

from shell import array_split
from train import AUGMENTATION, COLOURS, ORIGINAL
from utils.command import InputError
from utils.training import augmentation

SETTINGS = {
    "none": {},
    "rotation": {"rotation_range": 40},
    "width shift": {"width_shift_range": 0.2},
    "height shift": {"height_shift_range": 0.2},
    "shift in pixels": {"width_shift_range": [-7, 0, 7], "height_shift_range": 5},
    "shear": {"shear_range": 20},
    "zoom": {"zoom_range": 0.3},
    "flips": {"horizontal_flip": True, "vertical_flip": True},
    "all shapes": {**ORIGINAL["augmentation"], "rotation_range": 30, "shear_range": 10},
    "reflect": {"rotation_range": 30, "fill_mode": "reflect"},
    "the default": AUGMENTATION,
    "the original": ORIGINAL["augmentation"],
}


LIGHT = {
    "brightness": {"brightness_range": (0.5, 1.2)},
    "channel shift": {"channel_shift_range": 60},
    "both": {"brightness_range": (0.5, 1.2), "channel_shift_range": 60},
}


def smooth_picture(size=64, seed=0):
    noise = np.random.default_rng(seed).integers(0, 256, (size, size, 3), np.uint8)
    return cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 2), None, 0, 255, cv2.NORM_MINMAX)


def blob_mask(size=64):
    mask = np.zeros((size, size), np.uint8)
    cv2.ellipse(mask, (size * 2 // 5, size // 3), (size // 4, size // 6), 25, 0, 360, 1, -1)
    return mask[..., None]


def augmented(settings, image, mask, seed):
    generator = augmentation.make_generator(settings)
    transform = augmentation.draw_transform(generator, image.shape, seed)
    return augmentation.augment(image, mask, transform, generator.fill_mode, generator.cval)


def ours_and_kerass(settings):
    """Yield picture and mask under 20 draws, by our augmentation and by Keras's own."""
    image, mask = smooth_picture(), blob_mask()
    exchanged = augmentation.EXCHANGED
    stock = ImageDataGenerator(**{exchanged.get(key, key): settings[key] for key in settings})
    for seed in range(20):
        transform = stock.get_random_transform(image.shape, seed=seed)
        theirs = stock.apply_transform(image.astype(np.float32), transform)
        their_mask = stock.apply_transform(mask.astype(np.float32), transform) >= 0.5
        yield *augmented(settings, image, mask, seed), theirs, their_mask


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_the_warp_matches_keras(settings):
    """Both bilinear; border "nearest" is OpenCV's REPLICATE, "reflect" its REFLECT."""
    for ours, our_mask, theirs, their_mask in ours_and_kerass(settings):
        difference = np.abs(ours - theirs)
        assert difference.max() <= 1.0  # rounding to whole numbers is 0.5 of it
        assert difference.mean() <= 0.3
        assert (our_mask != their_mask).mean() <= 0.002


@pytest.mark.parametrize("settings", LIGHT.values(), ids=LIGHT)
def test_changes_of_light_match_keras_and_leave_the_mask_alone(settings):
    for ours, our_mask, theirs, _ in ours_and_kerass(settings):
        assert np.abs(ours - theirs).max() <= 2.5
        np.testing.assert_array_equal(our_mask, blob_mask())


@pytest.mark.parametrize("light", [{}, *LIGHT.values()], ids=["no light", *LIGHT])
@pytest.mark.parametrize("shape", SETTINGS.values(), ids=SETTINGS)
def test_picture_and_mask_stay_in_step(shape, light):
    """The red channel shows the mask itself: the two must move alike."""
    mask = blob_mask()
    image = np.zeros((64, 64, 3), np.uint8)
    image[..., 0] = 90 + 60 * mask[..., 0]
    image[:, 32:, 1] = 255  # so that no change of light runs into the picture's own limits
    moved = 0
    for seed in range(15):
        new_image, new_mask = augmented({**shape, **light}, image, mask, seed)
        red = new_image[..., 0].astype(int)
        seen = red > (red.min() + red.max()) / 2
        assert (seen != new_mask[..., 0].astype(bool)).mean() <= 0.002
        moved += (new_mask != mask).any()
    assert moved >= 8 or not shape


@pytest.mark.parametrize("settings", [*SETTINGS.values(), *LIGHT.values()])
def test_shapes_types_and_binary_masks(settings):
    image, mask = augmented(settings, smooth_picture(), blob_mask(), seed=3)
    assert (image.shape, image.dtype) == ((64, 64, 3), np.uint8)
    assert (mask.shape, mask.dtype) == ((64, 64, 1), np.uint8)
    assert set(np.unique(mask)) <= {0, 1}


@pytest.mark.parametrize(("name", "axis"), [("width", 1), ("height", 0)])
def test_a_shift_goes_the_way_that_its_setting_says(name, axis):
    mask = blob_mask()
    image = np.repeat(255 * mask, 3, axis=2)
    moved = augmented({f"{name}_shift_range": [9], "fill_mode": "constant"}, image, mask, 0)[1]
    before, after = (np.argwhere(each).mean(axis=0)[:2] for each in (mask, moved))
    expected = [0, 0]
    expected[axis] = 9
    np.testing.assert_allclose(np.abs(after - before), expected, atol=1e-6)


def test_a_constant_border_is_background():
    settings = {"width_shift_range": [32], "fill_mode": "constant", "cval": 99}
    image, mask = np.zeros((64, 64, 3), np.uint8), np.ones((64, 64, 1), np.uint8)
    image, mask = augmented(settings, image, mask, seed=1)
    outside = image[..., 0] == 99
    assert 0.45 < outside.mean() < 0.55
    assert not mask[..., 0][outside].any()


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"rescale": 0.1}, "rescale"),
        ({"zoom": 0.1}, "zoom"),
        ({"fill_mode": "wrap"}, "fill_mode"),
        ({"zoom_range": "much"}, "AUGMENTATION"),
        ({"rotation_range": (-20, 20)}, "AUGMENTATION"),
        ({"rotation_range": float("inf")}, "AUGMENTATION"),
        ({"fill_mode": "constant", "cval": None}, "AUGMENTATION"),
        ({"cval": "black"}, "AUGMENTATION"),
        (None, "AUGMENTATION = None"),
    ],
)
def test_a_setting_that_would_not_be_carried_out_is_refused(settings, word):
    with pytest.raises(InputError, match=word):
        augmentation.make_generator(settings)


def test_a_change_of_colours_is_the_formula():
    for seed in range(50):
        table = augmentation.draw_colour_table(COLOURS, seed)
        assert (table.shape, table.dtype) == ((256, 3), np.uint8)
        assert (np.diff(table.astype(int), axis=0) >= 0).all()
        unit = np.random.default_rng(seed).uniform(-1, 1, 6)
        gain = 1 + 0.12 * unit[3:]
        middle = gain * (100 / 255) ** np.exp(0.35 * unit[0])
        middle = (1 + 0.25 * unit[1]) * (middle - 0.5) + 0.5 + 0.12 * unit[2]
        np.testing.assert_allclose(table[100], 255 * middle.clip(0, 1), atol=0.51)


def test_colours_that_may_not_change_do_not():
    unchanged = np.repeat(np.arange(256)[:, None], 3, axis=1)
    for colours in ({}, dict.fromkeys(COLOURS, 0)):
        np.testing.assert_array_equal(augmentation.draw_colour_table(colours, 1), unchanged)
    tinted = augmentation.draw_colour_table({"gain": 0.2}, 1)
    assert len(set(tinted[128])) == 3


def test_colours_change_pictures_and_leave_masks_alone():
    plain, coloured = (
        augmentation.Pairs(
            array_split(), 4, 1, augmentation.make_generator({}), colours, seed=(1, 0)
        ).batch(1)
        for colours in ({}, COLOURS)
    )
    np.testing.assert_array_equal(plain[1], coloured[1])
    for before, after in zip(plain[0], coloured[0], strict=True):
        assert (before != after).mean() > 0.5
        for channel in range(3):  # levels keep their order: what was darker still is
            order = np.argsort(before[..., channel], axis=None, kind="stable")
            assert (np.diff(after[..., channel].ravel()[order].astype(int)) >= 0).all()


@pytest.mark.parametrize(
    ("count", "batch_size", "replicas", "sizes"),
    [
        (11, 4, 1, [3, 4, 4]),
        (12, 4, 1, [4, 4, 4]),
        (3, 8, 1, [3]),
        (17, 8, 2, [5, 6, 6]),  # not 8, 8 and 1, which leaves a device empty
        (17, 2, 2, [2, 2, 2, 2, 2, 2, 2, 3]),
        (1, 1, 1, [1]),
    ],
)
def test_batches_are_even_and_leave_no_device_empty(count, batch_size, replicas, sizes):
    ends = augmentation.split_evenly(count, batch_size, replicas)
    assert list(np.diff([0, *ends])) == sizes


def test_fewer_pictures_than_devices_are_refused():
    with pytest.raises(InputError, match="3 pictures are too few for 4 devices"):
        augmentation.split_evenly(3, 8, replicas=4)


def test_a_batch_that_cannot_be_read_keeps_its_reason():
    class Broken:
        shape = (11, 32, 32, 3)

        def __getitem__(self, rows):
            raise InputError("images.npy: is cut off")

    pairs = augmentation.Pairs(array_split()._replace(images=Broken()), 4, 2)
    assert [len(images) for images, _ in pairs.dataset()] == [3, 4, 4]
    assert str(pairs.failure) == "images.npy: is cut off"


def training_pairs(epoch=0, seed=(1, 0), workers=2):
    pairs = augmentation.Pairs(
        array_split(), 4, workers, augmentation.make_generator(AUGMENTATION), COLOURS, seed
    )
    pairs.epoch = epoch
    return pairs


def test_batches_do_not_depend_on_order_or_threads():
    pairs = training_pairs()
    expected = [pairs.batch(step) for step in range(len(pairs))]
    np.random.seed(7)
    with ThreadPoolExecutor(8) as pool:
        steps = [2, 0, 1] * 20
        for step, (images, masks) in zip(steps, pool.map(pairs.batch, steps), strict=True):
            np.testing.assert_array_equal(images, expected[step][0])
            np.testing.assert_array_equal(masks, expected[step][1])


@pytest.mark.parametrize("workers", [1, 4])
def test_the_dataset_is_the_batches_in_order(workers):
    pairs = training_pairs(epoch=3, workers=workers)
    batches = list(pairs.dataset().as_numpy_iterator())
    assert [len(images) for images, _ in batches] == [3, 4, 4]
    for step, (images, masks) in enumerate(batches):
        np.testing.assert_array_equal(images, pairs.batch(step)[0])
        np.testing.assert_array_equal(masks, pairs.batch(step)[1])


def test_no_autotuner_keeps_an_epoch_from_ending():
    """Its thread sleeps for 10, 20, 40 ms and so on, and often the iterator's end waits for it."""
    assert training_pairs().dataset().options().autotune.enabled is False


@pytest.mark.parametrize("other", [{"epoch": 1}, {"seed": (2, 0)}, {"seed": (1, 1)}])
def test_epochs_seeds_and_phases_draw_differently(other):
    assert (training_pairs().batch(0)[0] != training_pairs(**other).batch(0)[0]).any()


def test_an_epoch_is_one_pass_over_the_split():
    split = array_split()
    pairs = augmentation.Pairs(split, 4, 2, augmentation.make_generator({}), {}, (1, 0))
    seen = np.concatenate([pairs.batch(step)[0] for step in range(len(pairs))])
    order = [int(np.flatnonzero((split.images == image).all(axis=(1, 2, 3)))[0]) for image in seen]
    assert sorted(order) == list(range(11))
    assert order != list(range(11))


def test_pairs_stay_pairs():
    split = array_split()
    split = split._replace(masks=(split.images[..., :1] >= 128).astype(np.uint8))
    pairs = augmentation.Pairs(
        split, 4, 2, augmentation.make_generator({"vertical_flip": True}), {}, (1, 0)
    )
    for step in range(len(pairs)):
        images, masks = pairs.batch(step)
        np.testing.assert_array_equal(images[..., :1] >= 128, masks)


def test_validation_is_never_augmented():
    split = array_split()
    pairs = augmentation.Pairs(split, 4, 2)
    pairs.epoch = 5
    batches = list(pairs.dataset().as_numpy_iterator())
    np.testing.assert_array_equal(np.concatenate([images for images, _ in batches]), split.images)
    np.testing.assert_array_equal(np.concatenate([masks for _, masks in batches]), split.masks)


@pytest.mark.parametrize(("normals", "count"), [(1, 11), (0.5, 8), (0.2, 5), (0, 4), (0.9, 11)])
def test_an_epoch_has_its_share_of_pictures_without_a_polyp_drawn_anew(normals, count):
    split = array_split()
    masks = np.zeros_like(split.masks)
    masks[[0, 3, 5, 10], 0, 0] = 1
    split = split._replace(masks=masks)
    pairs = augmentation.Pairs(
        split, 4, 2, augmentation.make_generator({}), {}, (1, 0), normals=normals
    )

    def rows():
        return np.concatenate([pairs.draw(step)[0] for step in range(len(pairs))])

    epochs = []
    for pairs.epoch in range(20):
        epochs.append(rows().tolist())
        np.testing.assert_array_equal(epochs[-1], rows())
    assert {len(set(epoch)) for epoch in epochs} == {len(epochs[0])} == {count}
    assert all(set(epoch) > {0, 3, 5} and 10 in epoch for epoch in epochs)
    seen = set().union(*epochs)
    assert seen == ({0, 3, 5, 10} if normals == 0 else set(range(11)))


def test_the_sheet_of_pairs_says_what_lies_beyond_the_borders(tmp_path, drawn):
    generator = augmentation.make_generator({"fill_mode": "constant"})
    augmentation.save_augmented(
        tmp_path / "a.png", augmentation.Pairs(array_split(), 4, 2, generator)
    )
    assert drawn[0].get_suptitle().endswith('Beyond the borders: fill_mode "constant"')
