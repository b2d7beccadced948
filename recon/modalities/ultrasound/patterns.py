"""Undersampling patterns of plane-wave acquisitions: selection of angles and elements."""

from __future__ import annotations

import numpy as np

from recon.errors import InputError
from recon.modalities.ultrasound.options import ARRAYS


def angle_pattern(angles: np.ndarray, count: int, where: str = "") -> np.ndarray:
    """Return the indices of `count` waves spread over all angles; for one, the wave closest to 0 rad.

    ``round(linspace(0, n - 1, count))``, as in the PICMUS challenge for 3 and 11 of 75 waves.
    """
    _in_range(count, len(angles), "angle", where)
    if count == 1:
        return np.array([int(np.abs(angles).argmin())])
    return np.rint(np.linspace(0, len(angles) - 1, count)).astype(int)


def element_pattern(total: int, count: int, array: str = "uniform", seed: int = 0, where: str = "") -> np.ndarray:
    """Return the indices of `count` of `total` receiving elements, ascending.

    Parameters
    ----------
    total, count
        Number of elements, and number of elements to keep.
    array
        "uniform": evenly spread; "random": one at random from each of `count` groups of neighbours (a sparse array
        without grating lobes); "centre": neighbours in the middle.
    seed
        Seed of the random choice.
    where
        Prefix of error messages.
    """
    _in_range(count, total, "element", where)
    if array not in ARRAYS:
        raise InputError(f"{where}array must be one of {', '.join(ARRAYS)}, got {array!r}")
    if array == "centre":
        return np.arange(count) + (total - count) // 2
    edges = np.rint(np.linspace(0, total, count + 1)).astype(int)
    if array == "uniform":
        return (edges[:-1] + edges[1:] - 1) // 2
    return np.random.default_rng(seed).integers(edges[:-1], edges[1:])


def _in_range(count: int, total: int, what: str, where: str) -> None:
    if isinstance(count, bool) or int(count) != count or not 1 <= count <= total:
        raise InputError(f"{where}cannot keep {count} of {total} {what}s; expected a whole number from 1 to {total}")
