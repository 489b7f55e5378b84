"""Where pairs of a picture and its mask come from: an archive or folders.

The way of a file: `list_folder` or `list_archive` find it; `by_folder_names`, or the folders that
the user names, tell whether it is a picture or a mask; `pair_files` of pairing.py finds its partner
by its name and its path below that folder; `decode_pair` of pictures.py reads both.
"""

import argparse
import io
import math
import os
import re
import stat
import unicodedata
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np

from utils.command import InputError, hold_back_stderr, in_all
from utils.data.pairing import common_start, group_by_folder, pair_files
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
OTHER_ARCHIVES = (b"Rar!", b"7z\xbc\xaf", b"\x1f\x8b", b"BZh", b"\xfd7zXZ")  # how they begin

# Names of the folders that data sets are published with, in lower case, all but letters a space
PICTURE_FOLDER = re.compile(r"((jpeg)?images?(tr)?|imgs?|originals?|frames?|pictures?|bbdd)\b")
MASK_FOLDER = re.compile(
    r"(masks?|gt|ground ?truths?|gtpolyp|labels?(tr)?|annotations?|segmentation(s|class)?)\b"
)


class Source(NamedTuple):
    """Pairs that are decoded one by one.

    `decode(name)` returns a picture, (height, width, 3) uint8 RGB, and its mask, (height, width)
    uint8 of 0 and 255. `read(name)` returns the path and the bytes of the picture's file and of the
    masks', where there are files. convention: the masks'. archive_sha256: hex digits, where the
    source is an archive. groups: (n,) int, the same for pictures of a scene, where folders tell;
    UNKNOWN for those whose scenes are to be looked for. normals: how many of them, the last, show
    no polyp, and have no files of masks. notes() returns lines on what was done for the user; of
    masks, as far as they were decoded.
    """

    label: str
    names: list
    decode: Callable
    groups: np.ndarray
    read: Callable | None = None
    convention: MaskConvention = PLAIN
    archive_sha256: str | None = None
    normals: int = 0
    notes: Callable = list


class Listing(NamedTuple):
    """The files of a folder or an archive, wherever they lie in it, hidden ones left out.

    files: for each path, native or the archive's, the parts of its path below the top, a tuple.
    read(path) returns its bytes; check(path) raises InputError if they cannot be read.
    """

    label: str
    files: dict
    read: Callable
    check: Callable


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
        files = damaged_files(read, math.inf)
        raise InputError(
            f"{files[0]}: a damaged JPEG, only a part of it is there; replace or remove it"
            + in_all(len(files))
        )


# Listing files


def list_folder(folder, without=None):
    """Return the Listing of a folder, but for one in it; raises InputError if it cannot be read.

    Links are followed, but not back to what was listed before.
    """

    def refuse(error):
        raise InputError(f"{error.filename}: {error.strerror}; name a folder of pictures")

    files, seen = {}, {os.path.realpath(without) if without else None}
    for place, folders, names in os.walk(folder, onerror=refuse, followlinks=True):
        folders[:] = [name for name in folders if not is_hidden(name)]
        if (real := os.path.realpath(place)) in seen:
            folders.clear()
            continue
        seen.add(real)
        for path in (Path(place, name) for name in names if not is_hidden(name)):
            if path.is_file():
                files[path] = path.relative_to(folder).parts
            elif path.is_symlink() and is_picture(path.name) and not path.exists():
                raise InputError(f"{path}: is a link to what is not there; mend or remove it")
    return Listing(str(Path(folder)), files, read_bytes, lambda _: None)


