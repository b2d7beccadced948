"""Noise of the receiver coils: its level, its correlation, and the source of the estimate."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from operators.mri.autocalibration import Region, kernel_size, noise_floor
from operators.mri.coils import estimate_noise_covariance, prewhiten
from recon.errors import InputError, ShapeError

#: Outer k-space counts as noise if the quietest directions of the calibration region hold at least this fraction of
#: it. Measured: .9 to 1.4 where it is noise, .15 where a small matrix still has signal at its edge.
_NOISE_SHARE = 0.9
#: A calibration region needs this many samples along both axes to separate noise from signal.
_LEAST = 6


@dataclass(frozen=True, eq=False)
class CoilNoise:
    """Noise of the k-space samples.

    Attributes
    ----------
    covariance : Tensor, shape ``(coil, coil)``
        ``E[n n^H]``.
    source : str
        Source of the estimate.
    """

    covariance: Tensor
    source: str

    @property
    def level(self) -> float:
        """Return sqrt(E|n|^2), averaged over the coils."""
        return math.sqrt(max(float(self.covariance.diagonal().real.mean()), 0.0))

    @property
    def white(self) -> bool:
        """Whether all coils have independent noise of the same level."""
        covariance = self.covariance
        off = covariance - torch.eye(len(covariance)).to(covariance) * covariance.diagonal().mean()
        return float(off.abs().max()) <= 1e-6 * float(covariance.abs().max())


def given_noise(noise_std: float | None, covariance: np.ndarray | Tensor | None, coils: int, unit: float) -> CoilNoise:
    """Return the noise given by the user, in units of the normalised k-space: a level or a covariance.

    Raises
    ------
    InputError, ShapeError
        If it is not a valid level or covariance for these coils.
    """
    if covariance is None:
        assert noise_std is not None
        if not (math.isfinite(noise_std) and noise_std >= 0):
            raise InputError(f"noise_std: expected a finite number >= 0, got {noise_std}")
        return CoilNoise((noise_std / unit) ** 2 * torch.eye(coils, dtype=torch.complex64), "given")
    matrix = torch.as_tensor(covariance).to(torch.complex64)
    if tuple(matrix.shape) != (coils, coils):
        raise ShapeError(f"noise_covariance: expected ({coils}, {coils}) for these coils, got {tuple(matrix.shape)}")
    positive = bool(torch.isfinite(matrix.abs()).all()) and not bool(torch.linalg.cholesky_ex(matrix)[1])
    if not positive or float((matrix - matrix.mH).abs().max()) > 1e-3 * float(matrix.abs().max()):
        raise InputError("noise_covariance: expected a Hermitian positive definite matrix")
    return CoilNoise(matrix / unit**2, "given")


def estimate_noise(kspace: Tensor, mask: Tensor, region: Region | None) -> CoilNoise:
    """Estimate the noise of the coils from the measured data.

    The estimate uses the air or outer k-space (`operators.estimate_noise_covariance`), unless signal extends to the
    edge of the sampled region, as in low-resolution scans or scans of the centre only. This is the case if the quietest
    directions of the calibration region are much quieter: then they give the level, and coils count as independent.
    """
    outer = CoilNoise(estimate_noise_covariance(kspace, mask), "outer k-space or air")
    if region is None or kspace.shape[0] == 1 or outer.level == 0:
        return outer
    calibration = kspace[:, region[0], region[1]]
    size = (calibration.shape[1], calibration.shape[2])
    if min(size) < _LEAST:
        return outer
    kernel = kernel_size(size)
    if noise_floor(prewhiten(calibration, outer.covariance), kernel) >= _NOISE_SHARE:
        return outer
    floor = noise_floor(calibration, kernel)
    if floor >= outer.level:
        return outer
    white = floor**2 * torch.eye(kspace.shape[0], dtype=kspace.dtype, device=kspace.device)
    return CoilNoise(white, "calibration region")
