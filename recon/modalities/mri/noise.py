"""Noise of the receiver coils: how strong, how correlated, and from where that is known."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from operators.mri.autocalibration import Region, kernel_size, noise_floor
from operators.mri.coils import estimate_noise_covariance, prewhiten
from recon.errors import InputError, ShapeError

#: What outer k-space shows is noise where the quietest directions of the calibration region hold at least this share
#: of it. Measured: .9 to 1.4 where it is noise, .15 where a small matrix still holds signal at its edge.
_NOISE_SHARE = 0.9
#: A calibration region needs this many samples along both axes to tell noise from signal.
_LEAST = 6


@dataclass(frozen=True, eq=False)
class CoilNoise:
    """Noise of the k-space samples.

    Attributes
    ----------
    covariance : Tensor, shape ``(coil, coil)``
        ``E[n n^H]``.
    source : str
        From where it is known.
    """

    covariance: Tensor
    source: str

    @property
    def level(self) -> float:
        """Return sqrt(E|n|^2) in the mean over the coils."""
        return math.sqrt(max(float(self.covariance.diagonal().real.mean()), 0.0))

    @property
    def white(self) -> bool:
        """Whether all coils have independent noise of one level."""
        covariance = self.covariance
        off = covariance - torch.eye(len(covariance)).to(covariance) * covariance.diagonal().mean()
        return float(off.abs().max()) <= 1e-6 * float(covariance.abs().max())


def given_noise(noise_std: float | None, covariance: np.ndarray | Tensor | None, coils: int, unit: float) -> CoilNoise:
    """Return the noise that the user gives, in units of the normalised k-space: a level or a covariance.

    Raises
    ------
    InputError, ShapeError
        If it is not a level or a covariance of these coils.
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
    """Estimate the noise of the coils from the measured data alone.

    The air or outer k-space (`operators.estimate_noise_covariance`) serves unless signal reaches to the edge of
    what was sampled, as in scans of low resolution or of the centre only. The quietest directions of the calibration
    region tell: where they are much quieter, they give the level, and coils count as independent.
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
