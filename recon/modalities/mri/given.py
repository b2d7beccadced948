"""Options of MRI that may be names, arrays or files, as arrays and as a sampling pattern."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from operators.mri.masks import COLUMN_PATTERNS, PATTERNS
from recon.errors import InputError
from recon.modalities.mri.files import ismrmrd
from recon.modalities.mri.options import MRI
from recon.modalities.mri.sampling import Sampling
from recon.modalities.mri.side_files import read_array


def retrospective_sampling(options: MRI, seed: int) -> Sampling | None:
    """Return the retrospective undersampling, or None to use the data unchanged.

    Raises
    ------
    InputError
        If the options contradict each other.
    """
    mask, acceleration, center_fraction = options.mask, options.acceleration, options.center_fraction
    by_name = _is_pattern(mask)
    _require_pattern_or_file(mask)
    if acceleration is None and not by_name:
        if center_fraction is not None:
            raise InputError("center_fraction belongs to retrospective undersampling: give acceleration as well")
        return None
    if mask is not None and not by_name:
        raise InputError("acceleration does not apply to given samples: give a pattern name, or no acceleration")
    factor = 4.0 if acceleration is None else acceleration
    pattern = mask or "random"
    if center_fraction is not None and factor > 1:
        power = 1 if pattern in COLUMN_PATTERNS else 2
        if center_fraction**power * factor >= 1:
            raise InputError(
                f"center_fraction: {center_fraction:g} at acceleration {factor:g} leaves no sample outside the centre; "
                f"expected less than {factor ** (-1 / power):.3g}"
            )
    return Sampling(pattern, factor, center_fraction, seed)


def given_mask(given: Any) -> Any:
    """Return the sampled points given as an array or a file; None for the name of a pattern.

    Raises
    ------
    InputError
        If it is neither, or the file cannot be read.
    """
    if given is None or _is_pattern(given):
        return None
    _require_pattern_or_file(given)
    return given_array(given, "mask")


def given_noise(given: Any) -> Any:
    """Return the array, or the acquisitions of an ISMRMRD file, of a noise scan that may be a file."""
    if isinstance(given, str) and Path(given).is_file() and ismrmrd.sniff(Path(given)):
        return ismrmrd.read_noise(Path(given))
    return given_array(given, "noise_scan")


def given_array(given: Any, option: str) -> Any:
    """Return the array of an option that may be a file."""
    return read_array(given, option) if isinstance(given, str) else given


def of_slice(stack: np.ndarray, index: int) -> np.ndarray:
    """Return the entry of a slice; a single one belongs to all slices."""
    entry: np.ndarray = stack[0 if len(stack) == 1 else index]
    return entry


def in_field(maps: np.ndarray, kspace: Tensor) -> np.ndarray:
    """Crop maps ``(..., y, x)`` of the field of view before the removal of oversampling to that of the data."""
    for axis in (-2, -1):
        n, kept = maps.shape[axis], kspace.shape[axis]
        if n > kept:
            maps = maps.take(range(n // 2 - kept // 2, n // 2 - kept // 2 + kept), axis)
    return maps


def _require_pattern_or_file(mask: Any) -> None:
    if not isinstance(mask, str) or _is_pattern(mask) or Path(mask).suffix:
        return
    if not Path(mask).is_file() and not Path(mask + ".cfl").is_file():
        raise InputError(f"mask: expected one of {', '.join(PATTERNS)}, or a file, got {mask!r}")


def _is_pattern(mask: Any) -> bool:
    return isinstance(mask, str) and mask in PATTERNS
