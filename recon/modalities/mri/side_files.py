"""Arrays that accompany k-space (sampling masks, coil maps, noise): reading their files, and checking their shapes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from operators import noise_covariance
from operators.arrays import native
from recon.errors import InputError, ShapeError
from recon.files import hdf5, npy
from recon.modalities.mri.files import bart
from recon.modalities.mri.files.mrd_noise import NoiseScan

#: Names of the datasets of `.npz` and HDF5 files, by option; the only dataset of a file may have any name.
NAMES = {
    "mask": ("mask",),
    "coil_maps": ("coil_maps", "maps", "sens_maps"),
    "calibration": ("calibration", "kspace"),
    "noise_scan": ("noise", "noise_covariance"),
}
_READOUT, _PHASE, _PHASE_2, _COIL, _MAP, _SLICE = 0, 1, 2, 3, 4, 13


def read_array(path: str, option: str) -> np.ndarray:
    """Read the array of a `.npy`, `.npz`, HDF5 or BART file.

    Parameters
    ----------
    path : str
    option : str
        "mask", "coil_maps", "calibration" or "noise_scan"; it names the dataset, and the axes of BART files follow.

    Raises
    ------
    InputError
        If there is no such file, its format is unknown, or it holds several arrays and none has an expected name.
    """
    file, where = Path(path), f"{option}: {path}"
    if bart.sniff(file):
        return _from_bart(bart.read_array(file), option, where)
    if not file.is_file():
        raise InputError(f"{where}: no such file")
    if npy.sniff(file) and not npy.is_archive(file):
        return np.array(npy.map_array(file, npy.array_header(file)))
    if npy.sniff(file):
        return npy.read_member(file, _chosen(npy.members(file), option, where))
    if hdf5.is_hdf5(file):
        with hdf5.open_hdf5(file) as content:
            return np.asarray(hdf5.dataset(content, _chosen(set(content), option, where))[()])
    raise InputError(f"{where}: expected a NumPy .npy or .npz, HDF5 or BART .cfl file")


def is_archive_without(path: str, name: str) -> bool:
    """Tell whether a file is an `.npz` archive without an array of this name."""
    file = Path(path)
    return npy.sniff(file) and npy.is_archive(file) and name not in npy.members(file)


def sampling_masks(given: Any, slices: int, shape: tuple[int, int]) -> np.ndarray:
    """Return masks ``(slice or 1, y or 1, x or 1)`` of booleans.

    Parameters
    ----------
    given : array
        ``(x,)``, ``(1, x)``, ``(y, 1)`` or ``(y, x)``, possibly with an axis of slices in front; booleans, or 0 and 1.
    slices : int
    shape : (int, int)
        ``(y, x)`` of the k-space.

    Raises
    ------
    InputError, ShapeError
    """
    values = native(given, "mask")
    if np.iscomplexobj(values) and not values.imag.any():
        values = values.real
    if values.dtype.kind not in "biuf" or not np.isin(values, (0, 1)).all():
        raise InputError("mask: expected only 0 and 1, or True and False")
    mask: np.ndarray = np.array(values, dtype=bool)
    while mask.ndim < 3:
        mask = mask[None]
    plane = mask.shape[1:]
    fits = len(plane) == 2 and all(n in (1, m) for n, m in zip(plane, shape, strict=True))
    if not fits or len(mask) not in (1, slices):
        turned = plane in (shape[::-1], (1, shape[0]), (shape[1], 1))
        raise ShapeError(
            f"mask: expected (x,), (1, x), (y, 1) or (y, x) for k-space of (y, x) = {shape}"
            + (f", or one for each of the {slices} slices" if slices > 1 else "")
            + f", got {values.shape}"
            + ("; its transpose fits" if turned else "")
        )
    return mask


def coil_maps(given: Any, slices: int, coils: int) -> np.ndarray:
    """Return maps ``(slice or 1, [map,] coil, y, x)``; a first axis as long as the number of slices means slices.

    Raises
    ------
    InputError, ShapeError
        For real numbers, another number of axes or coils.
    """
    maps = native(given, "coil_maps")
    if maps.dtype.kind != "c":
        raise InputError(f"coil_maps: expected complex numbers, got {maps.dtype}")
    by_slice = maps.ndim == 5 or (maps.ndim == 4 and 1 < slices == len(maps))
    stacked = maps if by_slice else maps[None]
    if maps.ndim not in (3, 4, 5) or stacked.shape[-3] != coils or len(stacked) not in (1, slices):
        raise ShapeError(
            f"coil_maps: expected (coil, y, x) or (map, coil, y, x) of {coils} coils, possibly with {slices} slices in "
            f"front, got {maps.shape}"
        )
    return stacked


def noise(given: Any, coils: int, rates: np.ndarray | None = None) -> np.ndarray:
    """Return covariances ``(slice or 1, coil, coil)`` of noise.

    Parameters
    ----------
    given : NoiseScan or array
        Noise acquisitions; noise samples ``(coil, ...)`` as those of the data; or a covariance ``(coil, coil)``.
    coils : int
    rates : array, shape ``(slice,)``, optional
        Sampling rates of the data, by which noise acquisitions are scaled.

    Raises
    ------
    InputError, ShapeError
        For real samples, another number of coils, or too few samples.
    """
    if not isinstance(given, NoiseScan):
        return _covariance(given, coils)[None]
    if len(given.density) != coils:
        raise ShapeError(f"noise_scan: expected the {coils} coils of the data, got {len(given.density)}")
    return given.covariance(rates)


def _covariance(given: Any, coils: int) -> np.ndarray:
    """Return the covariance ``(coil, coil)`` of noise samples ``(coil, ...)``, or of a Hermitian matrix itself."""
    values = native(given, "noise_scan")
    if values.shape == (coils, coils) and np.allclose(values, values.conj().T, rtol=1e-3, atol=1e-6 * _largest(values)):
        return values
    if values.ndim < 2 or len(values) != coils:
        turned = values.ndim > 1 and values.shape[-1] == coils
        raise ShapeError(
            f"noise_scan: expected samples (coil, ...) or a covariance (coil, coil) of {coils} coils, got "
            f"{values.shape}" + ("; move the coils to the front" if turned else "")
        )
    if values.dtype.kind != "c":
        raise InputError(f"noise_scan: expected complex samples, got {values.dtype}")
    covariance: np.ndarray = noise_covariance(np.ascontiguousarray(values, dtype=np.complex64)).numpy()
    return covariance


def _chosen(found: set[str], option: str, where: str) -> str:
    """Return the name of the array to read."""
    expected = [name for name in NAMES[option] if name in found]
    if len(expected) == 1 or (expected and option == "calibration"):
        return expected[0]
    if len(found) == 1:
        return next(iter(found))
    raise InputError(
        f"{where}: expected one array, or one named {' or '.join(NAMES[option])}, got {sorted(found)[:20]}"
    )


def _from_bart(array: np.ndarray, option: str, where: str) -> np.ndarray:
    """Return an array of 16 dimensions in the order of this package, as the reader of k-space orders its axes."""
    used = {
        "mask": {_READOUT, _PHASE, _PHASE_2, _SLICE},
        "coil_maps": {_READOUT, _PHASE, _PHASE_2, _COIL, _MAP, _SLICE},
        "noise_scan": set(range(16)),
    }[option]
    extra = [k for k, n in enumerate(array.shape) if n > 1 and k not in used]
    if extra:
        raise InputError(f"{where}: dimension {extra[0]} has length {array.shape[extra[0]]}, expected 1 for {option}")
    if option == "noise_scan":
        return _noise_from_bart(array)
    if option == "coil_maps" and array.shape[_COIL] == 1:  # (x, y, coil), as some tools write it
        array = np.swapaxes(array, _PHASE_2, _COIL)
    volume = array.shape[_PHASE_2] > 1
    if option == "mask" and volume:  # the readout is always fully sampled
        array = np.asarray(array.any(axis=_READOUT, keepdims=True))
    rows, columns, slices = (_PHASE, _PHASE_2, _READOUT) if volume else (_READOUT, _PHASE, _SLICE)
    order = (slices, _MAP, _COIL, rows, columns)
    found = array.transpose(*order, *(k for k in range(16) if k not in order))
    found = np.array(found.reshape(found.shape[:5]))
    if option == "mask":
        return found[:, 0, 0]
    found = found[:, 0] if found.shape[1] == 1 else found
    return found[0] if len(found) == 1 else found


def _noise_from_bart(array: np.ndarray) -> np.ndarray:
    """Return samples (coil, ...), or a covariance that is stored in dimensions 3 and 4, or 0 and 1."""
    if array.shape[_COIL] == 1:
        return np.array(np.squeeze(array))
    return np.array(np.moveaxis(array, _COIL, 0).reshape(array.shape[_COIL], -1))


def _largest(values: np.ndarray) -> float:
    return float(np.abs(values).max(initial=0.0))
