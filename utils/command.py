"""The command line: errors in a line, interruptions, progress, threads, constants checked."""

import argparse
import errno
import glob
import math
import operator
import os
import shlex
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from numbers import Integral, Real
from pathlib import Path
from typing import NamedTuple

import cv2


class InputError(Exception):
    """A mistake that the user can mend; its text is one line that names it and says how."""


def run(main, interrupted="interrupted"):
    """Run a script's `main`; a user's mistake ends it with one line on stderr and status 2.

    interrupted: what to say when a signal of `catch_signals` stops it, which ends it with status
    130, 143 or 129, and leaves nothing half-made behind. Where who reads its output has gone
    (`| head`), the status is 141. An OSError that gets here is the user's to mend too.
    """
    open_closed_streams()
    message = None
    with catch_signals() as caught:
        try:
            main()
            sys.stdout.flush()  # at its own end Python would say nothing of a full disk
        except InputError as error:
            message, status = error, 2
        except BrokenPipeError:
            message, status = "stopped, for nobody reads its output any more", 141  # SIGPIPE
            give_up_stdout()
        except OSError as error:
            unnamed = error.errno in (errno.ENOSPC, errno.EIO, errno.EFBIG)
            place = error.filename or ("standard output" if unnamed else "the system")
            if place == "standard output":
                give_up_stdout()
            message, status = f"{place}: {error.strerror or error}; see to it and run again", 2
        except (KeyboardInterrupt, Exception):
            if not caught:
                raise
            message, status = interrupted, 128 + caught[-1]  # a library may make an error of it
    if message:
        sys.exit(fail(message, status))


@contextmanager
def catch_signals():
    """Yield a list, which gets the numbers of the signals that stop the block.

    SIGINT (Ctrl-C), SIGTERM and SIGHUP (a terminal that closes) raise KeyboardInterrupt in it, but
    for those that are ignored, as under nohup. After the block they are all ignored, for there is
    nothing left to stop; but a notebook goes on, and so they do what they did before.
    """
    caught, before = [], {}

    def stop(number, _):
        caught.append(number)
        raise KeyboardInterrupt

    def lost(unraisable):  # what a callback of Python's own meets, such as a weakref's, is lost
        if unraisable.exc_type is not KeyboardInterrupt:
            sys.__unraisablehook__(unraisable)
        else:
            threading.Timer(0.1, os.kill, (os.getpid(), caught[-1])).start()

    if threading.current_thread() is threading.main_thread():  # no other may set them
        for name in ("SIGINT", "SIGTERM", "SIGHUP"):
            number = getattr(signal, name, None)  # Windows has no SIGHUP
            if number and signal.getsignal(number) is not signal.SIG_IGN:
                before[number] = signal.signal(number, stop)
    hook, sys.unraisablehook = sys.unraisablehook, lost
    try:
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler if in_notebook() else signal.SIG_IGN)
        sys.unraisablehook = hook


def in_notebook():
    """Tell whether this process is the kernel of a notebook."""
    return "ipykernel" in sys.modules


def command_line():
    """Return the arguments that a script was given; none if a notebook's cell has imported it.

    Those of sys.argv are the kernel's own then. Wildcards that name what is there, and are no
    file's name themselves, give place to the names, in order: no shell does so on Windows.
    """
    given = sys.argv[1:]
    if in_notebook() and given == sys.orig_argv[-len(given) :]:  # not as %run leaves them
        return []
    found = ([] if os.path.lexists(text) else sorted(glob.glob(text)) for text in given)
    return [name for text, names in zip(given, found, strict=True) for name in names or [text]]


def next_command(script, *arguments):
    """Return the command that runs another script, which lies where the running one was called."""
    path = Path(sys.argv[0]).parent / script
    return shlex.join(["python", str(path if path.is_file() else script), *map(str, arguments)])


def give_up_stdout():
    """Send to nowhere what Python still wants to write there when it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def open_closed_streams():
    """Send to nowhere what a caller has closed (`2>&-`): a file would get its number otherwise.

    What the terminal's encoding has no letters for, such as a name that is no UTF-8, is escaped.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free
    sys.stdout = sys.stdout or os.fdopen(1, "w")
    sys.stderr = sys.stderr or os.fdopen(2, "w")
    if not in_notebook():  # whose output takes any letter
        sys.stdout.reconfigure(errors="backslashreplace")


def fail(message, status):
    """Print one line that names the script, and return the exit status."""
    with suppress(OSError):  # `2>&1 | head`, or a terminal that has gone: the status alone tells
        if Progress.shown_last:
            Progress.shown_last.end()
        print(f"{Path(sys.argv[0]).name}: {one_line(message)}", file=sys.stderr)
    return status


def named_path(text):
    """Return a path of the command line as it is: an argparse type that refuses an empty one."""
    if not text:  # "$FOLDER" where that is not set
        raise argparse.ArgumentTypeError("is empty; name a file or a folder")
    return text


