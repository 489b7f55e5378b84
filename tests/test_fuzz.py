"""A short and fixed piece of what tests/fuzz.py runs for longer."""

import mmap

import numpy as np
import pytest
from hypothesis import strategies as st

import fuzz


@pytest.mark.parametrize("room", fuzz.ROOMS)
def test_what_is_read_ends_well_or_in_a_line(room):
    outcomes, _ = fuzz.fuzz(room, cases=60)
    assert outcomes["clean"] > 0
    assert outcomes["refused"] > 0
    assert outcomes.total() >= 60


def take_memory(folder, drawn):
    np.frombuffer(mmap.mmap(-1, 20_000_000), np.uint8)[:] = 1  # which goes back to the system


def test_a_case_that_takes_too_much_memory_is_a_failure(monkeypatch):
    monkeypatch.setattr(fuzz, "MEGABYTES", 10)
    monkeypatch.setitem(fuzz.ROOMS, "x", (st.just(0), take_memory))
    with pytest.raises(AssertionError, match="MB of memory"):
        fuzz.fuzz("x", cases=2)
    monkeypatch.setattr(fuzz, "MEGABYTES", 100)
    outcomes, megabytes = fuzz.fuzz("x", cases=2)
    assert outcomes["clean"] == 1
    assert 15 < megabytes < 60
