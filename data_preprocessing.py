"""Turn pictures and polyp masks into a data set that is ready for training.

    python data_preprocessing.py                            download HyperKvasir (46 MB)
    python data_preprocessing.py --archive FILE             use a copy of that archive
    python data_preprocessing.py --images DIR --masks DIR   use your own pictures
    python data_preprocessing.py --demo                     draw 120 synthetic pairs, no download

Every pair is decoded, its mask made binary, both are reduced to IMAGE_SIZE x IMAGE_SIZE, and the
pairs are split so that frames of the same scene stay together. In data/processed/ this leaves

    images.npy    (N, IMAGE_SIZE, IMAGE_SIZE, 3) uint8, RGB, 0 to 255
    masks.npy     (N, IMAGE_SIZE, IMAGE_SIZE, 1) uint8, 0 or 1
    splits.csv    name, group, split and fold of each row of the arrays
    dataset.json  source, sizes, counts, polyp fraction, hashes
    preview.png   a contact sheet: look at it before you train
"""

import argparse
import csv
import hashlib
import json
import os
import shutil
import signal
import sys
import time
import zipfile
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import cv2
import numpy as np
import requests
from matplotlib.figure import Figure
from sklearn.cluster import MiniBatchKMeans
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import normalize

# Where things are
DATA_DIR = "data/processed"
ARCHIVE_PATH = "data/hyper-kvasir-segmented-images.zip"
SPLITS_PATH = Path(__file__).parent / "data/hyperkvasir_splits.csv"

# The official archive. It has changed before: on a mismatch the download says how to go on.
ARCHIVE_URL = "https://datasets.simula.no/downloads/hyper-kvasir/hyper-kvasir-segmented-images.zip"
ARCHIVE_BYTES = 46_179_365
ARCHIVE_SHA256 = "4463011f991dcdc74ec56399788b1a93822593f17ed18a662bdeb7392ffcdd9a"
DOWNLOAD_ATTEMPTS = 5  # in a row that bring nothing
DOWNLOAD_BACKOFF = 1.0  # seconds before the first retry, doubled for each further one
DOWNLOAD_TIMEOUT = (10, 30)  # seconds to connect, and between two packets

# Pictures and masks
IMAGE_SIZE = 128  # pixels; a multiple of 16, since the network halves it four times
MASK_THRESHOLD = 128  # a mask's pixel is polyp from this value on
MASK_NOISE = 48  # how far a mask's 0 and 255 may stray: JPEG does 37 at quality 75, HyperKvasir 8
PICTURE_SUFFIXES = {
    *(".bmp", ".dib", ".gif", ".jp2", ".jpe", ".jpeg", ".jpg", ".pbm", ".pgm", ".png"),
    *(".pnm", ".ppm", ".tif", ".tiff", ".webp"),
}
DEMO_PAIRS = 120

# Frames of the same scene: chosen by looking at the pairs that each number joins
MATCHING_SIDE = 400  # pixels of the longer side
FEATURES = 300  # of a picture, at most
NEIGHBOURS = 40  # pictures that each is compared with
AGREEING_FEATURES = 4  # that join two pictures; see the README for what each number joins

# The split: a fifth of all pairs for testing, a tenth of the rest for validation
SEED = 42
FOLDS = 5  # fold 0 is the test split
VALIDATION_PARTS = 10
SPLITS = ("train", "validation", "test")
SPLIT_COLUMNS = ["name", "group", "split", "fold"]

# The figures' colours: from Okabe and Ito's palette, which colour-blind readers can tell apart
BLUE, ORANGE, GREEN, SKY, YELLOW = "#0072B2", "#E69F00", "#009E73", "#56B4E9", "#F0E442"


class InputError(Exception):
    """A mistake that the user can mend; its text is one line that names it and says how."""


class Source(NamedTuple):
    """Pairs that are decoded one by one.

    `decode(name)` returns a picture, (height, width, 3) uint8 RGB, and its mask as it was stored,
    (height, width) uint8 or uint16. archive_sha256: hex digits, where the source is an archive.
    """

    label: str
    names: list
    decode: Callable
    archive_sha256: str | None = None


class Features(NamedTuple):
    """A picture's local features: (n, 4) float32 of x, y, size in pixels and angle in degrees, and
    (n, 128) uint8 descriptors.
    """

    places: np.ndarray
    descriptors: np.ndarray


