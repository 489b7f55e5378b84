"""The constants at the scripts' tops: checked when a script starts, before any work."""

import math
from numbers import Integral, Real

from utils.files import InputError


def check_whole(name, value, file, least, most=None, multiple_of=1):
    """Raise InputError unless `value` is a whole number in its range.

    name: the constant's; file: the script in which it is edited; least, most: both allowed, no
    `most` for no upper end. True and False are no numbers.
    """
    kind = "a whole number" if multiple_of == 1 else f"a multiple of {multiple_of}"
    fits = isinstance(value, Integral) and not isinstance(value, bool)
    fits = fits and least <= value and (most is None or value <= most) and not value % multiple_of
    if not fits:
        ends = f"from {least:,} on" if most is None else f"from {least:,} to {most:,}"
        raise constant_error(name, value, file, f"{kind} {ends}")


def check_number(name, value, file, *, least=None, most=None, above=None, below=None):
    """Raise InputError unless `value` is a finite number, whole or not, in its range.

    name: the constant's; file: the script in which it is edited; least, most: ends that are
    allowed; above, below: ends that are not. True and False are no numbers.
    """
    fits = isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
    ends = []
    for word, end, holds in (
        ("at least", least, lambda: value >= least),
        ("above", above, lambda: value > above),
        ("at most", most, lambda: value <= most),
        ("below", below, lambda: value < below),
    ):
        if end is not None:
            ends.append(f"{word} {end:,}")
            fits = fits and holds()
    if not fits:
        raise constant_error(name, value, file, " ".join(["a number", " and ".join(ends)]).rstrip())


def check_choice(name, value, file, choices):
    """Raise InputError unless `value` is one of `choices`; name, file: as in `check_whole`."""
    if value not in choices:
        raise constant_error(name, value, file, f"one of {', '.join(map(repr, choices))}")


def constant_error(name, value, file, wanted):
    """Return the InputError for a constant that is not what is `wanted`."""
    return InputError(f"{name} = {value!r}: must be {wanted}; edit it in {file}")
