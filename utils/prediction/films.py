"""Films: frames streamed through the network, outlined, and written as a film of the same kind."""

import itertools
import math
import os
from contextlib import contextmanager, suppress
from typing import NamedTuple

import cv2
import numpy as np

from utils.command import InputError, Progress
from utils.data.pictures import is_picture, reduce_picture
from utils.drawing import PREDICTION
from utils.prediction.own_pictures import (
    FILM_SUFFIXES,
    find_polyps,
    in_order,
    open_pool,
    open_table,
    outline_polyps,
    predict_stream,
)

FRAMES_AHEAD = 8  # read while the network is at work
READ_ATTEMPTS = 1000  # that fail in a row mean the end; after fewer, damaged frames, others follow
# If so many of the steps from frame to frame are alike, the rate is constant, and frames are lost
# where one is longer; unless all that the film counts are there
CONSTANT = 0.95
END_SECONDS = 0.5  # a film may end so much before it says: that is an estimate, or its sound's end

# FFmpeg and OpenCV would print lines of their own on films that are broken. Only what is set before
# the first film counts.
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")


class FilmError(InputError):
    """A film that cannot be played, or not to its end; others may be."""


def film_path(file):
    """Return a film's path as FFmpeg takes it: text, in which no colon stands for a protocol.

    Raises FilmError for one that is not in UTF-8, on which OpenCV crashes.
    """
    path = os.path.abspath(file)
    try:
        path.encode()
    except UnicodeEncodeError as error:
        raise FilmError(
            f"{file}: OpenCV takes films by paths in UTF-8 alone; rename it, or the folder"
        ) from error
    return path


@contextmanager
def open_film(file):
    """Yield a film as cv2.VideoCapture has it; raises FilmError if OpenCV cannot play it."""
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_ERROR)
    film = cv2.VideoCapture(film_path(file), cv2.CAP_FFMPEG)
    try:
        if not film.isOpened() or not film.get(cv2.CAP_PROP_FPS) > 0:
            raise FilmError(f"{file}: not a film that OpenCV can play; replace or remove it")
        if min(map(film.get, (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT))) < 2:
            raise FilmError(f"{file}: a film of a single pixel's width or height; remove it")
        yield film
    finally:
        film.release()


def is_film(file):
    """Tell whether a file, a Path, is a film: by its suffix, and without a known one by what it is.

    That is a film of two frames or more which is no picture to OpenCV, and no text, which FFmpeg
    plays too.
    """
    if is_picture(file.name) or file.suffix.lower() in FILM_SUFFIXES:
        return not is_picture(file.name)
    with suppress(FilmError), open_film(file) as film:
        text = film.get(cv2.CAP_PROP_FOURCC) == cv2.VideoWriter_fourcc(*"ansi")
        return not (text or cv2.haveImageReader(film_path(file))) and film.grab() and film.grab()
    return False


class Timing(NamedTuple):
    """When the frames of a film that can be read are to be seen.

    numbers: (n,) int, each one's number in the film, where lost frames count too; seconds: (n,)
    float. total: the number of frames, with those that are lost. varies: whether the rate does.
    rate, repeats: frames a second of a film of constant rate that shows each of them in its time,
    and how often it does, (n,) int.
    """

    numbers: np.ndarray
    seconds: np.ndarray
    total: int
    varies: bool
    rate: float
    repeats: np.ndarray


def grab_frame(film):
    """Grab a film's next frame; return how many damaged ones came before, or None at the end."""
    return next((lost for lost in range(READ_ATTEMPTS) if film.grab()), None)


def read_timing(file):
    """Return the Timing of a film, which is decoded once for it: nothing else knows its times."""
    seconds, lost = [], []
    with open_film(file) as film:
        rate, announced = film.get(cv2.CAP_PROP_FPS), film.get(cv2.CAP_PROP_FRAME_COUNT)
        announced = max(0, round(announced))  # some formats tell none
        progress = Progress(f"times of {file}", announced or math.inf)
        while (failed := grab_frame(film)) is not None:
            seconds.append(film.get(cv2.CAP_PROP_POS_MSEC) / 1000)
            lost.append(failed)
            progress.advance()
        progress.end()
    if not seconds:
        raise FilmError(f"{file}: holds no frame that can be read; replace or remove it")
    with open(file, "rb") as data:
        begin = data.read(12)
    counted = begin.startswith(b"RIFF") or begin[4:8] == b"ftyp"  # AVI and MP4 count their frames
    return make_timing(np.array(seconds), np.array(lost), rate, announced, counted)


