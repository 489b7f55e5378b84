"""Labelled pictures to score, batch by batch: of prepared splits, or of any source of pairs.

The three classes answer the same calls: names, title, split, source, sha256 and parts; batches()
and pairs(), of Batch and of its first two; scenes() and splits() of each picture; doubts() and
notes(), lines for the user; and check_networks(), check_size() and check_unchanged(), which refuse.
"""

import tempfile
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np

from utils.command import InputError, in_all, parallel
from utils.data.dataset import (
    TRAINED_ON,
    are_among,
    check_unchanged,
    fingerprints,
    load_split,
    load_summary,
    read_trained_on,
)
from utils.data.pictures import DECODERS, border_fraction, reduce_pair
from utils.data.scenes import UNKNOWN, FeatureFile, fill_scenes, sift_features
from utils.data.sources import mask_doubts, watch_decoders
from utils.data.splits import read_splits
from utils.prediction.networks import ancestors, descent_doubts

MASK_PIXELS = 1 << 25  # of a batch's masks at their own size, which are kept beside it
# How far two reductions of one pair may differ, as those of other versions of OpenCV do: levels of
# 255 in the mean, and the share of the pixels that either mask calls polyp
SAME_LEVELS, SAME_MASK = 1, 0.05


class Batch(NamedTuple):
    """Pairs at the network's size, and the masks at the pictures' own.

    images: (n, size, size, 3) uint8, RGB; masks: (n, size, size, 1) uint8, 0 or 1. own_masks: n
    arrays, (height, width) uint8 of 0 and 255; None for prepared pairs alone, which lost that size.
    """

    images: np.ndarray
    masks: np.ndarray
    own_masks: list | None = None


def read_pairs(source, names, work, count):
    """Yield lists of what `work` makes of pairs, in threads, of at most `count` pairs each.

    source: of data/sources.py; names: of the pairs; work: a function of a name that returns a
    tuple whose last is the mask at its own size. A list ends, too, when these have about
    MASK_PIXELS pixels, and no more than it holds is decoded ahead of who takes it.
    """
    begin, most = 0, min(count, DECODERS)  # decoded at once
    while begin < len(names):
        read = []
        while len(read) < count and sum(mask.size for *_, mask in read) < MASK_PIXELS:
            some = names[begin : begin + min(most, count - len(read))]
            if not some:
                break
            with watch_decoders(source, some):
                read += parallel(work, some, DECODERS)
            begin += len(some)
        yield read


def seen_by(folder, prints):
    """Return lines, at most one, on pictures that a network has seen; None if that is unknown.

    folder: the network's; prints: the pictures' fingerprints, (n, 32) uint8.
    """
    if not (Path(folder) / TRAINED_ON).is_file():
        return None
    seen = int(are_among(prints, read_trained_on(folder)).sum())
    if not seen:
        return []
    return [
        f"{folder} was trained on {seen:,} of these {len(prints):,} pictures, or on frames that"
        " look the same: their scores are not true."
    ]


