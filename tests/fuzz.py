"""Feed what users' files can hold to what reads them: a clean result or one line, nothing else.

    python tests/fuzz.py                    20,000 cases, in a quarter of an hour
    python tests/fuzz.py --cases N --seed S

Hypothesis draws archives, pictures, masks, splits tables and saved configurations, most of them
damaged. A crash, a hang of more than SECONDS, an error of several lines, or a case that takes more
than MEGABYTES of memory (as Linux tells it) is a failure. tests/test_fuzz.py runs some of the same
cases.
"""

import argparse
import faulthandler
import hashlib
import io
import json
import os
import sys
import tempfile
import time
import traceback
import zipfile
from collections import Counter
from contextlib import suppress
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from shell import read_picture
from utils.command import InputError, Progress, hold_back_stderr, one_line
from utils.data.dataset import load_split, load_summary
from utils.data.pictures import MaskConvention, cv2, decode_image, decode_pair
from utils.data.sources import archive_source, watch_decoders
from utils.data.splits import check_folds, read_splits
from utils.prediction.networks import read_config
from utils.training.epochs import best_row
from utils.training.history import MEASURED, read_history, write_history
from utils.training.resume import earlier_training

SECONDS = 10  # of a case
MEGABYTES = 900  # that the process takes for a case, on top of about 100
BATCH = 200  # cases of one room in a row
STDERR = os.fdopen(os.dup(2), "w")  # what decoders write to the other is held back
PROCESS = Path("/proc/self")

# Files to begin with

NUMBERS = [
    bytes(4),
    b"\xff" * 4,
    b"\x7f\xff\xff\xff",
    b"\0\0\xea\x60",
    b"\x60\xea\0\0",
    b"\xff\xd9",
]


@st.composite
def damaged(draw, files):
    """Draw the bytes of a file, mostly with some of them changed, left out or put in."""
    content = bytearray(draw(files))
    for _ in range(draw(st.sampled_from([0, 0, 0, 1, 1, 2, 4]))):
        begin = draw(st.integers(0, len(content)))
        length = draw(st.sampled_from([0, 1, 2, 4, 4, 64, 10_000]))
        content[begin : begin + length] = draw(st.binary(max_size=8) | st.sampled_from(NUMBERS))
    return bytes(content)


sizes = st.tuples(st.integers(1, 40), st.integers(1, 40))


@st.composite
def images(draw, size=None, mask=None):
    """Draw the bytes of an image that OpenCV has written, of any kind, 1 to 40 pixels a side.

    size: height and width, if it matters; mask: whether it is of few values, and 0 and 255 at that.
    """
    suffixes = [".png", ".bmp", ".tif", ".pgm", ".jpg", ".webp", ".jp2", ".gif"]
    suffix = draw(st.sampled_from(suffixes[:4] if mask else suffixes))
    height, width = size or draw(sizes)
    random = np.random.default_rng(draw(st.integers(0, 9)))
    wide = suffix in (".png", ".tif", ".jp2") and draw(st.booleans())
    channels = draw(st.sampled_from([1, 3, 4] if suffix in (".png", ".tif", ".webp") else [1, 3]))
    if mask or draw(st.booleans()):
        labels = (0, 255) if mask else draw(st.sampled_from([(0, 1), (0, 38), (0, 255, 128)]))
        rows = random.choice(labels, height)
        image = np.repeat(np.repeat(rows[:, None, None], width, axis=1), channels, axis=2)
    else:
        image = random.integers(0, 256, (height, width, channels))
    image = image.astype(np.uint16) * 257 if wide else image.astype(np.uint8)
    if suffix == ".pgm":
        image = image[..., 0]
    flags = [cv2.IMWRITE_JPEG_PROGRESSIVE, draw(st.integers(0, 1))] if suffix == ".jpg" else []
    with hold_back_stderr():  # JPEG 2000 has a least size
        written, encoded = cv2.imencode(suffix, np.ascontiguousarray(image), flags)
    encoded = encoded.tobytes() if written else b"GIF89a"  # nor does GIF take grey
    if suffix == ".jpg" and draw(st.booleans()):
        tags = b"Exif\0\0II*\0\x08\0\0\0\1\0\x12\1\3\0\1\0\0\0"
        tags += bytes([draw(st.integers(0, 9)), 0, 0, 0, 0, 0, 0, 0])
        encoded = (
            encoded[:2] + b"\xff\xe1" + (len(tags) + 2).to_bytes(2, "big") + tags + encoded[2:]
        )
    return encoded


