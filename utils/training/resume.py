"""What a training goes on from: the folder of an earlier one, and whether it is the same."""

import json

from utils.command import InputError
from utils.data.dataset import TRAINED_ON
from utils.devices import PRECISIONS
from utils.files import cannot_write, read_whole, reading, write_beside
from utils.training.backups import KEPT, RESUME, drop_backups, restore

OUTPUTS = ["unet.keras", "history.csv", "curves.png", "augmented.png", TRAINED_ON, "config.json"]


def earlier_training(folder, settings):
    """Return config.json of the training that a folder holds, or None if it holds none.

    Raises InputError if it is one of other settings, or of unknown ones, or cannot be read.
    """
    path = folder / "config.json"
    if not path.exists():
        for name in ("history.csv", "unet.keras"):
            if (folder / name).exists():
                raise InputError(f"{path}: is missing, and belongs to {name}; --fresh begins anew")
        return None
    with reading(path, "--fresh begins anew in its folder"):
        config = json.loads(read_whole(path))
        before = config["settings"]
        own = {key: value for key, value in settings.items() if key != "descent"}  # "from" decides
        differing = [key for key, value in own.items() if before.get(key) != value]
        if config["machine"]["precision"] not in PRECISIONS:  # a training goes on in it
            raise ValueError
    if differing:
        key = differing[0]
        theirs, own, more = before.get(key), settings[key], ""
        if key == "phases" and same_but_epochs(theirs, own):
            key, theirs, own = "epochs", list_epochs(theirs), list_epochs(own)
            more = f", --from {folder} --checkpoints DIR goes on from its network"
        raise InputError(
            f"{folder}: holds a training with {key} {theirs}, not {own}; --fresh replaces it,"
            f" --checkpoints DIR keeps both{more}"
        )
    return config


def same_but_epochs(phases, others):
    """Tell whether two lists of phases differ in their numbers of epochs alone."""
    these, those = ([phase | {"epochs": 0} for phase in each or ()] for each in (phases, others))
    return these == those


def list_epochs(phases):
    """Return the epochs of each phase as text, such as 76 + 8."""
    return " + ".join(str(phase["epochs"]) for phase in phases)


def check_built(before, training):
    """Raise InputError if the network of an earlier training was built otherwise by model.py.

    before: its config.json.
    """
    if before.get("network") != describe_built(training):
        raise InputError(
            f"{training.folder}: holds a training of another network, for model.py was edited;"
            " --fresh replaces it, --checkpoints DIR keeps both"
        )


def describe_built(training):
    """Return what config.json keeps of how the network is built, a dict."""
    from utils.training.kernels import fingerprint, is_equivariant

    equivariant = is_equivariant(training.network)
    return {"sha256": fingerprint(training.plain), "equivariant": equivariant}


def begin(training, machine, fresh):
    """Make the folder ready for a training, or for the rest of one; `fresh` clears it first."""
    folder, settings = training.folder, training.settings
    try:
        if fresh:
            for name in OUTPUTS:
                (folder / name).unlink(missing_ok=True)
            drop_backups(folder)  # last: without them a training counts as finished
        (folder / RESUME).mkdir(exist_ok=True)
    except OSError as error:
        raise cannot_write(error.filename or folder, error) from error
    config = {"settings": settings, "network": describe_built(training), "machine": machine}
    with write_beside(folder / "config.json") as beside:
        beside.write_text(json.dumps(config, indent=2) + "\n")


def go_on_from(training, phase, optimizer):
    """Restore a phase's last epoch, or the end of the phase before it; return the epoch, or 0.

    Raises InputError if backups or history lack what was trained.
    """
    folder, network, phases = training.folder, training.network, training.settings["phases"]
    done = sum(row["phase"] == phase for row in training.rows)
    epoch = restore(folder, phase, network, optimizer)
    before = [n for n in range(1, phase) if phases[n - 1]["epochs"]]
    if before and not epoch:
        lacking = restore(folder, before[-1], network) < phases[before[-1] - 1]["epochs"]
    else:  # two epochs may be written down and not backed up: the last, and a damaged one
        lacking = done - epoch > KEPT
    if lacking:
        raise InputError(f"{folder / RESUME}: lacks a whole backup; --fresh begins anew")
    if epoch > done:
        raise InputError(f"{folder / 'history.csv'}: lacks epochs; --fresh begins anew")
    return epoch
