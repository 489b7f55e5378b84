"""Folds: scenes dealt into parts of about the same size, none of them parted."""

import numpy as np

from utils.command import InputError

FEW = 5  # scenes: fewer that show no polyp are all for training


def fold_scenes(groups, polyp_fractions, fold_count, seed):
    """Deal pairs into folds of about the same size without parting a group.

    groups: (n,) int; polyp_fractions: (n,) float, 0 to 1, by which each fold gets its share of
    small and large polyps. Returns (n,) int, 0 to fold_count - 1; fold 0, the test split unless
    another is asked for, is the one nearest to its share.
    Raises InputError for fewer groups with a polyp than folds, or than the three splits.
    """
    shown = np.asarray(polyp_fractions) > 0
    scenes, needed = len(np.unique(np.asarray(groups)[shown])), max(fold_count, 3)
    if scenes < needed:
        pairs = f"{len(groups)} pairs" if shown.all() else f"{shown.sum()} pairs with a polyp"
        raise InputError(
            f"{pairs} of {scenes} scenes are too few to split; at least {needed}"
            " different scenes are needed, or --splits FILE with a split of your own"
        )
    return deal(groups, size_classes(polyp_fractions), fold_count, seed)


def split_by_fold(groups, polyp_fractions, folds, test_fold, validation_parts, seed):
    """Return (n,) str, "train", "validation" or "test", that part no group.

    The pairs of fold `test_fold` are for testing, one of `validation_parts` parts of the rest for
    validation. groups, folds: (n,) int, no group in two folds; polyp_fractions: (n,) float, 0 to 1.
    Raises InputError if the rest are fewer than two scenes with a polyp.
    """
    groups, shown = np.asarray(groups), np.asarray(polyp_fractions) > 0
    scenes = len(np.unique(groups[shown & (folds != test_fold)]))
    if scenes < 2:
        raise InputError(
            f"fold {test_fold} as the test split leaves too few scenes with a polyp, {scenes}, to"
            " train and to validate; at least 2 are needed"
        )
    parts = min(validation_parts, scenes)
    return split_rest(groups, size_classes(polyp_fractions), folds, test_fold, parts, seed)


def split_rest(groups, classes, folds, test_fold, parts, seed):
    """Return what `split_by_fold` does, by the pictures' classes as `deal` takes them."""
    split = np.where(folds == test_fold, "test", "train").astype(object)
    rest = np.flatnonzero(folds != test_fold)
    split[rest[deal(groups[rest], classes[rest], parts, seed) == 0]] = "validation"
    return split


def deal_normals(groups, fold_count, test_fold, validation_parts, seed):
    """Return the split and the folds of pictures without a polyp, (n,) str and (n,) int.

    As `fold_scenes` and `split_by_fold`, but too few scenes are no mistake: the test split, or the
    validation split, is without them then. groups: (n,) int.
    """
    classes = np.zeros(len(groups), int)
    folds = deal(groups, classes, fold_count, seed)
    return split_rest(groups, classes, folds, test_fold, validation_parts, seed), folds


def size_classes(polyp_fractions):
    """Return (n,) int: 0 without a polyp, then up to 5 classes of as many each, from small on."""
    fractions = np.asarray(polyp_fractions)
    polyps = fractions[fractions > 0]
    classes = max(1, min(5, len(polyps) // 50))
    bounds = np.quantile(polyps, np.arange(1, classes) / classes) if classes > 1 else []
    return np.where(fractions > 0, 1 + np.digitize(fractions, bounds), 0)


def deal(groups, classes, count, seed):
    """Return (n,) int, 0 to count - 1: parts that part no group and have their share of classes.

    Groups with a polyp, of a class above 0, and those without are dealt apart, so that no part
    lacks either by chance. Of fewer than FEW groups the first parts get none.
    """
    with_polyp = np.isin(groups, groups[classes > 0])
    parts = np.empty(len(groups), int)
    for rows in filter(np.any, (with_polyp, ~with_polyp)):
        found, number = np.unique(groups[rows], return_inverse=True)
        if len(found) < min(count, FEW):
            parts[rows] = count - len(found) + number
        else:
            most = min(count, len(found))
            parts[rows] = deal_kind(groups[rows], classes[rows], most, seed)
    return parts


def deal_kind(groups, classes, count, seed):
    """Return what `deal` does, for at least `count` groups that all show a polyp, or none.

    Part 0 is the one nearest to its share of pictures, and of groups if it has fewer, or the first
    within a tenth: the splitter puts the largest groups into its first parts, and a test split
    or a validation split of little else than one scene would say little.
    """
    from sklearn.model_selection import (
        StratifiedGroupKFold,  # here, for it takes a second to import
    )

    if np.unique(classes, return_counts=True)[1].min() < count:  # which the splitter refuses
        classes = np.zeros_like(classes)
    parts = np.empty(len(groups), int)
    splitter = StratifiedGroupKFold(count, shuffle=True, random_state=seed)
    for part, (_, rows) in enumerate(splitter.split(groups, classes, groups)):
        parts[rows] = part
    pictures = np.bincount(parts)
    scenes = np.array([len(np.unique(groups[parts == part])) for part in range(count)])
    astray = np.abs(pictures / pictures.mean() - 1) + np.maximum(1 - scenes / scenes.mean(), 0)
    nearest = np.argmin(np.maximum(astray, 1 / 10))
    return np.where(parts == nearest, 0, np.where(parts == 0, nearest, parts))
