"""Backups of a training: weights and optimizer after an epoch, proven whole when they are read."""

import os
import shutil

import numpy as np

from utils.files import InputError, reading, write_beside

RESUME = "resume"  # in the folder of the training
KEPT = 2  # of each phase: one may be damaged while nobody looks


def backups(folder, phase):
    """Return the epochs and the files of a phase's backups, the newest first."""
    paths = sorted((folder / RESUME).glob(f"{phase}-*.npz"), reverse=True)
    return [(int(path.stem.removeprefix(f"{phase}-")), path) for path in paths]


def variables(model):
    """Return a compiled or uncompiled model's variables by the names they have in a backup."""
    optimizer = getattr(model, "optimizer", None)  # which Keras sets when it compiles
    parts = {"weights": model.weights, "optimizer": optimizer.variables if optimizer else []}
    return {f"{part}{n}": v for part, those in parts.items() for n, v in enumerate(those)}


def save_backup(model, folder, phase, epoch):
    """Write the backup of an epoch, and remove all but the KEPT newest of its phase.

    In NumPy's format: it has checksums. HDF5, which Keras writes, has none, and a full disk makes
    its library end the process.
    """
    with write_beside(folder / RESUME / f"{phase}-{epoch:05d}.npz") as beside:
        np.savez(beside, **{name: v.numpy() for name, v in variables(model).items()})
    for _, older in backups(folder, phase)[KEPT:]:
        older.unlink()


def restore(model, folder, phase):
    """Give a model the newest backup of a phase that can be read; return its epoch, 0 without one.

    A model that is not compiled takes the weights alone. A backup that is damaged is told of on
    stdout. Raises InputError if there are backups, and none can be read.
    """
    found = backups(folder, phase)
    for epoch, path in found:
        try:
            values = read_backup(path, model)
        except InputError as error:
            print(error, flush=True)
        else:
            if path != found[0][1]:
                print(f"{path}: taken instead", flush=True)
            for name, variable in variables(model).items():
                variable.assign(values[name])
            return epoch
    if found:
        raise InputError(f"{folder / RESUME}: no backup can be read; --fresh begins anew")
    return 0


def read_backup(path, model):
    """Return what a backup holds for a model's `variables`, arrays of their shapes and dtypes.

    Raises InputError for a file that is damaged, or of another network. Objects of Python, which
    could bring code, are never loaded.
    """
    with reading(path, "left out"), np.load(path, allow_pickle=False) as file:
        values = {name: file[name] for name in variables(model)}
        for name, variable in variables(model).items():
            if (values[name].shape, values[name].dtype) != (variable.shape, variable.dtype):
                raise ValueError
    return values


def drop_backups(folder):
    """Remove the backups of a training that has ended, all at once: no kill leaves a part."""
    gone = folder / f"part.{RESUME}"
    shutil.rmtree(gone, ignore_errors=True)
    if (folder / RESUME).exists():
        os.replace(folder / RESUME, gone)
        shutil.rmtree(gone, ignore_errors=True)
