"""Mixing the coils so that their noise, and the errors of their maps, are white."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from recon.modalities.mri.noise import CoilNoise

#: What a fit leaves counts as more than noise from this ratio of their powers on.
_TOLERANCE = 1.1


@dataclass(frozen=True, eq=False)
class Whitening:
    """A mixing of the coils, by the inverse of a factor of a covariance; their mean power stays what it was.

    Attributes
    ----------
    factor : Tensor, shape ``(coil, coil)``
        Colours: L of the covariance L L^H, scaled to a mean variance of 1.
    inverse : Tensor, shape ``(coil, coil)``
        Whitens.
    """

    factor: Tensor
    inverse: Tensor

    @classmethod
    def none(cls, kspace: Tensor) -> Whitening:
        """Leave the coils as they are."""
        eye = torch.eye(kspace.shape[0], dtype=kspace.dtype, device=kspace.device)
        return cls(eye, eye)

    @classmethod
    def of(cls, covariance: Tensor) -> Whitening:
        """Whiten noise of this covariance."""
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
        """Return maps of another whitening for this one, of the same norm over the coils, and the image for them."""
        mixed = torch.einsum("ij,...jyx->...iyx", self.inverse @ before.factor, maps)
        norm, old = (one.abs().square().sum(-3).sqrt() for one in (mixed, maps))
        growth = torch.where(old > 0, norm / old.clamp_min(1e-30), 1)
        return mixed / growth.clamp_min(1e-30).unsqueeze(-3), image * growth

    def level(self, noise: CoilNoise) -> float:
        """Return the noise level after whitening, in the mean over the coils."""
        mixed = self.inverse @ noise.covariance.to(self.inverse) @ self.inverse.mH
        return math.sqrt(max(float(mixed.diagonal().real.mean()), 0.0))


def with_model_error(noise: CoilNoise, left: Tensor, ratio: float) -> Whitening | None:
    """Return the whitening of the noise and of the errors of the model together; None where there are none.

    Whitening by the noise alone trusts the directions of coil space where the noise is low, up to far below the errors
    of the model. Those are taken to be as large in all directions: a fit takes up some of them and shows the others,
    and what it shows depends on how the coils were whitened.

    Parameters
    ----------
    noise : CoilNoise
    left : Tensor, shape ``(coil, sample)``
        What a fit leaves unexplained of the coils as they came.
    ratio : float
        How strong the errors are in the data, relative to ``left``: they follow the signal.
    """
    if noise.level == 0:
        return None
    excess = ratio * (float(left.abs().square().mean()) - _TOLERANCE * noise.level**2)
    if excess <= 0:
        return None
    return Whitening.of(noise.covariance + excess * torch.eye(len(noise.covariance)).to(noise.covariance))


def _mix(matrix: Tensor, coils: Tensor) -> Tensor:
    return (matrix @ coils.flatten(1)).reshape(coils.shape)
