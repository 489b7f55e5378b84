"""Pictures to score: of a prepared split, and of a source that was never prepared."""

import json
import os
import threading

import cv2
import numpy as np
import pytest

from shell import save_data_set, save_folds, save_splits
from utils.command import InputError, parallel
from utils.data.dataset import TRAINED_ON, Split, write_trained_on
from utils.data.demo import draw_demo_pair
from utils.data.pictures import DECODERS, MaskConvention, reduce_pair, reduce_picture
from utils.data.scenes import UNKNOWN
from utils.data.sources import Source
from utils.prediction.networks import Networks
from utils.scoring.labelled import FoldPictures, PreparedPictures, SourcePictures

NAMES = [f"demo_{number:03d}" for number in range(5)]


@pytest.fixture
def prepared(tmp_path):
    return save_data_set(tmp_path / "data", np.ones((3, 16, 16, 1), np.uint8))


@pytest.mark.parametrize(
    ("split", "names"),
    [
        ("train", ["n0"]),
        ("validation", ["n1"]),
        ("test", ["n2", "n3", "n4"]),
        ("all", ["n0", "n1", "n2", "n3", "n4"]),
    ],
)
def test_a_split_is_read_batch_by_batch(split, names, prepared):
    pictures = PreparedPictures(split, prepared)
    assert pictures.names == names
    assert str(prepared) in pictures.title
    batches = list(pictures.batches(16, 2))
    assert [len(batch.images) for batch in batches] == [2] * (len(names) // 2) + [1]
    rows = [int(name[1:]) for name in names]
    images = np.concatenate([batch.images for batch in batches])
    np.testing.assert_array_equal(images, np.load(prepared / "images.npy")[rows])
    assert len(pictures.scenes()) == len(names)
    assert batches[0].own_masks is None


def own_source(folder, times=3):
    """Return the source of save_data_set's pairs, as if they had been reduced from larger ones."""
    images, masks = np.load(folder / "images.npy"), np.load(folder / "masks.npy")[..., 0]

    def decode(name):
        picture, mask = (kind[int(name[1:])] for kind in (images, 255 * masks))
        return tuple(kind.repeat(times, 0).repeat(2 * times, 1) for kind in (picture, mask))

    names = [f"n{row}" for row in range(len(images))]
    return Source("pairs.zip", names, decode, np.full(len(names), UNKNOWN))


def test_a_split_has_the_masks_of_what_it_was_prepared_from(prepared):
    source = own_source(prepared)
    pictures = PreparedPictures("test", prepared, source)
    batches = list(pictures.batches(16, 2))
    assert [len(batch.images) for batch in batches] == [2, 1]
    alone = PreparedPictures("test", prepared).batches(16, 2)
    for batch, without in zip(batches, alone, strict=True):
        np.testing.assert_array_equal(batch.images, without.images)
        np.testing.assert_array_equal(batch.masks, without.masks)
    own = [mask for batch in batches for mask in batch.own_masks]
    for name, mask in zip(["n2", "n3", "n4"], own, strict=True):
        assert mask.shape == (48, 96)
        np.testing.assert_array_equal(mask, source.decode(name)[1])


def test_a_source_of_other_pictures_than_were_prepared_is_refused(prepared):
    assert_refused(prepared, lambda picture, mask: (255 - picture, mask))


@pytest.mark.parametrize(
    "other", [lambda mask: 255 - mask, lambda mask: 0 * mask, lambda mask: np.roll(mask, 2, 0)]
)
def test_a_source_of_other_masks_than_were_prepared_is_refused(other, tmp_path):
    masks = np.zeros((3, 16, 16, 1), np.uint8)
    masks[:, 4:5, 4:5] = 1  # a polyp of less than a hundredth of the picture
    prepared = save_data_set(tmp_path / "data", masks)
    assert_refused(prepared, lambda picture, mask: (picture, other(mask)))


def assert_refused(prepared, change):
    source = own_source(prepared)

    def decode(name):
        pair = source.decode(name)
        return change(*pair) if name == "n3" else pair

    pictures = PreparedPictures("test", prepared, source._replace(decode=decode))
    batches = pictures.batches(16, 1)
    next(batches)
    with pytest.raises(InputError, match=r"^pairs.zip: its picture or mask n3 is not that of "):
        next(batches)


def test_a_source_that_lacks_pictures_of_a_split_is_refused(tmp_path):
    folders = save_folds(tmp_path)
    source = own_source(folders[0])
    FoldPictures(folders, source)
    with pytest.raises(
        InputError, match=r"^pairs.zip: has no picture n4 of .*fold1 \(2 such files"
    ):
        FoldPictures(folders, source._replace(names=["n0", "n1", "n2", "n3"]))


@pytest.mark.parametrize(
    ("split", "data", "words"),
    [
        ("test", "abc", None),
        ("train", "abc", "was trained on these images"),
        ("all", "abc", "was trained on most of these images"),
        ("validation", "abc", "epoch of NET was chosen on these images"),
        ("test", "other", "was trained on other data or another split"),
        ("train", "other", "was trained on other data or another split"),
    ],
)
def test_what_the_network_has_seen_is_said(split, data, words, prepared):
    config = {"settings": {"data_sha256": data, "data_source": "demo"}}
    lines = PreparedPictures(split, prepared).doubts({"NET": config})
    assert len(lines) == (words is not None)
    assert words is None or words in lines[0]


@pytest.mark.parametrize(
    ("descent", "words"),
    [
        ([{"data_source": "demo", "data_sha256": "abc"}], None),
        ([{"data_source": "demo", "data_sha256": "fold 2"}], "another split (demo). If that has"),
        ([{"data_source": None, "data_sha256": None}], "another split (unknown). If that has"),
    ],
)
def test_what_the_network_began_with_may_have_seen_the_pictures(descent, words, prepared, tmp_path):
    settings = {"data_sha256": "abc", "data_source": "mine", "from": "9", "descent": descent}
    lines = PreparedPictures("test", prepared).doubts({"NET": {"settings": settings}})
    assert len(lines) == (words is not None)
    assert words is None or words in lines[0]
    settings["data_sha256"] = "abc0"
    folds = FoldPictures(save_folds(tmp_path / "folds"))
    (line,) = folds.doubts({"NET": {"settings": settings}})
    assert line.startswith("NET began with a network of other data or another split")
    settings["data_sha256"] = descent[0]["data_sha256"]  # of the same fold
    assert folds.doubts({"NET": {"settings": settings}}) == []
    source = SourcePictures(source_of(NAMES))
    list(source.batches(32, 2))
    source.source = descent[0]["data_source"] or "drawn"
    lines = source.doubts({"NET": {"settings": settings}})
    assert len(lines) == (descent[0]["data_source"] is not None)


def test_a_data_set_that_is_prepared_anew_meanwhile_is_noticed(prepared):
    pictures = PreparedPictures("test", prepared)
    pictures.check_unchanged()
    summary = json.loads((prepared / "dataset.json").read_text())
    (prepared / "dataset.json").write_text(json.dumps(summary | {"sha256": "another"}))
    with pytest.raises(InputError, match=r"prepared anew while it was read; run the same command"):
        pictures.check_unchanged()


def test_folds_are_one_set_of_which_each_tests_its_own(tmp_path):
    folders = save_folds(tmp_path)
    pictures = FoldPictures(folders[::-1])
    assert pictures.names == ["n3", "n4", "n5", "n0", "n1", "n2"]
    assert pictures.splits() == [str(folders[1])] * 3 + [str(folders[0])] * 3
    assert pictures.scenes().tolist() == [3, 4, 5, 0, 1, 2]
    images, masks = pictures.pairs(np.array([4, 0]), 16)
    np.testing.assert_array_equal(images, np.load(folders[0] / "images.npy")[[1, 3]])
    np.testing.assert_array_equal(masks, np.load(folders[0] / "masks.npy")[[1, 3]])
    batches = [list(part.batches(16, 2)) for part in pictures.parts]
    assert [[len(batch.images) for batch in part] for part in batches] == [[2, 1]] * 2
    assert str(folders[1]) in pictures.title

    def check(*trained_on):
        configs = [{"settings": {"data_sha256": data}} for data in trained_on]
        pictures.check_networks(Networks(["A", "B"], configs, [], 0.5, by_fold=True))

    check("abc1", "abc0")
    with pytest.raises(InputError, match=r"^A: was trained on .* another fold than .*fold1"):
        check("abc0", "abc1")
    with pytest.raises(InputError, match=r"^B: was trained on .* another fold than .*fold0"):
        check("abc1", "abc1")


def test_folds_that_test_a_picture_twice_or_are_of_several_data_sets_are_refused(tmp_path):
    folders = save_folds(tmp_path)
    with pytest.raises(InputError, match=r"fold0: its test split holds n0, and that of .*fold0"):
        FoldPictures([folders[0], folders[0]])
    _, *lines = (folders[1] / "splits.csv").read_text().splitlines()
    save_splits(folders[1], [line.replace("n1,1,", "n1,9,") for line in lines])
    with pytest.raises(InputError, match=r"fold1: holds other pictures, masks, sizes or groups"):
        FoldPictures(folders)
    save_splits(folders[1], lines)
    FoldPictures(folders)
    fractions = json.loads((folders[1] / "dataset.json").read_text())["polyp_fraction"]
    save_splits(folders[1], lines, polyp_fraction=fractions | {"all": 0.9})  # of inverted masks
    with pytest.raises(InputError, match=r"fold1: holds other pictures, masks, sizes or groups"):
        FoldPictures(folders)


def doubts_on(source, configs=None):
    pictures = SourcePictures(source)
    list(pictures.batches(32, 4))
    return pictures.doubts(configs or {})


def source_of(names, decode=draw_demo_pair):
    return Source("drawn", list(names), decode, np.full(len(names), UNKNOWN))


def test_a_source_is_reduced_and_keeps_its_masks_own_size(tmp_path):
    pictures = SourcePictures(source_of(NAMES))
    batches = list(pictures.batches(32, 2))
    assert [len(batch.images) for batch in batches] == [2, 2, 1]
    images, masks = (
        np.concatenate([getattr(batch, kind) for batch in batches]) for kind in ("images", "masks")
    )
    own = [mask for batch in batches for mask in batch.own_masks]
    for name, image, mask, own_mask in zip(NAMES, images, masks, own, strict=True):
        picture, drawn = draw_demo_pair(name)
        expected = reduce_pair(picture, drawn, 32)
        np.testing.assert_array_equal(image, expected[0])
        np.testing.assert_array_equal(mask, expected[1])
        np.testing.assert_array_equal(own_mask, drawn)
    chosen = pictures.pairs(np.array([3, 0]), 32)
    np.testing.assert_array_equal(chosen[0], images[[3, 0]])
    np.testing.assert_array_equal(chosen[1], masks[[3, 0]])


def test_frames_of_one_scene_are_grouped(tmp_path):
    def decode(name):
        picture, mask = draw_demo_pair(name.removesuffix("again"))
        return (picture[12:, 20:], mask[12:, 20:]) if name.endswith("again") else (picture, mask)

    names = ["demo_000", "demo_000again", "demo_001"]
    pictures = SourcePictures(source_of(names, decode))
    for _ in range(2):  # a second reading does not add to the first
        list(pictures.batches(32, 2))
        first, second, third = pictures.scenes()
        assert first == second != third


def test_no_more_than_a_batch_is_decoded_ahead(tmp_path):
    decoded, lock = [], threading.Lock()

    def decode(name):
        with lock:
            decoded.append(name)
        return np.zeros((40, 40, 3), np.uint8), np.zeros((40, 40), np.uint8)

    names = [f"{number:02d}" for number in range(20)]
    batches = SourcePictures(source_of(names, decode)).batches(16, 4)
    for number in range(1, 4):
        next(batches)
        assert len(decoded) == 4 * number


def test_a_batch_ends_when_its_masks_have_enough_pixels(tmp_path, monkeypatch):
    monkeypatch.setattr("utils.scoring.labelled.MASK_PIXELS", 40 * 40 * 2 * DECODERS)

    def decode(name):
        return np.zeros((40, 40, 3), np.uint8), np.zeros((40, 40), np.uint8)

    names = [f"{number:03d}" for number in range(5 * DECODERS)]
    pictures = SourcePictures(source_of(names, decode))
    sizes = [len(batch.images) for batch in pictures.batches(16, 1000)]
    assert sizes == [2 * DECODERS] * 2 + [DECODERS]


def test_pictures_that_a_network_has_seen_are_counted_wherever_they_lie(prepared, tmp_path):
    """By what they look like: stored anew, and larger, they are known again."""
    drawn = [draw_demo_pair(name)[0] for name in NAMES[:2]]
    seen = [
        cv2.imdecode(cv2.imencode(".jpg", cv2.resize(image, None, fx=1.5, fy=1.5))[1], 1)
        for image in drawn
    ]
    split = Split([reduce_picture(image, 32) for image in seen], None, NAMES[:2], None)
    write_trained_on(tmp_path, [split])
    config = {"settings": {"data_sha256": "other", "data_source": "drawn"}}
    (line,) = doubts_on(source_of(NAMES), {tmp_path: config})
    assert line.startswith(f"{tmp_path} was trained on 2 of these 5 pictures, or on frames that")
    assert doubts_on(source_of(NAMES[2:]), {tmp_path: config}) == []
    pictures = PreparedPictures("test", prepared)
    assert pictures.doubts({tmp_path: config}) == []
    write_trained_on(tmp_path / "next", [pictures.pairs_of_split], start=tmp_path)
    (line,) = pictures.doubts({tmp_path / "next": config})
    assert line.startswith(f"{tmp_path / 'next'} was trained on 3 of these 3 pictures")
    (line,) = doubts_on(source_of(NAMES), {tmp_path / "next": config})
    assert "2 of these 5" in line
    (tmp_path / TRAINED_ON).write_text("abc")
    with pytest.raises(InputError, match=r"trained_on\.txt: is damaged; copy it again"):
        pictures.doubts({tmp_path: config})


def test_what_a_network_has_seen_of_its_fold_is_counted(tmp_path):
    folders = save_folds(tmp_path)
    pictures = FoldPictures(folders)
    configs = {
        tmp_path / net: {"settings": {"data_sha256": data, "data_source": "demo"}}
        for net, data in (("A", "abc0"), ("B", "abc1"))
    }
    for net, part in zip(configs, pictures.parts[::-1], strict=True):
        write_trained_on(net, [part.pairs_of_split])  # of the other's test split
    assert pictures.doubts(configs) == []
    write_trained_on(tmp_path / "B", [pictures.parts[1].pairs_of_split])
    (line,) = pictures.doubts(configs)
    assert line.startswith(f"{tmp_path / 'B'} was trained on 3 of these 3 pictures")


def test_a_network_of_another_size_is_refused_with_three_ways_out(prepared):
    pictures = PreparedPictures("test", prepared)
    pictures.check_size(16, "NET")
    with pytest.raises(
        InputError,
        match=r"^NET: its network takes 128 pixels a side, the test split .* has 16; prepare the"
        r" data with IMAGE_SIZE = 128, score --images and --masks, .* train\.py --from NET$",
    ):
        pictures.check_size(128, "NET")


def test_groups_that_are_known_are_not_looked_for(monkeypatch):
    monkeypatch.setattr("utils.scoring.labelled.sift_features", lambda _: pytest.fail("it looks"))
    pictures = SourcePictures(source_of(NAMES)._replace(groups=np.array([0, 0, 1, 2, 2])))
    list(pictures.batches(32, 2))
    assert pictures.scenes().tolist() == [0, 0, 1, 2, 2]


def test_pictures_that_a_network_was_trained_on_by_their_source_are_warned_of(tmp_path):
    configs = {"A": {"settings": {"data_source": "drawn"}}, "B": {"settings": {"data_source": "x"}}}
    (line,) = doubts_on(source_of(NAMES), configs)
    assert line.startswith("A was trained on drawn: ")


def test_masks_that_look_wrong_are_warned_of_and_empty_ones_refused(tmp_path):
    def inverted(name):
        picture, mask = draw_demo_pair(name)
        return picture, 255 - mask

    def empty(name):
        picture, mask = draw_demo_pair(name)
        return picture, 0 * mask

    covered, upside_down = doubts_on(source_of(NAMES, inverted))
    assert "cover" in covered
    assert "5 of 5 masks look inverted" in upside_down
    assert upside_down.endswith("--mask-inverted")
    source = source_of(NAMES, empty)._replace(convention=MaskConvention(values=(83,)))
    with pytest.raises(InputError, match="no mask shows the value 83, that of --mask-value"):
        doubts_on(source)


def test_stderr_is_the_same_after_pairs_were_read_in_threads(tmp_path):
    pictures = SourcePictures(source_of(NAMES))
    before = os.fstat(2)
    list(parallel(lambda row: pictures.pairs([row], 32), list(range(5)) * 8))
    assert os.path.samestat(before, os.fstat(2))