def counted(count, noun):
    """Return a number with its noun."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def in_all(count):
    """Return what is said beside the first of `count` files, where there are more."""
    return f" ({count:,} such files in all)" if count > 1 else ""


def one_line(text):
    """Return a text with its line breaks and control characters escaped: files' names hold any."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text))


@contextmanager
def hold_back_stderr():
    """Keep what is written to stderr meanwhile, by C++ too, to oneself; show it if the block fails.

    Yields a function that returns what has been held back, as bytes, to call while no thread
    writes more. An InputError and an interruption by the user are no failure.
    """
    sys.stderr.flush()
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as held_back:

        def read():
            held_back.seek(0)
            return held_back.read()

        os.dup2(held_back.fileno(), 2)
        try:
            yield read
        except Exception as error:
            if not isinstance(error, InputError):
                os.write(stderr, read())
            raise
        finally:
            sys.stderr.flush()
            os.dup2(stderr, 2)
            os.close(stderr)


@contextmanager
def input_errors():
    """Let a ValueError of model.py, which knows nothing of the project, become an InputError."""
    try:
        yield
    except ValueError as error:
        raise InputError(str(error)) from error


class Progress:
    """A line that counts up to `total`: rewritten in a terminal, printed now and then in a log.

    A total that nobody knows is math.inf.
    """

    shown_last = None  # the last of all whose line stands in the terminal

    def __init__(self, label, total):
        self.label, self.total, self.done = one_line(label), total, 0
        self.of = f" of {total:,}" if total < math.inf else ""
        self.open = False  # whether the terminal's line has no end yet
        self.start = self.shown = time.monotonic()
        self.terminal = sys.stdout.isatty()

    def advance(self, amount=1):
        """Count `amount` more; show it if the last showing is a while ago.

        A terminal shows the end, too.
        """
        self.done += amount
        now, last = time.monotonic(), self.done - amount < self.total <= self.done
        if now - self.shown >= (0.1 if self.terminal else 2) or (last and self.terminal):
            self.shown = now
            text = f"{self.label}: {self.done:,}{self.of}, {now - self.start:.0f} s"
            if self.terminal:
                print(f"\r{text}", end="\n" if last else "", flush=True)
                self.open, Progress.shown_last = not last, self
            else:
                print(text, flush=True)

    def end(self):
        """End the line, before another is printed, or where there was less than announced."""
        if self.open:
            print(flush=True)
            self.open = False


def parallel(function, items, threads=None):
    """Yield `function(item)` for each item, in order; all cores, or `threads`, work on it."""
    cv2.setNumThreads(1)  # OpenCV frees the interpreter's lock; its own threads would only collide
    with ThreadPoolExecutor(threads or os.cpu_count()) as pool:
        yield from pool.map(function, items)


class Check(NamedTuple):
    """What a constant must be: in words, and as a function that tells whether a value is it."""

    wanted: str
    fits: Callable

    def __or__(self, other):
        """Return the Check that either passes."""
        wanted = f"{self.wanted} or {other.wanted}"
        return Check(wanted, lambda value: self.fits(value) or other.fits(value))


def whole(least, most=None, multiple_of=1):
    """Return the Check of a whole number, `least` and `most` allowed; True and False are none."""
    kind = "a whole number" if multiple_of == 1 else f"a multiple of {multiple_of}"
    ends = f"from {least:,} on" if most is None else f"from {least:,} to {most:,}"
    inside = number(least=least, most=most)

    def fits(value):
        return isinstance(value, Integral) and inside.fits(value) and value % multiple_of == 0

    return Check(f"{kind} {ends}", fits)


def number(*, least=None, most=None, above=None, below=None):
    """Return the Check of a finite number, whole or not; True and False are none.

    least, most: ends that are allowed; above, below: ends that are not.
    """
    ends = [
        *(("at least", operator.ge, least), ("above", operator.gt, above)),
        *(("at most", operator.le, most), ("below", operator.lt, below)),
    ]
    ends = [end for end in ends if end[2] is not None]
    listed = " and ".join(f"{words} {end:,}" for words, _, end in ends)

    def fits(value):
        real = isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
        return real and all(holds(value, end) for _, holds, end in ends)

    return Check(f"a number {listed}".rstrip(), fits)


def one_of(*choices):
    """Return the Check of one of `choices`, or of the only one."""
    listed = ", ".join(map(repr, choices))
    return Check(f"one of {listed}" if len(choices) > 1 else listed, choices.__contains__)


def numbers(**ends):
    """Return the Check of a tuple or list, not empty, of what passes `number(**ends)`."""
    each = number(**ends)

    def fits(values):
        return isinstance(values, (tuple, list)) and values and all(map(each.fits, values))

    return Check(each.wanted.replace("a number", "a tuple of numbers", 1), fits)


def check_constants(file, constants):
    """Raise InputError, naming it, for the first constant of a script's top that does not fit.

    file: the script's name; constants: a value and its Check by each constant's name.
    """
    for name, (value, check) in constants.items():
        if not check.fits(value):
            raise InputError(f"{name} = {value!r}: must be {check.wanted}; edit it in {file}")
