"""Normal pictures: those that show no polyp, alone or beside pairs."""

import unicodedata
from pathlib import Path

import cv2
import numpy as np

from utils.command import InputError, in_all
from utils.data.pairing import group_by_folder
from utils.data.pictures import decode_image, is_picture, read_bytes
from utils.data.scenes import UNKNOWN
from utils.data.sources import Source, list_folder


def normal_source(folders):
    """Return the Source of the pictures of folders, and of those in them, with empty masks.

    A name is that of the folder, and the path below it. Folders are scenes as those of pairs are.
    Raises InputError for a folder that is missing or holds no picture, and for two of one name.
    """
    files, notes = {}, []
    for folder in folders:
        listing = list_folder(folder)
        found = {file: parts for file, parts in listing.files.items() if is_picture(file.name)}
        if not found:
            raise InputError(f"{listing.label}: holds no picture of a known format")
        if odd := sorted(map(str, listing.files.keys() - found.keys())):
            notes.append(f"files that are no pictures are left out: {odd[0]}{in_all(len(odd))}")
        for file, parts in found.items():
            parts = Path(folder).resolve().name, *parts[:-1], file.stem
            name = unicodedata.normalize("NFC", "/".join(parts))
            if name in files:
                raise InputError(f"{file} and {files[name]} have the same name; rename one of them")
            files[name] = file
    names = sorted(files)
    label = f"{', '.join(str(Path(folder)) for folder in folders)} (no polyps)"
    groups, lines = group_by_folder(names)

    def read(name):
        return [(files[name], read_bytes(files[name]))]

    def decode(name):
        ((file, data),) = read(name)
        picture = decode_image(data, file, cv2.IMREAD_COLOR_RGB)
        return picture, np.zeros(picture.shape[:2], np.uint8)

    return Source(
        label,
        names,
        decode,
        np.full(len(names), UNKNOWN) if groups is None else groups,
        read,
        normals=len(names),
        notes=lambda: [f"{label}: {line}" for line in notes + lines],
    )


def add_normals(pairs, normals):
    """Return the Source of both Sources, of pairs and then of normal pictures.

    Raises InputError for a name that both have.
    """
    if both := set(pairs.names) & set(normals.names):
        raise InputError(
            f"{normals.label}: {min(both)} is the name of a pair too; rename one of them"
        )
    source_of = dict.fromkeys(pairs.names, pairs) | dict.fromkeys(normals.names, normals)
    after = np.where(normals.groups == UNKNOWN, UNKNOWN, normals.groups + pairs.groups.max() + 1)
    return pairs._replace(
        label=f"{pairs.label} and {normals.label}",
        names=pairs.names + normals.names,
        decode=lambda name: source_of[name].decode(name),
        groups=np.append(pairs.groups, after),
        read=lambda name: source_of[name].read(name),
        normals=normals.normals,
        notes=lambda: pairs.notes() + normals.notes(),
    )
