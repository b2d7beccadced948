"""Calibration regions: their position, a suitable kernel, and their noise level."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from operators.arrays import native
from operators.errors import InputError, ShapeError

Region = tuple[slice, slice]
Kernel = tuple[int, int]
#: A kernel of a third of the region leaves enough patches to separate signal from noise; more than 6 gains nothing.
_PATCHES, _SMALLEST, _LARGEST = 3, 3, 6
_QUIETEST = 0.1  # fraction of the singular values that count as noise


def calibration_region(sampled: Tensor | np.ndarray, limit: int = 24) -> Region | None:
    """Find the largest fully sampled block that contains the centre of k-space; it need not be symmetric about it.

    Parameters
    ----------
    sampled : array or tensor
        Mask of full shape (y, x).
    limit : int
        Longest side.

    Returns
    -------
    (slice, slice) or None
        Rows and columns; None if the centre itself is not sampled.
    """
    mask = native(sampled, "sampled").astype(bool)
    if mask.ndim != 2:
        raise ShapeError(f"calibration_region expected a mask (y, x), got shape {tuple(mask.shape)}")
    y, x = (n // 2 for n in mask.shape)
    if not mask[y, x]:
        return None
    best, merit = (slice(y, y + 1), slice(x, x + 1)), (0, 0)
    for top in range(y, max(y - limit, -1), -1):
        if not mask[top, x]:
            break
        for bottom in range(y + 1, min(top + limit, len(mask)) + 1):
            if not mask[bottom - 1, x]:
                break
            columns = _run(np.all(mask[top:bottom], axis=0), x, limit)
            # Among blocks of the same size, the one closest to the centre.
            found = (bottom - top) * (columns.stop - columns.start), -abs(top + bottom - 2 * y)
            if found > merit:
                best, merit = (slice(top, bottom), columns), found
    return best


def kernel_size(size: tuple[int, int]) -> Kernel:
    """Return the kernel (y, x) that suits a calibration region of this size: a third of it, from 3 to 6 samples."""
    return _kernel(size[0]), _kernel(size[1])


def noise_floor(region: Tensor, kernel: Kernel) -> float:
    """Estimate the noise level of a calibration region from the quietest directions of its patches.

    The rms of the smallest tenth of the singular values of the calibration matrix, over that of noise of level 1 in a
    region of the same size. Signal that fills all directions makes it too large, never too small.

    Parameters
    ----------
    region : Tensor, shape ``(coil, y, x)``
    kernel : (int, int)
        Size of the patches.

    Returns
    -------
    float
        sqrt(E|n|^2), averaged over the coils.
    """
    return _quietest(singular_values(region, kernel)) / _quietest(_noise_values(region, kernel))


def noise_threshold(region: Tensor, kernel: Kernel, noise_std: float) -> float:
    """Return the noise level in a calibration matrix as a fraction of its largest singular value."""
    largest = float(singular_values(region, kernel)[0])
    return noise_std * float(_noise_values(region, kernel)[0]) / largest if largest > 0 else 1.0


def calibration_matrix(region: Tensor, kernel: Kernel) -> Tensor:
    """Return all patches of a region ``(coil, y, x)`` as rows: ``(patch, coil * ky * kx)``."""
    patches = region.unfold(1, kernel[0], 1).unfold(2, kernel[1], 1)
    return patches.permute(1, 2, 0, 3, 4).reshape(-1, region.shape[0] * math.prod(kernel))


def singular_values(region: Tensor, kernel: Kernel) -> Tensor:
    """Return the singular values of the calibration matrix, from the largest to the smallest."""
    if any(k > n for k, n in zip(kernel, region.shape[-2:], strict=True)):
        raise InputError(f"the calibration region {tuple(region.shape[-2:])} is smaller than the kernel {kernel}")
    matrix = calibration_matrix(region.to(torch.complex128), kernel)
    gram = matrix @ matrix.mH if matrix.shape[0] < matrix.shape[1] else matrix.mH @ matrix
    return torch.linalg.eigvalsh(gram).flip(0).clamp_min(0).sqrt()


def _noise_values(region: Tensor, kernel: Kernel) -> Tensor:
    """Return the singular values of seeded noise of level 1 in a region of the same size."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(tuple(region.shape), dtype=torch.complex128, generator=generator)
    return singular_values(noise, kernel).to(region.device)


def _quietest(values: Tensor) -> float:
    count = max(int(len(values) * _QUIETEST), 1)
    return float(values[-count:].square().mean().sqrt())


def _kernel(length: int) -> int:
    return min(max(_SMALLEST, min(_LARGEST, length // _PATCHES)), length)


def _run(sampled: np.ndarray, middle: int, limit: int) -> slice:
    """Return the longest run of sampled points around the middle, at most `limit` long."""
    gaps = np.flatnonzero(~sampled)
    first = int(gaps[gaps < middle].max(initial=-1)) + 1
    stop = int(gaps[gaps > middle].min(initial=len(sampled)))
    if stop - first > limit:  # cropped to the limit, as symmetrically about the centre as the ends allow
        first = min(max(middle - limit // 2, first), stop - limit)
        stop = first + limit
    return slice(first, stop)