conventions = st.builds(
    MaskConvention,
    values=st.lists(
        st.sampled_from([0, 1, 38, 255, 65535, (0, 0, 0), (255, 255, 255)]), max_size=2
    ).map(tuple),
    threshold=st.sampled_from([None, None, 0, 128, 65535]),
    inverted=st.booleans(),
    resize=st.sampled_from([False, True, "stretch"]),
).filter(lambda given: given.threshold is None or not given.values)  # as the flags are
letters = st.characters(codec="utf-8", exclude_characters="/\0")
names = st.sampled_from(["a", "b", "c d", "ä", "a_mask"]) | st.text(letters, min_size=1, max_size=9)


@st.composite
def archives(draw):
    """Draw the bytes of a zip of pictures and masks, and of what does not belong there."""
    buffer, method, size = io.BytesIO(), draw(st.sampled_from([8, 8, 0, 12])), draw(sizes)
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name in draw(st.lists(names, min_size=1, max_size=3, unique=True)):
            for folder in ("images", "masks"):
                content = images(size, folder == "masks")
                archive.writestr(f"{folder}/{name}.png", draw(content | damaged(content)))
        if draw(st.booleans()):
            file = draw(st.sampled_from(["x.zip", "../images/y.png", "__MACOSX/images/a.png"]))
            archive.writestr(file, b"PK")
    return buffer.getvalue()


@st.composite
def tables(draw):
    """Draw the bytes of a splits table."""
    cell = st.sampled_from(["0", "1", "2", "train", "validation", "test", '"', "", "-1", "1e9"])
    splits = ["train", "validation", "test"]
    lines = [["name", "group", "split", "fold"]]
    for number in range(draw(st.integers(3, 8))):
        lines.append([f"{number:02d}", str(number), splits[number % 3], str(number % 3)])
    for _ in range(draw(st.integers(0, 2))):
        line = draw(st.sampled_from(lines))
        line[draw(st.integers(0, 3))] = draw(cell | st.text(max_size=5))
    return "\n".join(map(",".join, lines)).encode("utf-8", "surrogatepass")


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=5,
)


@st.composite
def configurations(draw, example):
    """Draw the bytes of a JSON file like `example`, with values replaced or left out."""
    example = json.loads(json.dumps(example))
    for _ in range(draw(st.integers(0, 2))):
        inner = example
        while True:
            key = draw(st.sampled_from(sorted(inner)))
            if not (isinstance(inner[key], dict) and inner[key] and draw(st.booleans())):
                break
            inner = inner[key]
        if draw(st.booleans()):
            inner[key] = draw(values)
        else:
            del inner[key]
        if not example:
            break
    return json.dumps(example).encode()


SPLITS = b"name,group,split,fold\na,0,train,1\nb,1,validation,2\nc,2,test,0\n"
SUMMARY = {
    "source": "demo",
    "image_size": 16,
    "pairs": {"all": 3, "train": 1, "validation": 1, "test": 1},
    "polyp_fraction": {"all": 0.1, "train": 0.1, "validation": 0.1, "test": 0.1},
    "sha256": "0",
    "splits_sha256": hashlib.sha256(SPLITS).hexdigest(),
}
CONFIG = {
    "settings": {"filters": 2, "seed": 42, "data_source": "demo", "data_sha256": "0"},
    "machine": {"precision": "float32"},
}
ROWS = [
    {"phase": phase, "epoch": 1, "seconds": 1.5} | dict.fromkeys(MEASURED, 0.5) for phase in (1, 2)
]
HISTORY = "\n".join(",".join(map(str, row)) for row in (ROWS[0], *(r.values() for r in ROWS), ""))


# What reads them


def read_archive(folder, content):
    """An archive, and all its pairs."""
    (folder / "pairs.zip").write_bytes(content)
    source = archive_source(folder / "pairs.zip")
    with watch_decoders(source, source.names):
        for name in source.names:
            check_pair(*source.decode(name))


def check_pair(picture, mask):
    """A picture and its mask are of one size, and of the types that are promised."""
    assert picture.shape == (*mask.shape, 3)
    assert picture.dtype == mask.dtype == np.uint8
    assert set(np.unique(mask)) <= {0, 255}


def read_one_picture(folder, content):
    """A picture of one's own."""
    (folder / "a.png").write_bytes(content)
    picture = read_picture(folder / "a.png")
    assert (picture.ndim, picture.shape[2], picture.dtype) == (3, 3, np.uint8)


def read_mask(folder, case):
    """A mask with a picture that is whole."""
    mask, convention = case
    height, width = 20, 30
    with suppress(InputError):
        height, width = decode_image(mask, "b.png", cv2.IMREAD_UNCHANGED).shape[:2]
    picture = cv2.imencode(".png", np.zeros((height, width, 3), np.uint8))[1].tobytes()
    check_pair(*decode_pair(picture, mask, "a.png", "b.png", convention))


