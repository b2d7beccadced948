"""Noise acquisitions of ISMRMRD files: those of a scan, and those of a file of noise.

Noise power is proportional to the bandwidth, 1 / dwell time, so the covariance of the noise scan is multiplied by the
ratio of its dwell time to that of the image, and divided by the relative noise bandwidth of the receiver, which is the
fraction of the sampled bandwidth that its filters let through. Sources: Kellman and McVeigh, Magn Reson Med 54:1439,
2005; Hansen and Kellman, J Magn Reson Imaging 41:573, 2015. The noise adjustment of Gadgetron is the same, up to its
default noise bandwidth of .79.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from recon.modalities.mri.files.mrd_grid import Grid
from recon.modalities.mri.files.mrd_lines import is_noise, read_samples
from recon.verdict import Finding

#: Note about noise acquisitions that could not be scaled to the data.
UNKNOWN_RATE = Finding(
    "ok",
    "noise_scan: the dwell time of the noise or of the data is not known; they are taken to be the same, and the data "
    "not to be averaged",
)


@dataclass(frozen=True, eq=False)
class NoiseScan:
    """Noise without signal.

    Attributes
    ----------
    density : array, shape ``(coil, coil)``
        `E[n n^H]` times the dwell time in microseconds, over the relative noise bandwidth of the receiver.
    dwell_us : float or None
        Mean dwell time; None where the headers do not give it, and 1 is used.
    samples : int
    """

    density: np.ndarray
    dwell_us: float | None
    samples: int

    @classmethod
    def read(
        cls, path: Path, dataset: str, heads: np.ndarray, numbers: np.ndarray, bandwidth: float
    ) -> NoiseScan | None:
        """Read acquisitions; None without samples."""
        dwell = heads["sample_time_us"].astype(np.float64)
        known = bool((dwell[numbers] > 0).all() and np.isfinite(dwell[numbers]).all())
        dwell = dwell if known else np.ones(len(heads))
        coils = int(heads["active_channels"][numbers[0]])
        total, time, samples = np.zeros((coils, coils), np.complex128), 0.0, 0
        with np.errstate(over="ignore", invalid="ignore"):  # damaged values: the covariance is checked
            for i, noise in read_samples(path, dataset, heads, numbers):
                total += dwell[i] * (noise @ noise.conj().T)
                time += float(dwell[i]) * noise.shape[1]
                samples += noise.shape[1]
        if not samples:
            return None
        return cls(total / samples / bandwidth, time / samples if known else None, samples)

    def covariance(self, rates: np.ndarray | None) -> np.ndarray:
        """Return the covariance ``(image, coil, coil)`` at the sampling rates of images, ``(image,)``.

        The rate is that of the noise scan where either is not known.
        """
        if rates is None or self.dwell_us is None:
            rates = np.array([1 / (self.dwell_us or 1.0)])
        with np.errstate(over="ignore", invalid="ignore"):
            scaled: np.ndarray = (rates[:, None, None] * self.density).astype(np.complex64)
        return scaled

    def is_usable(self, rates: np.ndarray | None) -> bool:
        """Tell whether there are samples enough, and covariances are finite and positive."""
        return self.samples >= 2 * len(self.density) and all(_positive(one) for one in self.covariance(rates))


def sampling_rates(grid: Grid) -> np.ndarray | None:
    """Return the samples per microsecond of each image over its averages, to which its noise power is proportional."""
    dwell = grid.heads["sample_time_us"][grid.numbers].astype(np.float64)
    known = (dwell > 0).all() and np.isfinite(dwell).all()
    return _mean_over_lines(grid, 1 / dwell) if known else None


def noise_of(grid: Grid, bandwidth: float) -> tuple[np.ndarray | None, str]:
    """Return the noise covariance of the lines of each image, `(image, coil, coil)`, and a description."""
    numbers = np.flatnonzero(is_noise(grid.heads))
    if not len(numbers):
        return None, "none"
    coils = grid.coils
    if (grid.heads["active_channels"][numbers] != coils).any():
        return None, f"not used, its coils are not the {coils} of the image"
    scan = NoiseScan.read(grid.path, grid.dataset, grid.heads, numbers, bandwidth)
    samples = 0 if scan is None else scan.samples
    rates = sampling_rates(grid)
    if scan is not None and (rates is None or scan.dwell_us is None):  # assumed to be the same
        rates = _mean_over_lines(grid, np.ones(len(grid.numbers))) / (scan.dwell_us or 1.0)
        scan = NoiseScan(scan.density, scan.dwell_us or 1.0, samples)
    if scan is None or not scan.is_usable(rates):
        return None, f"not used, {samples} samples do not give a covariance of {coils} coils"
    return scan.covariance(rates), f"{samples} samples"


def _mean_over_lines(grid: Grid, power: np.ndarray) -> np.ndarray:
    """Return the mean noise power of the averaged lines of each image, from that of each line."""
    found = grid.summed(power) / np.maximum(grid.counts, 1) ** 2
    return np.array([found[k][grid.counts[k] > 0].mean() for k in range(len(found))])


def _positive(matrix: np.ndarray) -> bool:
    """Tell whether a covariance is finite, and no coil is without noise or a copy of another one."""
    if not np.isfinite(matrix).all() or not (matrix.diagonal().real > 0).all():
        return False
    matrix = matrix.astype(np.complex128)
    level = np.sqrt(matrix.diagonal().real)
    return bool(np.linalg.eigvalsh(matrix / np.outer(level, level))[0] > 1e-6)
