"""Measure what changed light, blur, compression and framing cost a network.

    python tests/robustness.py                          the network in checkpoints/
    python tests/robustness.py --checkpoints A B        each of several, in a column of its own

Each change is made to the pictures of the validation split, prepared in data/processed/, at the
size that the network sees; those that move things move the masks with them. The table has the mean
Dice over the images, at evaluation.py's threshold, and the pooled F1.
"""

import argparse
import sys
from pathlib import Path

import cv2
import numpy as np

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

import evaluation  # noqa: E402
from utils.command import run  # noqa: E402
from utils.data.dataset import load_split  # noqa: E402
from utils.devices import start_tensorflow  # noqa: E402
from utils.scoring.measure import set_scores  # noqa: E402
from utils.scoring.pixels import confusion_counts  # noqa: E402


def gamma(exponent):
    """Return a change that darkens pictures, or lightens them with an exponent below 1."""
    levels = 255 * np.linspace(0, 1, 256) ** exponent
    return lambda picture, mask, random: (levels[picture].round().astype(np.uint8), mask)


def tint(*gains):
    """Return a change that multiplies red, green and blue, as light of another colour does."""
    return lambda picture, mask, random: (
        (picture * np.array(gains)).clip(0, 255).round().astype(np.uint8),
        mask,
    )


def swap_red_and_blue(picture, mask, random):
    """Read a picture with its channels in the wrong order."""
    return picture[..., ::-1], mask


def blur(sigma):
    """Return a change that blurs pictures by a Gaussian of `sigma` pixels."""
    return lambda picture, mask, random: (cv2.GaussianBlur(picture, (0, 0), sigma), mask)


def noise(deviation):
    """Return a change that adds Gaussian noise to each channel, of 0 to 255."""

    def change(picture, mask, random):
        noisy = picture + random.normal(0, deviation, picture.shape)
        return noisy.clip(0, 255).round().astype(np.uint8), mask

    return change


def compress(quality):
    """Return a change that stores pictures as JPEG and reads them again."""

    def change(picture, mask, random):
        encoded = cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
        return cv2.imdecode(encoded, cv2.IMREAD_COLOR_RGB), mask

    return change


def crop(share):
    """Return a change that cuts a share of the side off all around, and enlarges what is left."""

    def change(picture, mask, random):
        size = len(picture)
        cut = round(share * size)
        inside = slice(cut, size - cut)
        picture = cv2.resize(picture[inside, inside], (size, size), interpolation=cv2.INTER_LINEAR)
        levels = mask[inside, inside] * np.uint8(255)
        levels = cv2.resize(levels, (size, size), interpolation=cv2.INTER_LINEAR)
        return picture, (levels >= 128).astype(np.uint8)[..., None]

    return change


def shrink(factor):
    """Return a change that shows pictures smaller, in the middle of black."""

    def change(picture, mask, random):
        size = len(picture)
        side = round(factor * size)
        begin = (size - side) // 2
        inside = slice(begin, begin + side)
        small, levels = np.zeros_like(picture), np.zeros((size, size), np.uint8)
        small[inside, inside] = cv2.resize(picture, (side, side), interpolation=cv2.INTER_AREA)
        reduced = cv2.resize(mask * np.uint8(255), (side, side), interpolation=cv2.INTER_AREA)
        levels[inside, inside] = reduced
        return small, (levels >= 128).astype(np.uint8)[..., None]

    return change


CHANGES = {
    "as they are": lambda picture, mask, random: (picture, mask),
    "darker, gamma 1.6": gamma(1.6),
    "lighter, gamma 0.6": gamma(0.6),
    "warmer light": tint(1.15, 1, 0.8),
    "colder light": tint(0.85, 1, 1.2),
    "red and blue exchanged": swap_red_and_blue,
    "blurred, sigma 1.5 pixels": blur(1.5),
    "noise, deviation 15 of 255": noise(15),
    "JPEG, quality 30": compress(30),
    "a tenth cut off all around": crop(0.1),
    "at 0.7 of the size, in black": shrink(0.7),
}


def changed(split, change):
    """Return the pictures and masks of a Split after a change, as it holds them."""
    random = np.random.default_rng(0)
    pairs = [
        change(picture, mask, random)
        for picture, mask in zip(split.images[:], split.masks[:], strict=True)
    ]
    return map(np.stack, zip(*pairs, strict=True))


def main():
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoints", nargs="+", metavar="DIR", default=["checkpoints"])
    parser.add_argument("--data", metavar="DIR", default=evaluation.DATA_DIR)
    arguments = parser.parse_args()
    split = load_split("validation", arguments.data)
    chosen = [evaluation.choose_networks([folder], False) for folder in arguments.checkpoints]
    start_tensorflow()
    predictors = [evaluation.load_prediction(networks, False).predictors[0] for networks in chosen]
    print(
        f"Dice and F1 of {len(split.names)} validation images of {arguments.data}, by networks in"
    )
    print(*(f"  {folder}" for folder in arguments.checkpoints), sep="\n")
    for name, change in CHANGES.items():
        images, masks = changed(split, change)
        cells = []
        for predict, networks in zip(predictors, chosen, strict=True):
            scores = set_scores(confusion_counts(masks, predict(images) >= networks.threshold))
            cells.append(f"{scores['image_dice']:.3f} {scores['f1']:.3f}")
        print(f"{name:28} {'   '.join(cells)}", flush=True)


if __name__ == "__main__":
    run(main)