class PreparedPictures:
    """A split of a prepared data set, or all of them together ("all").

    own_source: that from which it was prepared, as data/sources.py returns it, to have the masks
    at their own size too; or None. title: what the pictures are called; names: in the order of the
    batches; source, sha256: of the data set; parts: those that have each a network of its own.
    Raises InputError as `load_split` does, and for an own_source that lacks a picture.
    """

    def __init__(self, split, data_dir, own_source=None):
        summary = load_summary(data_dir)
        self.folder, self.parts, self.own_source = data_dir, [self], own_source
        self.split, self.pairs_of_split = split, load_split(split, data_dir)
        self.names, self.size = self.pairs_of_split.names, summary["image_size"]
        self.source, self.sha256 = summary["source"], summary["sha256"]
        self.polyp_fraction = summary["polyp_fraction"].get("all")
        splits = read_splits(Path(data_dir) / "splits.csv")
        self.split_of = dict(zip(splits.names, splits.split, strict=True))
        self.group_of = dict(zip(splits.names, splits.groups.tolist(), strict=True))
        kinds = {"train": "training split", "all": "all splits"}
        self.title = f"{kinds.get(split, f'{split} split')} of {data_dir}"
        absent = set(self.names) - set(own_source.names) if own_source else ()
        if absent:
            raise InputError(
                f"{own_source.label}: has no picture {min(absent)} of {data_dir}"
                f"{in_all(len(absent))}; name what that was prepared from"
            )

    def check_size(self, size, folder):
        """Raise InputError unless the network of `folder` takes the size of these pictures."""
        if size != self.size:
            raise InputError(
                f"{folder}: its network takes {size} pixels a side, the {self.title} has"
                f" {self.size}; prepare the data with IMAGE_SIZE = {size}, score --images and"
                " --masks, which fit any network, or go on from it:"
                f" python train.py --from {folder}"
            )

    def check_networks(self, networks):
        """Take any Networks: `doubts` warns of those that have seen these pictures."""

    def batches(self, size, count):
        """Yield all pictures as Batches of at most `count`.

        Raises InputError if the own_source has another picture or mask of a name than was prepared.
        """
        if self.own_source is not None:
            yield from self.own_batches(size, count)
            return
        for begin in range(0, len(self.names), count):
            yield Batch(*self.pairs(slice(begin, begin + count), size))

    def own_batches(self, size, count):
        """Yield all pictures as Batches with the masks of the own_source, see `batches`."""

        def work(name):
            picture, mask = self.own_source.decode(name)
            return *reduce_pair(picture, mask, size), mask

        begin = 0
        for read in read_pairs(self.own_source, self.names, work, count):
            rows = slice(begin, begin + len(read))
            prepared = self.pairs(rows, size)
            for name, *pair, reduced in zip(self.names[rows], *prepared, read, strict=True):
                self.check_same(name, pair, reduced[:2])
            yield Batch(*prepared, [own_mask for *_, own_mask in read])
            begin += len(read)

    def check_same(self, name, prepared, reduced):
        """Raise InputError if a pair of the own_source, reduced, is not the prepared one."""
        (image, mask), (other_image, other_mask) = prepared, reduced
        levels = np.abs(image.astype(float) - other_image).mean()
        differing, polyp = (mask != other_mask).sum(), (mask | other_mask).sum()
        if levels > SAME_LEVELS or differing > SAME_MASK * polyp:
            raise InputError(
                f"{self.own_source.label}: its picture or mask {name} is not that of {self.folder};"
                " name what that was prepared from, and the same --mask- options"
            )

    def pairs(self, rows, size):
        """Return images and masks of some rows, as in a Batch."""
        return self.pairs_of_split.images[rows], self.pairs_of_split.masks[rows]

    def scenes(self):
        """Return the scene of each picture, (n,) int."""
        return self.pairs_of_split.groups

    def splits(self):
        """Return the split of each picture, n str."""
        return [self.split_of[name] for name in self.names]

    @cached_property
    def prints(self):
        """Return the fingerprints of the pictures, (n, 32) uint8."""
        return fingerprints(self.pairs_of_split.images)

    def data_set(self):
        """Return what stays the same whichever fold of a data set is the test split."""
        return self.source, self.size, self.group_of, self.polyp_fraction

    def check_unchanged(self):
        """Raise InputError if the data set has been prepared anew since."""
        check_unchanged(self.folder, self.sha256)

    def notes(self):
        """Return nothing: preparing said it."""
        return []

    def is_trained_on_by(self, config):
        """Tell by its config.json whether a network was trained on this data set's split."""
        return config["settings"]["data_sha256"] == self.sha256

    def doubts(self, configs):
        """Return lines, for the test split mostly none, on what the networks have seen of it.

        configs: the networks' config.json by their folders.
        """
        lines = []
        for folder, config in configs.items():
            own = self.is_trained_on_by(config)
            if own and self.split in ("train", "all"):
                these = "these images" if self.split == "train" else "most of these images"
                lines.append(
                    f"{folder} was trained on {these}: their scores say little about new ones."
                )
            elif own and self.split == "validation":
                lines.append(
                    f"the epoch of {folder} was chosen on these images: new ones score a little"
                    " lower."
                )
            elif (seen := seen_by(folder, self.prints)) is not None:
                lines += seen
            elif not own:
                lines.append(
                    f"{folder} was trained on other data or another split"
                    f" ({config['settings']['data_source']}). If it has seen any of these images,"
                    " the scores are not true."
                )
            lines += descent_doubts(folder, config, self.sha256)
        return lines


