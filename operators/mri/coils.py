"""Receiver coils: noise level and covariance, prewhitening and compression."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from operators.arrays import tensor
from operators.errors import InputError, ShapeError
from operators.fourier import fftc, ifftc

Array = Tensor | np.ndarray
_SHELLS = 12
_INNER_RADIUS = 0.3  # of the corner's radius: closer to the centre the anatomy hides the noise
_FLOOR = 0.25  # least fraction to which the fit may lower the quietest shell's power
_LEAST_EIGENVALUE = 0.4  # of the correlation: more correlated noise cannot be separated from anatomy
_ALIKE, _ALIKE_COIL = 1.05, 1.25  # ratios of powers up to which two estimates agree, in the mean and for every coil
_MASKED = 1e-3  # air with less than this fraction of the power was zeroed by processing
_MIN_SAMPLES = 32


def noise_covariance(noise_samples: Array) -> Tensor:
    """Covariance of the coils, E[n n^H], from samples of noise alone.

    Parameters
    ----------
    noise_samples : array or tensor
        Complex, (coil, ...): a scan without excitation. The mean is taken to be zero.

    Returns
    -------
    tensor
        (coil, coil), Hermitian; its diagonal is E|n_c|^2.
    """
    samples = _finite_complex(noise_samples, 2, "noise_covariance").flatten(1)
    if samples.shape[1] < samples.shape[0]:
        raise InputError(f"noise_covariance needs at least as many samples as coils, got {tuple(samples.shape)}")
    return samples @ samples.mH / samples.shape[1]


def prewhiten(kspace: Array, covariance: Array) -> Tensor:
    """Mix the coils so that their noise is white with E|n|^2 = 1: L^-1 k for the covariance L L^H.

    Parameters
    ----------
    kspace : array or tensor
        (..., coil, y, x), complex.
    covariance : array or tensor
        (coil, coil), Hermitian positive definite, as `noise_covariance` gives it.
    """
    data = _complex(kspace, 3, "prewhiten")
    matrix = tensor(covariance, "prewhiten: covariance").to(device=data.device, dtype=torch.complex128)
    coils = data.shape[-3]
    if tuple(matrix.shape) != (coils, coils):
        raise ShapeError(f"prewhiten expected a covariance ({coils}, {coils}), got {tuple(matrix.shape)}")
    factor, failed = torch.linalg.cholesky_ex(matrix)
    if bool(failed) or not bool(torch.isfinite(factor.abs()).all()):
        raise InputError("prewhiten: the covariance is not positive definite; a coil may be dead, or samples too few")
    inverse = torch.linalg.solve_triangular(factor, torch.eye(coils, dtype=matrix.dtype).to(data.device), upper=False)
    return _mix(inverse.to(data.dtype), data)


def estimate_noise_std(kspace: Array, mask: Array | None = None) -> Tensor:
    """Estimate the noise level of every coil from undersampled data.

    Where an axis is fully sampled, the air near the two ends of the field of view along it shows the noise at the
    outer phase encodes; readout oversampling guarantees such air, so estimate before cropping it. Without such an
    axis, or without air, the outer k-space is used: over shells of growing radius r, the median of |k_c|^2 (which
    ignores outliers) is fitted by ``v_c + a q_c r^-2``: white noise plus anatomy, whose amplitude falls about as
    1 / r and whose strength in a coil, q_c, is estimated closer to the centre; one `a` serves all coils. The fit stays
    within the bounds set by the quietest shell. If noise and the anatomy's tail are equally strong, the mean over the
    coils is accurate to a few percent and a single coil to about 15 %.

    Parameters
    ----------
    kspace : array or tensor
        (coil, y, x), complex, centred, zero where it was not sampled.
    mask : array or tensor, optional
        Sampled points, broadcastable to (y, x); by default those where some coil is not zero.

    Returns
    -------
    tensor
        (coil,): sqrt(E|n|^2). For noise-free data it is a small upper bound of the true 0.

    Raises
    ------
    InputError
        With fewer than 32 sampled points, or values that are not finite.
    """
    return _noise_model(kspace, mask, "estimate_noise_std").diagonal().real.sqrt()


def estimate_noise_covariance(kspace: Array, mask: Array | None = None) -> Tensor:
    """Estimate the noise covariance of the coils, (coil, coil), from undersampled data.

    The samples and the model are those of `estimate_noise_std`, with the coils' covariances in place of their powers.
    Arguments and errors are the same.
    """
    return _noise_model(kspace, mask, "estimate_noise_covariance")


def compress_coils(kspace: Array, n_coils: int, method: str = "svd", readout_axis: int = -2) -> Tensor:
    """Replace the coils by fewer virtual ones that keep most of the energy; white noise stays white.

    Parameters
    ----------
    kspace : array or tensor
        (..., coil, y, x), complex; all leading items use the same compression.
    n_coils : int
        Number of virtual coils.
    method : str
        ``svd``: one unitary mixing. ``geometric``: one mixing for every position along the readout, which must be
        fully sampled, aligned from position to position (Zhang et al., MRM 69:571, 2013).
    readout_axis : int
        -2 (y) or -1 (x), for the geometric method.

    Returns
    -------
    tensor
        (..., n_coils, y, x).
    """
    data = _finite_complex(kspace, 3, "compress_coils")
    coils = data.shape[-3]
    if not 1 <= n_coils <= coils:
        raise InputError(f"compress_coils needs n_coils from 1 to {coils}, got {n_coils}")
    if method == "svd":
        samples = data.movedim(-3, 0).flatten(1)
        vectors = torch.linalg.eigh((samples @ samples.mH).to(torch.complex128))[1]
        return _mix(vectors.flip(-1)[:, :n_coils].mH.to(data.dtype), data)
    if method != "geometric" or readout_axis not in (-2, -1):
        raise InputError(
            f"compress_coils: expected svd, or geometric with readout_axis -2 or -1, got {method!r} and {readout_axis}"
        )
    hybrid = ifftc(data, (readout_axis,)).movedim(readout_axis, 0).movedim(-2, 1)
    flat = hybrid.flatten(2)
    vectors = torch.linalg.eigh((flat @ flat.mH).to(torch.complex128))[1].flip(-1)[:, :, :n_coils]
    # Within the kept subspace each mixing is rotated towards its neighbour's, from the centre outwards.
    middle = len(vectors) // 2
    for step, positions in ((1, range(middle + 1, len(vectors))), (-1, range(middle - 1, -1, -1))):
        for i in positions:
            left, _, right = torch.linalg.svd(vectors[i].mH @ vectors[i - step])
            vectors[i] = vectors[i] @ (left @ right)
    mixed = (vectors.mH.to(data.dtype) @ flat).reshape(len(vectors), n_coils, *hybrid.shape[2:])
    return fftc(mixed.movedim(1, -2).movedim(0, readout_axis), (readout_axis,))


def _noise_model(kspace: Array, mask: Array | None, owner: str) -> Tensor:
    """Noise covariance from the air beside the object, where it shows, or else from the outer k-space."""
    data = _finite_complex(kspace, 3, owner)
    if data.ndim != 3:
        raise ShapeError(f"{owner} expected kspace (coil, y, x), got {tuple(data.shape)}")
    ny, nx = data.shape[1:]
    sampled = (data != 0).any(0) if mask is None else tensor(mask, "mask").to(data.device).bool().expand(ny, nx)
    if int(sampled.sum()) < _MIN_SAMPLES:
        raise InputError(f"{owner} needs at least {_MIN_SAMPLES} sampled points, got {int(sampled.sum())}")
    y, x = ((torch.arange(n, device=data.device) - n // 2) / max(n / 2, 1) for n in (ny, nx))
    radius = ((y[:, None] ** 2 + x**2) / 2).sqrt()[sampled].to(torch.float64)
    best = _from_outer_kspace(data[:, sampled].to(torch.complex128), radius)
    for axis, line in ((-2, x), (-1, y)):
        air = _air(data, sampled, axis, line)
        if air.shape[1] >= 8 * _MIN_SAMPLES:
            other = _robust_covariance(air.to(torch.complex128))
            # Tissue can only add power, in the mean or in a nearby coil.
            gain = other.diagonal().real / best.diagonal().real.clamp_min(torch.finfo(torch.float64).tiny)
            clean = (gain.mean() < _ALIKE) & (gain.max() < _ALIKE_COIL) & (gain.mean() > _MASKED)
            best = torch.where(clean, other, best)
    return _regular(best).to(data.dtype)


def _air(data: Tensor, sampled: Tensor, axis: int, line: Tensor) -> Tensor:
    """Values (coil, n) near the two ends of the field of view along a fully sampled axis, at outer phase encodes."""
    lines = (sampled.all(axis) & (line.abs() > _INNER_RADIUS)).nonzero()[:, 0]
    n = data.shape[axis]
    if not len(lines):
        return data.new_zeros((len(data), 0))
    # The outermost ends are excluded: there the scanner's filters may have lowered the noise.
    near, far = round(n / 32), round(n / 10)
    hybrid = ifftc(data.movedim(axis, -1)[:, lines], (-1,))
    return torch.cat([hybrid[..., near:far], hybrid[..., n - far : n - near]], dim=-1).flatten(1)


def _from_outer_kspace(values: Tensor, radius: Tensor) -> Tensor:
    """Fit the shells' coil covariances by V + a r^-2 Q, with Q taken nearer to the centre, and return V."""
    order = radius.argsort(stable=True)
    outer = max(int((radius >= _INNER_RADIUS).sum()), _MIN_SAMPLES)
    values = values[:, order]
    count = max(min(_SHELLS, outer // _MIN_SAMPLES), 1)
    shells = torch.stack([_robust_covariance(part) for part in torch.tensor_split(values[:, -outer:], count, dim=1)])
    inverse = 1 / radius[order][-outer:].clamp_min(1e-3) ** 2
    falloff = torch.stack([part.mean() for part in torch.tensor_split(inverse, count)])
    inner = values[:, -2 * outer : -outer]
    signal = _robust_covariance(inner) if inner.shape[1] >= _MIN_SAMPLES else shells[0]
    return _extrapolate(shells, falloff, signal)


def _robust_covariance(samples: Tensor) -> Tensor:
    """Coil covariance (coil, coil) whose diagonal follows the median: |n|^2 is exponential, its median ln 2."""
    covariance = samples @ samples.mH / samples.shape[1]
    power = samples.abs().square().median(dim=1).values / math.log(2)
    scale = (power / covariance.diagonal().real.clamp_min(torch.finfo(power.dtype).tiny)).sqrt()
    return covariance * torch.outer(scale, scale)


def _extrapolate(shells: Tensor, falloff: Tensor, signal: Tensor) -> Tensor:
    """Fit one slope `a` to all coils' powers, and remove a r^-2 Q from the shells' covariances."""
    tiny = torch.finfo(falloff.dtype).tiny
    powers = shells.diagonal(dim1=1, dim2=2).real
    lowest = powers.min(0).values
    share = (lowest.clamp_min(tiny) / powers.clamp_min(tiny)) ** 2
    share = share / share.sum(0)
    spread = falloff[:, None] - (share * falloff[:, None]).sum(0)
    variance = (share * spread**2).sum(0).clamp_min(tiny)
    strength = signal.diagonal().real / lowest.clamp_min(tiny)
    slope = (share * spread * powers / lowest.clamp_min(tiny)).sum(0) / variance
    slope = ((slope * strength * variance).sum() / (strength**2 * variance).sum().clamp_min(tiny)).clamp_min(0)
    pair = (share[:, :, None] * share[:, None, :]).sqrt()
    pair = pair / pair.sum(0)
    noise = (pair * (shells - slope * falloff[:, None, None] * signal)).sum(0)
    lift = (noise.diagonal().real.clamp_min(_FLOOR * lowest) - noise.diagonal().real).to(noise.dtype)
    # The smallest eigenvalue of the measured covariance bounds that of the noise from above, and anatomy hardly ever
    # fills all directions of coil space. A smaller value in any direction means that too much was subtracted:
    # prewhitening would amplify exactly those directions.
    measured = (pair * shells).sum(0)
    root = measured.diagonal().real.clamp_min(tiny).sqrt()
    scale = torch.outer(root, root)
    least = torch.linalg.eigvalsh(measured / scale)[0].clamp_min(0)
    values, vectors = torch.linalg.eigh((noise + torch.diag(lift)) / scale)
    return (vectors * torch.maximum(values, least)) @ vectors.mH * scale


def _regular(covariance: Tensor) -> Tensor:
    """Keep the correlation matrix away from singular without changing the variances."""
    power = covariance.diagonal().real
    scale = power.clamp_min(torch.finfo(power.dtype).tiny).sqrt()
    values, vectors = torch.linalg.eigh(covariance / torch.outer(scale, scale))
    correlation = (vectors * values.clamp_min(_LEAST_EIGENVALUE)) @ vectors.mH
    norm = (power / correlation.diagonal().real).sqrt()
    return correlation * torch.outer(norm, norm)


def _mix(matrix: Tensor, data: Tensor) -> Tensor:
    """Mix the coil axis of (..., coil, y, x) by a matrix."""
    return (matrix @ data.flatten(-2)).reshape(*data.shape[:-3], len(matrix), *data.shape[-2:])


def _complex(values: Array, rank: int, owner: str) -> Tensor:
    data = tensor(values, owner)
    if not data.is_complex() or data.ndim < rank or 0 in data.shape:
        names = "(coil, sample)" if rank == 2 else "(..., coil, y, x)"
        raise ShapeError(f"{owner} expected complex values {names}, got {data.dtype} {tuple(data.shape)}")
    return data.resolve_conj()


def _finite_complex(values: Array, rank: int, owner: str) -> Tensor:
    data = _complex(values, rank, owner)
    if not bool(torch.isfinite(torch.view_as_real(data)).all()):
        raise InputError(f"{owner} got values that are not finite")
    return data
