"""Checks of settings, with one form of message for all."""

from __future__ import annotations

import math
from numbers import Real

from operators.errors import InputError


def require(owner: object, holds: bool, expected: str, got: object) -> None:
    """Raise InputError, in the name of the owner's class, unless a setting holds.

    Parameters
    ----------
    owner : object
        The sampler or other object with the setting.
    holds : bool
    expected : str
        The expected value, such as "steps >= 1".
    got : object
        The given value.
    """
    if not holds:
        raise InputError(f"{type(owner).__name__}: expected {expected}, got {got!r}")


def is_positive(value: object) -> bool:
    """Tell whether a value is a finite number above zero."""
    return type(value) is not bool and isinstance(value, Real) and 0 < float(value) < math.inf
