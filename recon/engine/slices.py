"""Selection of slices of a source, and the geometry of the selection."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from recon.affines import stacked
from recon.errors import InputError


def choose_slices(slices: str | int | Sequence[int] | None, n: int) -> list[int]:
    """Return slice numbers from ``None`` (all), ``7``, ``"10:20"`` or a list.

    Raises
    ------
    InputError
        If a slice does not exist or the selection is empty.
    """
    if slices is None:
        return list(range(n))
    if isinstance(slices, str):
        first, colon, stop = slices.partition(":")
        try:
            chosen = list(range(n))[slice(_number(first), _number(stop))] if colon else [int(first)]
        except ValueError:
            raise InputError(f"slices: expected A:B or one number, got {slices!r}") from None
    else:
        chosen = [slices] if isinstance(slices, int) else [int(index) for index in slices]
    missing = [index for index in chosen if not -n <= index < n]
    if missing or not chosen:
        raise InputError(f"slices: {slices!r} selects {missing or 'nothing'}; the source has {n} slices, 0 to {n - 1}")
    return [index % n for index in chosen]


def _number(text: str) -> int | None:
    return int(text) if text.strip() else None


def of_slices(geometry: Mapping[str, Any], chosen: Sequence[int]) -> dict[str, Any]:
    """Return the geometry of the chosen slices.

    Its ``affine`` is that of the stack, which a source may also give for each slice. Where that is not the affine of
    each slice, ``affines`` has them.
    """
    if geometry.get("affine") is None:
        return dict(geometry)
    known = np.array(geometry["affine"], float)
    if known.ndim == 3:
        each = known[list(chosen)]
    else:
        each = np.repeat(known[None], len(chosen), axis=0)
        each[:, :3, 3] += np.asarray(chosen)[:, None] * known[:3, 2]
    affine, even = stacked(each)
    return {**geometry, "affine": affine.tolist(), **({} if even else {"affines": each.tolist()})}
