"""What the measured k-space itself tells: noise of the coils, coil maps, intensity and scale of the image."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from operators import CartesianMRI, espirit_maps
from operators.coils import estimate_noise_covariance, prewhiten
from operators.espirit import calibration_size
from recon.errors import InputError, ShapeError

FULL_CALIBRATION = 24
_LEAST_CALIBRATION = 6
_GOOD_CALIBRATION = 10
# The .99 quantile of a brain blurred to the resolution of the calibration region, over that of the sharp brain.
_BLUR = 0.75


def whiten(kspace: Tensor, mask: Tensor, known_maps: bool) -> tuple[Tensor, float, Tensor | None]:
    """Decorrelate the noise of the coils; the mean noise power stays what it was.

    Returns the k-space, its noise level, and the Cholesky factor that would colour it again.
    """
    covariance = estimate_noise_covariance(kspace, mask)
    level = math.sqrt(float(covariance.diagonal().real.mean()))
    if known_maps or kspace.shape[0] == 1 or level == 0:
        return kspace, level, None
    relative = covariance / level**2
    return prewhiten(kspace, relative), level, torch.linalg.cholesky(relative).to(kspace.dtype)


def estimate_maps(
    kspace: Tensor, mask: Tensor, given: np.ndarray | Tensor | None, limit: int, notes: list[str]
) -> tuple[Tensor, list[int]]:
    """Return coil maps (given, ones for a single coil, or ESPIRiT from the measured centre) and the calibration."""
    if given is not None:
        maps = torch.as_tensor(given).to(device=kspace.device, dtype=kspace.dtype)
        if maps.shape != kspace.shape:
            raise ShapeError(
                f"coil_maps: expected {tuple(kspace.shape)} (coil, y, x) like kspace, came {tuple(maps.shape)}"
            )
        if not bool(maps.any()):
            raise InputError("coil_maps are zero everywhere: no image can be seen through them")
        return maps, []
    if kspace.shape[0] == 1:
        return torch.ones_like(kspace), []
    size = calibration_size(mask.expand(kspace.shape[-2:]).cpu(), limit)
    if min(size) < _LEAST_CALIBRATION:
        raise InputError(
            f"the fully sampled centre of k-space is {size[0]} x {size[1]} (y x); coil maps need at least "
            f"{_LEAST_CALIBRATION} x {_LEAST_CALIBRATION}: give coil_maps, or sample a larger centre (center_fraction)"
        )
    if min(size) < _GOOD_CALIBRATION:
        notes.append(f"coil maps come from a centre of only {size[0]} x {size[1]} samples and may be inaccurate")
    return espirit_maps(kspace, calib_size=size).to(kspace.dtype), list(size)


def intensity_of(maps: Tensor, colouring: Tensor | None) -> Tensor:
    """Return the root-sum-of-squares of the coil maps, in the coils as they came."""
    if colouring is not None:
        maps = torch.einsum("ij,jyx->iyx", colouring, maps)
    return maps.abs().square().sum(dim=0).sqrt()


def estimate_scale(operator: CartesianMRI, kspace: Tensor, mask: Tensor, noise: float) -> float:
    """Return the .99 quantile of the magnitude (what the priors call 1), guessed from the fully sampled centre.

    The centre gives a blurred image whose quantile hardly depends on the sampling pattern, unlike that of a zero-filled
    or a regularised reconstruction; the priors are trained with scales off by a quarter either way.
    """
    rows, columns = calibration_size(mask.expand(kspace.shape[-2:]).cpu(), FULL_CALIBRATION)
    window = torch.zeros(kspace.shape[-2:], device=kspace.device)
    top, left = (n // 2 - size // 2 for n, size in zip(window.shape, (rows, columns), strict=True))
    window[top : top + rows, left : left + columns] = 1.0
    image = operator.H(kspace * window if rows * columns > 0 else kspace).abs()
    scale = float(torch.quantile(image.flatten(), 0.99)) / _BLUR
    return scale if scale > 0 else max(float(image.max()), noise, 1e-30)
