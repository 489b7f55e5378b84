"""The command line and the constants' checks: what is taken, and the line for what is not."""

import math
import sys

import numpy as np
import pytest

from utils.command import (
    InputError,
    check_constants,
    command_line,
    counted,
    next_command,
    number,
    numbers,
    one_of,
    whole,
)


def test_one_is_no_plural():
    assert [counted(n, "epoch") for n in (0, 1, 2_000)] == ["0 epochs", "1 epoch", "2,000 epochs"]


@pytest.mark.parametrize("value", [2, 5, np.int64(2)])
def test_whole_numbers_in_range_pass(value):
    check_constants("a.py", {"FOLDS": (value, whole(least=2, most=5))})


@pytest.mark.parametrize("value", [1, 6, -3, 2.0, 2.5, True, "2", None, math.nan])
def test_others_are_refused_by_name(value):
    with pytest.raises(InputError) as error:
        check_constants("a.py", {"FOLDS": (value, whole(least=2, most=5))})
    line = f"FOLDS = {value!r}: must be a whole number from 2 to 5; edit it in a.py"
    assert str(error.value) == line


def test_a_whole_number_may_be_a_multiple_and_have_no_upper_end():
    check_constants("a.py", {"IMAGE_SIZE": (10**9 * 16, whole(least=16, multiple_of=16))})
    for value in (0, 100):
        with pytest.raises(InputError, match=r"must be a multiple of 16 from 16 on; edit it in"):
            check_constants("a.py", {"IMAGE_SIZE": (value, whole(least=16, multiple_of=16))})


@pytest.mark.parametrize("value", [0, 0.5, np.float32(0.25), 1e-9])
def test_numbers_in_range_pass(value):
    check_constants("a.py", {"DROPOUT": (value, number(least=0, below=1))})


@pytest.mark.parametrize("value", [1, -1e-9, math.nan, math.inf, -math.inf, "0.5", None, False])
def test_numbers_out_of_range_are_refused_by_name(value):
    with pytest.raises(InputError) as error:
        check_constants("a.py", {"DROPOUT": (value, number(least=0, below=1))})
    line = f"DROPOUT = {value!r}: must be a number at least 0 and below 1; edit it in a.py"
    assert str(error.value) == line


def test_the_ends_above_and_most():
    check_constants("a.py", {"RATE": (1, number(above=0, most=1))})
    check_constants("a.py", {"RATE": (-5, number())})
    for value in (0, 1.01):
        with pytest.raises(InputError, match="must be a number above 0 and at most 1; edit"):
            check_constants("a.py", {"RATE": (value, number(above=0, most=1))})
    with pytest.raises(InputError, match="RATE = nan: must be a number; edit"):
        check_constants("a.py", {"RATE": (math.nan, number())})


def test_a_choice_is_one_of_those_named():
    check_constants("a.py", {"PRECISION": ("auto", one_of("auto", "float32"))})
    with pytest.raises(InputError, match="'half': must be one of 'auto', 'float32'; edit it in a"):
        check_constants("a.py", {"PRECISION": ("half", one_of("auto", "float32"))})


def test_a_constant_may_pass_one_of_two_checks():
    either = number(above=0) | one_of(None)
    check_constants("a.py", {"NORM": (None, either), "RATE": (2, either)})
    with pytest.raises(InputError, match=r"^NORM = 0: must be a number above 0 or None; edit it"):
        check_constants("a.py", {"NORM": (0, either)})


def test_a_tuple_of_numbers_is_not_empty_and_each_is_in_range():
    check_constants("a.py", {"LEVELS": ([0.5, 0.9], numbers(above=0, below=1))})
    for value in ((0.5, 1), (), 0.5, ("0.5",)):
        with pytest.raises(InputError, match="must be a tuple of numbers above 0 and below 1;"):
            check_constants("a.py", {"LEVELS": (value, numbers(above=0, below=1))})


def test_wildcards_that_no_shell_has_expanded_name_what_is_there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("fold2", "fold10", "fold1", "a[1].png", "a1.png"):
        (tmp_path / name).touch()
    given = ["--data", "fold?", "a[1].png", "none*", "https://example.org/?a=b", "", "fold1*"]
    monkeypatch.setattr(sys, "argv", ["evaluation.py", *given])
    folds = ["fold1", "fold2"], ["fold1", "fold10"]
    assert command_line() == ["--data", *folds[0], *given[2:6], *folds[1]]


def test_the_next_command_lies_where_the_script_was_called(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a b").mkdir()
    (tmp_path / "a b/evaluation.py").touch()
    for called, line in (
        ("a b/train.py", "python 'a b/evaluation.py' --data 'x y'"),
        ("train.py", "python evaluation.py --data 'x y'"),
        ("/elsewhere/kernel_launcher.py", "python evaluation.py --data 'x y'"),
    ):
        monkeypatch.setattr(sys, "argv", [called])
        assert next_command("evaluation.py", "--data", "x y") == line