def make_timing(seconds, lost, rate, announced, counted):
    """Return the Timing of a film.

    seconds: (n,) float, of each frame that can be read; lost: (n,) int, of the damaged ones met
    before each; rate, announced: frames a second and in all, as the film says; counted: whether
    the latter is exact.
    """
    steps, count, varies = np.diff(seconds), np.arange(len(seconds)), False
    end = announced / rate  # in seconds
    numbers = places = count + np.cumsum(lost)
    step = np.median(steps) if len(steps) else 0
    # Some formats hold no times of their own, and in joined films they jump
    if step <= 0 or steps.min() < 0 or seconds[-1] > 100 * len(seconds) * step:
        step, seconds = 1 / rate, numbers / rate
    else:
        alike = np.abs(steps - step) <= max(0.1 * step, 0.0011)  # many formats round to 1 ms
        step = steps[alike].mean()
        varies = alike.mean() < (1 if counted and len(seconds) == announced else CONSTANT)
        if varies:
            step = min(step, steps.mean())
            rate = max(1, math.ceil(1 / step - 0.01))
            places = np.rint(seconds * rate).astype(int)
            places = count + np.maximum.accumulate(places - count)  # no two have one place
        else:
            lost = np.rint([seconds[0] / step, *np.maximum(steps / step - 1, 0)])
            numbers = places = count + np.cumsum(lost.astype(int))
            rate = rate if abs(rate * step - 1) < 0.01 else round(1 / step, 2)
    total, cut = int(numbers[-1]) + 1, end - seconds[-1] - step
    if cut > END_SECONDS or (counted and announced > total):
        total = total + round(cut / step) if varies else max(total, announced)
    return Timing(numbers, seconds, total, varies, rate, np.diff(places, append=places[-1] + 1))


class Event(NamedTuple):
    """An alarm of a film, that stands from `begin` to `end`, in seconds."""

    begin: float
    end: float


class Watch:
    """Tells frame by frame which alarm stands.

    One begins with the last of `begins` frames in a row with an alarm, and ends with the last of
    `ends` without.
    """

    def __init__(self, begins, ends):
        self.begins, self.ends = begins, ends
        self.count, self.stands, self.against = 0, False, 0

    def advance(self, alarm):
        """Return the number of the alarm that stands, from 1 on, 0 for none; alarm: the frame's."""
        self.against = self.against + 1 if alarm != self.stands else 0
        if self.against == (self.ends if self.stands else self.begins):
            self.stands, self.against = not self.stands, 0
            self.count += self.stands
        return self.count if self.stands else 0


