"""The demo: pictures of mucosa and polyps, drawn with integers only, the same everywhere."""

import cv2
import numpy as np


def draw_demo_pair(name):
    """Draw a picture of mucosa with a polyp or two, and its mask.

    The number at the end of `name` is the seed. Returns (height, width, 3) uint8 RGB and (height,
    width) uint8 of 0 and 255, at a size of the pair's own.
    """
    random = np.random.default_rng(int(name.rsplit("_", 1)[1]))
    height, width = (int(n) for n in random.integers((360, 420), (520, 640)))
    shape = (height, width)

    # Mucosa: reddish, mottled, with folds along the level lines of a smooth field
    light = 150 + smooth_noise(random, shape, 90) // 5 + smooth_noise(random, shape, 9) // 6
    field = smooth_noise(random, shape, 130)
    folds = np.zeros(shape, np.int32)
    for level in random.integers(-60, 60, 3):
        folds += np.maximum(0, 14 - np.abs(field - level)) * 2
        folds -= np.maximum(0, 14 - np.abs(field - level - 16)) * 2

    # One polyp, or two: a knobbly dome, lit from the upper left, with a shadow at its foot
    mask = np.zeros(shape, np.uint8)
    for _ in range(1 if random.random() < 0.85 else 2):
        radius = int(random.integers(height // 14, height // 3))
        center = random.integers(np.full(2, height // 4), (width - height // 4, height * 3 // 4))
        for _ in range(3):
            axes = random.integers(radius * 6 // 10, radius + 1, 2)
            offset = random.integers(-radius // 4, radius // 4 + 1, 2)
            angle = int(random.integers(0, 180))
            knob = tuple(int(n) for n in center + offset), tuple(int(n) for n in axes)
            cv2.ellipse(mask, *knob, angle, 0, 360, 255, -1)
    mask = cv2.threshold(cv2.GaussianBlur(mask, (0, 0), 4), 127, 255, cv2.THRESH_BINARY)[1]
    dome = cv2.GaussianBlur(mask, (0, 0), height / 30).astype(np.int32)
    inside = mask.astype(np.int32)
    round_dome = cv2.GaussianBlur(mask, (0, 0), height / 12).astype(np.int32)
    relief = round_dome - np.pad(round_dome, ((18, 0), (18, 0)), "edge")[:-18, :-18]
    light += folds * (255 - dome) // 255
    light += np.where(mask > 0, relief + smooth_noise(random, shape, 6) // 5, -dome // 8)

    # Colour: the polyp is redder or paler than its surroundings, never the same
    tint = random.integers((0, -42, -30), (26, -22, -14)) * (1 if random.random() < 0.7 else -1)
    mucosa = random.integers((46, -38, -58), (66, -22, -38))
    picture = light[..., None] + mucosa + inside[..., None] * tint // 255

    # The lamp's glints, its fall-off towards the edge, and the dark border of the view
    glints = np.zeros(shape, np.uint8)
    for _ in range(int(random.integers(4, 14))):
        point = tuple(int(n) for n in random.integers((0, 0), (width, height)))
        size = tuple(int(n) for n in random.integers(2, 9, 2))
        cv2.ellipse(glints, point, size, int(random.integers(0, 180)), 0, 360, 230, -1)
    picture += cv2.GaussianBlur(glints, (0, 0), 1.5).astype(np.int32)[..., None]
    rows, columns = np.ogrid[:height, :width]
    distance = (rows - height // 2) ** 2 + (columns - width // 2) ** 2
    picture = picture * (100 - 60 * distance // (height**2 + width**2))[..., None] // 100
    view = distance < (width * int(random.integers(52, 62)) // 100) ** 2
    picture = np.where(view[..., None], picture, 8) + random.integers(-4, 5, (*shape, 3))
    picture = cv2.GaussianBlur(np.clip(picture, 0, 255).astype(np.uint8), (0, 0), 1.0)
    return picture, np.where(view, mask, 0).astype(np.uint8)


def smooth_noise(random, shape, cell):
    """Return `shape`, (height, width), int32 in -128 to 127 that varies over about `cell` pixels.

    random: a NumPy generator, from which it is drawn.
    """
    height, width = shape
    coarse = random.integers(0, 256, (height // cell + 2, width // cell + 2), np.uint8)
    fine = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR_EXACT)
    return cv2.GaussianBlur(fine, (0, 0), cell / 4).astype(np.int32) - 128
