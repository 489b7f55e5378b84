"""Scenes: which pictures show the same one, and splits that part none.

Two pictures show the same scene if local features of both agree on one shift, rotation and scale.
"""

from typing import NamedTuple

import cv2
import numpy as np

from utils.files import InputError, Progress, parallel

MATCHING_SIDE = 400  # pixels of the longer side
MAX_KEYPOINTS = 300  # of a picture
NEIGHBOURS = 40  # pictures that each is compared with


class Features(NamedTuple):
    """A picture's SIFT features.

    keypoints: (n, 4) float32 of x, y, size in pixels and angle in degrees; descriptors: (n, 128)
    uint8.
    """

    keypoints: np.ndarray
    descriptors: np.ndarray


def sift_features(picture):
    """Return the strongest SIFT features (Lowe 2004) of a picture, for `group_scenes`.

    picture: (height, width, 3) uint8, RGB. Features on the dark border, on burnt-in text and on
    the lamp's reflections are left out: they are alike in pictures that show different things.
    """
    scale = MATCHING_SIDE / max(picture.shape[:2])
    size = [max(1, round(length * scale)) for length in picture.shape[1::-1]]
    picture = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    sift = cv2.SIFT_create(contrastThreshold=0.015)  # the default, 0.04, finds too little on mucosa
    found = sift.detect(grey, tissue(picture))
    found = sorted(found, key=lambda point: (-point.response, point.pt, point.angle))[
        :MAX_KEYPOINTS
    ]
    if not found:
        return Features(np.zeros((0, 4), np.float32), np.zeros((0, 128), np.uint8))
    found, descriptors = sift.compute(grey, found)
    keypoints = np.array([(*point.pt, point.size, point.angle) for point in found], np.float32)
    return Features(keypoints, descriptors.astype(np.uint8))  # they are whole numbers up to 255


def tissue(picture):
    """Return (height, width) uint8: 0 on border, burnt-in text and reflections, 255 elsewhere."""
    bright = (picture.max(axis=2) > 30).astype(np.uint8)
    bright = cv2.morphologyEx(bright, cv2.MORPH_CLOSE, np.ones((5, 5), np.uint8))
    frame = {"borderType": cv2.BORDER_CONSTANT, "borderValue": 0}
    inside = cv2.erode(bright, np.ones((21, 21), np.uint8), **frame)
    whiteness = picture.min(axis=2)
    spots = cv2.morphologyEx(whiteness, cv2.MORPH_TOPHAT, np.ones((15, 15), np.uint8))
    glare = ((spots > 45) | (whiteness > 235)).astype(np.uint8)
    return 255 * inside * (1 - cv2.dilate(glare, np.ones((9, 9), np.uint8)))


def group_scenes(features, min_inliers):
    """Return (n,) int groups, in the order of their first pictures, for n pictures' Features.

    Two pictures belong together if at least `min_inliers` of their keypoints agree on one
    shift, rotation and scale; whatever hangs together by such pairs is one group.
    """
    pairs = candidate_pairs(features)
    progress = Progress("looking for frames of the same scene, pairs", len(pairs))
    groups = np.arange(len(features))
    counts = parallel(lambda pair: count_inliers(*(features[row] for row in pair)), pairs)
    for (first, second), count in zip(pairs, counts, strict=True):
        if count >= min_inliers:
            low, high = sorted((groups[first], groups[second]))
            groups[groups == high] = low
        progress.advance()
    return np.unique(groups, return_inverse=True)[1]


def candidate_pairs(features):
    """Return the sorted pairs of rows of pictures that look alike: each with its NEIGHBOURS.

    Alike by VLAD (Jegou et al. 2010): how a picture's features lie around a few visual words.
    """
    # Here, since it takes a second to import, which no refusal should wait for
    from sklearn.cluster import MiniBatchKMeans
    from sklearn.neighbors import NearestNeighbors
    from sklearn.preprocessing import normalize

    words = 32
    sample = np.concatenate([root_sift(item.descriptors[::8]) for item in features])
    if len(features) < 2 or len(sample) < words:
        return []
    centers = MiniBatchKMeans(words, batch_size=4096, max_iter=20, n_init=1, random_state=0)
    centers = centers.fit(sample).cluster_centers_
    signatures = np.zeros((len(features), words, 128), np.float32)
    for signature, item in zip(signatures, features, strict=True):
        descriptors = root_sift(item.descriptors)
        nearest = np.argmax(2 * descriptors @ centers.T - (centers**2).sum(axis=1), axis=1)
        np.add.at(signature, nearest, descriptors - centers[nearest])
    signatures = normalize(normalize(signatures.reshape(-1, 128)).reshape(len(features), -1))
    neighbours = NearestNeighbors(n_neighbors=min(NEIGHBOURS, len(features) - 1)).fit(signatures)
    found = neighbours.kneighbors(return_distance=False)
    return sorted({(min(i, j), max(i, j)) for i, row in enumerate(found.tolist()) for j in row})


