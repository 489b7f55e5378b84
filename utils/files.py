"""Files and folders: errors in a line, writing beside, locks, hashes, reading with a limit."""

import errno
import hashlib
import os
import shutil
from contextlib import contextmanager, suppress
from pathlib import Path

from utils.command import InputError

MAX_TEXT = 20_000_000  # bytes of a table, a list or a JSON file: Python makes ten times more of it
RESUME = "resume"  # in the folder of a training that has not ended: its backups
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
