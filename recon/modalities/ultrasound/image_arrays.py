"""Checks of ultrasound images and their axes, shared by the metrics; each error names the array."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from recon.checks import finite
from recon.errors import InputError, ShapeError

# Pixels of exactly zero would be minus infinity; displayed levels are never below this.
LOWEST_DB = -200.0
Box = tuple[slice, slice]
Mask = NDArray[np.bool_]


def decibels(image: ArrayLike) -> NDArray[np.float64]:
    """Return ``20 log10(|image| / max |image|)``, not below -200 dB."""
    envelope = envelope_of(image)
    peak = envelope.max()
    if peak == 0:
        raise InputError("the image is zero everywhere, so it has no dB scale; give an image with signal")
    return np.asarray(20 * np.log10(np.maximum(envelope / peak, 10 ** (LOWEST_DB / 20))))


def envelope_of(image: ArrayLike) -> NDArray[np.float64]:
    """Return |image| of one finite image `(z, x)`."""
    values = finite(image, "image")
    if values.ndim != 2:
        raise ShapeError(f"image: expected (z, x), got {values.shape}; measure frames one by one")
    return np.abs(values)


def axis_of(values: ArrayLike, name: str) -> NDArray[np.float64]:
    """Return ascending coordinates in m."""
    axis = np.asarray(finite(values, f"axis {name}"), np.float64)
    if axis.ndim != 1 or len(axis) < 2 or (np.diff(axis) <= 0).any():
        raise InputError(f"axis {name}: expected at least two ascending coordinates in m, got {axis.shape}")
    return axis


def with_axes(image: ArrayLike, x: ArrayLike, z: ArrayLike) -> tuple[NDArray, NDArray, NDArray]:
    """Return the image in dB with its axes x and z, which must fit it."""
    level, columns, rows = decibels(image), axis_of(x, "x"), axis_of(z, "z")
    if level.shape != (len(rows), len(columns)):
        raise ShapeError(
            f"image {level.shape} (z, x) does not fit the axes of {len(rows)} rows and {len(columns)} columns"
        )
    return level, columns, rows


def spacing_of(axis: NDArray, name: str) -> float:
    """Return the spacing of equally spaced coordinates."""
    steps = np.diff(axis)
    if not len(steps) or np.ptp(steps) > 1e-3 * steps.mean():
        raise InputError(f"axis {name}: expected equally spaced coordinates")
    return float(steps.mean())


def mask_of(region: ArrayLike, shape: tuple[int, ...], name: str) -> Mask:
    """Check a region, which must hold at least two pixels."""
    where = np.asarray(region)
    if where.dtype != bool or where.shape != shape:
        raise ShapeError(f"{name}: expected bool of the image's shape {shape}, got {where.dtype} {where.shape}")
    if where.sum() < 2:
        raise InputError(f"{name}: expected at least two pixels, got {int(where.sum())}")
    return where


def bounding_box(where: Mask) -> Box:
    """Return the bounding slices (rows, columns) of a region."""
    rows, columns = np.flatnonzero(where.any(axis=1)), np.flatnonzero(where.any(axis=0))
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)
