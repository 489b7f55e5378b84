"""A short and fixed piece of what tests/fuzz.py runs for longer."""

import pytest

from fuzz import ROOMS, fuzz


@pytest.mark.parametrize("room", ROOMS)
def test_what_is_read_ends_well_or_in_a_line(room):
    outcomes, megabytes = fuzz(room, cases=60)
    assert outcomes["clean"] > 0
    assert outcomes["refused"] > 0
    assert outcomes.total() >= 60
    assert 30 < megabytes < 1000
