"""The constants' checks: what is in range, what is not, and the line that says so."""

import math

import numpy as np
import pytest

from utils.command import InputError, check_choice, check_number, check_whole


@pytest.mark.parametrize("value", [2, 5, np.int64(2)])
def test_whole_numbers_in_range_pass(value):
    check_whole("FOLDS", value, "a.py", least=2, most=5)


@pytest.mark.parametrize("value", [1, 6, -3, 2.0, 2.5, True, "2", None, math.nan])
def test_others_are_refused_by_name(value):
    with pytest.raises(InputError) as error:
        check_whole("FOLDS", value, "a.py", least=2, most=5)
    line = f"FOLDS = {value!r}: must be a whole number from 2 to 5; edit it in a.py"
    assert str(error.value) == line


def test_a_whole_number_may_be_a_multiple_and_have_no_upper_end():
    check_whole("IMAGE_SIZE", 10**9 * 16, "a.py", least=16, multiple_of=16)
    for value in (0, 100):
        with pytest.raises(InputError, match=r"must be a multiple of 16 from 16 on; edit it in"):
            check_whole("IMAGE_SIZE", value, "a.py", least=16, multiple_of=16)


@pytest.mark.parametrize("value", [0, 0.5, np.float32(0.25), 1e-9])
def test_numbers_in_range_pass(value):
    check_number("DROPOUT", value, "a.py", least=0, below=1)


@pytest.mark.parametrize("value", [1, -1e-9, math.nan, math.inf, -math.inf, "0.5", None, False])
def test_numbers_out_of_range_are_refused_by_name(value):
    with pytest.raises(InputError) as error:
        check_number("DROPOUT", value, "a.py", least=0, below=1)
    line = f"DROPOUT = {value!r}: must be a number at least 0 and below 1; edit it in a.py"
    assert str(error.value) == line


def test_the_ends_above_and_most():
    check_number("RATE", 1, "a.py", above=0, most=1)
    check_number("RATE", -5, "a.py")
    for value in (0, 1.01):
        with pytest.raises(InputError, match="must be a number above 0 and at most 1; edit"):
            check_number("RATE", value, "a.py", above=0, most=1)
    with pytest.raises(InputError, match="RATE = nan: must be a number; edit"):
        check_number("RATE", math.nan, "a.py")


def test_a_choice_is_one_of_those_named():
    check_choice("PRECISION", "auto", "a.py", ["auto", "float32"])
    with pytest.raises(InputError, match="'half': must be one of 'auto', 'float32'; edit it in a"):
        check_choice("PRECISION", "half", "a.py", ["auto", "float32"])
