"""Normal pictures: those that show no polyp, alone or beside pairs."""

import unicodedata
from pathlib import Path

import cv2
import numpy as np

from utils.command import InputError
from utils.data.pairing import group_by_folder
from utils.data.pictures import decode_image, read_bytes
from utils.data.scenes import UNKNOWN
from utils.data.sources import Source, list_folder, note_others, picture_keys


def normal_source(folders, by_folder=True):
    """Return the Source of the pictures of folders, and of those in them, with empty masks.

    A name is that of the folder, and the path below it. by_folder: see `group_by_folder`.
    Raises InputError for a folder that cannot be read, for two pictures of one name, and as
    `picture_keys` does.
    """
    files, lines = {}, []
    for folder in folders:
        listing = list_folder(folder)
        keys = picture_keys(listing, listing.files)
        lines += note_others(listing.files, keys)
        for file, key in keys.items():
            name = unicodedata.normalize("NFC", f"{Path(folder).resolve().name}/{key}")
            if name in files:
                raise InputError(f"{file} and {files[name]} have the same name; rename one of them")
            files[name] = file
    names = sorted(files)
    label = f"{', '.join(str(Path(folder)) for folder in folders)} (no polyps)"
    groups, more = group_by_folder(names, by_folder)

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
        groups,
        read,
        normals=len(names),
        notes=lambda: [f"{label}: {line}" for line in lines + more],
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
