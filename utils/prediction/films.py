"""Films: frames streamed through the network, outlined, and written as a film of the same kind."""

import itertools
import math
import os
from contextlib import contextmanager

import cv2

from utils.command import InputError, Progress
from utils.data.pictures import reduce_picture
from utils.prediction.own_pictures import (
    find_polyps,
    in_order,
    open_pool,
    open_table,
    outline_polyps,
    predict_stream,
)

FRAMES_AHEAD = 8  # read while the network is at work

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


def segment_film(file, name, predictor, threshold, batch_size, results):
    """Outline the polyps of a film; return how many frames it has, and how many show a polyp.

    predictor: see predictors.py, and its size. In the folder of `results`, see
    utils/results.py, this leaves films/NAME.mp4, of the same frames, size and rate, but without
    sound, and films/NAME.csv, the polyps of each frame. OpenCV writes even sizes alone: of an odd
    one the last row or column goes. Memory does not grow with the film. Raises
    FilmError if it cannot be played, or ends before it should.
    """
    predict, size = predictor
    film_path(results.folder)

    def read(number):
        there, frame = film.read()
        if not there:
            return None
        picture = cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)
        return picture, reduce_picture(picture, size), number

    def finish(number, picture, probability):
        rows, mask, _ = find_polyps(probability, picture.shape, threshold)
        height, width = (side - side % 2 for side in mask.shape)
        drawn = outline_polyps(picture, mask)[:height, :width]
        return number, cv2.cvtColor(drawn, cv2.COLOR_RGB2BGR), rows

    with (
        open_film(file) as film,
        open_pool(1) as reader,  # since one thread alone can read a film
        open_pool() as pool,
        results.write(f"films/{name}.csv") as beside_table,
        open_table(beside_table, ["frame", "seconds"]) as table,
        results.write(f"films/{name}.mp4") as beside,
    ):
        rate, announced = film.get(cv2.CAP_PROP_FPS), film.get(cv2.CAP_PROP_FRAME_COUNT)
        announced = max(0, round(announced))  # some formats tell none
        progress = Progress(f"frames of {file}", announced or math.inf)
        frames = in_order(reader, read, itertools.count(), FRAMES_AHEAD)
        frames = itertools.takewhile(lambda frame: frame is not None, frames)
        writer, count, with_polyp = None, 0, 0
        for number, drawn, rows in predict_stream(pool, frames, predict, finish, batch_size):
            if writer is None:
                writer = open_writer(beside, file, rate, drawn.shape[1::-1])
            writer.write(drawn)
            table.writerows([number, round(number / rate, 3), *row] for row in rows)
            count, with_polyp = number + 1, with_polyp + (rows[0][0] > 0)
            progress.advance()
        progress.end()
        if writer is None:
            raise FilmError(f"{file}: holds no frame that can be read; replace or remove it")
        writer.release()
        check_written(beside, count, results.folder / f"films/{name}.mp4")
    if count < announced - 1:  # some formats hold no more than an estimate
        raise FilmError(
            f"{file}: only {count:,} of its {announced:,} frames could be read; it is cut off,"
            " damaged, or of a rate that varies, and the outlined film is shorter"
        )
    return count, with_polyp


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
