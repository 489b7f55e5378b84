"""Where pairs of a picture and its mask come from: an archive or two folders."""

import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from utils.files import InputError, file_sha256, read_file
from utils.pictures import decode_pair, is_picture


class Source(NamedTuple):
    """Pairs that are decoded one by one.

    `decode(name)` returns a picture, (height, width, 3) uint8 RGB, and its mask, (height, width)
    uint8 of 0 and 255. archive_sha256: hex digits, where the source is an archive.
    """

    label: str
    names: list
    decode: Callable
    archive_sha256: str | None = None


def archive_source(path):
    """Return the pairs of a zip that holds .../images/NAME.* and .../masks/NAME.*.

    Raises InputError if it is not a readable zip of that layout.
    """
    try:
        archive = zipfile.ZipFile(path)
    except (OSError, zipfile.BadZipFile) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a whole zip file"
        raise InputError(f"{path}: {reason}; download it again, or use --demo") from error
    members, files = {}, {"images": [], "masks": []}
    for member in archive.namelist():
        file = PurePosixPath(member)
        members[file], kind = member, file.parent.name
        if kind in files and file.parts[0] != "__MACOSX":
            files[kind].append(file)
    for kind, found in files.items():
        if not found:
            raise InputError(f"{path}: has no folder {kind}/; it takes .../images/ and .../masks/")

    def read(file):
        try:
            return archive.read(members[file])
        except (OSError, zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
            raise InputError(f"{path}: {file} is damaged ({error}); download it again") from error

    source = paired_source(Path(path).name, files["images"], files["masks"], read)
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
        files.append(entries)
    return paired_source(f"{images} and {masks}", *files, read_file)


def paired_source(label, images, masks, read):
    """Match pictures and masks by file stem; `read(file)` returns the bytes of either.

    images, masks: paths of the kind that they come from, native ones or those of an archive.
    Raises InputError for a doubled stem, for a missing or an extra partner, and for no pair at all.
    """
    stems = []
    for files in (images, masks):
        by_stem = {}
        for file in files:
            if not is_picture(file.name):
                continue
            if file.stem in by_stem:
                raise InputError(f"{file}: same name as {by_stem[file.stem]}; remove one of them")
            by_stem[file.stem] = file
        stems.append(by_stem)
    images, masks = stems
    for this, that, kind in ((images, masks, "mask"), (masks, images, "picture")):
        alone = sorted(this.keys() - that.keys())
        if alone:
            others = f" ({len(alone)} such files in all)" if len(alone) > 1 else ""
            raise InputError(f"{this[alone[0]]}: has no {kind} of the same name{others}")
    if not images:
        raise InputError(f"{label}: holds no pairs")

    def decode(name):
        files = images[name], masks[name]
        return decode_pair(*map(read, files), *files)

    return Source(label, sorted(images), decode)
