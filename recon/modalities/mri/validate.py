"""Checks of the arrays given by the user: k-space of one slice, and coil maps for it."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from operators.arrays import tensor
from recon.errors import InputError, ShapeError
from recon.modalities.mri.plausible import doubts


def normalised(kspace: np.ndarray | Tensor, device: torch.device | str) -> tuple[Tensor, float]:
    """Check k-space and scale its largest value to about 1 (by an exact power of two), so that nothing overflows."""
    array = tensor(kspace, "kspace")
    if not array.is_complex():
        raise InputError(f"kspace must be complex, got {array.dtype}; join real and imaginary parts first")
    if array.ndim == 2:
        array = array[None]
    if array.ndim != 3 or 0 in array.shape:
        raise ShapeError(f"kspace: expected (coil, y, x) or (y, x) without empty axes, got {tuple(array.shape)}")
    bad = int((~torch.isfinite(array)).sum())
    if bad:
        raise InputError(f"kspace: {bad} of {array.numel()} values are NaN or Inf: repair or mask them first")
    largest = float(torch.view_as_real(array.resolve_conj()).abs().max())
    if largest == 0:
        raise InputError("kspace is zero everywhere: there is nothing to reconstruct")
    unit = 2.0 ** math.floor(math.log2(largest))
    return (array / unit).to(device=device, dtype=torch.complex64).contiguous(), unit


def require_plausible(kspace: Tensor) -> list[str]:
    """Return notes about suspicious data; refuse data that cannot be centred Cartesian k-space."""
    found = doubts(kspace)
    for doubt in found:
        if doubt.fatal:
            raise InputError(doubt.text)
    return [doubt.text for doubt in found]


def known_maps(given: np.ndarray | Tensor, kspace: Tensor) -> Tensor:
    """Check coil maps given by the user."""
    maps = tensor(given, "coil_maps").to(device=kspace.device, dtype=kspace.dtype)
    if maps.ndim not in (3, 4) or maps.shape[-3:] != kspace.shape:
        raise ShapeError(
            f"coil_maps: expected {tuple(kspace.shape)} (coil, y, x) like kspace, or (map, coil, y, x), got "
            f"{tuple(maps.shape)}"
        )
    if not bool(torch.isfinite(torch.view_as_real(maps)).all()):
        raise InputError("coil_maps hold NaN or Inf")
    if not bool(maps.any()):
        raise InputError("coil_maps are zero everywhere")
    return maps
