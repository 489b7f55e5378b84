"""Checkpoints: the folders of networks to predict with, and the threshold stored in each."""

import json
import math
import os
import re
import shlex
from difflib import get_close_matches
from pathlib import Path
from typing import NamedTuple

import numpy as np

from utils.command import InputError, counted
from utils.devices import FLOAT32_LAYERS
from utils.files import RESUME, file_sha256, read_file, read_whole, reading, write_beside

THRESHOLDS_FILE = "thresholds.json"
UNKNOWN = [{"data_source": None, "data_sha256": None}]  # what a network was trained on


class Networks(NamedTuple):
    """The networks of one prediction, whose probabilities are averaged.

    folders: Paths, each with a unet.keras; configs: their config.json, dicts; weights: SHA-256 of
    each unet.keras; threshold: a pixel is called polyp from this probability on;
    temperature: that is stored with the network, None without one; scaled: whether the log-odds of
    the probabilities are divided by it. by_fold: whether, instead of their mean, each predicts the
    pictures of its own fold. names: what people are told each is. level: a region that is as sure
    is an alarm, 0 for any.
    """

    folders: list
    configs: list
    weights: list
    threshold: float | None = None
    temperature: float | None = None
    scaled: bool = False
    by_fold: bool = False
    names: tuple = ()
    level: float = 0.0


def read_networks(folders, by_fold=False):
    """Return the Networks of some folders, as yet without a threshold.

    Raises InputError as `read_config` and `hash_weights` do.
    """
    configs = [read_config(folder) for folder in folders]
    names = tuple(map(name_network, folders, configs))
    return Networks(folders, configs, hash_weights(folders), by_fold=by_fold, names=names)


def name_network(folder, config):
    """Return what a folder's network is, and whether its training has ended, in some words."""
    settings = config["settings"]
    name = f"{folder}: {settings['filters']} filters, seed {settings['seed']}"
    if is_finished(folder):
        epochs = sum(phase["epochs"] for phase in settings.get("phases", []))
        return name + (f", trained for {counted(epochs, 'epoch')}" if epochs else "")
    history = Path(folder) / "history.csv"
    text = read_file(history).decode(errors="replace") if history.is_file() else ""
    last = re.findall(r"^(\d+),(\d+),", text, re.MULTILINE)[-1:]
    after = "".join(f", after epoch {epoch} of phase {phase}" for phase, epoch in last)
    return f"{name}{after}; its training is not finished"


def is_finished(folder):
    """Tell whether the training that left a folder's network has ended."""
    return not (Path(folder) / RESUME).exists()


def find_checkpoints(named, own, shipped, finished=False):
    """Return the folders of the networks to predict with, as Paths; each holds a unet.keras.

    named: those that the user names, or None: then `own`, or as long as no network is there
    `shipped`; finished: whether one whose training goes on is none. Raises InputError for a folder
    that holds none or is named twice.
    """
    if named is None:
        there = (Path(own) / "unet.keras").is_file()
        taken = there and (is_finished(own) or not finished)
        if taken or not (Path(shipped) / "unet.keras").is_file():
            named = [own]
        else:
            what = "its training is not finished" if there else "holds no network yet"
            print(f"{own}: {what}; {shipped} is taken instead")
            return [Path(shipped)]
    folders, seen = [Path(name) for name in named], set()
    for folder in folders:
        if folder.is_file():
            raise InputError(
                f"{folder}: is a file, and a network is named by its folder; write pictures before"
                " --checkpoints"
            )
        if not (folder / "unet.keras").is_file():
            others = [str(path.parent) for path in folder.parent.glob("*/unet.keras")]
            if folder == Path(own):
                advice = " yet; run python train.py"
            elif others:
                advice = f", but in {', '.join(get_close_matches(str(folder), others, 3, 0))}"
            else:
                advice = f"; run python train.py --checkpoints {shlex.quote(str(folder))}"
            if len(folders) > 1:
                advice += "; write pictures before --checkpoints"
            raise InputError(f"{folder / 'unet.keras'}: no trained model there{advice}")
        if folder.resolve() in seen:
            raise InputError(f"{folder}: named twice; name each network once")
        seen.add(folder.resolve())
    return folders


