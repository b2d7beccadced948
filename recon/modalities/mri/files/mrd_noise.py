"""The noise scan of an ISMRMRD file."""

from __future__ import annotations

import numpy as np

from recon.modalities.mri.files.mrd_grid import Grid
from recon.modalities.mri.files.mrd_lines import is_noise, read_samples


def noise_of(grid: Grid, bandwidth: float) -> tuple[np.ndarray | None, str]:
    """Return the noise covariance of the lines of each image, `(image, coil, coil)`, and a description.

    `E[n n^H]` of the noise scan, times the ratio of its dwell time to that of the image (noise power is proportional to
    the bandwidth, 1 / dwell time), divided by the relative noise bandwidth of the receiver if the header has one and by
    the number of averages. Source: Hansen and Kellman, J Magn Reson Imaging 41:573, 2015; the noise adjustment of
    Gadgetron is the same, up to its default noise bandwidth of .79.
    """
    heads = grid.heads
    numbers = np.flatnonzero(is_noise(heads))
    if not len(numbers):
        return None, "none"
    coils = grid.coils
    if (heads["active_channels"][numbers] != coils).any():
        return None, f"not used, its coils are not the {coils} of the image"
    dwell = heads["sample_time_us"].astype(np.float64)
    if not (dwell[numbers] > 0).all() or not (dwell[grid.numbers] > 0).all():
        dwell = np.ones(len(heads))  # unknown: assumed to be the same
    total, samples = np.zeros((coils, coils), np.complex128), 0
    power = grid.summed(1 / dwell[grid.numbers]) / np.maximum(grid.counts, 1) ** 2
    factors = np.array([power[k][grid.counts[k] > 0].mean() for k in range(len(power))])
    with np.errstate(over="ignore", invalid="ignore"):  # damaged values: the result is checked
        for i, noise in read_samples(grid.path, grid.dataset, heads, numbers):
            total += dwell[i] * (noise @ noise.conj().T)
            samples += noise.shape[1]
        covariance = (factors[:, None, None] * (total / max(samples, 1) / bandwidth)).astype(np.complex64)
    if samples < 2 * coils or not all(_positive(one) for one in covariance):
        return None, f"not used, {samples} samples do not give a covariance of {coils} coils"
    return covariance, f"{samples} samples"


def _positive(matrix: np.ndarray) -> bool:
    """Tell whether a covariance is finite, and no coil is without noise or a copy of another one."""
    if not np.isfinite(matrix).all() or not (matrix.diagonal().real > 0).all():
        return False
    matrix = matrix.astype(np.complex128)
    level = np.sqrt(matrix.diagonal().real)
    return bool(np.linalg.eigvalsh(matrix / np.outer(level, level))[0] > 1e-6)
