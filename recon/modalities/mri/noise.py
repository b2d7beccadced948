"""Noise of the receiver coils: its level, its correlation, and the source of the estimate."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from operators import ifftc
from operators.arrays import tensor
from operators.mri.autocalibration import Region, kernel_size, noise_floor
from operators.mri.coils import estimate_noise_covariance, prewhiten
from recon.errors import InputError, ShapeError

#: Outer k-space counts as noise if the quietest directions of the calibration region hold at least this fraction of
#: it. Measured: .9 to 1.4 where it is noise, .15 where a small matrix still has signal at its edge.
_NOISE_SHARE = 0.9
#: A calibration region needs this many samples along both axes to separate noise from signal.
_LEAST = 6
#: Estimates above this fraction of the signal show noise: without any, several coils have at most 1e-5, a single coil
#: (whose fine structure looks like noise) up to 4e-3.
_NO_NOISE, _NO_NOISE_ONE_COIL = 1e-4, 1e-2
_FEWEST = 32  # samples for an estimate
#: The residual of a fit is the noise if it is below this fraction of the power of an estimate, or of what was given: at
#: low SNR it is up to 15 % too low.
_TOO_HIGH, _FAR_TOO_HIGH = 0.8, 0.5
_GIVEN, _SCAN, _AIR, _FIT = "given", "noise scan of the file", "air", "the residual of a fit"


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

    @classmethod
    def of_scan(cls, covariance: Tensor) -> CoilNoise:
        """Return the noise that a noise scan of the file shows."""
        return cls(covariance, _SCAN)

    @classmethod
    def of_air(cls, covariance: Tensor) -> CoilNoise:
        """Return the noise that the air beside the object shows."""
        return cls(covariance, _AIR)

    def at_most(self, power: float) -> CoilNoise:
        """Return noise of this power per sample if the level is clearly higher, else the noise as it is.

        Estimates are too high where they hold signal, in a pattern of the coils that is not that of the noise: then the
        noise counts as white. A given covariance is scaled; what air without signal shows stays.
        """
        if self.source == _AIR or power >= (_FAR_TOO_HIGH if self.given else _TOO_HIGH) * self.level**2:
            return self
        if self.given:
            return CoilNoise(self.covariance * (power / self.level**2), f"{self.source}, lowered to {_FIT}")
        return CoilNoise(power * torch.eye(len(self.covariance)).to(self.covariance), _FIT)

    @property
    def given(self) -> bool:
        """Whether the noise was given or measured, not estimated from the data."""
        return self.source in (_GIVEN, _SCAN)

    @property
    def white(self) -> bool:
        """Whether all coils have independent noise of the same level."""
        covariance = self.covariance
        off = covariance - torch.eye(len(covariance)).to(covariance) * covariance.diagonal().mean()
        return float(off.abs().max()) <= 1e-6 * float(covariance.abs().max())


def given_covariance(covariance: np.ndarray | Tensor, coils: int) -> Tensor:
    """Check a covariance of the coils given by the user.

    Raises
    ------
    InputError, ShapeError
        If it is not a covariance of these coils.
    """
    matrix = tensor(covariance, "noise_covariance").to(torch.complex64)
    if tuple(matrix.shape) != (coils, coils):
        raise ShapeError(f"noise_covariance: expected ({coils}, {coils}) for these coils, got {tuple(matrix.shape)}")
    positive = bool(torch.isfinite(matrix.abs()).all()) and not bool(torch.linalg.cholesky_ex(matrix)[1])
    if not positive or float((matrix - matrix.mH).abs().max()) > 1e-3 * float(matrix.abs().max()):
        raise InputError("noise_covariance: expected a Hermitian positive definite matrix")
    return matrix


def given_noise(noise_std: float | None, covariance: Tensor | None, coils: int, unit: float) -> CoilNoise:
    """Return the noise given by the user, in units of the normalised k-space: a level or a covariance.

    Raises
    ------
    InputError
        If the level is not valid.
    """
    if covariance is not None:
        return CoilNoise(covariance / unit**2, _GIVEN)
    assert noise_std is not None
    if not (math.isfinite(noise_std) and noise_std >= 0):
        raise InputError(f"noise_std: expected a finite number >= 0, got {noise_std}")
    return CoilNoise((noise_std / unit) ** 2 * torch.eye(coils, dtype=torch.complex64), _GIVEN)


def refuse_noise(kspace: Tensor, mask: Tensor, region: Region | None, unit: float) -> None:
    """Refuse ``noise_std=0`` for data that clearly are noisy.

    Raises
    ------
    InputError
    """
    if int(mask.expand(kspace.shape[-2:]).sum()) < _FEWEST:
        return
    found = estimate_noise(kspace, mask, region).level
    signal = float(torch.quantile(ifftc(kspace).abs().square().sum(0).sqrt().flatten(), 0.99))
    if found > (_NO_NOISE if len(kspace) > 1 else _NO_NOISE_ONE_COIL) * signal:
        raise InputError(
            f"noise_std=0 is only right for simulated data without noise: about {found * unit:.3g} is estimated from "
            "these data; omit noise_std, or give the level"
        )


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