def read_config(folder):
    """Return a checkpoint's config.json, as train.py left it, as a dict.

    Raises InputError if it is missing, damaged, or lacks what is told of a network.
    """
    path = Path(folder) / "config.json"
    way_out = "copy it again from where the network comes from, or train again"
    if not path.is_file():
        raise InputError(f"{path}: is missing, and belongs to unet.keras; {way_out}")
    with reading(path, way_out):
        config = json.loads(read_whole(path))
        settings = config["settings"]
        lacking = {"filters", "seed", "data_source", "data_sha256"} - settings.keys()
        descent_is_whole = all(data.keys() == UNKNOWN[0].keys() for data in ancestors(settings))
        if not descent_is_whole or not isinstance(settings.get("filters", 1), int):
            raise ValueError
    if lacking:
        raise InputError(f"{path}: lacks {', '.join(sorted(lacking))}; {way_out}")
    return config


def line_of_descent(folder):
    """Return what a training that begins with the network of `folder` keeps of it, a dict.

    "from" is the SHA-256 of its weights, "descent" a list of the data_source and data_sha256 that
    it was trained on, and before it those that it began with, None if that is unknown. Raises
    InputError for a damaged config.json.
    """
    settings, descent = trained_settings(folder), UNKNOWN
    if settings:
        own = {key: settings[key] for key in UNKNOWN[0]}
        descent = [own, *ancestors(settings)]
    return {"from": file_sha256(Path(folder) / "unet.keras"), "descent": descent}


def descent_doubts(folder, config, sha256):
    """Return a line, mostly none, on what the network of `folder` began with: `--from`.

    config: its config.json; sha256: of the data set with whose split that is no leak.
    """
    others = [a["data_source"] for a in ancestors(config["settings"]) if a["data_sha256"] != sha256]
    if not others:
        return []
    return [
        f"{folder} began with a network of other data or another split"
        f" ({others[0] or 'unknown'}). If that has seen any of these images, the scores are not"
        " true."
    ]


def trained_settings(folder):
    """Return the settings that a folder's network was trained with, {} without a config.json.

    Raises InputError for a damaged one.
    """
    return read_config(folder)["settings"] if (Path(folder) / "config.json").is_file() else {}


def is_equivariant(config):
    """Tell by its config.json whether a network's answer to a picture turns and flips with it.

    So it does, but for rounding, where all that it is built of is: its views need no averaging.
    """
    equivariant = config["settings"].get("kernels") == "equivariant"
    return equivariant and config.get("network", {}).get("equivariant", True)


def ancestors(settings):
    """Return the "descent" that a network's settings hold, see `line_of_descent`."""
    return settings.get("descent", UNKNOWN if settings.get("from") else [])


def hash_weights(folders):
    """Return the SHA-256 of the unet.keras in each folder, hex digits.

    Raises InputError for one that cannot be read.
    """
    digests = []
    for path in (Path(folder) / "unet.keras" for folder in folders):
        with reading(path, "train it again with python train.py"):
            digests.append(file_sha256(path))
    return digests


def describe_networks(networks):
    """Return a list of a dict for each of the Networks, as metrics.json keeps them."""
    return [
        {
            "checkpoints": str(folder),
            "network": name,
            "weights_sha256": weights,
            "training": config,
        }
        for folder, config, weights, name in zip(*networks[:3], networks.names, strict=True)
    ]


def store_choices(networks, tta, chosen_on, choices, rows):
    """Leave thresholds.json in the folder of the one of Networks.

    tta: whether views were averaged; chosen_on: the pictures' name; choices: a dict of "threshold",
    "temperature" and "level"; rows: dicts of a threshold and the scores there.
    """
    (folder,), (config,), (weights,) = networks.folders, networks.configs, networks.weights
    stored = {
        **choices,
        "chosen_on": chosen_on,
        "tta": tta,
        "data_sha256": config["settings"]["data_sha256"],
        "weights_sha256": weights,
        "thresholds": rows,
    }
    with write_beside(Path(folder) / THRESHOLDS_FILE) as beside:
        beside.write_text(json.dumps(stored, indent=2) + "\n")


