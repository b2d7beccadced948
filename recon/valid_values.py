"""Rules for the values of settings, and one message for a value that breaks its rule."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from recon.errors import ConfigError
from recon.options import is_finite, shown

Rule = tuple[Callable[[Any], bool], str]


#: Largest whole number of a setting; larger ones overflow in some library.
_LARGEST = 2**63 - 1


def whole(least: int) -> Rule:
    """Whole numbers >= ``least``."""

    def fits(v: Any) -> bool:
        return isinstance(v, int) and not isinstance(v, bool) and least <= v <= _LARGEST

    return fits, f"a whole number >= {least}"


def number(low: float, high: float = math.inf, open_low: bool = False, open_high: bool = True) -> Rule:
    """Finite numbers in an interval."""

    def fits(v: Any) -> bool:
        if isinstance(v, bool) or not isinstance(v, int | float) or not is_finite(v):
            return False
        return (v > low if open_low else v >= low) and (v < high if open_high else v <= high)

    if low == -math.inf:
        return fits, "a finite number"
    sign = ">" if open_low else ">="
    if not math.isfinite(high):
        return fits, f"a number {sign} {low:g}"
    return fits, f"a number {sign} {low:g} and {'<' if open_high else '<='} {high:g}"


def either(values: Sequence[Any]) -> Rule:
    """One of a few values."""
    return lambda v: v in values, " or ".join(str(v) for v in values)


def _texts(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(v, str) for v in value)


POSITIVE, SHARE = number(0, open_low=True), number(0, 1, open_high=False)
SWITCH: Rule = (lambda v: isinstance(v, bool), "true or false")
TABLE: Rule = (lambda v: isinstance(v, Mapping), "a table")
TEXT: Rule = (lambda v: isinstance(v, str), "a string")
TEXTS: Rule = (_texts, "a list of strings")


def check(settings: Any, rules: Mapping[str, Rule], where: str = "") -> None:
    """Raise ConfigError for the first setting that breaks its rule."""
    for name, (fits, expected) in rules.items():
        value = getattr(settings, name)
        if not fits(value):
            raise ConfigError(f"{where}{name}: expected {expected}, got {shown(value)}")