class Rows:
    """Chosen rows of an .npy file, read when they are indexed.

    Nothing stays in the process's memory: a data set larger than it can be trained on. Raises
    InputError for a file that is damaged or ends too early.
    """

    def __init__(self, path, rows):
        self.path, self.rows = Path(path), np.asarray(rows)
        try:
            whole = np.load(self.path, mmap_mode="r")
        except ValueError as error:
            raise InputError(f"{self.path}: is damaged; prepare the data set again") from error
        self.dtype, self.shape = whole.dtype, (len(self.rows), *whole.shape[1:])
        self.begin = whole.offset  # of the first row in the file, in bytes

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, positions):
        # Not through a memory map: mapping and unmapping makes threads wait for each other
        rows = self.rows[positions]
        result = np.empty((*rows.shape, *self.shape[1:]), self.dtype)
        with open(self.path, "rb", buffering=0) as file:
            for number, row in zip(rows.flat, result.reshape(-1, *self.shape[1:]), strict=True):
                file.seek(self.begin + int(number) * row.nbytes)
                if file.readinto(row) < row.nbytes:
                    raise InputError(f"{self.path}: is cut off; prepare the data set again")
        return result

    def __array__(self, dtype=None, copy=None):
        return self[:].astype(dtype or self.dtype, copy=False)


class Split(NamedTuple):
    """One split of the prepared data set, in the order of its names.

    images: (n, size, size, 3) uint8, RGB; masks: (n, size, size, 1) uint8, 0 or 1; both read from
    disk when indexed. names: n strings. groups: (n,) int, the same for frames of the same scene.
    """

    images: Rows
    masks: Rows
    names: list
    groups: np.ndarray


# What all scripts share: errors, files, progress, threads