def segment_film(file, name, segmenter, watch, results):
    """Outline the polyps of a film; return how many frames and seconds it has, and its Events.

    segmenter: a Segmenter; watch: a Watch. In the folder of `results`, see utils/results.py, this
    leaves films/NAME.mp4, of the same frames, size, times and rate, but without sound, and
    films/NAME.csv, the polyps of each frame and the number of the alarm that stands. While one
    stands, the frame has an edge in the colour of its outlines; without one, all is outlined as
    what is not sure.

    Where the rate varies, or frames are lost, the frame before is repeated until the next one's
    time. OpenCV writes even sizes alone: of an odd one the last row or column goes. Memory does not
    grow with the film. Raises FilmError if it cannot be played, or lacks frames.
    """
    predict, size, *limits, batch_size = segmenter
    film_path(results.folder)

    def read(index):
        if grab_frame(film) is None:  # not as when its times were read
            return None
        picture = cv2.cvtColor(film.retrieve()[1], cv2.COLOR_BGR2RGB)
        return picture, reduce_picture(picture, size), index

    def finish(index, picture, probability):
        return picture, index, find_polyps(probability, picture.shape, *limits)

    def draw(frame):
        picture, index, found, event = frame
        drawn = outline_polyps(picture, found.mask, found.sure & (event > 0))
        height, width = (side - side % 2 for side in found.mask.shape)
        drawn = drawn[:height, :width]
        if event:
            drawn = add_edge(drawn)
        return cv2.cvtColor(drawn, cv2.COLOR_RGB2BGR), index, found.rows, event

    timing = read_timing(file)
    count = len(timing.numbers)
    with (
        open_film(file) as film,
        open_pool(1) as reader,  # since one thread alone can read a film
        open_pool() as pool,
        results.write(f"films/{name}.csv") as beside_table,
        open_table(beside_table, ["frame", "seconds", "event"]) as table,
        results.write(f"films/{name}.mp4") as beside,
    ):
        progress = Progress(f"frames of {file}", count)
        frames = in_order(reader, read, range(count), FRAMES_AHEAD)
        frames = itertools.takewhile(lambda frame: frame is not None, frames)
        found = predict_stream(pool, frames, predict, finish, batch_size)
        watched = ((*frame, watch.advance(frame[2].rows[0].alarms > 0)) for frame in found)
        writer, done, events = None, 0, {}
        for drawn, index, rows, event in in_order(pool, draw, watched, FRAMES_AHEAD):
            if writer is None:
                writer = open_writer(beside, file, timing.rate, drawn.shape[1::-1])
            for _ in range(timing.repeats[index]):
                writer.write(drawn)
            number, seconds = timing.numbers[index], round(timing.seconds[index], 3)
            table.writerows([number, seconds, event or "", *row] for row in rows)
            if event:
                until = float(seconds + 1 / timing.rate)
                begun = events.get(event, Event(float(seconds), until))
                events[event] = begun._replace(end=until)
            done = index + 1
            progress.advance()
        progress.end()
        writer.release()
        check_written(beside, timing.repeats[:done].sum(), results.folder / f"films/{name}.mp4")
    if done < timing.total:
        about = "about" if timing.varies else "its"
        raise FilmError(
            f"{file}: only {done:,} of {about} {timing.total:,} frames could be read, for it is"
            " damaged or cut off; the outlined film repeats the frame before a lost one, and ends"
            " with the last that was read"
        )
    if timing.varies:
        print(
            f"{file}: its rate varies; the outlined film has {timing.rate:g} frames a second, and"
            f" repeats {timing.repeats.sum() - count:,} so that each is seen at its time"
        )
    lasts = float(timing.seconds[done - 1] + 1 / timing.rate)
    return done, lasts, list(events.values())


def add_edge(picture):
    """Return a picture, (height, width, 3) uint8, RGB, with an edge in the outlines' colour."""
    height, width = picture.shape[:2]
    colour, thick = tuple(bytes.fromhex(PREDICTION[1:])), max(2, round(max(height, width) / 100))
    return cv2.rectangle(picture.copy(), (0, 0), (width - 1, height - 1), colour, 2 * thick - 1)


def open_writer(beside, file, rate, size):
    """Return a cv2.VideoWriter of the film `beside`, which shows what stands in `file`.

    rate: frames a second; size: width and height in pixels. Raises FilmError for one of either that
    MPEG-4 does not take, and OSError if nothing can be written there.
    """
    beside.write_bytes(bytes(1 << 16))  # OpenCV tells nobody of a disk that is full
    writer = cv2.VideoWriter(film_path(beside), cv2.VideoWriter_fourcc(*"mp4v"), rate, size)
    if not writer.isOpened():
        width, height = size
        raise FilmError(
            f"{file}: MPEG-4 takes no film of {width:,} x {height:,} pixels at {rate:g} frames a"
            " second; convert it to another size or rate"
        )
    return writer


def check_written(beside, count, path):
    """Raise InputError unless a film of `count` frames stands in `beside`, which becomes `path`.

    OpenCV tells nobody of a disk that is full.
    """
    try:
        with open_film(beside) as film:
            whole = round(film.get(cv2.CAP_PROP_FRAME_COUNT)) == count
    except FilmError:
        whole = False
    if not whole:
        raise InputError(f"{path}: cannot be written: make room or choose another place")
