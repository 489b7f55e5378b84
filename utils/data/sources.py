"""Where pairs of a picture and its mask come from: an archive or two folders."""

import argparse
import io
import re
import shlex
import stat
import unicodedata
import zipfile
import zlib
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np

from utils.command import InputError, hold_back_stderr, in_all
from utils.data.pictures import (
    PLAIN,
    MaskConvention,
    check_bytes,
    damaged_files,
    decode_pair,
    is_picture,
    read_bytes,
    tells_damage,
)
from utils.files import file_sha256, reading

MOST_COVERED = 0.6  # of the pictures, on average: masks that cover more are warned of
MAX_DIRECTORY = 20_000_000  # bytes of an archive's list of its files: some 200,000 of them


class Source(NamedTuple):
    """Pairs that are decoded one by one.

    `decode(name)` returns a picture, (height, width, 3) uint8 RGB, and its mask, (height, width)
    uint8 of 0 and 255. `read(name)` returns the path and the bytes of the picture's file and of the
    mask's, where there are files. convention: the masks'. archive_sha256: hex digits, where the
    source is an archive.
    """

    label: str
    names: list
    decode: Callable
    read: Callable | None = None
    convention: MaskConvention = PLAIN
    archive_sha256: str | None = None


class ArchiveFile(io.FileIO):
    """An archive opened for reading, no more than MAX_DIRECTORY bytes of it at once.

    zipfile reads the list of all files in one piece, and makes much more of it.
    """

    def read(self, size=-1):
        """Return up to `size` bytes; raises InputError for more than MAX_DIRECTORY."""
        if size > MAX_DIRECTORY:
            raise InputError(f"{self.name}: holds too many files; remove what is no picture")
        return super().read(size)

    def __del__(self):
        self.close()  # as ZipFile does with a file that it has opened itself


@contextmanager
def watch_decoders(source, names):
    """Keep what decoders say from the user while pairs of a source are decoded, in threads.

    names: of these pairs.

    libjpeg fills what is damaged with grey, and says on stderr only that it did, not of which
    file. If it did, they are decoded once more, one by one, and InputError names the first.
    """
    with hold_back_stderr() as held_back:
        yield
        damaged = tells_damage(held_back())
    if damaged:
        read = (file for name in names for file in source.read(name))
        files = damaged_files(read, 2 * len(names))
        raise InputError(
            f"{files[0]}: a damaged JPEG, only a part of it is there; replace or remove it"
            + in_all(len(files))
        )


def archive_source(path, convention=PLAIN):
    """Return the pairs of a zip that holds .../images/NAME.* and .../masks/NAME.*.

    convention: the masks'. Nothing is unpacked but in memory, file by file, so it matters not where
    a name points to. Raises InputError if it is not a readable zip of that layout.
    """
    with reading(path, "name a whole zip file, or fetch it again"):
        archive = zipfile.ZipFile(ArchiveFile(path))
    members, files = {}, {"images": [], "masks": []}
    for member in archive.infolist():
        file = PurePosixPath(member.filename)
        kind = file.parent.name
        if kind in files and is_picture(file.name):
            check_member(member, f"{path}: {file}")
            if file in members:
                raise InputError(f"{path}: {file} stands there twice; zip the folders again")
            members[file] = member
            files[kind].append(file)
    for kind, found in files.items():
        if not found:
            raise InputError(
                f"{path}: has no folder {kind}/ with pictures; it takes .../images/ and .../masks/"
            )

    def read(file):
        try:
            with archive.open(members[file]) as opened:
                pieces = iter(lambda: opened.read(1 << 20), b"")
                return b"".join(pieces)
        except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise InputError(f"{path}: {file} is damaged ({error}); download it again") from error

    source = paired_source(Path(path).name, files["images"], files["masks"], read, convention)
    return source._replace(archive_sha256=file_sha256(path))


def check_member(member, file):
    """Raise InputError for a picture in an archive that cannot be read, or is too large unpacked.

    member: its ZipInfo. Its size holds: zipfile reads no more than that.
    """
    check_bytes(max(member.file_size, member.compress_size), file)
    if member.flag_bits & 0x61:  # encrypted, patched, or strongly encrypted
        raise InputError(f"{file} is encrypted; zip the folders again without a password")
    if stat.S_ISLNK(member.external_attr >> 16):
        raise InputError(f"{file} is a link; zip the folders again with the pictures themselves")
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise InputError(f"{file} is not packed by Deflate; zip the folders again")


def folder_source(images, masks, convention=PLAIN):
    """Return the pairs of two folders, which may be the same one, a picture and a mask each.

    convention: the masks'. Raises InputError if a folder is missing or holds no picture, and for
    one folder without a suffix that tells masks from pictures.
    """
    files = []
    same = Path(images).resolve() == Path(masks).resolve()
    if same and not convention.suffix:
        raise InputError(
            f"{images}: is the folder of pictures and of masks; if a_mask.png is the mask of a.jpg,"
            " add --mask-suffix _mask"
        )
    for folder in (images,) if same else (images, masks):
        try:
            entries = sorted(Path(folder).iterdir())
            entries = [entry for entry in entries if is_picture(entry.name) and entry.is_file()]
        except OSError as error:
            raise InputError(f"{folder}: {error.strerror}; name a folder of pictures") from error
        if not entries:
            raise InputError(f"{folder}: holds no picture of a known format")
        files.append(entries)
    label = f"{Path(images)} and {Path(masks)}"
    return paired_source(label, files[0], files[-1], read_bytes, convention)


