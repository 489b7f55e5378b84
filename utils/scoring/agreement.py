"""Frames that a data set shows and annotates twice: finding them, and comparing their annotations.

Two annotations of one frame tell how exact masks are, and so what a score can mean at most.
"""

from typing import NamedTuple

import cv2
import numpy as np

from utils.command import Progress, parallel
from utils.data.pictures import DECODERS, HALF, picture_area
from utils.data.scenes import MIN_INLIERS, fit_similarity, scene_pairs, sift_features
from utils.data.sources import watch_decoders
from utils.scoring.measure import set_scores
from utils.scoring.pixels import confusion_counts, image_scores

# Laid on each other, two pictures whose fine detail correlates so much are the same frame. In
# HyperKvasir, where all pairs were looked at, it is 0.97 and more for those, and for a scene a
# moment later 0.69 once and else less than 0.32. The count of agreeing keypoints would not do: it
# is 20 to 192 for the same frame, and up to 148 a moment later.
MIN_CORRELATION = 0.8


class DoubledFrame(NamedTuple):
    """A frame that two pictures show.

    first, second: names; inliers: keypoints of both that agree; correlation: of their fine detail,
    MIN_CORRELATION to 1; counts: (4,) int as from `confusion_counts`, the first annotation taken
    as the truth, the second as the prediction, in pixels of the first that both pictures show.
    """

    first: str
    second: str
    inliers: int
    correlation: float
    counts: np.ndarray


def doubled_frames(names, decode):
    """Return a list of a DoubledFrame for each pair of pictures that are the same frame.

    names: strings; decode: takes a name and returns a picture, (height, width, 3) uint8 RGB, and
    its mask, (height, width) uint8 of 0 and 255. The pairs of `scene_pairs` are laid on each
    other.
    """
    features, progress = [], Progress("pictures", len(names))
    for described in parallel(lambda name: sift_features(decode(name)[0]), names, DECODERS):
        features.append(described)
        progress.advance()

    def compare(pair):
        first, second, inliers = pair
        (picture, mask), other_pair = decode(names[first]), decode(names[second])
        shapes = picture.shape, other_pair[0].shape
        transform = fit_similarity(features[first], features[second], *shapes)
        if transform is None:
            return None
        other, other_mask, area = lay_on(picture, *other_pair, transform)
        correlation = detail_correlation(picture, other, area)
        if correlation < MIN_CORRELATION:
            return None
        area &= ~differing(picture, other, area)
        counts = confusion_counts([mask[area] >= HALF], [other_mask[area] >= HALF])[0]
        return DoubledFrame(names[first], names[second], inliers, correlation, counts)

    pairs = scene_pairs(features)
    frames, progress = [], Progress("laying frames on each other, pairs", len(pairs))
    for frame in parallel(compare, pairs, DECODERS):
        if frame:
            frames.append(frame)
        progress.advance()
    return frames


def lay_on(picture, other_picture, other_mask, transform):
    """Return another pair as it lies on a picture, and the area that both pictures show.

    Pictures and mask as `decode` of `doubled_frames` returns them; transform: (2, 3) float, from
    pixels of the other pair to those of the picture. Returns, of the picture's height and width,
    (..., 3) uint8 RGB, the mask as uint8, grey along its edge, and the area as bool.
    """
    size = picture.shape[1::-1]
    other_picture, other_mask, other_area = (
        cv2.warpAffine(image, transform, size)
        for image in (other_picture, other_mask, picture_area(other_picture))
    )
    return other_picture, other_mask, (picture_area(picture) & other_area) == 255


def detail_correlation(picture, other, area):
    """Return the correlation, -1 to 1, of the fine detail of two pictures; 0 without any.

    picture, other: (height, width, 3) uint8, RGB; area: (height, width) bool, what is compared.
    Detail is what a blur takes away. Vessels and reflections move from frame to frame, while light
    and shade stay: the grey values themselves correlate with 0.93 in pictures a second apart.
    """
    sigma = max(area.shape) / 40
    blurred = np.ones((2 * round(2 * sigma) + 1,) * 2, np.uint8)
    frame = {"borderType": cv2.BORDER_CONSTANT, "borderValue": 0}
    inside = cv2.erode(area.astype(np.uint8), blurred, **frame) > 0  # out of the border's reach
    details = []
    for image in (picture, other):
        grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32)
        detail = (grey - cv2.GaussianBlur(grey, (0, 0), sigma))[inside]
        details.append(detail - detail.sum() / max(1, detail.size))
    first, second = details
    size = np.sqrt((first @ first) * (second @ second))
    return float(first @ second / size) if size else 0.0


def differing(picture, other, area):
    """Return (height, width) bool: where one of two pictures shows something else, as an inset.

    picture, other, area: as in `detail_correlation`, the area not empty. Another brightness of the
    whole picture is no difference.
    """
    difference = cv2.blur(cv2.absdiff(picture, other).max(axis=2), (15, 15))
    return difference > np.median(difference[area]) + 60


def describe_agreement(source):
    """Return the lines that say how far the two annotations of frames shown twice agree.

    source: a Source. Raises InputError for a pair that cannot be decoded.
    """
    with watch_decoders(source, source.names):
        frames = doubled_frames(source.names, source.decode)
    if not frames:
        return [f"{source.label}: no frame stands there twice, so no annotations can be compared"]
    counts = [frame.counts for frame in frames]
    dice = image_scores(counts)["dice"]
    width = max(len(name) for frame in frames for name in (frame.first, frame.second))
    return [
        f"{'first':{width}}  {'second':{width}}  keypoints  correlation   Dice",
        *(
            f"{frame.first:{width}}  {frame.second:{width}}  {frame.inliers:9,}"
            f"  {frame.correlation:11.3f}  {score:5.3f}"
            for frame, score in zip(frames, dice, strict=True)
        ),
        f"{source.label}: frames that stand there twice, with two annotations: {len(frames):,}",
        f"  Dice of the two: mean {dice.mean():.3f}, median {np.median(dice):.3f},"
        f" lowest {dice.min():.3f}; pixels pooled, F1 {set_scores(counts)['f1']:.3f}",
        f"  the same frame: at least {MIN_INLIERS} keypoints agree on a shift, rotation and scale,",
        f"  and so laid on each other, their fine detail correlates by at least {MIN_CORRELATION}",
        "  compared: the pixels of the first that both show, with the second annotation laid on it",
    ]