class FoldPictures:
    """The test splits of several folds as one set, of which each fold's network predicts its own.

    folders: of one data set, prepared for each fold; own_source: as PreparedPictures has it. Raises
    InputError if they are not, or if a picture would be tested twice.
    """

    def __init__(self, folders, own_source=None):
        self.parts = [PreparedPictures("test", folder, own_source) for folder in folders]
        first, tested_by = self.parts[0], {}
        for part in self.parts:
            if part.data_set() != first.data_set():
                raise InputError(
                    f"{part.folder}: holds other pictures, masks, sizes or groups than"
                    f" {first.folder}; prepare all folds of one data set alike"
                )
            for name in part.names:
                if name in tested_by:
                    raise InputError(
                        f"{part.folder}: its test split holds {name}, and that of {tested_by[name]}"
                        " does; name each fold once"
                    )
                tested_by[name] = part.folder
        self.split, self.names, self.sha256 = "test", list(tested_by), None
        self.title = f"test splits of {len(folders)} folds, {folders[0]} to {folders[-1]}"
        self.source, self.size = first.source, first.size
        self.places = [(part, row) for part in self.parts for row in range(len(part.names))]

    def check_size(self, size, folder):
        """Raise InputError unless the network of `folder` takes the size of these pictures."""
        self.parts[0].check_size(size, folder)

    def check_networks(self, networks):
        """Raise InputError unless each of the Networks was trained on the fold of its place."""
        for part, folder, config in zip(
            self.parts, networks.folders, networks.configs, strict=True
        ):
            if not part.is_trained_on_by(config):
                raise InputError(
                    f"{folder}: was trained on other data or another fold than {part.folder}, and"
                    " may have seen its test split; name data and networks in the same order"
                )

    def pairs(self, rows, size):
        """Return images and masks of some rows, as in a Batch."""
        found = [part.pairs([row], size) for part, row in (self.places[row] for row in rows)]
        images, masks = zip(*found, strict=True)
        return np.concatenate(images), np.concatenate(masks)

    def scenes(self):
        """Return the scene of each picture, (n,) int."""
        return np.concatenate([part.scenes() for part in self.parts])

    def splits(self):
        """Return the folder of each picture's fold, n str."""
        return [str(part.folder) for part, _ in self.places]

    def notes(self):
        """Return nothing: preparing said it."""
        return []

    def is_trained_on_by(self, config):
        """Tell by its config.json whether a network was trained on one of the folds."""
        return any(part.is_trained_on_by(config) for part in self.parts)

    def check_unchanged(self):
        """Raise InputError if a fold has been prepared anew since."""
        for part in self.parts:
            part.check_unchanged()

    def doubts(self, configs):
        """Return lines, mostly none, on what each network has seen of the test split of its fold.

        configs: the networks' config.json by their folders.
        """
        return [
            line
            for folder, config in configs.items()
            for part in self.parts
            if part.is_trained_on_by(config)
            for line in part.doubts({folder: config})
        ]


class SourcePictures:
    """All pairs of a source that was never prepared: decoded in threads, a batch at a time.

    source: as data/sources.py returns it; without groups of its own, scenes are looked for.
    """

    def __init__(self, source):
        self.pairs_of_source, self.parts = source, [self]
        self.split, self.names = None, source.names
        self.title, self.source = f"pictures of {source.label}", source.label
        self.sha256 = source.archive_sha256
        self.prints, self.fractions, self.borders = [], [], []

    def check_size(self, size, folder):
        """Take any size: pairs are reduced to it as they are read."""

    def check_networks(self, networks):
        """Take any Networks: `doubts` warns of those that may have seen these pictures."""

    def check_unchanged(self):
        """Take the files as they are: there is no record of what they were."""

    def batches(self, size, count):
        """Yield all pictures as Batches of at most `count`, and of about MASK_PIXELS pixels."""
        source = self.pairs_of_source
        unknown = {source.names[row] for row in np.flatnonzero(source.groups == UNKNOWN)}

        def work(name):
            picture, mask = source.decode(name)
            found = sift_features(picture) if name in unknown else None
            return *reduce_pair(picture, mask, size), found, mask

        self.features = FeatureFile(tempfile.TemporaryFile())  # noqa: SIM115, as long as this
        self.prints, self.fractions, self.borders = [], [], []
        for read in read_pairs(source, self.names, work, count):
            images, masks, features, own_masks = zip(*read, strict=True)
            for described in filter(None, features):
                self.features.append(described)
            self.prints.append(fingerprints(images))
            self.fractions += [mask.mean() for mask in masks]
            self.borders += map(border_fraction, masks)
            yield Batch(np.stack(images), np.stack(masks), own_masks)

    def pairs(self, rows, size):
        """Return images and masks of some rows, as in a Batch."""
        decoded = (self.pairs_of_source.decode(self.names[row]) for row in rows)
        images, masks = zip(*(reduce_pair(*pair, size) for pair in decoded), strict=True)
        return np.stack(images), np.stack(masks)

    def scenes(self):
        """Return the scene of each picture, (n,) int, once all batches have been read."""
        return fill_scenes(self.pairs_of_source.groups, self.features)

    def splits(self):
        """Return an empty split for each picture, n str."""
        return [""] * len(self.names)

    def is_trained_on_by(self, config):
        """Return None: these are no data set that one is trained on."""

    def notes(self):
        """Return lines on what was done for the user, once all batches have been read."""
        return self.pairs_of_source.notes()

    def doubts(self, configs):
        """Return lines on masks that look wrong, and on what the networks may have seen of this.

        configs: the networks' config.json by their folders. To be called once all batches have been
        read. Raises InputError if no mask shows what --mask-value names.
        """
        lines = mask_doubts(self.pairs_of_source, self.fractions, self.borders)
        for folder, config in configs.items():
            data = [config["settings"], *ancestors(config["settings"])]
            seen = seen_by(folder, np.concatenate(self.prints))
            if seen is not None:
                lines += seen
            elif self.source in [each["data_source"] for each in data]:
                lines.append(
                    f"{folder} was trained on {self.source}: of pictures that it has seen, the"
                    " scores are not true."
                )
        return lines
