"""Files and the command line: errors in a line, writing beside, folders, progress, threads."""

import argparse
import errno
import hashlib
import math
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import cv2

MAX_TEXT = 20_000_000  # bytes of a table, a list or a JSON file: Python makes ten times more of it
PART = ".part"  # the folder in which new files are made until all are there

# What to do where the system refuses to write; whatever is not here is mostly a full disk
WAYS_OUT = {
    errno.EACCES: "get the right to write there, or choose another place",
    errno.EPERM: "get the right to write there, or choose another place",
    errno.EROFS: "choose another place",
    errno.EEXIST: "choose another place",
    errno.ENOTDIR: "choose another place",
    errno.EISDIR: "move that folder away",
}
MAX_NAME = 255  # bytes of a file's name


class InputError(Exception):
    """A mistake that the user can mend; its text is one line that names it and says how."""


def run(main, interrupted="interrupted"):
    """Run a script's `main`; a user's mistake ends it with one line on stderr and status 2.

    interrupted: what to say when SIGINT (Ctrl-C), SIGTERM or SIGHUP (a terminal that closes) stops
    it, which ends it with status 130, 143 or 129, and leaves nothing half-made behind. Under nohup
    it goes on. Where who reads its output has gone (`| head`), the status is 141. An OSError that
    gets here is the user's to mend too.
    """
    open_closed_streams()
    stops, caught = [], []

    def stop(number, _):
        stops.append(number)
        raise KeyboardInterrupt

    def lost(unraisable):  # what a callback of Python's own meets, such as a weakref's, is lost
        if unraisable.exc_type is not KeyboardInterrupt:
            sys.__unraisablehook__(unraisable)
        else:
            threading.Timer(0.1, os.kill, (os.getpid(), stops[-1])).start()

    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)  # Windows has no SIGHUP
        if number and signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, stop)
            caught.append(number)
    message, sys.unraisablehook = None, lost
    try:
        main()
        sys.stdout.flush()  # at its own end Python would say nothing of a full disk, or a traceback
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
        if not stops:
            raise
        message, status = interrupted, 128 + stops[-1]  # a library may have made an error of it
    finally:  # there is nothing left to stop
        for number in caught:
            signal.signal(number, signal.SIG_IGN)
        sys.unraisablehook = sys.__unraisablehook__
    if message:
        sys.exit(fail(message, status))


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
        except InputError:
            raise
        except Exception:
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


def cannot_write(path, error):
    """Return the InputError for an OSError met while writing `path`, or what becomes it."""
    way_out = WAYS_OUT.get(error.errno, "make room or choose another place")
    path = Path(*(part for part in Path(path).parts if part != PART))
    return InputError(f"{path}: cannot be written ({error.strerror or error}): {way_out}")


@contextmanager
def reading(path, way_out):
    """Let whatever is raised by the reader of the file `path` become an InputError.

    A damaged file raises what its reader happens to stumble over: a ValueError, a KeyError, an
    error of zlib. So everything counts, and the block must do nothing but read. way_out: what to
    do about the damage; where the system refuses to read, the line says so instead.
    """
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        number = getattr(error, "errno", None)
        if number in (errno.EACCES, errno.EPERM):
            problem, way_out = f"cannot be read ({os.strerror(number)})", "get the right to read it"
        elif number:
            problem = f"cannot be read ({os.strerror(number)})"
        else:
            problem = "is damaged"
        raise InputError(f"{path}: {problem}; {way_out}") from error