def list_archive(path):
    """Return the Listing of a zip. Raises InputError if it is damaged, or another archive.

    Nothing is unpacked but in memory, file by file, so it matters not where a name points to.
    """
    with reading(path, "name a whole zip file, or fetch it again"):
        with open(path, "rb") as file:
            beginning = file.read(265)
        if beginning.startswith(OTHER_ARCHIVES) or beginning[257:262] == b"ustar":
            raise InputError(f"{path}: is no zip; unpack it, and name its folder with --archive")
        archive = zipfile.ZipFile(ArchiveFile(path))
    members = {}
    for member in archive.infolist():
        file = PurePosixPath(member.filename.replace("\\", "/"))  # as some on Windows write it
        if not (member.is_dir() or any(map(is_hidden, file.parts))):
            members.setdefault(file, []).append(member)

    def check(file):
        if len(members[file]) > 1:
            raise InputError(f"{path}: {file} stands there twice; zip the folders again")
        check_member(members[file][0], f"{path}: {file}")

    def read(file):
        try:
            with archive.open(members[file][0]) as opened:
                pieces = iter(lambda: opened.read(1 << 20), b"")
                return b"".join(pieces)
        except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise InputError(f"{path}: {file} is damaged ({error}); download it again") from error

    return Listing(Path(path).name, {file: file.parts for file in members}, read, check)


def is_hidden(name):
    """Tell whether the system, or a program, keeps a file or folder of this name for itself."""
    return (name.startswith(".") and name != "..") or name in ("__MACOSX", "Thumbs.db")


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


# Which files are pictures, and which masks


def archive_source(path, convention=PLAIN, by_folder=True):
    """Return the pairs of a zip, or of a folder as it was unpacked from one.

    convention, by_folder: as in `paired_source`. Folders in it, such as .../images/ and
    .../masks/, tell by their names which files are pictures and which are masks. Raises InputError
    if none do, if it cannot be read, and as `pair_files` does.
    """
    is_folder = os.path.isdir(path)
    listing = list_folder(path) if is_folder else list_archive(path)
    sides, others = by_folder_names(listing)
    left = Counter(str(file.parent) for file in others if is_picture(file.name)).most_common()
    for kind, side in zip(("images", "masks"), sides, strict=True):
        if not any(is_picture(file.name) for file in side):
            held = ", ".join(f"{folder} ({count:,})" for folder, count in left[:4])
            way_out = "name two folders with --images and --masks"
            raise InputError(
                f"{path}: has no folder {kind}/ with pictures, nor one of a like name"
                + (f"; other folders with pictures: {held}" if held else "")
                + (f"; {way_out}" if is_folder else f"; unpack it, and {way_out}")
                + instead_of_pictures(listing, side)
            )
    notes = []
    if left:
        notes.append(
            f"{listing.label}: pictures in other folders than those for images and masks are left"
            f" out, {sum(count for _, count in left):,} in all, most of them in {left[0][0]}"
        )
    source = paired_source(listing, *sides, convention, by_folder, notes)
    return source if is_folder else source._replace(archive_sha256=file_sha256(path))


def by_folder_names(listing):
    """Return the pictures and the masks of a Listing as its folders are named, and other files.

    Pictures and masks are dictionaries of the place of each file, as `pair_files` takes them: its
    path without that folder, and without what is above all such folders.
    """
    sides, others = ({}, {}), []
    for file, parts in listing.files.items():
        for at in reversed(range(len(parts) - 1)):
            name = re.sub("[^a-z]+", " ", parts[at].lower()).strip()
            kinds = [kind.match(name) for kind in (PICTURE_FOLDER, MASK_FOLDER)]
            if any(kinds):
                sides[0 if kinds[0] else 1][file] = parts[:at], parts[at + 1 :]
                break
        else:
            others.append(file)
    found = []
    for side in sides:
        tops = (above for file, (above, _) in side.items() if is_picture(file.name))
        common = common_start(*tops)
        found.append({file: (*above[common:], *below) for file, (above, below) in side.items()})
    return found, others


def folder_source(images, masks, convention=PLAIN, by_folder=True):
    """Return the pairs of two folders, which may be the same one, or lie in each other.

    convention, by_folder: as in `paired_source`. Raises InputError if a folder is missing or holds
    no picture, for one folder without a rule that tells masks from pictures, and as `pair_files`
    does.
    """
    same = Path(images).resolve() == Path(masks).resolve()
    listings = [list_folder(images, None if same else masks)]
    listings.append(listings[0] if same else list_folder(masks, images))
    for listing in listings:
        picture_keys(listing, listing.files)
    if same and convention.names == PLAIN.names:
        raise InputError(
            f"{images}: is the folder of pictures and of masks; if a_mask.png is the mask of a.jpg,"
            " add --mask-suffix _mask; if folders in it part them, use --archive"
            + instead_of_pictures(listing, listing.files)
        )
    label = str(Path(images)) if same else f"{Path(images)} and {Path(masks)}"
    sides = (listing.files for listing in listings)
    return paired_source(listings[0]._replace(label=label), *sides, convention, by_folder)


