"""What is held back of the standard error, and what must not be."""

import os

import pytest

from utils.command import hold_back_stderr
from utils.devices import choose_precision


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