@contextmanager
def write_beside(path):
    """Yield a path to write to, which replaces `path` if the block ends well, and goes if not."""
    path = Path(path)
    beside = path.with_name(f".part.{path.name}")  # Keras goes by all suffixes
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
def lock_folder(folder):
    """Hold a folder, made if it is missing, against a second process that would write there too.

    A folder that was made, as those above it, goes again if nothing has come to be in it. The lock
    goes with the process, however that ends. Raises InputError if another holds it, or the folder
    cannot be made.
    """
    folder = Path(folder)
    made = [each for each in (folder, *folder.parents) if not each.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = open_lock(folder)
    except OSError as error:
        raise cannot_write(folder, error) from error
    if lock is None:
        raise InputError(
            f"{folder}: another process is at work there; wait for its end, or choose another"
            " folder"
        )
    try:
        yield
    finally:
        with suppress(OSError):  # of one that holds something
            for each in made:
                each.rmdir()
        os.close(lock)


def open_lock(folder):
    """Return an open file descriptor that locks a folder, or None if another one does."""
    if os.name == "nt":  # where a folder cannot be locked, but a file can go with its process
        path = folder.resolve()
        try:
            flags = os.O_CREAT | os.O_EXCL | os.O_TEMPORARY
            return os.open(path.with_name(f"{path.name}.lock"), flags)
        except FileExistsError:
            return None
    import fcntl

    lock = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        held = os.path.samestat(os.fstat(lock), os.stat(folder))
    except (BlockingIOError, FileNotFoundError):
        held = False
    if held:
        return lock
    os.close(lock)  # another has it, or had it until now and removed the folder
    return None


def check_places(folder, names):
    """Raise InputError if one of the files `names` of `folder` cannot come to be there.

    Since a folder stands in its place, a file in that of the folder that is to hold it, or its name
    is longer than file systems take.
    """
    for name in names:
        if len(os.fsencode(Path(name).name)) > MAX_NAME:
            raise InputError(f"{folder / name}: too long a name; rename what it is made of")
        if (folder / name).is_dir():
            problem = IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
            raise cannot_write(folder / name, problem)
    for between in {parent for name in names for parent in Path(name).parents}:
        if (folder / between).is_file():
            raise InputError(f"{folder / between}: is no folder; move that file away")


@contextmanager
def replace_files(folder, names):
    """Yield an empty folder; what the block puts there replaces the files `names` of `folder`.

    The last of `names` is the mark of a whole set: it goes first and comes last, so that no
    interruption leaves a mixture that looks whole. If the block fails, everything stays as it was.
    Other files, and a link in the folder's place, are left alone.
    Raises InputError if `folder` holds other files and no set, or a folder in place of a file, if
    another process is at work there, or if it cannot be written.
    """
    folder = Path(folder)
    part, mark = folder / PART, folder / names[-1]
    with lock_folder(folder):
        try:
            if any(folder.iterdir()) and not (mark.exists() or part.exists()):
                raise InputError(
                    f"{folder}: holds other files than a data set; choose another folder"
                )
            check_places(folder, names)
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir()  # in the folder, which may be a disk of its own
            try:
                yield part
            except BaseException:
                shutil.rmtree(part, ignore_errors=True)
                if any(folder.iterdir()) and not mark.exists():
                    part.mkdir()  # the sign that an earlier swap broke off
                raise
            mark.unlink(missing_ok=True)
            for name in names:
                os.replace(part / name, folder / name)
            part.rmdir()
        except BrokenPipeError:  # of what is printed meanwhile
            raise
        except OSError as error:
            raise cannot_write(folder, error) from error


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


def file_sha256(*paths):
    """Return the SHA-256 of the files' bytes, one after the other, as hex digits."""
    digest = hashlib.sha256()
    for path in paths:
        with open(path, "rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
    return digest.hexdigest()


def read_file(path, way_out="name another file", most=MAX_TEXT):
    """Return a file's bytes; raises InputError if it cannot be read, or holds more than `most`.

    way_out: see `reading`.
    """
    with reading(path, way_out):
        return read_whole(path, most)


def read_whole(path, most=MAX_TEXT):
    """Return a file's bytes; raises OSError as `open` does, and for more than `most`."""
    data = bytearray()
    with open(path, "rb") as file:
        # A device has no size that could be asked for, and to ask for `most` takes that memory
        while piece := file.read(1 << 20):
            data += piece
            if len(data) > most:
                raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), str(path))
    return bytes(data)
