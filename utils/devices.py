"""TensorFlow's start, and the devices that it computes on.

TensorFlow takes seconds to load. So the scripts, and the rooms that need it, import it and Keras
inside the functions that use them, after `start_tensorflow`: a refusal or -h comes at once.
"""

import os
import platform
from contextlib import suppress
from pathlib import Path

import cv2
import numpy as np

from utils.command import InputError, hold_back_stderr

PRECISIONS = ("float32", "mixed_bfloat16")  # that a network can compute in
FLOAT32_LAYERS = ("rescaling", "grey", "polyp")  # levels and probabilities need the digits


def start_tensorflow():
    """Load TensorFlow and Keras, without the lines about CPU and missing GPUs that they begin with.

    Every GPU's memory is taken as it is needed, not whole at the start: a second process finds
    some too. Raises InputError where Keras is set to what the project cannot work with.
    """
    print("TensorFlow starts ...", flush=True)
    allowed = {
        "KERAS_BACKEND": ("tensorflow", ""),
        "TF_USE_LEGACY_KERAS": ("0", "", "false", "False"),
    }
    for name, values in allowed.items():
        value = os.environ.setdefault(name, values[0])
        if value not in values:
            raise InputError(f"{name}={value}: Keras 3 on TensorFlow is needed; unset it")
    with hold_back_stderr():
        import keras
        import tensorflow as tf

        with suppress(RuntimeError):  # a notebook has already begun to use them
            for gpu in tf.config.list_physical_devices("GPU"):
                tf.config.experimental.set_memory_growth(gpu, True)
    if keras.config.image_data_format() != "channels_last":
        raise InputError(
            "keras.json: has channels_first; write channels_last there, in ~/.keras or KERAS_HOME"
        )


def make_strategy(devices=None):
    """Return the tf.distribute strategy: all GPUs together if there are several.

    devices: names such as "CPU:0" instead of the GPUs.
    """
    import tensorflow as tf

    devices = devices or [f"GPU:{i}" for i in range(len(tf.config.list_physical_devices("GPU")))]
    if len(devices) > 1:
        return tf.distribute.MirroredStrategy(devices)
    return tf.distribute.get_strategy()


def describe_machine(precision, replicas):
    """Return what a training ran on, as a dict: devices, processor, precision and versions."""
    import keras
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    names = [tf.config.experimental.get_device_details(gpu).get("device_name") for gpu in gpus]
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    models = [line.split(": ")[1] for line in lines if line.startswith("model name")]
    return {
        "devices": names or [f"{len(models)} x {models[0]}" if models else platform.machine()],
        "replicas": replicas,
        "precision": precision,
        "python": platform.python_version(),
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
        "numpy": np.__version__,
        "opencv": cv2.__version__,
    }


def choose_precision(setting="auto"):
    """Return "mixed_bfloat16" where the hardware multiplies in bfloat16, "float32" elsewhere.

    A GPU does from compute capability 8.0 on, a CPU with the flags amx_bf16 or avx512_bf16.
    Raises ValueError for an unknown setting.
    """
    if setting in PRECISIONS:
        return setting
    if setting != "auto":
        raise ValueError(f'PRECISION {setting!r}: must be "auto", "float32" or "mixed_bfloat16"')
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        details = [tf.config.experimental.get_device_details(gpu) for gpu in gpus]
        made_for_it = all(d.get("compute_capability", (0, 0)) >= (8, 0) for d in details)
    else:
        cpuinfo = Path("/proc/cpuinfo")
        flags = cpuinfo.read_text() if cpuinfo.exists() else ""
        made_for_it = "amx_bf16" in flags or "avx512_bf16" in flags
    return "mixed_bfloat16" if made_for_it else "float32"
