"""What is held back of the standard error, and what must not be; what Keras must not be set to."""

import os

import keras
import pytest

from utils.command import InputError, hold_back_stderr
from utils.devices import choose_precision, start_tensorflow


def write_and_raise(error):
    with hold_back_stderr():
        os.write(2, b"noise\n")
        raise error


def test_noise_is_held_back(capfd):
    with hold_back_stderr():
        os.write(2, b"noise\n")
    os.write(2, b"after\n")
    assert capfd.readouterr().err == "after\n"


def test_a_failure_shows_what_was_held_back(capfd):
    with pytest.raises(ImportError):
        write_and_raise(ImportError())
    assert capfd.readouterr().err == "noise\n"


def test_an_interruption_is_no_failure(capfd):
    with pytest.raises(KeyboardInterrupt):
        write_and_raise(KeyboardInterrupt())
    assert capfd.readouterr().err == ""


def test_precision_is_the_users_or_the_hardwares():
    assert choose_precision("float32") == "float32"
    assert choose_precision("mixed_bfloat16") == "mixed_bfloat16"
    assert choose_precision("auto") in ("float32", "mixed_bfloat16")
    with pytest.raises(ValueError, match="float16"):
        choose_precision("float16")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("KERAS_BACKEND", "torch"), ("KERAS_BACKEND", "false"), ("KERAS_BACKEND", "TensorFlow")),
        ("TF_USE_LEGACY_KERAS", "1"),
    ],
)
def test_another_keras_is_refused(name, value, monkeypatch):
    monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match=f"^{name}={value}: .*; unset it$"):
        start_tensorflow()


def test_channels_first_are_refused(monkeypatch):
    monkeypatch.setattr(keras.config, "image_data_format", lambda: "channels_first")
    with pytest.raises(InputError, match=r"^keras\.json: has channels_first; write channels_last"):
        start_tensorflow()
