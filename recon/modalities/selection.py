"""Options that every kind of source shares: which slices, and those that belong to another kind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import numpy as np

from recon.errors import InputError


def choose_slices(slices: str | int | Sequence[int] | None, n: int) -> list[int]:
    """Return slice numbers from ``None`` (all), ``7``, ``"10:20"`` or a list.

    Raises
    ------
    InputError
        If a slice does not exist or none is left.
    """
    if slices is None:
        return list(range(n))
    if isinstance(slices, str):
        first, colon, stop = slices.partition(":")
        try:
            chosen = list(range(n))[slice(_number(first), _number(stop))] if colon else [int(first)]
        except ValueError:
            raise InputError(f"slices: expected A:B or one number, came {slices!r}") from None
    else:
        chosen = [slices] if isinstance(slices, int) else [int(index) for index in slices]
    missing = [index for index in chosen if not -n <= index < n]
    if missing or not chosen:
        raise InputError(f"slices: {slices!r} selects {missing or 'nothing'}; the source has {n} slices, 0 to {n - 1}")
    return [index % n for index in chosen]


def _number(text: str) -> int | None:
    return int(text) if text.strip() else None


def reader_options(given: str | Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the options of a reader from a mapping, or from ``"series=3"`` or ``"a=1,b=2.5"`` on the command line.

    Raises
    ------
    InputError
        For text that is not of this form.
    """
    if not isinstance(given, str):
        return dict(given or {})
    found: dict[str, Any] = {}
    for part in given.split(","):
        name, equals, value = (piece.strip() for piece in part.partition("="))
        if not name.isidentifier() or not equals or not value:
            raise InputError(f"reader: expected NAME=VALUE or NAME=VALUE,NAME=VALUE, came {given!r}")
        found[name] = value
        for kind in (float, int):  # the last one that fits
            with suppress(ValueError):
                found[name] = kind(value)
    return found


def of_slices(geometry: Mapping[str, Any], chosen: Sequence[int]) -> dict[str, Any]:
    """Return the geometry of a part of a source: its affine begins at the first of the chosen slices."""
    if geometry.get("affine") is None:
        return dict(geometry)
    affine = np.array(geometry["affine"], float)
    affine[:3, 3] += chosen[0] * affine[:3, 2]
    if len(chosen) > 1:
        affine[:3, 2] *= (chosen[-1] - chosen[0]) / (len(chosen) - 1)
    return {**geometry, "affine": affine.tolist()}


def refuse_options(options: Mapping[str, Any], defaults: Mapping[str, Any], belong: str) -> None:
    """Raise InputError for options that were given (are not their default, None) where they have no meaning."""
    given = [
        name for name, value in options.items() if value is not None and not _is_default(value, defaults.get(name))
    ]
    if given:
        raise InputError(f"{', '.join(given)}: only for {belong}")


def _is_default(value: Any, default: Any) -> bool:
    return isinstance(value, int | float | str) and value == default
