"""Scenes: which pictures show the same one.

Two pictures show the same scene if local features of both agree on one shift, rotation and scale.
"""

import threading
from collections import Counter, defaultdict
from itertools import combinations
from typing import NamedTuple

import cv2
import numpy as np

from utils.command import Progress, parallel

# Keypoints that agree and so join two pictures; docs/data.md says what each number joins. Fewer
# than SURE_INLIERS may agree by chance, and join groups only where half of their pairs are joined
MIN_INLIERS, SURE_INLIERS = 4, 8

UNKNOWN = -1  # the scene of a picture that is to be looked for

MATCHING_SIDE = 400  # pixels of the longer side
MAX_KEYPOINTS = 300  # of a picture
NEIGHBOURS = 40  # pictures that each is compared with
SAMPLE = 2000  # pictures, at most, whose features give the visual words
AXES = 32  # of a feature's 128, by which those of more pictures are told apart
FIT_TOLERANCE = 3  # pixels at MATCHING_SIDE by which a keypoint of a fitted transform may be off


class Features(NamedTuple):
    """A picture's SIFT features.

    keypoints: (n, 4) float32 of x, y, size in pixels and angle in degrees; descriptors: (n, 128)
    uint8.
    """

    keypoints: np.ndarray
    descriptors: np.ndarray


class FeatureFile:
    """A list of Features that lies in an open file: some 40 KB of each picture.

    file: to write and to read, as from `tempfile.TemporaryFile`.
    """

    def __init__(self, file):
        self.file, self.ends, self.lock = file, [0], threading.Lock()

    def append(self, features):
        """Add the Features of one picture."""
        for array in features:
            self.file.write(array.tobytes())
        self.ends.append(self.file.tell())

    def __len__(self):
        return len(self.ends) - 1

    def __getitem__(self, row):
        begin, end = self.ends[row : row + 2]
        with self.lock:
            self.file.seek(begin)
            data = self.file.read(end - begin)
        count = len(data) // (4 * 4 + 128)
        keypoints = np.frombuffer(data, np.float32, 4 * count).reshape(count, 4)
        return Features(keypoints, np.frombuffer(data, np.uint8)[16 * count :].reshape(count, 128))


def sift_features(picture):
    """Return the strongest SIFT features (Lowe 2004) of a picture, for `group_scenes`.

    picture: (height, width, 3) uint8, RGB. Features on the dark border, on burnt-in text and on
    the lamp's reflections are left out: they are alike in pictures that show different things.
    """
    picture = cv2.resize(picture, matching_size(picture.shape), interpolation=cv2.INTER_AREA)
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


def matching_size(shape):
    """Return the width and height at which a picture of `shape`, height first, is matched."""
    scale = MATCHING_SIDE / max(shape[:2])
    return [max(1, round(length * scale)) for length in shape[1::-1]]


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


def group_scenes(features):
    """Return (n,) int groups, in the order of their first pictures, for n pictures' Features.

    Two pictures belong together if at least MIN_INLIERS of their keypoints agree on one shift,
    rotation and scale, and whatever hangs together by SURE_INLIERS is one group. Fewer join two
    groups if at least half of all pairs between them are joined: in thousands of pictures some
    agree by chance, and would chain what has nothing in common.
    """
    parent = list(range(len(features)))  # of a row, up to the first of its group

    def group_of(row):
        while parent[row] != row:
            parent[row] = row = parent[parent[row]]
        return row

    links = sorted(scene_pairs(features), key=lambda link: -link[2])
    sure = [pair for *pair, inliers in links if inliers >= SURE_INLIERS]
    for low, high in (sorted(map(group_of, pair)) for pair in sure):
        parent[high] = low
    size, between = Counter(map(group_of, parent)), defaultdict(Counter)
    unsure = [pair for *pair, inliers in links if inliers < SURE_INLIERS]
    for low, high in (sorted(map(group_of, pair)) for pair in unsure):
        if low != high:
            between[low][high] += 1
            between[high][low] += 1
    for low, high in (sorted(map(group_of, pair)) for pair in unsure):
        if low != high and 2 * between[low][high] >= size[low] * size[high]:
            parent[high] = low
            size[low] += size[high]
            for other, joined in between.pop(high).items():
                del between[other][high]
                if other != low:
                    between[low][other] += joined
                    between[other][low] += joined
    return np.unique([group_of(row) for row in parent], return_inverse=True)[1]