def run(main, interrupted="interrupted"):
    """Run a script's `main`; a user's mistake ends it with one line on stderr and status 2.

    interrupted: what to say when the user stops it, which ends it with status 130.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that half-made files are cleared
    try:
        main()
    except InputError as error:
        sys.exit(fail(error, status=2))
    except KeyboardInterrupt:
        sys.exit(fail(interrupted, status=130))


def fail(message, status):
    """Print one line that names the script, and return the exit status."""
    print(f"{Path(sys.argv[0]).name}: {message}", file=sys.stderr)
    return status


def cannot_write(path, error):
    """Return the InputError for an OSError met while writing `path`."""
    return InputError(
        f"{path}: cannot be written ({error.strerror or error}): make room or choose another place"
    )


@contextmanager
def write_beside(path):
    """Yield a path to write to, which replaces `path` if the block ends well, and goes if not."""
    path = Path(path)
    beside = path.with_name(f"part.{path.name}")  # Keras goes by all suffixes
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield beside
            os.replace(beside, path)
        finally:
            beside.unlink(missing_ok=True)
    except OSError as error:
        raise cannot_write(path, error) from error


@contextmanager
def replace_folder(folder):
    """Yield an empty folder, which replaces `folder` if the block ends well, and goes if not.

    Raises InputError if `folder` holds anything but a data set, or cannot be written.
    """
    folder = Path(folder)
    part, old = (folder.with_name(folder.name + suffix) for suffix in (".part", ".old"))
    try:
        if old.exists() and not folder.exists():  # the last swap was cut short
            old.rename(folder)
        if folder.exists() and os.listdir(folder) and not (folder / "dataset.json").is_file():
            raise InputError(f"{folder}: holds other files than a data set; choose another folder")
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        try:
            yield part
            shutil.rmtree(old, ignore_errors=True)
            if folder.exists():
                folder.rename(old)
            part.rename(folder)
            shutil.rmtree(old, ignore_errors=True)
        finally:
            shutil.rmtree(part, ignore_errors=True)
    except OSError as error:
        raise cannot_write(folder, error) from error


class Progress:
    """A line that counts up to `total`: rewritten in a terminal, printed now and then in a log."""

    def __init__(self, label, total):
        self.label, self.total, self.done = label, total, 0
        self.start = self.shown = time.monotonic()
        self.terminal = sys.stdout.isatty()

    def advance(self, amount=1):
        """Count `amount` more; show it if it is the last, or the last showing is a while ago."""
        self.done += amount
        now, last = time.monotonic(), self.done >= self.total
        if now - self.shown >= (0.1 if self.terminal else 2) or (last and self.terminal):
            self.shown = now
            text = f"{self.label}: {self.done:,} of {self.total:,}, {now - self.start:.0f} s"
            if self.terminal:
                print(f"\r{text}", end="\n" if last else "", flush=True)
            else:
                print(text, flush=True)


def parallel(function, items):
    """Yield `function(item)` for each item, in order; all cores work on it, in threads."""
    cv2.setNumThreads(1)  # OpenCV frees the interpreter's lock; its own threads would only collide
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        yield from pool.map(function, items)


# The download


def download_archive(url, path, size, sha256):
    """Download the archive unless `path` holds it already; resume what an earlier try left.

    size: bytes; sha256: hex digits. Both are verified before the file gets its name.
    Raises InputError if the server cannot be reached, has no such file, or sends another one; what
    was fetched so far stays beside `path` in a .part file.
    """
    path = Path(path)
    part = path.with_name(path.name + ".part")
    if path.exists():
        if file_sha256(path) == sha256:
            print(f"{path}: here already, and verified")
            return
        raise InputError(
            f"{path}: not the archive that this script expects (another SHA-256); delete it to"
            f" download again, or use it as it is with --archive {path}"
        )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        resumed = part.exists()
        fetch(url, part, size)
        if resumed and file_sha256(part) != sha256:  # the old piece was of another file
            part.unlink()
            fetch(url, part, size)
        if file_sha256(part) != sha256:
            other = path.with_name(f"{path.stem}.unverified{path.suffix}")
            os.replace(part, other)
            raise InputError(
                f"{url}: the file has changed: {other.stat().st_size:,} bytes and another SHA-256"
                f" than expected; run again to retry, look at it and accept it with"
                f" --archive {other}, or try --demo"
            )
        os.replace(part, path)
    except OSError as error:
        raise cannot_write(path, error) from error


def fetch(url, part, size):
    """Append to the file `part` what it lacks of `url`, over as many requests as that takes.

    Connection errors, time-outs and statuses 5xx and 429 are retried with backoff.
    """
    progress = Progress("download, kB", size // 1000)
    ways_on = "run again to go on where it stopped, or use --archive FILE or --demo"
    failures = 0
    while True:
        have = part.stat().st_size if part.exists() else 0
        try:
            if fetch_rest(url, part, have, progress):
                return
            problem = "the connection broke off"
        except requests.HTTPError as error:
            status = error.response.status_code
            problem = f"the server answers {status} {error.response.reason}"
            if status < 500 and status != 429:
                raise InputError(
                    f"{url}: {problem}; if the file has moved, edit ARCHIVE_URL, or use"
                    " --archive FILE or --demo"
                ) from error
        except requests.RequestException as error:
            problem = f"no connection ({type(error).__name__})"
        grown = part.exists() and part.stat().st_size > have
        failures = 1 if grown else failures + 1
        if failures >= DOWNLOAD_ATTEMPTS:
            raise InputError(f"{url}: {problem}, {failures} times in a row; {ways_on}")
        wait = DOWNLOAD_BACKOFF * 2 ** (failures - 1)
        print(f"download: {problem}; next try in {wait:.0f} s", flush=True)
        time.sleep(wait)


def fetch_rest(url, part, have, progress):
    """Make one request for what follows the first `have` bytes; return whether `part` is whole.

    Raises requests.HTTPError for a status of 400 and above, but for 416: nothing follows.
    """
    headers = {"Range": f"bytes={have}-"} if have else {}
    with requests.get(url, headers=headers, stream=True, timeout=DOWNLOAD_TIMEOUT) as response:
        if response.status_code == 416:
            return True
        response.raise_for_status()
        ranged = response.headers.get("Content-Range", "").startswith(f"bytes {have}-")
        if response.status_code != 206 or not ranged:  # the whole file, not the rest
            have = 0
        expected = have + int(response.headers.get("Content-Length", 0))
        progress.done = have // 1000
        with open(part, "ab" if have else "wb") as file:
            for chunk in response.iter_content(1 << 16):
                file.write(chunk)
                progress.advance(file.tell() // 1000 - progress.done)
        return part.stat().st_size >= expected


def file_sha256(*paths):
    """Return the SHA-256 of the files' bytes, one after the other, as hex digits."""
    digest = hashlib.sha256()
    for path in paths:
        with open(path, "rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
    return digest.hexdigest()


# The sources of pairs: an archive, two folders, or the demo


def archive_source(path):
    """Return the pairs of a zip that holds .../images/NAME.* and .../masks/NAME.*.

    Raises InputError if it is not a readable zip of that layout.
    """
    try:
        archive = zipfile.ZipFile(path)
    except (OSError, zipfile.BadZipFile) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a whole zip file"
        raise InputError(f"{path}: {reason}; download it again, or use --demo") from error
    members = {"images": [], "masks": []}
    for member in archive.namelist():
        kind = PurePosixPath(member).parent.name
        if kind in members and not member.startswith("__MACOSX"):
            members[kind].append(member)
    for kind, found in members.items():
        if not found:
            raise InputError(f"{path}: has no folder {kind}/; it takes .../images/ and .../masks/")

    def read(member):
        try:
            return archive.read(member)
        except (OSError, zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
            raise InputError(f"{path}: {member} is damaged ({error}); download it again") from error

    source = paired_source(Path(path).name, members["images"], members["masks"], read)
    return source._replace(archive_sha256=file_sha256(path))


def folder_source(images, masks):
    """Return the pairs of two folders, a picture and a mask for each file stem.

    Raises InputError if a folder is missing or holds no picture.
    """
    files = []
    for folder in (images, masks):
        try:
            entries = sorted(entry for entry in Path(folder).iterdir() if entry.is_file())
        except OSError as error:
            raise InputError(f"{folder}: {error.strerror}; name a folder of pictures") from error
        if not any(is_picture(entry.name) for entry in entries):
            raise InputError(f"{folder}: holds no picture that OpenCV reads")
        files.append([str(entry) for entry in entries])
    return paired_source(f"{images} and {masks}", *files, read_file)


def read_file(path):
    """Return a file's bytes; raises InputError if it cannot be read."""
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from error


def is_picture(name):
    """Tell by its name whether a file is a picture; hidden files are not."""
    name = PurePosixPath(name).name
    return not name.startswith(".") and PurePosixPath(name).suffix.lower() in PICTURE_SUFFIXES


def paired_source(label, images, masks, read):
    """Match pictures and masks by file stem; `read(file)` returns the bytes of either.

    Raises InputError for a doubled stem and for a missing or an extra partner.
    """
    stems = []
    for files in (images, masks):
        by_stem = {}
        for file in filter(is_picture, files):
            stem = PurePosixPath(file).stem
            if stem in by_stem:
                raise InputError(f"{file}: same name as {by_stem[stem]}; remove one of them")
            by_stem[stem] = file
        stems.append(by_stem)
    images, masks = stems
    for this, that, kind in ((images, masks, "mask"), (masks, images, "picture")):
        alone = sorted(this.keys() - that.keys())
        if alone:
            others = f" ({len(alone)} such files in all)" if len(alone) > 1 else ""
            raise InputError(f"{this[alone[0]]}: has no {kind} of the same name{others}")

    def decode(name):
        picture = decode_image(read(images[name]), images[name], cv2.IMREAD_COLOR_RGB)
        flags = cv2.IMREAD_GRAYSCALE | cv2.IMREAD_ANYDEPTH
        return picture, decode_image(read(masks[name]), masks[name], flags)

    return Source(label, sorted(images), decode)


def decode_image(data, file, flags):
    """Decode the bytes of a picture with OpenCV's `flags`.

    Raises InputError, naming `file`, for bytes that OpenCV cannot decode or that end too early.
    """
    if not data:
        raise InputError(f"{file}: is empty (zero bytes); replace or remove it")
    if data[:2] == b"\xff\xd8" and b"\xff\xd9" not in data[len(data) // 2 :]:
        raise InputError(f"{file}: a JPEG that is cut off; replace or remove it")
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error:
        image = None
    if image is None:
        raise InputError(f"{file}: not a picture that OpenCV can decode; replace or remove it")
    return image


def demo_source():
    """Return DEMO_PAIRS synthetic pairs, drawn with integers only: the same on every machine."""
    return Source("demo", [f"demo_{i:03d}" for i in range(DEMO_PAIRS)], draw_demo_pair)


def draw_demo_pair(name):
    """Draw a picture of mucosa with a polyp, and its mask (0 or 255), both at a size of their own.

    The number at the end of `name` is the seed.
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
    """Return (height, width) int32 in -128 to 127 that varies over about `cell` pixels."""
    height, width = shape
    coarse = random.integers(0, 256, (height // cell + 2, width // cell + 2), np.uint8)
    fine = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR_EXACT)
    return cv2.GaussianBlur(fine, (0, 0), cell / 4).astype(np.int32) - 128


# From a decoded pair to a row of the arrays


def reduce_pair(picture, mask, name, size=IMAGE_SIZE):
    """Reduce a picture and its mask by area interpolation.

    picture: (height, width, 3) uint8; mask: (height, width) of an integer type.
    Returns (size, size, 3) uint8 and (size, size, 1) uint8, 0 or 1: the mask is made binary at
    its own resolution, and again after the reduction, where half a pixel's area decides.
    Raises InputError if the two differ in size or the mask is not two-valued.
    """
    if picture.shape[:2] != mask.shape:
        sizes = [f"{width} x {height}" for height, width in (picture.shape[:2], mask.shape)]
        raise InputError(f"{name}: picture is {sizes[0]}, mask {sizes[1]}; they must be the same")
    picture = cv2.resize(picture, (size, size), interpolation=cv2.INTER_AREA)
    mask = cv2.resize(binary_mask(mask, name), (size, size), interpolation=cv2.INTER_AREA)
    return picture, (mask >= MASK_THRESHOLD).astype(np.uint8)[..., None]


def binary_mask(mask, name):
    """Return a stored mask, 0/1 or 0/255 with some noise, as (height, width) uint8 of 0 and 255.

    Raises InputError, with the values it has, if it is anything else.
    """
    if mask.dtype == np.uint16:
        mask = (mask >> 8 if mask.max() > 255 else mask).astype(np.uint8)
    if mask.dtype != np.uint8:
        raise InputError(f"{name}: mask of type {mask.dtype}; store it with 8 bits, 0 and 255")
    counts = cv2.calcHist([mask], [0], None, [256], [0, 256]).ravel()
    if not counts[2:].any():
        return mask * np.uint8(255)
    between = counts[MASK_NOISE + 1 : 255 - MASK_NOISE].any()
    if between or not counts[255 - MASK_NOISE :].any():  # the latter: labels like 0 and 38
        values = [str(value) for value in np.flatnonzero(counts)]
        values = ", ".join(values if len(values) <= 8 else [*values[:4], "...", *values[-3:]])
        raise InputError(f"{name}: mask is not two-valued, it has {values}; store 0 and 255")
    return cv2.threshold(mask, MASK_THRESHOLD - 1, 255, cv2.THRESH_BINARY)[1]


# Near-duplicate frames: local features that agree on one movement


def describe_picture(picture):
    """Return the strongest SIFT features (Lowe 2004) of a picture, for `group_near_duplicates`.

    picture: (height, width, 3) uint8, RGB. Features on the dark border, on burnt-in text and on
    the lamp's reflections are left out: they are alike in pictures that show different things.
    """
    scale = MATCHING_SIDE / max(picture.shape[:2])
    size = [max(1, round(length * scale)) for length in picture.shape[1::-1]]
    picture = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    sift = cv2.SIFT_create(contrastThreshold=0.015)  # the default, 0.04, finds too little on mucosa
    points = sift.detect(grey, tissue(picture))
    points = sorted(points, key=lambda point: (-point.response, point.pt, point.angle))[:FEATURES]
    if not points:
        return Features(np.zeros((0, 4), np.float32), np.zeros((0, 128), np.uint8))
    points, descriptors = sift.compute(grey, points)
    places = np.array([(*point.pt, point.size, point.angle) for point in points], np.float32)
    return Features(places, descriptors.astype(np.uint8))  # they are whole numbers up to 255


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


def group_near_duplicates(features):
    """Return (n,) int groups, in the order of their first pictures, for n pictures' Features.

    Two pictures belong together if at least AGREEING_FEATURES of their features agree on one
    shift, rotation and scale; whatever hangs together by such pairs is one group.
    """
    pairs = likely_pairs(features)
    progress = Progress("looking for frames of the same scene, pairs", len(pairs))
    groups = np.arange(len(features))
    counts = parallel(lambda pair: agreeing_features(*(features[row] for row in pair)), pairs)
    for (first, second), count in zip(pairs, counts, strict=True):
        if count >= AGREEING_FEATURES:
            low, high = sorted((groups[first], groups[second]))
            groups[groups == high] = low
        progress.advance()
    return np.unique(groups, return_inverse=True)[1]


def likely_pairs(features):
    """Return the sorted pairs of rows of pictures that look alike: each with its NEIGHBOURS.

    Alike by VLAD (Jegou et al. 2010): how a picture's features lie around a few visual words.
    """
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


def agreeing_features(first, second):
    """Return how many features of two pictures agree on one shift, rotation and scale.

    Each matched pair of features alone proposes such a movement, by its places, sizes and angles;
    the proposal that most others agree with wins. Nothing is drawn at random.
    """
    rows, columns = matching_features(first.descriptors, second.descriptors)
    if len(rows) < AGREEING_FEATURES:
        return 0
    start, end = first.places[rows], second.places[columns]
    scale, turn = end[:, 2] / start[:, 2], np.deg2rad(end[:, 3] - start[:, 3])
    here, there = start[:, 0] + 1j * start[:, 1], end[:, 0] + 1j * end[:, 1]
    movement = (scale * np.exp(1j * turn))[:, None]
    expected = there[:, None] + movement * (here - here[:, None])
    agree = np.abs(expected - there) < 16 * np.maximum(1, np.sqrt(scale))[:, None]  # pixels
    agree &= np.abs(np.log2(scale / scale[:, None])) < 0.5
    agree &= np.cos(turn - turn[:, None]) > np.cos(np.deg2rad(25))
    agree &= (np.abs(np.log(scale)) < np.log(3))[:, None]
    best = agree[np.argmax(agree.sum(axis=1))]
    cells = ({(x // 4, y // 4) for x, y in places[best, :2]} for places in (start, end))
    return min(map(len, cells))  # several features of one spot count once


def matching_features(first, second):
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


# Splits: grouped by scene, seeded


def split_groups(groups, polyp_fractions, seed=SEED):
    """Split pairs 72 : 8 : 20 into train, validation and test without parting a group.

    groups: (n,) int; polyp_fractions: (n,) float, 0 to 1, by which each part gets its share of
    small and large polyps. Returns (n,) str of SPLITS and (n,) int folds, 0 to FOLDS - 1; the test
    split is fold 0. Raises InputError for fewer than FOLDS groups.
    """
    groups = np.asarray(groups)
    if len(np.unique(groups)) < FOLDS:
        raise InputError(
            f"{len(groups)} pairs of {len(np.unique(groups))} scenes are too few to split;"
            f" at least {FOLDS} different scenes are needed"
        )
    strata = max(1, min(5, len(groups) // 50))
    bounds = np.quantile(polyp_fractions, np.arange(1, strata) / strata)
    sizes = np.digitize(polyp_fractions, bounds)

    folds = np.empty(len(groups), int)
    splitter = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=seed)
    for fold, (_, rows) in enumerate(splitter.split(groups, sizes, groups)):
        folds[rows] = fold
    split = np.where(folds == 0, "test", "train").astype(object)
    rest = np.flatnonzero(folds)
    parts = min(VALIDATION_PARTS, len(np.unique(groups[rest])))
    splitter = StratifiedGroupKFold(parts, shuffle=True, random_state=seed)
    _, chosen = next(splitter.split(rest, sizes[rest], groups[rest]))
    split[rest[chosen]] = "validation"
    return split, folds


def read_splits(path, names):
    """Read groups, splits and folds for `names` from a CSV file with SPLIT_COLUMNS.

    Returns (n,) int groups, (n,) str splits, (n,) int folds, in the order of `names`.
    Raises InputError for a malformed file, for unknown, missing or doubled names, for an empty
    split and for a group that stands in two splits.
    """
    try:
        with open(path, newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            lines = list(reader)
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: {getattr(error, 'strerror', None) or error}") from error
    if reader.fieldnames != SPLIT_COLUMNS:
        raise InputError(f"{path}: its first line must be {','.join(SPLIT_COLUMNS)}")
    rows, split_of_group = {}, {}
    for number, line in enumerate(lines, start=2):
        name, split = line["name"], line["split"]
        if name in rows:
            raise InputError(f"{path}, line {number}: {name} stands there twice")
        if split not in SPLITS:
            raise InputError(f"{path}, line {number}: split {split!r} is none of {SPLITS}")
        try:
            rows[name] = int(line["group"]), split, int(line["fold"])
        except (TypeError, ValueError):
            raise InputError(f"{path}, line {number}: group and fold must be numbers") from None
        if split_of_group.setdefault(rows[name][0], split) != split:
            raise InputError(f"{path}, line {number}: group {rows[name][0]} stands in two splits")
    for these, those, problem in ((names, rows, "is missing"), (rows, names, "is unknown")):
        odd = sorted(set(these) - set(those))
        if odd:
            raise InputError(f"{path}: {odd[0]} {problem} ({len(odd)} such names in all)")
    for split in SPLITS:
        if split not in split_of_group.values():
            raise InputError(f"{path}: no pair is in the split {split}")
    groups, split, folds = zip(*(rows[name] for name in names), strict=True)
    return np.array(groups), np.array(split, object), np.array(folds)


def names_in(path):
    """Return the set of names in a splits file."""
    with open(path, newline="", encoding="utf-8") as file:
        return {row.get("name") for row in csv.DictReader(file)}


# The data set


def prepare(source, data_dir, splits_file=None):
    """Write the data set of a source; an earlier one stays as it was unless all goes well.

    Without `splits_file` the pairs are grouped by their look and split anew.
    """
    if not source.names:
        raise InputError(f"{source.label}: holds no pairs")
    with replace_folder(data_dir) as folder:
        sizes, features = write_arrays(source, folder, describe=not splits_file)
        masks = np.load(folder / "masks.npy", mmap_mode="r")
        fractions = masks.mean(axis=(1, 2, 3))
        if not fractions.any():
            raise InputError(f"{source.label}: no mask shows a polyp; are these the right masks?")
        if splits_file:
            groups, split, folds = read_splits(splits_file, source.names)
        else:
            groups = group_near_duplicates(features)
            split, folds = split_groups(groups, fractions)
        with open(folder / "splits.csv", "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(SPLIT_COLUMNS)
            writer.writerows(zip(source.names, groups, split, folds, strict=True))
        summary = summarise(source, sizes, fractions, groups, split)
        arrays = (folder / name for name in ("images.npy", "masks.npy", "splits.csv"))
        summary["sha256"] = file_sha256(*arrays)
        (folder / "dataset.json").write_text(json.dumps(summary, indent=2) + "\n")
        save_preview(folder, source.names, fractions)
    return summary


def write_arrays(source, folder, describe):
    """Decode and reduce all pairs, and write images.npy and masks.npy pair by pair.

    Returns the pictures' original sizes, (n, 2) int of height and width, and, if `describe` is
    true, each picture's features for `group_near_duplicates`.
    """

    def work(name):
        picture, mask = source.decode(name)
        features = describe_picture(picture) if describe else None
        return *reduce_pair(picture, mask, name), picture.shape[:2], features

    sizes, features = [], []
    progress = Progress("pairs", len(source.names))
    with open(folder / "images.npy", "wb") as images, open(folder / "masks.npy", "wb") as masks:
        for file, channels in ((images, 3), (masks, 1)):
            shape = (len(source.names), IMAGE_SIZE, IMAGE_SIZE, channels)
            header = {"descr": "|u1", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, header)
        for picture, mask, size, described in parallel(work, source.names):
            images.write(picture.tobytes())
            masks.write(mask.tobytes())
            sizes.append(size)
            features.append(described)
            progress.advance()
    return np.array(sizes), features


def summarise(source, sizes, fractions, groups, split):
    """Return what dataset.json says of a data set, but for its hash."""
    heights, widths = sizes.T
    parts = {"all": np.full(len(split), True)} | {name: split == name for name in SPLITS}
    return {
        "source": source.label,
        "archive_sha256": source.archive_sha256,
        "image_size": IMAGE_SIZE,
        "pairs": {name: int(rows.sum()) for name, rows in parts.items()},
        "polyp_fraction": {name: float(fractions[rows].mean()) for name, rows in parts.items()},
        "masks_without_polyp": int((fractions == 0).sum()),
        "groups": len(np.unique(groups)),
        "largest_group": int(np.unique(groups, return_counts=True)[1].max()),
        "original_width": [int(widths.min()), int(np.median(widths)), int(widths.max())],
        "original_height": [int(heights.min()), int(np.median(heights)), int(heights.max())],
    }


def load_split(split, data_dir=DATA_DIR):
    """Return one Split, "train", "validation" or "test", of a prepared data set.

    Raises InputError if the folder holds no data set, or the split is unknown.
    """
    if split not in SPLITS:
        raise InputError(f"split {split!r}: none of {', '.join(SPLITS)}")
    load_summary(data_dir)
    folder = Path(data_dir)
    with open(folder / "splits.csv", newline="", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    rows = [row for row, line in enumerate(lines) if line["split"] == split]
    return Split(
        Rows(folder / "images.npy", rows),
        Rows(folder / "masks.npy", rows),
        [lines[row]["name"] for row in rows],
        np.array([int(lines[row]["group"]) for row in rows]),
    )


def load_summary(data_dir=DATA_DIR):
    """Return dataset.json of a prepared data set; raises InputError where there is none."""
    path = Path(data_dir) / "dataset.json"
    if not path.is_file():
        raise InputError(
            f"{data_dir}: no data set there yet; run python data_preprocessing.py (or with --demo)"
        )
    return json.loads(path.read_text())


# Pictures of pictures


def outline(picture, masks_and_colours, scale=3):
    """Return a picture enlarged `scale` times with the outlines of masks drawn on it.

    picture: (height, width, 3) uint8; masks_and_colours: pairs of a (height, width, 1) mask, 0 or
    1, and a colour such as "#56B4E9".
    """
    size = (picture.shape[1] * scale, picture.shape[0] * scale)
    canvas = cv2.resize(picture, size, interpolation=cv2.INTER_CUBIC)
    for mask, colour in masks_and_colours:
        smooth = cv2.resize(mask[..., 0] * np.uint8(255), size, interpolation=cv2.INTER_LINEAR)
        smooth = cv2.threshold(smooth, 127, 255, cv2.THRESH_BINARY)[1]
        contours = cv2.findContours(smooth, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)[0]
        red_green_blue = tuple(bytes.fromhex(colour[1:]))
        thickness = max(1, round(max(size) / 190))
        cv2.drawContours(canvas, contours, -1, red_green_blue, thickness, cv2.LINE_AA)
    return canvas


def save_sheet(path, rows, titles, title):
    """Save a contact sheet: `rows` maps a row's label to its images, `titles` head the columns."""
    cell, gap = 144, 6  # pixels

    def tile(image):
        if image.ndim == 2:
            image = cv2.cvtColor(image * np.uint8(255), cv2.COLOR_GRAY2RGB)
        shrinking = image.shape[0] > cell
        way = cv2.INTER_AREA if shrinking else cv2.INTER_CUBIC
        image = cv2.resize(image, (cell, cell), interpolation=way)
        return cv2.copyMakeBorder(image, 0, gap, 0, gap, cv2.BORDER_CONSTANT, value=(255,) * 3)

    sheet = np.vstack([np.hstack([tile(image) for image in images]) for images in rows.values()])
    height, width = sheet.shape[:2]
    # One image for all: axes of their own take a hundredth of a second each
    figure = Figure((width / 100 + 0.4, height / 100 + 0.65), layout="constrained")
    axes = figure.subplots()
    axes.imshow(sheet[:-gap, :-gap])
    axes.set_xticks(np.arange(cell / 2, width, cell + gap), titles, fontsize=8)
    axes.set_yticks(
        np.arange(cell / 2, height, cell + gap), rows, rotation=90, va="center", fontsize=10
    )
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_title(title, fontsize=11)
    with write_beside(path) as beside:
        figure.savefig(beside, dpi=100)


def save_preview(folder, names, fractions, count=8):
    """Save preview.png: pairs from the smallest to the largest polyp, with the masks' outlines."""
    order = np.argsort(fractions, kind="stable")
    rows = order[np.linspace(0, len(order) - 1, min(count, len(order))).astype(int)]
    pictures = np.load(folder / "images.npy", mmap_mode="r")[rows]
    masks = np.load(folder / "masks.npy", mmap_mode="r")[rows]
    pairs = list(zip(pictures, masks, strict=True))
    sheet = {
        "picture": pictures,
        "mask": masks[..., 0],
        "outline": [outline(picture, [(mask, SKY)]) for picture, mask in pairs],
    }
    titles = [f"{names[row][-12:]}\n{fractions[row]:.1%} polyp" for row in rows]
    save_sheet(folder / "preview.png", sheet, titles, "From the smallest to the largest polyp")


def parse_arguments():
    """Return the command line's arguments."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--archive", metavar="FILE", help="a local copy of the archive")
    source.add_argument("--images", metavar="DIR", help="your own pictures; takes --masks too")
    source.add_argument("--demo", action="store_true", help="draw synthetic pairs")
    parser.add_argument("--masks", metavar="DIR", help="your own masks, of the pictures' names")
    splits = parser.add_mutually_exclusive_group()
    splits.add_argument("--splits", metavar="FILE", help=f"CSV: {','.join(SPLIT_COLUMNS)}")
    splits.add_argument("--regroup", action="store_true", help="group and split HyperKvasir anew")
    parser.add_argument("--data", metavar="DIR", default=DATA_DIR, help="default: %(default)s")
    arguments = parser.parse_args()
    if bool(arguments.images) != bool(arguments.masks):
        parser.error("--images and --masks go together")
    return arguments


def choose_source(arguments):
    """Return the source that the arguments ask for; downloads the archive if it is the default."""
    if arguments.demo:
        return demo_source()
    if arguments.images:
        return folder_source(arguments.images, arguments.masks)
    if not arguments.archive:
        download_archive(ARCHIVE_URL, ARCHIVE_PATH, ARCHIVE_BYTES, ARCHIVE_SHA256)
    return archive_source(arguments.archive or ARCHIVE_PATH)


def main():
    """Prepare the data set that the command line asks for."""
    arguments = parse_arguments()
    start = time.monotonic()
    source = choose_source(arguments)
    splits_file = arguments.splits
    if not (splits_file or arguments.regroup) and names_in(SPLITS_PATH) == set(source.names):
        splits_file = SPLITS_PATH
    summary = prepare(source, arguments.data, splits_file)
    pairs, seconds = summary["pairs"], time.monotonic() - start
    origin = Path(splits_file).name if splits_file else f"computed, seed {SEED}"
    option = f" --data {arguments.data}" if arguments.data != DATA_DIR else ""
    print(
        f"{arguments.data}: {pairs['all']:,} pairs of {IMAGE_SIZE} x {IMAGE_SIZE} from"
        f" {source.label} in {seconds:.0f} s\n"
        f"  splits: {pairs['train']:,} train, {pairs['validation']:,} validation,"
        f" {pairs['test']:,} test ({origin})\n"
        f"  scenes: {summary['groups']:,}, the largest of {summary['largest_group']} frames\n"
        f"  polyp: {summary['polyp_fraction']['all']:.1%} of the average mask;"
        f" masks without a polyp: {summary['masks_without_polyp']}\n"
        f"Look at {Path(arguments.data) / 'preview.png'}, then run: python train.py{option}"
    )


if __name__ == "__main__":
    run(main)
