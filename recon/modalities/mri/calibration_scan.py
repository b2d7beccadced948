"""A separate calibration scan: a fully sampled scan, usually of low resolution, of the same coils and field of view."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from operators import compress_coils
from operators.arrays import tensor
from operators.mri.autocalibration import calibration_region
from recon.errors import InputError, ShapeError
from recon.modalities.mri.measured import Calibration
from recon.modalities.mri.noise import estimate_noise
from recon.modalities.mri.plausible import doubts


def on_grid(calibration: np.ndarray | Tensor, kspace: Tensor) -> Tensor:
    """Return the centre of a calibration scan on the grid of the data, scaled to about 1.

    Parameters
    ----------
    calibration : array, shape ``(coil, y, x)``
    kspace : Tensor, shape ``(coil, y, x)``
        The data.

    Raises
    ------
    InputError, ShapeError
        If it is not k-space of these coils.
    """
    scan = tensor(calibration, "calibration")
    if not scan.is_complex():
        raise InputError(f"calibration: expected complex k-space, got {scan.dtype}")
    if scan.ndim != 3 or len(scan) != len(kspace):
        raise ShapeError(
            f"calibration: expected (coil, y, x) of {len(kspace)} coils as in the data, got {tuple(scan.shape)}"
        )
    scan = scan.to(kspace)
    largest = float(scan.abs().max())
    if not (0 < largest < float("inf")):
        raise InputError("calibration: expected finite numbers that are not all zero")
    for doubt in doubts(scan):
        raise InputError(f"calibration: {doubt.text}")
    out = torch.zeros_like(kspace)
    inner, outer = [], []
    for n, m in zip(scan.shape[1:], kspace.shape[1:], strict=True):
        before, after = min(n // 2, m // 2), min(n - n // 2, m - m // 2)
        inner.append(slice(n // 2 - before, n // 2 + after))
        outer.append(slice(m // 2 - before, m // 2 + after))
    out[:, outer[0], outer[1]] = scan[:, inner[0], inner[1]] / largest
    return out


def compressed(kspace: Tensor, scan: Tensor | None, coils: int) -> tuple[Tensor, Tensor | None]:
    """Compress data and calibration scan to the same virtual coils."""
    if scan is None:
        return compress_coils(kspace, coils), None
    both = compress_coils(torch.stack([kspace, scan]), coils)
    return both[0], both[1]


def calibration_of(scan: Tensor, limit: int) -> Calibration:
    """Return a calibration scan with its region and noise."""
    mask = (scan != 0).any(dim=0)
    region = calibration_region(mask, limit)
    return Calibration(scan, region, estimate_noise(scan, mask, region))