def instead_of_pictures(listing, files):
    """Return the end of a line that refuses some files: polygons in them, or no picture at all."""
    tables = sorted(file for file in files if file.suffix.lower() == ".json")
    data = listing.read(tables[0]) if tables else b""
    for tool, word in (("LabelMe", b'"shapes"'), ("COCO", b'"annotations"'), ("VIA", b'"regions"')):
        if word in data:
            return (
                f"; {tables[0]} holds polygons of {tool}: draw masks from them first, docs/data.md"
                " has the lines"
            )
    if files and not any(is_picture(file.name) for file in files):
        return f"; {min(files)} is of no kind that is read: export pictures and masks as PNG"
    return ""


def picture_keys(listing, files):
    """Return a dictionary of the paths of the pictures among files of a Listing, without extension.

    files: as the Listing has them. Raises InputError without any picture, for one that cannot be
    read, and for a path with a line break or the like.
    """
    keys = {
        file: "/".join((*parts[:-1], file.stem))
        for file, parts in files.items()
        if is_picture(file.name)
    }
    if not keys:
        instead = instead_of_pictures(listing, files)
        raise InputError(f"{listing.label}: holds no picture of a known format{instead}")
    for file, key in keys.items():
        listing.check(file)
        if any(unicodedata.category(character) in ("Cc", "Cs") for character in key):
            raise InputError(f"{file}: has a character in its name that is no text; rename it")
    return keys


def note_others(files, pictures):
    """Return a line, or none, on the files that are no pictures."""
    odd = sorted(str(file) for file in files if file not in pictures)
    return [f"files that are no pictures are left out: {odd[0]}{in_all(len(odd))}"] if odd else []


def paired_source(listing, pictures, masks, convention=PLAIN, by_folder=True, notes=()):
    """Return the Source of the pairs among files of a Listing, of which some need not be pictures.

    pictures, masks: a dictionary each, of the files' paths without extensions below the folders of
    pictures and of masks, as tuples. convention: the masks'; by_folder: see `group_by_folder`;
    notes: what was done for the user until now. Raises InputError as `picture_keys` and
    `pair_files` do.
    """
    label = listing.label
    keys = [picture_keys(listing, side) for side in (pictures, masks)]
    pairs = pair_files(label, *keys, convention)
    names, told = sorted(pairs), {"grey": {}, "classes": {}, "dim": {}, "stretched": {}}
    groups, lines = group_by_folder(names, by_folder)
    lines = note_others(pictures | masks, keys[0] | keys[1]) + lines
    notes = [*notes, *(f"{label}: {line}" for line in lines)]
    if several := sum(len(files) > 2 for files in pairs.values()):
        notes.append(f"{label}: several masks were united for {several:,} of the pictures")

    def read_pair(name):
        return [(file, listing.read(file)) for file in pairs[name]]

    def decode(name):
        def tell(what, amount):
            told[what][name] = amount

        (file, data), *others = read_pair(name)
        decoded = [
            decode_pair(data, other[1], file, other[0], convention, tell) for other in others
        ]
        picture, mask = decoded[0]
        for _, other in decoded[1:]:
            if other.shape != mask.shape:
                raise InputError(f"{file}: its masks are turned differently; save all unturned")
            mask = np.maximum(mask, other)
        return picture, mask

    def all_notes():
        return notes + [f"{label}: {line}" for line in decoding_notes(told, len(names), convention)]

    return Source(label, names, decode, groups, read_pair, convention, notes=all_notes)


