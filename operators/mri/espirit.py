"""ESPIRiT coil maps from the fully sampled centre of k-space."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from operators.arrays import tensor
from operators.errors import InputError, ShapeError
from operators.mri.autocalibration import Region, calibration_matrix

# Number of complex values of coil matrices held at once: fits the cache (CPU), or bounds the memory (GPU).
_CPU_CHUNK, _GPU_CHUNK = 1 << 17, 1 << 25
_SQUARINGS = 7  # the power 2^7 of a coil matrix isolates its dominant eigenvector
_IMPURITY = 4e-6  # largest impurity at which that eigenvector is accepted
_MARGIN = 0.95  # sum l^(k+1) / sum l^k may lie this much below the largest eigenvalue


class EigenMaps(NamedTuple):
    """Coil maps (..., [map,] coil, y, x) and their eigenvalues (..., [map,] y, x)."""

    maps: Tensor
    eigenvalues: Tensor


def espirit_maps(
    kspace: Tensor | np.ndarray,
    calib_size: int | tuple[int, int] = 24,
    kernel_size: int | tuple[int, int] = 6,
    threshold: float = 0.02,
    crop: float = 0.95,
    n_maps: int = 1,
    *,
    region: Region | None = None,
) -> Tensor:
    """Estimate coil maps from the calibration region, by the eigenvectors of the ESPIRiT operator.

    The row space of the calibration matrix (all kernel-sized patches of the region) is the image of a projection;
    in the image domain it is one Hermitian coil x coil matrix G(r) per pixel, whose eigenvectors of eigenvalue 1 are
    the maps: ``G(r) S(r) = S(r)``.

    Parameters
    ----------
    kspace : array or tensor
        (..., coil, y, x), complex, centred. Only the calibration region is read.
    calib_size : int or (int, int)
        Size (y, x) of the fully sampled centre to use; see `calibration_size`.
    kernel_size : int or (int, int)
        Size (y, x) of the k-space patches.
    threshold : float
        Singular values below this fraction of the largest belong to the null space.
    crop : float
        Pixels with a smaller eigenvalue lie outside the support: their maps are 0.
    n_maps : int
        Number of maps; more than one for objects larger than the field of view.
    region : (slice, slice), optional
        Rows and columns of the calibration region, in place of `calib_size`; see `calibration_region`.

    Returns
    -------
    tensor
        Maps (..., coil, y, x), or (..., map, coil, y, x) for several, in the precision of `kspace`, with
        sum_c |S_c|^2 = 1 on the support. The phase is relative to a virtual coil, the dominant singular vector of the
        calibration data, so that it does not depend on the order of the coils.

    Raises
    ------
    InputError, ShapeError
        For data that are not complex, a calibration region that is larger than k-space, smaller than the kernel, zero,
        not fully sampled or not finite.

    References
    ----------
    Uecker et al., "ESPIRiT - an eigenvalue approach to autocalibrating parallel MRI", MRM 71:990, 2014.
    """
    return _espirit(kspace, calib_size, kernel_size, threshold, crop, n_maps, region, every_value=False).maps


def espirit_eigenmaps(
    kspace: Tensor | np.ndarray,
    calib_size: int | tuple[int, int] = 24,
    kernel_size: int | tuple[int, int] = 6,
    threshold: float = 0.02,
    crop: float = 0.95,
    n_maps: int = 1,
    *,
    region: Region | None = None,
) -> EigenMaps:
    """Estimate coil maps like `espirit_maps`, with the eigenvalue of every pixel, also outside the support.

    Arguments and errors are those of `espirit_maps`; it takes longer, since no pixel is skipped.
    """
    return _espirit(kspace, calib_size, kernel_size, threshold, crop, n_maps, region, every_value=True)


def _espirit(
    kspace: Tensor | np.ndarray,
    calib_size: int | tuple[int, int],
    kernel_size: int | tuple[int, int],
    threshold: float,
    crop: float,
    n_maps: int,
    region: Region | None,
    every_value: bool,
) -> EigenMaps:
    """Check the arguments and take the items one by one."""
    data = tensor(kspace, "espirit_maps: kspace")
    if not data.is_complex() or data.ndim < 3:
        raise ShapeError(
            f"espirit_maps expected complex kspace (..., coil, y, x), got {data.dtype} {tuple(data.shape)}"
        )
    coils = data.shape[-3]
    if not 1 <= n_maps <= coils:
        raise InputError(f"espirit_maps needs n_maps from 1 to the number of coils {coils}, got {n_maps}")
    if not (0 < threshold < 1 and 0 <= crop < 1):
        raise InputError(f"espirit_maps needs 0 < threshold < 1 and 0 <= crop < 1, got {threshold} and {crop}")
    kernel = _pair(kernel_size)
    calibration = _calibration(data, region or _centre(data, _pair(calib_size)), kernel)
    items = calibration.reshape(-1, *calibration.shape[-3:])
    ny, nx = data.shape[-2:]
    results = [_one(item, kernel, threshold, crop, n_maps, (ny, nx), every_value, data.dtype) for item in items]
    maps, values = (torch.stack(parts) for parts in zip(*results, strict=True))
    if n_maps == 1:
        maps, values = maps[:, 0], values[:, 0]
    maps = maps.reshape(*data.shape[:-3], *maps.shape[1:])
    return EigenMaps(maps, values.reshape(*data.shape[:-3], *values.shape[1:]))


def calibration_size(sampled: Tensor | np.ndarray, limit: int = 24) -> tuple[int, int]:
    """Size (y, x) of the largest centred, fully sampled block, no longer than `limit` along either axis.

    `sampled` is a mask of full shape (y, x), for instance ``(kspace != 0).any(0)``. Among the blocks that cannot grow,
    the one with the largest area is returned, (0, 0) where the centre itself is not sampled.
    """
    mask = tensor(sampled, "calibration_size").bool().cpu()
    if mask.ndim != 2:
        raise ShapeError(f"calibration_size expected a mask (y, x), got shape {tuple(mask.shape)}")
    ny, nx = mask.shape
    best, width = (0, 0), min(limit, nx)
    for height in range(1, min(limit, ny) + 1):
        rows = mask[ny // 2 - height // 2 : ny // 2 - height // 2 + height].all(dim=0)
        while width and not rows[nx // 2 - width // 2 : nx // 2 - width // 2 + width].all():
            width -= 1
        if height * width > best[0] * best[1]:
            best = (height, width)
    return best


def _pair(size: int | tuple[int, int]) -> tuple[int, int]:
    pair = (size, size) if isinstance(size, int) else tuple(int(n) for n in size)
    if len(pair) != 2 or min(pair) < 1:
        raise InputError(f"espirit_maps needs positive sizes (y, x), got {size}")
    return pair[0], pair[1]


def _centre(data: Tensor, size: tuple[int, int]) -> Region:
    """Rows and columns of the centre of this size."""
    full = tuple(data.shape[-2:])
    if any(c > n for c, n in zip(size, full, strict=True)):
        raise InputError(f"espirit_maps: the calibration region {size} is larger than kspace {full}; lower calib_size")
    y, x = (n // 2 - c // 2 for n, c in zip(full, size, strict=True))
    return slice(y, y + size[0]), slice(x, x + size[1])


def _calibration(data: Tensor, where: Region, kernel: tuple[int, int]) -> Tensor:
    """Cut out and check the calibration region."""
    region = data[..., where[0], where[1]]
    size = tuple(region.shape[-2:])
    if any(c < k for c, k in zip(size, kernel, strict=True)):
        raise InputError(f"espirit_maps: the calibration region {size} is smaller than the kernel {kernel}")
    if not bool(torch.isfinite(torch.view_as_real(region.resolve_conj())).all()):
        raise InputError("espirit_maps: kspace has values that are not finite in the calibration region")
    sampled = (region != 0).any(dim=-3)
    if not bool(sampled.flatten(-2).any(-1).all()):
        raise InputError(f"espirit_maps: the calibration region {size} of kspace is all zero")
    if not bool(sampled.all()):
        block = calibration_size(sampled.reshape(-1, *size).all(0), max(size))
        raise InputError(f"espirit_maps: expected a fully sampled centre of {size}, got {block}; pass calib_size")
    return region.to(torch.complex128)


def _one(
    region: Tensor,
    kernel: tuple[int, int],
    threshold: float,
    crop: float,
    n_maps: int,
    shape: tuple[int, int],
    every_value: bool,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor]:
    """Return maps (map, coil, y, x) and eigenvalues (map, y, x) of one item."""
    coils, (ny, nx) = region.shape[0], shape
    # Scaling by the maximum keeps the squares in range for any unit of the data.
    region = region / region.abs().max()
    reference = _virtual_coil(region).conj().to(dtype)[:, None]
    kernels = _autocorrelation(_row_projection(region, kernel, threshold), coils, kernel)
    # G = sum_w C(w) exp(2 pi i w r / n): few terms, so two matrix products beat an FFT of every coil pair.
    rows = (_waves(ny, kernel[0], region.device) / math.prod(kernel)).mT.to(dtype)
    partial = (kernels @ _waves(nx, kernel[1], region.device)).permute(2, 3, 0, 1)
    partial = partial.reshape(2 * kernel[0] - 1, nx * coils**2).to(dtype)
    maps = torch.zeros((ny * nx, n_maps, coils), dtype=dtype, device=region.device)
    values = torch.zeros((ny * nx, n_maps), dtype=maps.real.dtype, device=region.device)
    step = max((_CPU_CHUNK if region.device.type == "cpu" else _GPU_CHUNK) // (coils**2 * nx), 1)
    for start in range(0, ny, step):
        matrices = (rows[start : start + step] @ partial).reshape(-1, coils, coils)
        # The Frobenius norm bounds the largest eigenvalue: pixels below it need no work.
        chosen = torch.arange(len(matrices), device=region.device)
        if not every_value:
            chosen = chosen[_square_norm(matrices) >= crop**2]
            matrices = matrices[chosen]
        vectors, found = _eigen(matrices, n_maps, 0.0 if every_value else crop)
        virtual = vectors @ reference
        turn = torch.where(virtual.abs() > 0, virtual.conj() / virtual.abs().clamp_min(1e-30), 1)
        maps[chosen + start * nx] = torch.where((found >= crop)[..., None], vectors * turn, 0)
        values[chosen + start * nx] = found
    return maps.permute(1, 2, 0).reshape(n_maps, coils, ny, nx), values.mT.reshape(n_maps, ny, nx)


def _row_projection(region: Tensor, kernel: tuple[int, int], threshold: float) -> Tensor:
    """Projection on the row space of the calibration matrix, from the Gram matrix of its smaller side."""
    matrix = calibration_matrix(region, kernel)
    wide = matrix.shape[0] < matrix.shape[1]
    squares, vectors = torch.linalg.eigh(matrix @ matrix.mH if wide else matrix.mH @ matrix)
    kept = squares > threshold**2 * squares[-1]
    vectors = vectors[:, kept]
    if wide:
        vectors = matrix.mH @ (vectors / squares[kept].sqrt())
    return (vectors @ vectors.mH).conj()


def _autocorrelation(projection: Tensor, coils: int, kernel: tuple[int, int]) -> Tensor:
    """Sum the projection over equal shifts u - v = w: (coil, coil, 2 ky - 1, 2 kx - 1)."""
    (ky, kx) = kernel
    blocks = projection.reshape(coils, ky, kx, coils, ky, kx).permute(1, 2, 0, 3, 4, 5).flip(-2, -1)
    total = projection.new_zeros((coils, coils, 2 * ky - 1, 2 * kx - 1))
    for y in range(ky):
        for x in range(kx):
            total[:, :, y : y + ky, x : x + kx] += blocks[y, x]
    return total


def _waves(n: int, kernel: int, device: torch.device) -> Tensor:
    """exp(2 pi i w (j - n // 2) / n) for the shifts w = 1 - kernel ... kernel - 1: (shift, pixel)."""
    shifts = torch.arange(1 - kernel, kernel, dtype=torch.float64, device=device)
    pixels = torch.arange(n, dtype=torch.float64, device=device) - n // 2
    angle = 2 * math.pi / n * torch.outer(shifts, pixels)
    return torch.polar(torch.ones_like(angle), angle)


def _virtual_coil(region: Tensor) -> Tensor:
    """Return the coil weights of the strongest virtual coil, with the phase fixed by the largest weight."""
    data = region.flatten(1)
    vector = torch.linalg.eigh(data @ data.mH)[1][:, -1]
    largest = vector[vector.abs().argmax()]
    return vector * (largest.conj() / largest.abs())


def _eigen(matrices: Tensor, n_maps: int, crop: float) -> tuple[Tensor, Tensor]:
    """Leading eigenvectors (pixel, map, coil) and eigenvalues (pixel, map) of Hermitian matrices."""
    if n_maps > 1 or matrices.shape[-1] == 1:
        return _exact(matrices, n_maps)
    power = matrices
    for _ in range(_SQUARINGS):
        power = power @ power
        power = power / power.diagonal(dim1=-2, dim2=-1).real.sum(-1).clamp_min(1e-30)[:, None, None]
    strongest = power.diagonal(dim1=-2, dim2=-1).real.argmax(-1)
    vectors = torch.take_along_dim(power, strongest[:, None, None], -1)
    vectors = vectors / torch.linalg.vector_norm(vectors, dim=-2, keepdim=True).clamp_min(1e-30)
    values = (vectors.conj() * (matrices @ vectors)).real.sum((-2, -1))
    vectors, values = vectors.mT, values[:, None]
    # With trace 1 the squared norm is 1 - 2 (l2 / l1)^(2^k): unconverged pixels that may matter are solved exactly.
    purity = _square_norm(power)
    mean = (matrices * power.mT).real.sum((-2, -1))
    open_ = torch.nonzero((purity < 1 - _IMPURITY) & (mean >= _MARGIN * crop))[:, 0]
    if len(open_):
        vectors[open_], values[open_] = _exact(matrices[open_], 1)
    return vectors, values


def _square_norm(matrices: Tensor) -> Tensor:
    """Squared Frobenius norm; on a CPU much faster than vector_norm of complex values."""
    flat = torch.view_as_real(matrices).flatten(1)
    return torch.linalg.vecdot(flat, flat)


def _exact(matrices: Tensor, n_maps: int) -> tuple[Tensor, Tensor]:
    values, vectors = torch.linalg.eigh(matrices)
    return vectors[..., -n_maps:].flip(-1).mT, values[..., -n_maps:].flip(-1)
