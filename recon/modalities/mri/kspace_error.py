"""The model error of k-space: what coil maps and an image do not explain, by rings, and how it grows in the image."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from recon.modalities.model_error import ModelError, by_group, from_residual, of_share
from recon.modalities.mri.measured import Measured
from recon.verdict import Finding

#: Model errors grow by twice their level with each alias times the root of the strongest alias (.5 for equispaced
#: lines, .3 for random ones, below .1 for points), but in total by no more than the second number. Measured on a
#: 16-coil scan at 2- and 4-fold acceleration.
_GROWTH, _MOST_GROWTH = 2.0, 4.0
#: Nearer than this fraction of the image nothing counts as an alias.
_NEAR = 1 / 16
#: A note is given for a model error above this multiple of the noise and above this fraction of the signal.
_NOTABLE, _NOTABLE_SHARE = 4.0, 0.05
#: Where a fit leaves less than the first fraction of the power of the noise, what remains may be the error of the image
#: before the fit; the second one keeps the correction finite.
_LEAST_KEPT, _FLOOR = 0.5, 0.02
#: Above this fraction of the signal the data are allowed to say hardly anything.
_FAILED_SHARE = 0.2


class Unexplained(NamedTuple):
    """What a fit of an image to the data leaves of them.

    Attributes
    ----------
    left : Tensor, shape ``(coil, y, x)``
    kept : Tensor, shape ``(y, x)``
        Fraction of the power of noise that the fit leaves.
    always : Tensor, shape ``(y, x)``
        Fraction that every fit leaves, however freely it follows the data: the image may have followed them before.
    """

    left: Tensor
    kept: Tensor
    always: Tensor

    @classmethod
    def of(cls, left: Tensor, noise: Tensor, kept: Tensor, always: Tensor, rings: Tensor) -> Unexplained:
        """Return a residual, with what fits of noise alone leave, ring by ring.

        Parameters
        ----------
        left : Tensor, shape ``(coil, y, x)``
        noise, kept, always : Tensor, shape ``(coil, y, x)``
            Noise, its residual after the same fit, and after a free one.
        rings : Tensor of int, shape ``(y, x)``
            -1 where nothing was measured.
        """
        power = by_group(noise, rings).clamp_min(torch.finfo(torch.float32).tiny)
        ratios = ((by_group(one, rings) / power).clamp_min(_FLOOR).to(torch.float32) for one in (kept, always))
        return cls(left, *(ratio[rings.clamp_min(0)] for ratio in ratios))

    @property
    def most(self) -> Tensor:
        """The residual as if nothing had absorbed more of it: an upper limit of noise and errors."""
        return self.left * torch.minimum(self.kept, self.always).rsqrt()

    @property
    def least(self) -> Tensor:
        """The residual as if the fit had absorbed nothing; as it is where the fit leaves little of the noise."""
        return self.left * torch.where(self.kept < _LEAST_KEPT, 1, self.kept).rsqrt()

    def mixed(self, mix: Callable[[Tensor], Tensor]) -> Unexplained:
        """Return the residual in other coils."""
        return self._replace(left=mix(self.left))


def kspace_error(measured: Measured, data: Tensor, noise: float, left: Unexplained | None) -> ModelError | None:
    """Return the noise including the model error, given or from a fit; None before the first fit.

    Both are those of data whose noise is the same everywhere: they still have to be multiplied by its profile.
    """
    data = data / measured.profile
    if measured.model_error is not None:
        return of_share(data, noise, measured.rings, measured.model_error) if measured.model_error > 0 else None
    if left is None:
        return None
    acceleration = measured.sampled.numel() / int(measured.sampled.sum())
    # Errors of the maps are the same in all lines, so those of the aliases add up in a pixel.
    growth = min(1 + _GROWTH * (acceleration - 1) * math.sqrt(_strongest_alias(measured.sampled)), _MOST_GROWTH)
    return from_residual(left.least / measured.profile, data, noise, measured.rings, growth)


def _strongest_alias(sampled: Tensor) -> float:
    """Return the highest peak of the point-spread function outside its centre, relative to that."""
    psf = torch.fft.ifftn(torch.fft.ifftshift(sampled.to(torch.float32))).abs()
    away = [torch.minimum(torch.arange(n), n - torch.arange(n)) > _NEAR * n for n in psf.shape]
    far = (away[0][:, None] | away[1][None]).to(psf.device)
    return float((psf * far).max() / psf[0, 0])


def doubts(error: ModelError) -> list[Finding]:
    """Return a finding if the model error is large."""
    level = float(error.noise_std.square().mean().sqrt()) / max(error.noise_level, 1e-30)
    if error.share < _NOTABLE_SHARE or level < _NOTABLE:
        return []
    reason = (
        f"the model fails to explain {error.share:.0%} of the signal, {level:.2g} times the noise: the intervals "
        "allow for it, but coil maps, mask or geometry may be wrong for these data"
    )
    return [Finding("failed" if error.share > _FAILED_SHARE else "doubtful", reason)]