def root_sift(descriptors):
    """Return (n, 128) float32 of unit length (RootSIFT, Arandjelovic and Zisserman 2012)."""
    descriptors = descriptors.astype(np.float32)
    return np.sqrt(descriptors / np.maximum(descriptors.sum(axis=1, keepdims=True), 1))


def count_inliers(first, second):
    """Return how many matched keypoints of two pictures agree on one shift, rotation and scale.

    Each matched pair of keypoints alone proposes such a transform, by its places, sizes and angles;
    the proposal that most others agree with wins. Nothing is drawn at random.
    """
    rows, columns = match_descriptors(first.descriptors, second.descriptors)
    if not len(rows):
        return 0
    start, end = first.keypoints[rows], second.keypoints[columns]
    scale, turn = end[:, 2] / start[:, 2], np.deg2rad(end[:, 3] - start[:, 3])
    here, there = start[:, 0] + 1j * start[:, 1], end[:, 0] + 1j * end[:, 1]
    transform = (scale * np.exp(1j * turn))[:, None]
    expected = there[:, None] + transform * (here - here[:, None])
    inliers = np.abs(expected - there) < 16 * np.maximum(1, np.sqrt(scale))[:, None]  # pixels
    inliers &= np.abs(np.log2(scale / scale[:, None])) < 0.5
    inliers &= np.cos(turn - turn[:, None]) > np.cos(np.deg2rad(25))
    inliers &= (np.abs(np.log(scale)) < np.log(3))[:, None]
    best = inliers[np.argmax(inliers.sum(axis=1))]
    cells = ({(x // 4, y // 4) for x, y in points[best, :2]} for points in (start, end))
    return min(map(len, cells))  # several keypoints of one spot count once


def match_descriptors(first, second):
    """Return the rows of two descriptor arrays that are each other's nearest and stand out.

    They stand out if the second nearest is clearly farther (Lowe's ratio test, 0.85).
    """
    if min(len(first), len(second)) < 2:
        return np.zeros(0, int), np.zeros(0, int)
    similarity = root_sift(first) @ root_sift(second).T
    rows, columns, back = np.arange(len(first)), similarity.argmax(1), similarity.argmax(0)
    best = similarity[rows, columns]
    similarity[rows, columns] = -1
    stands_out = 1 - best < 0.85**2 * (1 - similarity.max(axis=1))  # squared distances, halved
    rows = rows[stands_out & (back[columns] == rows)]
    return rows, columns[rows]


def split_scenes(groups, polyp_fractions, fold_count, validation_parts, seed):
    """Split pairs into train, validation and test without parting a group.

    One of `fold_count` folds is for testing, one of `validation_parts` parts of the rest for
    validation.

    groups: (n,) int; polyp_fractions: (n,) float, 0 to 1, by which each part gets its share of
    small and large polyps. Returns (n,) str, "train", "validation" or "test", and (n,) int folds,
    0 to fold_count - 1; the test split is fold 0. Raises InputError for fewer groups than folds.
    """
    from sklearn.model_selection import StratifiedGroupKFold  # here: see `candidate_pairs`

    groups = np.asarray(groups)
    if len(np.unique(groups)) < fold_count:
        raise InputError(
            f"{len(groups)} pairs of {len(np.unique(groups))} scenes are too few to split;"
            f" at least {fold_count} different scenes are needed"
        )
    strata = max(1, min(5, len(groups) // 50))
    bounds = np.quantile(polyp_fractions, np.arange(1, strata) / strata)
    sizes = np.digitize(polyp_fractions, bounds)

    folds = np.empty(len(groups), int)
    splitter = StratifiedGroupKFold(fold_count, shuffle=True, random_state=seed)
    for fold, (_, rows) in enumerate(splitter.split(groups, sizes, groups)):
        folds[rows] = fold
    split = np.where(folds == 0, "test", "train").astype(object)
    rest = np.flatnonzero(folds)
    parts = min(validation_parts, len(np.unique(groups[rest])))
    splitter = StratifiedGroupKFold(parts, shuffle=True, random_state=seed)
    _, chosen = next(splitter.split(rest, sizes[rest], groups[rest]))
    split[rest[chosen]] = "validation"
    return split, folds
