"""Backups of a training: weights and optimizer after an epoch, proven whole when they are read."""

import os
import shutil

import numpy as np

from utils.command import InputError
from utils.files import RESUME, reading, write_beside

KEPT = 2  # of each phase: one may be damaged while nobody looks


def backups(folder, phase):
    """Return the epochs and files of a phase's backups, the newest first; phases count from 1."""
    name = f"phase{phase}-"
    paths = sorted((folder / RESUME).glob(f"{name}{5 * '[0-9]'}.npz"), reverse=True)
    return [(int(path.stem.removeprefix(name)), path) for path in paths]


def variables(model, optimizer=None):
    """Return the variables of a model, random seeds too, and of its optimizer if given, by name."""
    parts = {"weights": model.variables, "optimizer": optimizer.variables if optimizer else []}
    return {f"{part}{n}": v for part, those in parts.items() for n, v in enumerate(those)}


def save_backup(folder, phase, epoch, model, optimizer):
    """Write the backup of an epoch, and remove all but the KEPT newest of its phase.

    In NumPy's format, which has checksums. HDF5, which Keras writes, has none, and on a full disk
    its library crashes.
    """
    with write_beside(folder / RESUME / f"phase{phase}-{epoch:05d}.npz") as beside:
        np.savez(beside, **{name: v.numpy() for name, v in variables(model, optimizer).items()})
    for _, older in backups(folder, phase)[KEPT:]:
        older.unlink()


def restore(folder, phase, model, optimizer=None):
    """Give a model, and its optimizer, what the newest backup of a phase holds that can be read.

    Returns its epoch, 0 without one, which leaves both as they are. A backup that is damaged is
    told of on stdout.
    """
    targets, damaged = variables(model, optimizer), False
    for epoch, path in backups(folder, phase):
        try:
            values = read_backup(path, targets)
        except InputError as error:
            print(error, flush=True)
            damaged = True
            continue
        if damaged:
            print(f"{path}: taken instead", flush=True)
        for name, variable in targets.items():
            variable.assign(values[name])
        return epoch
    return 0


def read_backup(path, targets):
    """Return arrays of a backup by the names of `targets`, as from `variables`, which they fit.

    Raises InputError for a file that is damaged, or of another network. Objects of Python, which
    could bring code, are never loaded.
    """
    with reading(path, "left out"), np.load(path, allow_pickle=False) as file:
        values = {name: file[name] for name in targets}
        for name, variable in targets.items():
            if (values[name].shape, values[name].dtype) != (variable.shape, variable.dtype):
                raise ValueError
    return values


def drop_backups(folder):
    """Remove the backups of a training that has ended, all at once: no kill leaves a part."""
    gone = folder / f".part.{RESUME}"
    shutil.rmtree(gone, ignore_errors=True)
    if (folder / RESUME).exists():
        os.replace(folder / RESUME, gone)
        shutil.rmtree(gone, ignore_errors=True)
