"""Array checks shared by several modules; each raises an error that names the array and the problem."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from recon.errors import InputError, ShapeError


def finite(values: ArrayLike, name: str) -> NDArray[np.inexact]:
    """Return a numeric array in double precision, complex or real; NaN, Inf and empty arrays are refused."""
    array = np.asarray(values)
    if array.dtype.kind not in "biufc" or array.size == 0:
        raise InputError(f"{name} must be a non-empty numeric array, got {array.dtype} {array.shape}")
    array = array.astype(np.complex128 if array.dtype.kind == "c" else np.float64)
    if not np.isfinite(array).all():
        raise InputError(f"{name} holds {int((~np.isfinite(array)).sum())} values that are not finite")
    return array


def real(values: ArrayLike, name: str) -> NDArray[np.inexact]:
    """Return a finite real array in double precision."""
    if np.iscomplexobj(values):
        raise InputError(f"{name} must be real, got complex values")
    return finite(values, name)


def same_shape(first: NDArray, second: NDArray, first_name: str, second_name: str) -> None:
    """Refuse two arrays of different shapes."""
    if first.shape != second.shape:
        raise ShapeError(
            f"{first_name} and {second_name} must have the same shape, got {first.shape} and {second.shape}"
        )


def support_of(support: ArrayLike | None, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Return the pixels that count as a bool array of the given shape: by default all; an empty support is refused."""
    if support is None:
        return np.ones(shape, dtype=bool)
    where = np.asarray(support)
    if where.dtype != bool:
        raise InputError(f"support must be an array of bool, got {where.dtype}")
    try:
        where = np.broadcast_to(where, shape)
    except ValueError:
        raise ShapeError(f"support {where.shape} does not broadcast to the image {shape}") from None
    if not where.any():
        raise InputError("the support is empty: it must select at least one pixel")
    return where
