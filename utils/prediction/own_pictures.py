"""Pictures of one's own: found, and segmented while others are still read and already written."""

import csv
import os
import sys
import threading
from collections import Counter, deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from pathlib import Path, PurePath
from typing import NamedTuple

import cv2
import numpy as np

from utils.command import InputError, Progress, hold_back_stderr, in_all, one_line
from utils.data.pictures import (
    damaged_files,
    decode_image,
    is_picture,
    read_bytes,
    reduce_picture,
    tells_damage,
)
from utils.drawing import PREDICTION, UNSURE, encode_jpeg, outline
from utils.files import MAX_TEXT, read_file
from utils.prediction.predictors import enlarge
from utils.prediction.regions import label_regions, picture_sureness, region_sureness

FILM_SUFFIXES = {
    *(".3gp", ".asf", ".avi", ".flv", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg"),
    *(".mts", ".ogv", ".ts", ".vob", ".webm", ".wmv"),
}
PICTURE_PIXELS = 1 << 24  # a batch ends when its pictures have so many, at their own size
LARGE = 1 << 22  # pixels: pictures that have more are finished one at a time
ONE_LARGE = threading.Lock()
JPEG_SIDE = 65_500  # pixels: no JPEG, and so no picture of outlines, has a longer side

OWN_TABLE = "pictures.csv"


class Segmenter(NamedTuple):
    """What pictures are segmented with.

    predict, size: see predictors.py, and the side in pixels of the pictures that it takes. From the
    probability `threshold` on a pixel is polyp, from the sureness `level` on a polyp is an alarm.
    batch_size: pictures predicted at once.
    """

    predict: Callable
    size: int
    threshold: float
    level: float
    batch_size: int


class Row(NamedTuple):
    """A polyp in a table, or a picture of 0 polyps, which has the first three columns alone.

    polyps, alarms: how many the picture has; sureness, probability: 0 to 1, see `find_polyps`;
    polyp: its number, from 1 on; alarm: 1 if it is one; the box is in pixels, from the left top.
    """

    polyps: int
    alarms: int
    sureness: float
    polyp: int | str = ""
    alarm: int | str = ""
    pixels: int | str = ""
    percent: float | str = ""
    probability: float | str = ""
    box_left: int | str = ""
    box_top: int | str = ""
    box_width: int | str = ""
    box_height: int | str = ""


class Found(NamedTuple):
    """What is found in a picture, at its own size.

    rows: a Row for each polyp, or one; mask, sure: (height, width) bool, the latter of the alarms
    alone; probability: (height, width) float32, 0 to 1.
    """

    rows: list
    mask: np.ndarray
    sure: np.ndarray
    probability: np.ndarray


# The files


def read_list(file):
    """Return the paths that stand in a text file, one a line, or on standard input for "-".

    Returns those that are there, and a list of an InputError for each that is not. Raises
    InputError if the file cannot be read or names nothing that is there.
    """
    data = sys.stdin.buffer.read(MAX_TEXT + 1) if file == "-" else read_file(file)
    if len(data) > MAX_TEXT:
        raise InputError(f"{file}: is too large; the limit is {MAX_TEXT:,} bytes: name folders")
    lines = os.fsdecode(data.removeprefix(b"\xef\xbb\xbf")).split("\n")
    named = [line.removesuffix("\r") for line in lines if line.strip()]
    paths, missing = [], []
    for path in named:
        if os.path.isfile(path) or os.path.isdir(path):
            paths.append(path)
        else:
            missing.append(no_file(path))
    if not paths:
        what = f"names nothing that is there, such as {named[0]}" if named else "names no picture"
        raise InputError(f"{file}: {what}; it takes the path of one in each line")
    return paths, missing


def no_file(path):
    """Return the InputError for a path that is neither a file nor a folder."""
    if "://" in path:
        return InputError(f"{path}: is an address; download it, and name the file")
    return InputError(f"{path}: there is no such file")


def find_files(paths, results):
    """Return the pictures and films of files and folders, in folders too, as a dict by their names.

    A name is the path below the folder that holds all `paths`, by "/" and without the suffix, but
    with it where files of one folder differ in nothing else. Each file is taken once. Hidden
    folders, links to folders, and the folder `results` are not looked into; a line tells of files
    there that are no pictures by their suffix. Raises InputError for an address, a file that is
    missing, a folder without pictures, and two files of one name.
    """
    files, tops, others = {}, [], {}
    for path in paths:
        if os.path.isdir(path):
            below = files_below(path, results)
            found = [file for file in below if is_shown(file)]
            others |= {os.path.abspath(file): file for file in below if not is_shown(file)}
            if not found:
                raise InputError(f"{path}: holds no picture and no film of a known format")
        elif os.path.isfile(path):
            found = [path]
        else:
            raise no_file(path)
        tops.append(os.path.abspath(path if os.path.isdir(path) else os.path.dirname(path)))
        files |= {os.path.abspath(file): Path(file) for file in found}
    left_out = [file for path, file in others.items() if path not in files]  # nor named itself
    if left_out:
        first = one_line(left_out[0])
        print(f"{first}: left out, no picture or film by its suffix{in_all(len(left_out))}")
    try:
        top = os.path.commonpath(tops)
    except ValueError as error:  # Windows's
        raise InputError(f"{paths[-1]}: is on another drive; segment one drive's first") from error
    whole = {PurePath(os.path.relpath(path, top)): file for path, file in files.items()}
    bare = Counter(path.with_suffix("") for path in whole)
    by_name = {}
    for path, file in whole.items():
        name = (path if bare[path.with_suffix("")] > 1 else path.with_suffix("")).as_posix()
        if name in by_name:
            raise InputError(f"{file}: its results and {by_name[name]}'s are one; rename either")
        by_name[name] = file
    return by_name


def files_below(folder, results):
    """Return the paths of the files in a folder and those in it, but for hidden ones, in order."""

    def refuse(error):
        raise InputError(f"{error.filename}: {error.strerror}") from error

    paths, results = [], os.path.abspath(results)
    for inside, folders, names in os.walk(folder, onerror=refuse):
        folders[:] = sorted(
            name
            for name in folders
            if not name.startswith(".") and os.path.abspath(os.path.join(inside, name)) != results
        )
        paths += [os.path.join(inside, name) for name in sorted(names) if name[0] != "."]
    return paths


def is_shown(path):
    """Tell by its name whether a file is a picture or a film."""
    name = os.path.basename(path)
    suffix = PurePath(name).suffix.lower()
    return is_picture(name) or (suffix in FILM_SUFFIXES and not name.startswith("."))


# The stream: while the network predicts a batch, threads read the next and write the last


def in_order(pool, function, items, ahead):
    """Yield `function(item)` of each item, in order, by a pool that works ahead.

    At most `ahead` items are worked on at once, and about PICTURE_PIXELS pixels, by the size of the
    last picture: `function` returns tuples that begin with one, or None.
    """
    begun, allowed = deque(), 1
    for item in items:
        begun.append(pool.submit(function, item))
        while len(begun) > allowed:
            result = begun.popleft().result()
            if result:
                allowed = max(1, min(ahead, PICTURE_PIXELS // (result[0].size // 3)))
            yield result
    while begun:
        yield begun.popleft().result()


def in_batches(pictures, count):
    """Yield lists of at most `count` pictures, and of about PICTURE_PIXELS pixels.

    pictures: tuples that begin with (height, width, 3) uint8.
    """
    batch, pixels = [], 0
    for picture in pictures:
        batch.append(picture)
        pixels += picture[0].size // 3
        if len(batch) == count or pixels >= PICTURE_PIXELS:
            yield batch
            batch, pixels = [], 0
    if batch:
        yield batch


def predict_stream(pool, pictures, predict, finish, batch_size):
    """Yield what `finish` returns of each picture, in order, however many they are.

    pictures: yields a picture, (height, width, 3) uint8, RGB, the same reduced to the network's
    size, and a key; of several sizes. predict: see predictors.py. finish: is given, by the
    pool's threads, the key, the picture, and its probabilities, (size, size, 1) float32.
    """
    finished = ()
    for batch in in_batches(pictures, batch_size):
        own_size, reduced, keys = zip(*batch, strict=True)
        before, finished = finished, pool.map(finish, keys, own_size, predict(np.stack(reduced)))
        yield from before
    yield from finished


def find_polyps(probability, shape, threshold, level):
    """Return what is Found in a picture.

    probability: (size, size, 1) float32, 0 to 1; shape: the picture's, height first; threshold,
    level: see Segmenter. Polyps are the regions of `label_regions`, the probability of one is the
    mean in it, and its sureness that of `region_sureness`, or without a polyp `picture_sureness`.
    """
    probability = enlarge(probability, shape)
    mask = probability >= threshold
    labels, areas, _ = label_regions(mask)
    sureness = region_sureness(probability, labels, len(areas))
    alarms = sureness >= level
    rows = [] if len(areas) else [Row(0, 0, round(picture_sureness(probability), 4))]
    for number, (area, surest, alarm) in enumerate(zip(areas, sureness, alarms, strict=True), 1):
        region = cv2.inRange(labels, number, number)
        mean, box = cv2.mean(probability, region)[0], cv2.boundingRect(region)
        rows.append(
            Row(
                len(areas),
                int(alarms.sum()),
                round(surest, 4),
                number,
                int(alarm),
                int(area),
                round(100 * float(area) / mask.size, 3),
                round(mean, 4),
                *box,
            )
        )
    return Found(rows, mask, np.append(False, alarms)[labels], probability)


def outline_polyps(picture, mask, sure):
    """Return a picture, (height, width, 3) uint8, RGB, with the outlines of a mask of its size.

    mask, sure: (height, width) bool; what of the mask is not sure is outlined in another colour.
    """
    colours = (mask & ~sure, UNSURE), (sure, PREDICTION)
    drawn = [(part[..., None].astype(np.uint8), colour) for part, colour in colours if part.any()]
    return outline(picture, drawn, scale=1)


def segment_pictures(files, segmenter, results, probabilities):
    """Segment pictures at their own size; return how many, how many alarm, and failures.

    files: paths by names, see `find_files`; segmenter: a Segmenter.

    In the folder of `results`, see utils/results.py, this leaves masks/NAME.png, 0 and 255,
    overlays/NAME.jpg, and pictures.csv; with `probabilities` also probabilities/NAME.png, 0 to 255.
    The failures are a list of an InputError for each picture that cannot be read whole; all others
    are done. Memory does not grow with their number.
    """
    predict, size, *limits, batch_size = segmenter
    failures, done, alarming = {}, 0, 0
    progress = Progress("pictures", len(files))

    def read(item):
        name, file = item
        try:
            picture = decode_image(read_bytes(file), file, cv2.IMREAD_COLOR_RGB)
            if max(picture.shape) > JPEG_SIDE:
                raise InputError(f"{file}: a side of more than {JPEG_SIDE:,} pixels; cut it")
        except InputError as error:
            failures[file] = error
            return None
        return picture, reduce_picture(picture, size), name

    def readable(pool):
        for item in in_order(pool, read, files.items(), 2 * os.cpu_count()):
            if item is None:
                progress.advance()
            else:
                yield item

    def save(name, encoded):
        with results.write(name) as beside:
            beside.write_bytes(encoded)

    def png(image):
        return cv2.imencode(".png", image)[1]

    def finish(name, picture, probability):
        with ONE_LARGE if picture.size > 3 * LARGE else nullcontext():
            rows, mask, sure, probability = find_polyps(probability, picture.shape, *limits)
            if probabilities:
                levels = cv2.convertScaleAbs(probability, alpha=255)
                save(f"probabilities/{name}.png", png(levels))
            del probability
            save(f"masks/{name}.png", png(mask * np.uint8(255)))
            save(f"overlays/{name}.jpg", encode_jpeg(outline_polyps(picture, mask, sure), 95))
        return name, rows

    with (
        hold_back_stderr() as held_back,
        open_pool() as pool,
        results.write(OWN_TABLE) as beside,
        open_table(beside, ["name"]) as table,
    ):
        for name, rows in predict_stream(pool, readable(pool), predict, finish, batch_size):
            table.writerows([name, *row] for row in rows)
            done, alarming = done + 1, alarming + (rows[0].alarms > 0)
            progress.advance()
        damaged = tells_damage(held_back())
    if not done:
        results.discard(OWN_TABLE)
    if damaged:
        whole = sorted(set(files.values()) - set(failures))
        problem = "a damaged JPEG; its mask is that of the part that is there; replace it"
        for file in damaged_files(((file, read_bytes(file)) for file in whole), len(whole)):
            failures[file] = InputError(f"{file}: {problem}")
    return done, alarming, [failures[file] for file in sorted(failures)]


@contextmanager
def open_pool(threads=None):
    """Yield a pool of threads, by default one for each core; OpenCV's own are switched off."""
    cv2.setNumThreads(1)  # as in `parallel`
    with ThreadPoolExecutor(threads or os.cpu_count()) as pool:
        yield pool


@contextmanager
def open_table(path, columns):
    """Yield a writer of a CSV file that begins with `columns`, and goes on with those of a Row."""
    # Names that are no UTF-8 stay as the file system has them
    with open(path, "w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*columns, *Row._fields])
        yield writer


def result_names(pictures, films, probabilities):
    """Return the names of the results of pictures and films, by their names; see `find_files`."""
    suffixes = {"masks": ".png", "overlays": ".jpg"}
    suffixes |= {"probabilities": ".png"} if probabilities else {}
    names = [f"{folder}/{name}{suffixes[folder]}" for folder in suffixes for name in pictures]
    names += [f"films/{name}{suffix}" for name in films for suffix in (".mp4", ".csv")]
    return names + ([OWN_TABLE] if pictures else [])