def decoding_notes(told, count, convention):
    """Return lines on masks that were not taken as they are.

    told: for each thing that `decode_pair` tells, the amount by the name of the pair; count: of all
    pairs.
    """
    nearest = "as the nearest value" if convention.values else "as polyp from half of white on"
    words = {
        "grey": f"have grey edges, {{}} of their pixels on average, which count {nearest}",
        "classes": "have other classes than --mask-value names, {} of their pixels on average",
        "dim": "have a bright value {} darker than white on average, which counts as white",
        "stretched": "were stretched to the shape of their pictures, by {} on average",
    }
    lines = []
    for what, amounts in told.items():
        if amounts:
            most, name = max((amount, name) for name, amount in amounts.items())
            mean = sum(sorted(amounts.values())) / len(amounts)
            line = f"{len(amounts):,} of {count:,} masks {words[what].format(f'{mean:.2%}')}"
            lines.append(f"{line}; most of all {name}, {most:.2%}")
    return lines


def mask_doubts(source, fractions, borders):
    """Return lines, mostly none, about masks that look wrong: too large, or inverted.

    fractions, borders: (n,) float, 0 to 1, the polyp's part of each mask and of its border.
    Raises InputError if no mask shows what --mask-value names.
    """
    fractions, borders = (
        np.asarray(parts)[: len(parts) - source.normals] for parts in (fractions, borders)
    )
    if not len(fractions):
        return []
    lines = []
    if not fractions.any():
        if source.convention.values:
            values = " or ".join(map(str, source.convention.values))
            raise InputError(
                f"{source.label}: no mask shows the value {values}, that of --mask-value; are these"
                " the right masks?"
            )
        return [f"{source.label}: no mask shows a polyp; are these the right masks?"]
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
        "masks that are not 0 and 255, of the pictures' names and size; see docs/data.md"
    )
    group.add_argument(
        "--mask-suffix",
        metavar="TEXT",
        dest="mask_names",
        type=lambda text: f"NAME=NAME{text}",
        help="_mask where a_mask.png is that of a.jpg",
    )
    group.add_argument(
        "--mask-names",
        metavar="RULE",
        type=name_rule,
        help="a picture's name=its mask's, such as NAME_image=NAME_mask or NAME=pNAME",
    )
    polyp = group.add_mutually_exclusive_group()
    polyp.add_argument(
        "--mask-value",
        metavar="V",
        nargs="+",
        type=grey_or_colour,
        help="what is polyp, all else is not: values, such as 38, colours, such as 255,0,0, or"
        " numbers of the palette",
    )
    polyp.add_argument(
        "--mask-threshold", metavar="V", type=int, help="the grey value from which on it is polyp"
    )
    group.add_argument(
        "--mask-inverted", action="store_true", help="polyp is black, or all but what is named"
    )
    group.add_argument(
        "--mask-resize",
        nargs="?",
        choices=("stretch",),
        const=True,
        default=False,
        help="bring masks to the picture's size if the shape is the same; stretch: whatever it is",
    )
    group.add_argument(
        "--mask-unite", action="store_true", help="a_mask_1.png, a_mask_2.png are masks of a.jpg"
    )


def check_mask_arguments(parser, arguments):
    """End with a line if --images and --masks are not both there, or masks' flags without masks."""
    if bool(arguments.images) != bool(arguments.masks):
        parser.error("--images and --masks go together")
    if mask_convention(arguments) != PLAIN and not (arguments.images or arguments.archive):
        parser.error("--mask-... is for masks of your own: add --images and --masks, or --archive")


def name_rule(text):
    """Return a rule for names, see `affixes`; an argparse type."""
    if not re.fullmatch("[^=/]*NAME[^=/]*=[^=/]*NAME[^=/]*", text):
        raise argparse.ArgumentTypeError(
            f"{text!r} is no rule such as NAME_image=NAME_mask, with NAME for what both share"
        )
    return text


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
        arguments.mask_names or PLAIN.names,
        tuple(arguments.mask_value or ()),
        arguments.mask_threshold,
        arguments.mask_inverted,
        arguments.mask_resize,
        arguments.mask_unite,
    )
