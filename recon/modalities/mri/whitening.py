"""Whitening of the coils: a mixing after which their noise and the errors of their maps are white."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from recon.modalities.mri.noise import CoilNoise

#: A residual counts as more than noise from this ratio of powers on.
_TOLERANCE = 1.1


@dataclass(frozen=True, eq=False)
class Whitening:
    """A mixing of the coils by the inverse of a factor of a covariance; their mean power is preserved.

    Attributes
    ----------
    factor : Tensor, shape ``(coil, coil)``
        Colouring factor: L of the covariance L L^H, scaled to a mean variance of 1.
    inverse : Tensor, shape ``(coil, coil)``
        Whitening factor, the inverse of L.
    """

    factor: Tensor
    inverse: Tensor

    @classmethod
    def none(cls, kspace: Tensor) -> Whitening:
        """Return the identity."""
        eye = torch.eye(kspace.shape[0], dtype=kspace.dtype, device=kspace.device)
        return cls(eye, eye)

    @classmethod
    def of(cls, covariance: Tensor) -> Whitening:
        """Return the whitening of noise with this covariance."""
        wide = covariance.to(torch.complex128)
        factor = torch.linalg.cholesky(wide / wide.diagonal().real.mean())
        return cls(factor.to(covariance.dtype), torch.linalg.inv(factor).to(covariance.dtype))

    def __call__(self, coils: Tensor) -> Tensor:
        """Whiten data ``(coil, ...)``."""
        return _mix(self.inverse, coils)

    def coloured(self, coils: Tensor) -> Tensor:
        """Undo the whitening."""
        return _mix(self.factor, coils)

    def coloured_maps(self, maps: Tensor) -> Tensor:
        """Undo the whitening of maps ``([map,] coil, y, x)``."""
        return torch.einsum("ij,...jyx->...iyx", self.factor, maps)

    def moved(self, maps: Tensor, image: Tensor, before: Whitening) -> tuple[Tensor, Tensor]:
        """Convert maps and image from another whitening to this one, keeping the norm over the coils."""
        mixed = torch.einsum("ij,...jyx->...iyx", self.inverse @ before.factor, maps)
        norm, old = (one.abs().square().sum(-3).sqrt() for one in (mixed, maps))
        growth = torch.where(old > 0, norm / old.clamp_min(1e-30), 1)
        return mixed / growth.clamp_min(1e-30).unsqueeze(-3), image * growth

    def level(self, noise: CoilNoise) -> float:
        """Return the noise level after whitening, averaged over the coils."""
        mixed = self.inverse @ noise.covariance.to(self.inverse) @ self.inverse.mH
        return math.sqrt(max(float(mixed.diagonal().real.mean()), 0.0))


def with_model_error(noise: CoilNoise, left: Tensor, ratio: float, level: float | None = None) -> Whitening | None:
    """Return the joint whitening of noise and model errors; None without model errors.

    Whitening by the noise alone trusts directions of coil space with low noise far beyond the accuracy of the model.
    Model errors are assumed to be equally large in all directions: a fit absorbs some of them, and the residual depends
    on the previous whitening of the coils.

    Parameters
    ----------
    noise : CoilNoise
    left : Tensor, shape ``(coil, sample)``
        Residual of a fit in the original coils.
    ratio : float
        Strength of the errors in the data relative to ``left``; it follows the signal.
    level : float, optional
        Noise level of ``left``, if it is not that of the data.
    """
    if noise.level == 0:
        return None
    level = noise.level if level is None else level
    excess = ratio * (float(left.abs().square().mean()) - _TOLERANCE * level**2)
    if excess <= 0:
        return None
    return Whitening.of(noise.covariance + excess * torch.eye(len(noise.covariance)).to(noise.covariance))


def _mix(matrix: Tensor, coils: Tensor) -> Tensor:
    return (matrix @ coils.flatten(1)).reshape(coils.shape)
