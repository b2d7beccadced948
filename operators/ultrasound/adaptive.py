"""Adaptive combinations of delayed samples, all pixels of an image row at once."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

_BYTES = 1 << 24  # covariances held at once


@dataclass(frozen=True)
class Options:
    """Settings of `operators.ultrasound.beamform.beamform`; R averages over `half` rows on either side."""

    method: str
    low_frequencies: int
    subarray: float
    loading: float
    threshold: float
    half: int


def combine(delayed: Tensor, active: Tensor, inner: slice, options: Options) -> Tensor:
    """Form image rows `inner` (z, x) from delayed samples (element, z, x), which extend `half` rows further."""
    if options.method in ("mv", "esbmv"):
        return minimum_variance(delayed, active, inner, options)
    samples, active = delayed[:, inner], active[:, inner]
    if options.method == "dmas":
        return delay_multiply_and_sum(samples)
    return samples.sum(0) * coherence(samples, active, options.low_frequencies if options.method == "gcf" else 0)


def coherence(samples: Tensor, active: Tensor, low: int) -> Tensor:
    """Fraction of the aperture's energy at spatial frequencies up to `low` periods; 0 gives the coherence factor."""
    count = active.sum(0).clamp(min=1)
    energy = (samples.abs() ** 2).sum(0) * count
    index = (torch.cumsum(active, 0) - 1).to(energy.dtype) / count
    # An aperture of M elements has M frequencies.
    part = torch.zeros_like(energy)
    for m in range(-low, low + 1):
        wave = torch.polar(torch.ones_like(index), -2 * torch.pi * m * index)
        part += torch.where(2 * abs(m) < count, (samples * wave).sum(0).abs() ** 2, 0.0)
    return torch.where(energy > 0, part / torch.where(energy > 0, energy, 1.0), 0.0)


def delay_multiply_and_sum(samples: Tensor) -> Tensor:
    """Return half of (sum q)^2 - sum q^2 with q = s / sqrt|s|."""
    size = samples.abs()
    roots = samples / torch.where(size > 0, size, 1.0).sqrt()
    # The product has twice the phase: restore that of one sample, so that it is compounded like the other methods.
    product = (roots.sum(0) ** 2 - (roots**2).sum(0)) / 2
    phase = samples.sum(0)
    return product.abs() * phase / torch.where(phase.abs() > 0, phase.abs(), 1.0)


def minimum_variance(delayed: Tensor, active: Tensor, inner: slice, options: Options) -> Tensor:
    """Apply minimum-variance weights over the active elements of each pixel, whose samples in `delayed` are unweighted.

    Pixels with the same number of active elements are processed together: zeros in place of missing elements would
    have no variance, and get all of the weight.
    """
    samples = delayed.permute(1, 2, 0)  # z x element
    heard = active[:, inner].permute(1, 2, 0)
    counts, first = heard.sum(-1), torch.argmax(heard.int(), -1)
    offsets = torch.arange(-options.half, options.half + 1, device=samples.device)
    out = samples.new_zeros(counts.shape)
    for size in torch.unique(counts[counts > 0]).tolist():
        rows, columns = torch.nonzero(counts == size, as_tuple=True)
        run = torch.arange(size, device=samples.device)
        together = max(_BYTES // (size * (size + len(offsets)) * samples.element_size()), 1)
        for z, x in zip(rows.split(together), columns.split(together), strict=True):
            index = first[z, x][:, None] + run
            near = z[:, None] + inner.start + offsets
            inside = (near >= 0) & (near < len(samples))
            taken = samples[near.clamp(0, len(samples) - 1)[:, :, None], x[:, None, None], index[:, None, :]]
            taken = taken * inside[:, :, None]
            out[z, x] = size * _weighted(taken, taken[:, options.half], options)
    return out


def _weighted(taken: Tensor, centre: Tensor, options: Options) -> Tensor:
    """Average w^H s over subarrays, from samples (pixel, z, element) and those of the row itself (pixel, element)."""
    size = centre.shape[-1]
    length = max(int(size * options.subarray), 1)
    covariance = smoothed(torch.einsum("pza,pzb->pab", taken, taken.conj()), length)
    power = torch.diagonal(covariance, dim1=-2, dim2=-1).real.mean(-1)
    silent = power <= torch.finfo(power.dtype).tiny * 1e6
    scale = torch.where(silent, 1.0, power)[:, None, None]
    eye = torch.eye(length, dtype=covariance.dtype, device=covariance.device)
    loaded = torch.where(silent[:, None, None], eye, covariance / scale) + options.loading * eye
    ones = torch.ones(len(loaded), length, 1, dtype=loaded.dtype, device=loaded.device)
    weights = torch.cholesky_solve(ones, torch.linalg.cholesky(loaded))
    weights = weights / weights.sum(1, keepdim=True)
    if options.method == "esbmv":
        values, vectors = torch.linalg.eigh(loaded)
        kept = (values >= options.threshold * values[:, -1:]).to(vectors.dtype)
        weights = vectors @ (kept[:, :, None] * (vectors.mH @ weights))
    mean = centre.unfold(-1, length, 1).mean(-2)
    return (weights[..., 0].conj() * mean).sum(-1)


def smoothed(matrix: Tensor, length: int) -> Tensor:
    """Sum the blocks (length, length) along the diagonal of Hermitian matrices (..., element, element).

    ``R[a, b] = sum_p C[p + a, p + b]``: computed as differences of running sums along the diagonals.
    """
    size = matrix.shape[-1]
    blocks = size - length + 1
    batch = matrix.shape[:-2]
    padded = torch.nn.functional.pad(matrix, (0, length)).contiguous()
    width = size + length
    strides = (*padded.stride()[:-2], width + 1, 1)
    diagonals = padded.as_strided((*batch, size, length), strides)  # [i, d] = C[i, i + d]
    running = torch.nn.functional.pad(diagonals.cumsum(-2), (0, 0, 1, 0))
    sums = running[..., blocks:, :] - running[..., :length, :]
    out = matrix.new_zeros(*batch, length, 2 * length)
    out.as_strided(sums.shape, (*out.stride()[:-2], 2 * length + 1, 1)).copy_(sums)
    upper = out[..., :length].triu()
    return upper + upper.triu(1).mH