def paired_source(label, images, masks, read, convention=PLAIN):
    """Match pictures and masks by file stem; `read(file)` returns the bytes of either.

    images, masks: their paths, of the kind that they come from, native ones or those of an archive.
    convention: the masks'; where it has a suffix, files without it are no masks, and those that
    are masks no pictures. Raises InputError for a doubled stem, for a missing or an extra partner,
    for a name with a line break or the like, and for no pair at all.
    """
    suffix = convention.suffix
    masks = [file for file in masks if file.stem.endswith(suffix)]
    if suffix:
        images = sorted(set(images) - set(masks))
    stems = []
    for files, ending in ((images, ""), (masks, suffix)):
        by_stem = {}
        for file in files:
            stem = file.stem.removesuffix(ending)
            if any(unicodedata.category(character) in ("Cc", "Cs") for character in stem):
                raise InputError(f"{file}: has a character in its name that is no text; rename it")
            if stem in by_stem:
                raise InputError(f"{file}: same name as {by_stem[stem]}; remove one of them")
            by_stem[stem] = file
        stems.append(by_stem)
    images, masks = stems
    for this, that, problem in (
        (images, masks, "has no mask"),
        (masks, images, "has no picture"),
    ):
        alone = sorted(this.keys() - that.keys())
        if alone:
            others = in_all(len(alone))
            longer = sorted(stem for stem in that.keys() - this if stem.startswith(alone[0]))
            way_out = ""
            if this is images and longer:
                whole_suffix = longer[0].removeprefix(alone[0]) + suffix
                flag = shlex.join(["--mask-suffix", whole_suffix])
                way_out = f"; if {that[longer[0]].name} is it, add {flag}"
            name = f"same name and {suffix!r}" if suffix else "same name"
            raise InputError(f"{this[alone[0]]}: {problem} of the {name}{others}{way_out}")
    if not images:
        raise InputError(f"{label}: holds no pairs")

    def read_pair(name):
        return [(file, read(file)) for file in (images[name], masks[name])]

    def decode(name):
        files, data = zip(*read_pair(name), strict=True)
        return decode_pair(*data, *files, convention)

    return Source(label, sorted(images), decode, read_pair, convention)


def mask_doubts(source, fractions, borders):
    """Return lines, mostly none, about masks that look wrong: too large, or inverted.

    fractions, borders: (n,) float, 0 to 1, the polyp's part of each mask and of its border.
    Raises InputError if no mask shows a polyp.
    """
    fractions, borders = np.asarray(fractions), np.asarray(borders)
    if not fractions.any():
        value = source.convention.value
        what = "a polyp" if value is None else f"the value {value}, that of --mask-value"
        raise InputError(f"{source.label}: no mask shows {what}; are these the right masks?")
    lines = []
    if fractions.mean() > MOST_COVERED:
        largest = ", ".join(source.names[row] for row in np.argsort(-fractions, kind="stable")[:3])
        lines.append(
            f"{source.label}: the masks cover {fractions.mean():.0%} of their pictures on average,"
            f" most of all {largest}; are they the right ones?"
        )
    inverted = np.flatnonzero(borders > 0.5)
    if len(inverted) > len(borders) / 2:
        first = ", ".join(source.names[row] for row in inverted[:3])
        lines.append(
            f"{source.label}: {len(inverted):,} of {len(borders):,} masks look inverted, with polyp"
            f" along most of the border ({first}); polyp must be white, the rest black,"
            " or add --mask-inverted"
        )
    return lines


# The flags of the scripts that take such masks


def add_mask_arguments(parser):
    """Give an argparse parser the flags of a MaskConvention."""
    group = parser.add_argument_group(
        "masks that are not 0 and 255, of the pictures' names and size"
    )
    group.add_argument(
        "--mask-suffix", metavar="TEXT", default="", help="_mask where a_mask.png is that of a.jpg"
    )
    group.add_argument(
        "--mask-value",
        metavar="V",
        type=grey_or_colour,
        help="the value that is polyp, such as 38, or its colour, such as 255,0,0",
    )
    group.add_argument(
        "--mask-inverted", action="store_true", help="that value, or white, is what is not polyp"
    )
    group.add_argument(
        "--mask-resize", action="store_true", help="bring smaller and larger ones to the picture's"
    )


def check_mask_arguments(parser, arguments):
    """End with a line if --images and --masks are not both there, or masks' flags without masks."""
    if bool(arguments.images) != bool(arguments.masks):
        parser.error("--images and --masks go together")
    if mask_convention(arguments) != PLAIN and not (arguments.images or arguments.archive):
        parser.error("--mask-... is for masks of your own: add --images and --masks, or --archive")


def grey_or_colour(text):
    """Return "V" as a number, 0 to 65535, and "R,G,B" as a tuple of three, 0 to 255."""
    values = (
        tuple(map(int, text.split(","))) if re.fullmatch(r"\d{1,5}(,\d{1,3}){0,2}", text) else ()
    )
    if len(values) == 1 and values[0] <= 65535:
        return values[0]
    if len(values) == 3 and max(values) <= 255:
        return values
    raise argparse.ArgumentTypeError(
        f"{text!r} is neither a value from 0 to 65535 nor a colour R,G,B, each from 0 to 255"
    )


def mask_convention(arguments):
    """Return the MaskConvention of the flags that `add_mask_arguments` has added."""
    return MaskConvention(
        arguments.mask_suffix,
        arguments.mask_value,
        arguments.mask_inverted,
        arguments.mask_resize,
    )