def stored_choices(folders, configs, weights, tta):
    """Return the threshold, 0 to 1, the temperature and the level that were stored.

    folders, configs, weights: as in Networks; tta: whether it averages views. Raises InputError if
    none is stored, if it is another network's, another data set's or of other views, or if there
    are several networks, with none of which their mean's threshold could be stored.
    """
    if len(folders) > 1:
        raise InputError(
            "'validation' for THRESHOLD or TEMPERATURE: they are stored with one network, not with"
            f" {len(folders)} together; name one, or edit them in evaluation.py"
        )
    path = Path(folders[0]) / THRESHOLDS_FILE
    run = f"run python evaluation.py --thresholds --checkpoints {shlex.quote(str(folders[0]))}"
    run += " --tta" if tta else ""
    if not path.is_file():
        raise InputError(
            f"{path}: is missing, and 'validation' for THRESHOLD or TEMPERATURE reads it; {run}"
        )
    with reading(path, run):
        stored = json.loads(read_whole(path))
        names = "threshold", "temperature", "level"
        threshold, temperature, level = (float(stored[name]) for name in names)
        if not (0 < threshold < 1 and 0 < temperature < math.inf and 0 <= level <= 1):
            raise ValueError
        same = {
            "network": stored["weights_sha256"] == weights[0],
            "data set": stored["data_sha256"] == configs[0]["settings"]["data_sha256"],
            "choice of --tta": stored["tta"] == tta or is_equivariant(configs[0]),
        }
    for what, is_same in same.items():
        if not is_same:
            raise InputError(f"{path}: was chosen with another {what}; {run}")
    return threshold, temperature, level


def round_weights(model):
    """Return a copy of a model whose convolutions have bfloat16 weights, to predict with.

    All but FLOAT32_LAYERS compute in bfloat16. It predicts, bit for bit, what mixed_bfloat16 does,
    without rounding weights anew for each batch.
    """
    import keras

    config = model.get_config()
    for layer in config["layers"]:
        if layer["class_name"] == "InputLayer" or layer["config"]["name"] in FLOAT32_LAYERS:
            continue
        convolution = layer["class_name"] in ("Conv2D", "Conv2DTranspose")
        layer["config"]["dtype"] = "bfloat16" if convolution else "mixed_bfloat16"
    copy = keras.Model.from_config(config)
    copy.set_weights(model.get_weights())
    return copy


def load_unet(path, precision="float32", way_out=None):
    """Load a network that train.py has saved, to predict with in a precision that it names.

    Returns a Keras model from (batch, size, size, 3), 0 to 255, to (batch, size, size, 1) float32,
    0 to 1. Raises ValueError, in one line that names the file, if there is none, if Keras cannot
    load it, and if it is a network of another shape, or of weights that are not finite. way_out:
    what that line says to do then.
    """
    import keras

    if Path(path).is_dir():
        raise ValueError(f"{path}: is a folder, not a trained model; move it away")
    if not Path(path).is_file():
        raise ValueError(f"{path}: no trained model there; {way_out or 'run python train.py'}")
    way_out = way_out or "train it again with python train.py"
    if not os.access(path, os.R_OK):
        raise ValueError(f"{path}: cannot be read; get the right to read it")
    try:
        model = keras.models.load_model(path, compile=False)
    except Exception as error:  # whatever the reader of a damaged zip, JSON or HDF5 stumbles over
        unknown = re.search(r"Could not locate class '(\w+)'", str(error))
        if "`Lambda` layer" in str(error):
            problem = "holds a Lambda layer, which is code that Keras does not run from a file"
        elif unknown:
            problem = f"holds a layer that Keras does not know, {unknown[1]}"
        else:
            problem = "not a model that Keras can load"
        raise ValueError(f"{path}: {problem}; {way_out}") from error
    shapes = getattr(model, "input_shape", None), getattr(model, "output_shape", None)
    size = shapes[0][1] if isinstance(shapes[0], tuple) and len(shapes[0]) == 4 else None
    if size is None or shapes != ((None, size, size, 3), (None, size, size, 1)):
        raise ValueError(
            f"{path}: a network from {shapes[0]} to {shapes[1]}, not from square RGB pictures,"
            f" (None, size, size, 3), to one probability a pixel, (None, size, size, 1); {way_out}"
        )
    if not all(np.isfinite(weights).all() for weights in model.get_weights()):
        raise ValueError(f"{path}: holds weights that are no numbers; {way_out}")
    ours = {layer.name for layer in model.layers}.issuperset({"rescaling", "polyp"})
    return round_weights(model) if ours and precision == "mixed_bfloat16" else model
