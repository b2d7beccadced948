"""Common parts of the HDF5 readers of channel data: small checked datasets, and the geometry built from them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np

from recon.errors import InputError, ShapeError
from recon.files import hdf5

if TYPE_CHECKING:
    from operators.ultrasound.geometry import PlaneWaveGeometry

# Positions, angles and delays are small; anything larger is mislabelled.
_LARGEST = 2**22
AXES = "angle, element, sample"


def array(file: h5py.File, name: str, ndim: int | None = None) -> np.ndarray:
    """Read a small dataset of real numbers as float64."""
    found = hdf5.dataset(file, name)
    where = f"{file.filename}: {name}"
    if found.dtype.kind not in "biuf" or found.size > _LARGEST:
        raise InputError(f"{where}: expected a short list of real numbers, got {found.dtype} {found.shape}")
    values = np.asarray(found[()], np.float64)
    if ndim is not None and values.ndim != ndim:
        raise ShapeError(f"{where}: expected {ndim} axes, got shape {values.shape}")
    if not np.isfinite(values).all():
        raise InputError(f"{where}: holds values that are NaN or infinite")
    return values


def number(file: h5py.File, name: str, default: float | None = None) -> float:
    """Read one number; without a default it must exist."""
    if default is not None and not hdf5.has(file, name):
        return default
    values = array(file, name)
    if values.size != 1:
        raise ShapeError(f"{file.filename}: {name}: expected one number, got shape {values.shape}")
    return float(values.reshape(-1)[0])


def is_group(file: h5py.File, name: str) -> bool:
    """Tell whether a name is a group, without following links."""
    return hdf5.has(file, name) and isinstance(file.get(name, getlink=True), h5py.HardLink) and _group(file, name)


def samples(file: h5py.File, name: str, ndims: tuple[int, ...]) -> h5py.Dataset:
    """Return a dataset of channel data after checking its type and rank; nothing is read."""
    found = hdf5.dataset(file, name)
    where = f"{file.filename}: {name}"
    if found.dtype.kind not in "iuf":
        raise InputError(f"{where}: expected real numbers, got {found.dtype}")
    if found.ndim not in ndims:
        ranks = " or ".join(map(str, ndims))
        raise ShapeError(f"{where}: expected {ranks} axes, got shape {found.shape}")
    if 0 in found.shape:
        raise InputError(f"{where}: an axis is empty, the shape is {found.shape}")
    return found


def geometry(path: Path, shape: tuple[int, int, int], **fields: Any) -> PlaneWaveGeometry:
    """Make a `PlaneWaveGeometry` and compare it with the shape of the data; errors name the file."""
    from operators.ultrasound.geometry import PlaneWaveGeometry

    angles, elements = np.size(fields["angles"]), len(fields["element_positions"])
    if (angles, elements) != shape[:2]:
        raise ShapeError(
            f"{path}: the header names {angles} angle(s) and {elements} element(s), but the data are {shape} ({AXES})"
        )
    try:
        return PlaneWaveGeometry(sample_count=shape[2], **fields)
    except InputError as error:
        raise type(error)(f"{path}: {error}") from None


def clock_offset(
    path: Path, delays: np.ndarray, elements: np.ndarray, angles: np.ndarray, sound_speed: float, period: float
) -> np.ndarray:
    """Return when the wave fronts pass the origin, on a clock on which element e fires at `delays[k, e]`; in s.

    A plane wave at the angle th leaves the element at p a time ``p . v / c`` after it passed the origin, with
    ``v = (sin th, cos th)``, so the result is the mean of ``delays - p . v / c`` over the elements.

    Parameters
    ----------
    path
        File name for messages.
    delays : array, `(angle, element)`
        Transmit delays in s.
    elements : array, `(element, 3)`
    angles : array, `(angle,)`
    sound_speed, period : float
        The period of the carrier, against which deviations are judged.

    Raises
    ------
    InputError
        If the delays are not those of plane waves at these angles.
    """
    expected = passing_times(elements, angles, sound_speed)
    offsets = delays - expected
    mean = offsets.mean(axis=1)
    worst = float(np.abs(offsets - mean[:, None]).max())
    if worst > period / 2:
        raise InputError(
            f"{path}: the transmit delays deviate by {worst * 1e6:.3g} us from plane waves at the stated angles; only "
            "plane waves of the whole probe can be read"
        )
    return np.asarray(mean)


def passing_times(elements: np.ndarray, angles: np.ndarray, sound_speed: float) -> np.ndarray:
    """Return when plane waves through the origin at time 0 pass the elements, `(angle, element)` in s."""
    direction = np.stack([np.sin(angles), np.zeros_like(angles), np.cos(angles)], axis=1)
    return direction @ elements.T / sound_speed


def turned(values: np.ndarray, frequency: float, seconds: np.ndarray) -> np.ndarray:
    """Convert base-band samples `(angle, ...)` from a clock `seconds` ahead of the origin's to the origin's clock.

    The file has ``analytic exp(-i w (t + s))``; multiplied by ``exp(i w s)`` that is ``analytic exp(-i w t)``.
    """
    phase = np.exp(2j * np.pi * frequency * np.asarray(seconds)).astype(np.complex64)
    return values * phase.reshape(-1, *(1,) * (values.ndim - 1))


def _group(file: h5py.File, name: str) -> bool:
    return isinstance(file[name], h5py.Group)