def fill_scenes(groups, features):
    """Return groups, (n,) int, with numbers of their own for those that are UNKNOWN.

    features: the Features of these, in their order.
    """
    groups = np.array(groups)
    unknown = groups == UNKNOWN
    if unknown.any():
        groups[unknown] = group_scenes(features) + groups.max() + 1
    return groups


def scene_pairs(features):
    """Return the pairs of rows with at least MIN_INLIERS keypoints that agree, and their count.

    features: a list of n pictures' Features, or a FeatureFile. Returns sorted tuples of three ints.
    """

    def compare(pairs):
        first = features[pairs[0, 0]]
        return [(*pair, count_inliers(first, features[pair[1]])) for pair in pairs.tolist()]

    pairs, found = candidate_pairs(features), []
    progress = Progress("looking for frames of the same scene, pairs", len(pairs))
    by_first = np.split(pairs, np.flatnonzero(np.diff(pairs[:, 0])) + 1) if len(pairs) else []
    for counted in parallel(compare, by_first):
        found += [pair for pair in counted if pair[2] >= MIN_INLIERS]
        progress.advance(len(counted))
    return found


def candidate_pairs(features):
    """Return the sorted pairs of rows of pictures that look alike, (m, 2) int.

    Alike by VLAD (Jegou et al. 2010): how a picture's features lie around a few visual words; of
    more than SAMPLE pictures, along the AXES in which features differ most. Each picture with its
    NEIGHBOURS, or with all where the pictures, or their features, are too few for that.
    """
    # Here, since it takes a second to import, which no refusal should wait for
    from sklearn.cluster import MiniBatchKMeans
    from sklearn.decomposition import PCA
    from sklearn.neighbors import NearestNeighbors

    count, words = len(features), 32
    sampled = range(0, count, max(1, -(-count // SAMPLE)))
    sample = [features[row].descriptors[::8] for row in sampled]
    if count <= NEIGHBOURS + 1 or sum(map(len, sample)) < words:
        some = [row for row in range(count) if len(features[row].descriptors)]
        return np.array(list(combinations(some, 2)), int).reshape(-1, 2)
    sample = np.concatenate(list(map(root_sift, sample)))
    axes = None
    if count > SAMPLE and len(sample) >= AXES:
        axes = PCA(AXES, random_state=0).fit(sample).components_
        sample = multiply_transposed(sample, axes)
    centers = MiniBatchKMeans(words, batch_size=4096, max_iter=20, n_init=1, random_state=0)
    centers = centers.fit(sample).cluster_centers_
    looks = np.empty((count, centers.size), np.float32)
    progress = Progress("describing pictures", count)
    for row in range(count):
        descriptors = root_sift(features[row].descriptors)
        if axes is not None:
            descriptors = multiply_transposed(descriptors, axes)
        looks[row] = vlad(descriptors, centers)
        progress.advance()
    nearest = NearestNeighbors(n_neighbors=NEIGHBOURS + 1).fit(looks)  # the first is itself
    progress, pairs = Progress("looking for pictures that look alike", count), []
    for begin in range(0, count, SAMPLE):
        found = nearest.kneighbors(looks[begin : begin + SAMPLE], return_distance=False)
        rows = np.arange(begin, begin + len(found))[:, None]
        pairs.append(np.minimum(rows, found) * count + np.maximum(rows, found))
        progress.advance(len(found))
    low, high = np.divmod(np.unique(np.concatenate(pairs)), count)
    return np.stack([low, high], axis=1)[low < high]


def vlad(descriptors, centers):
    """Return how (n, d) descriptors lie around (k, d) centers, (k d,) float32, of unit length."""
    similarity = multiply_transposed(descriptors, centers)
    nearest = np.argmax(2 * similarity - (centers**2).sum(axis=1), axis=1)
    word = np.eye(len(centers), dtype=np.float32)[:, nearest]
    around = multiply_transposed(word, descriptors.T) - word.sum(axis=1, keepdims=True) * centers
    around /= np.maximum(np.linalg.norm(around, axis=1, keepdims=True), 1e-12)
    return around.ravel() / np.maximum(np.linalg.norm(around), 1e-12)


def multiply_transposed(first, second):
    """Return the product of (n, k) and the transposed (m, k), (n, m), all float32.

    By OpenCV, since NumPy's BLAS starts threads of its own, which wait for each other: thirty times
    as long in threads, and ten times wherever the processor is shared.
    """
    if not (len(first) and len(second)):
        return np.zeros((len(first), len(second)), np.float32)
    return cv2.gemm(first, second, 1, None, 0, flags=cv2.GEMM_2_T)


def root_sift(descriptors):
    """Return (n, 128) float32 of unit length (RootSIFT, Arandjelovic and Zisserman 2012)."""
    descriptors = descriptors.astype(np.float32)
    return np.sqrt(descriptors / np.maximum(descriptors.sum(axis=1, keepdims=True), 1))


def count_inliers(first, second):
    """Return how many matched keypoints of two pictures agree on one shift, rotation and scale."""
    cells = (
        {(x // 4, y // 4) for x, y in points[:, :2]} for points in agreeing_keypoints(first, second)
    )
    return min(map(len, cells))  # several keypoints of one spot count once


def agreeing_keypoints(first, second):
    """Return the keypoints of two pictures' Features that agree on one shift, rotation and scale.

    Each matched pair of keypoints alone proposes such a transform, by its places, sizes and angles;
    the proposal that most others agree with wins. Nothing is drawn at random. Returns two arrays,
    (k, 4) float32 as in Features: row by row the same spot in the first and in the second picture.
    """
    rows, columns = match_descriptors(first.descriptors, second.descriptors)
    start, end = first.keypoints[rows], second.keypoints[columns]
    if not len(rows):
        return start, end
    scale, turn = end[:, 2] / start[:, 2], np.deg2rad(end[:, 3] - start[:, 3])
    here, there = start[:, 0] + 1j * start[:, 1], end[:, 0] + 1j * end[:, 1]
    transform = (scale * np.exp(1j * turn))[:, None]
    expected = there[:, None] + transform * (here - here[:, None])
    inliers = np.abs(expected - there) < 16 * np.maximum(1, np.sqrt(scale))[:, None]  # pixels
    inliers &= np.abs(np.log2(scale / scale[:, None])) < 0.5
    inliers &= np.cos(turn - turn[:, None]) > np.cos(np.deg2rad(25))
    inliers &= (np.abs(np.log(scale)) < np.log(3))[:, None]
    best = inliers[np.argmax(inliers.sum(axis=1))]
    return start[best], end[best]


def fit_similarity(first, second, first_shape, second_shape):
    """Return the shift, rotation and scale that lay the second picture onto the first.

    first, second: the pictures' Features; the shapes, height first, are those of the pictures
    before they were reduced for matching. Returns (2, 3) float for `cv2.warpAffine`, in pixels of
    both as they are, or None if too few keypoints agree: RANSAC among the agreeing keypoints, which
    are pixels apart in a scene that has moved, then least squares.
    """
    places = [
        (points[:, :2] + 0.5) * np.divide(shape[1::-1], matching_size(shape)) - 0.5
        for points, shape in zip(
            agreeing_keypoints(first, second), (first_shape, second_shape), strict=True
        )
    ]
    if len(places[0]) < 2:
        return None
    tolerance = FIT_TOLERANCE * max(first_shape[:2]) / MATCHING_SIDE
    return cv2.estimateAffinePartial2D(places[1], places[0], ransacReprojThreshold=tolerance)[0]


def match_descriptors(first, second):
    """Return the rows of two descriptor arrays that are each other's nearest and stand out.

    They stand out if the second nearest is clearly farther (Lowe's ratio test, 0.85).
    """
    if min(len(first), len(second)) < 2:
        return np.zeros(0, int), np.zeros(0, int)
    similarity = multiply_transposed(root_sift(first), root_sift(second))
    rows, columns, back = np.arange(len(first)), similarity.argmax(1), similarity.argmax(0)
    best = similarity[rows, columns]
    similarity[rows, columns] = -1
    stands_out = 1 - best < 0.85**2 * (1 - similarity.max(axis=1))  # squared distances, halved
    rows = rows[stands_out & (back[columns] == rows)]
    return rows, columns[rows]