def read_table(folder, content):
    """A splits table."""
    path = folder / "splits.csv"
    path.write_bytes(content)
    splits = read_splits(path)
    assert all(len(column) == len(splits.names) for column in splits[1:4] if column is not None)
    if splits.groups is not None and splits.folds is not None:
        check_folds(path, splits.groups, splits.folds, 0)


def read_saved(folder, case):
    """What a prepared data set and a training have left."""
    summary, config, history, splits = case
    (folder / "dataset.json").write_bytes(summary)
    (folder / "config.json").write_bytes(config)
    (folder / "history.csv").write_bytes(history)
    (folder / "splits.csv").write_bytes(splits)
    for name, channels in (("images.npy", 3), ("masks.npy", 1)):
        np.save(folder / name, np.zeros((3, 16, 16, channels), np.uint8))
    readers = (
        lambda: load_summary(folder),
        lambda: load_split("train", folder),
        lambda: read_config(folder),
        lambda: earlier_training(folder, CONFIG["settings"]),
        lambda: read_history(folder / "history.csv"),
    )
    refusals = []
    for reader in readers:
        try:
            read = reader()
        except InputError as error:
            assert_line(error)
            refusals.append(error)
        else:
            if reader is readers[-1] and read:
                best_row(read)
                write_history(folder / "history.csv", read)
    if refusals:
        raise refusals[0]


def assert_line(error):
    """An error is one line that says something, as it is printed."""
    assert one_line(error).splitlines() == [one_line(error)]


ROOMS = {
    "archives": (damaged(archives()), read_archive),
    "pictures": (damaged(images()), read_one_picture),
    "masks": (st.tuples(damaged(images()) | damaged(images(mask=True)), conventions), read_mask),
    "splits": (damaged(tables()), read_table),
    "saved": (
        st.tuples(
            *(
                damaged(files) | files | st.just(json.dumps(example).encode())
                for example in (SUMMARY, CONFIG)
                for files in [configurations(example)]
            ),
            damaged(st.just(HISTORY.encode())),
            st.just(SPLITS) | damaged(st.just(SPLITS)),
        ),
        read_saved,
    ),
}


def memory(field):
    """Return the megabytes that the process holds, "VmRSS", or has held at most, "VmHWM"."""
    status = (PROCESS / "status").read_text().split()
    return int(status[status.index(f"{field}:") + 1]) // 1024


def fuzz(room, cases, number=None):
    """Run cases of a room, the same for the same number; return how they ended, and a peak.

    number: of the seed, None for Hypothesis's fixed choice. Returns a Counter of "clean" and
    "refused", and the most megabytes that a case has taken. Raises what a case has failed with,
    after Hypothesis has made it small.
    """
    strategy, read = ROOMS[room]
    outcomes, taken = Counter(), []

    def case(drawn):
        (PROCESS / "clear_refs").write_text("5")  # VmHWM begins anew
        before = memory("VmRSS")
        faulthandler.dump_traceback_later(SECONDS, exit=True, file=STDERR)  # C cannot be stopped
        with tempfile.TemporaryDirectory() as folder, hold_back_stderr():
            try:
                read(Path(folder), drawn)
                outcomes["clean"] += 1
            except InputError as error:
                assert_line(error)
                outcomes["refused"] += 1
            finally:
                faulthandler.cancel_dump_traceback_later()
        taken.append(memory("VmHWM") - before)
        assert taken[-1] <= MEGABYTES, f"{taken[-1]:,} MB of memory"

    options = {"derandomize": number is None, "database": None, "deadline": None}
    checks = list(HealthCheck)
    test = settings(max_examples=cases, suppress_health_check=checks, **options)(
        given(strategy)(case)
    )
    (test if number is None else seed(number)(test))()
    return outcomes, max(taken)


def main():
    """Run all rooms in turn; say how the cases ended, and exit with 1 if any failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=20_000, help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    arguments = parser.parse_args()
    outcomes, failures, megabytes = {room: Counter() for room in ROOMS}, 0, 0
    start = time.monotonic()
    progress = Progress("cases", arguments.cases)
    while progress.done < arguments.cases:
        for room in ROOMS:
            cases = min(BATCH, arguments.cases - progress.done)
            if not cases:
                break
            try:
                counter, peak = fuzz(room, cases, arguments.seed + progress.done)
                outcomes[room] += counter
                megabytes = max(megabytes, peak)
            except Exception:
                failures += 1
                print(f"A failure among {room}:\n{traceback.format_exc()}", flush=True)
            progress.advance(cases)
    for room, counter in outcomes.items():
        print(f"{room}: {counter['clean']:,} clean, {counter['refused']:,} refused in a line")
    total = sum(counter.total() for counter in outcomes.values())
    print(
        f"{total:,} cases in {time.monotonic() - start:.0f} s, seed {arguments.seed}: {failures}"
        f" failures; at most {megabytes:,} MB of memory taken"
    )
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
