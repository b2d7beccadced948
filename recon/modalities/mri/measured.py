"""The measured data of a slice and what is known about them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from operators.mri.autocalibration import Region
from recon.modalities.mri.noise import CoilNoise
from recon.verdict import Finding

#: Number of k-space rings, from the centre to the corners, with one model error each.
_RINGS = 24


@dataclass(frozen=True, eq=False)
class Calibration:
    """A separate calibration scan of the same coils and field of view; its intensity and noise may differ.

    Attributes
    ----------
    kspace : Tensor, shape ``(coil, y, x)``
        On the grid of the data, zeros where not sampled.
    region : (slice, slice) or None
    noise : CoilNoise
    """

    kspace: Tensor
    region: Region | None
    noise: CoilNoise


@dataclass(frozen=True, eq=False)
class Measured:
    """The measured data and prior knowledge about them.

    Attributes
    ----------
    kspace : Tensor, shape ``(coil, y, x)``
        Data of the original coils, scaled to about 1 by ``unit``; zeros where not sampled.
    mask : Tensor, bool, broadcastable to ``(y, x)``
    region : (slice, slice) or None
        Calibration region.
    noise : CoilNoise
        Its mean over the samples.
    unit : float
    maps : Tensor or None
        Coil maps given by the user.
    model_error : float or None
        Relative model error given by the user, as a fraction of the local signal.
    name : str or None
        Name of the slice in its file.
    calibration : Calibration or None
        The scan that gives the coil maps, if it is a separate one.
    profile : Tensor, broadcastable to ``(y, x)``, or 1
        Level of the noise of each sample, relative to that of all.
    shift : (int, int)
        Shift (y, x) of the images of the result against those of the problem.
    image_shape : (int, int) or None
        The middle (y, x) of the images that the result has; the rest is oversampling of the phase encoding.
    notes : tuple of str
        Notes to the user about the data.
    doubts : tuple of str or Finding
        Reasons to doubt that these data are what they should be.
    """

    kspace: Tensor
    mask: Tensor
    region: Region | None
    noise: CoilNoise
    unit: float
    maps: Tensor | None
    model_error: float | None
    name: str | None = None
    calibration: Calibration | None = None
    profile: Tensor | float = 1.0
    shift: tuple[int, int] = (0, 0)
    image_shape: tuple[int, int] | None = None
    notes: tuple[str, ...] = ()
    doubts: tuple[str | Finding, ...] = ()

    def with_noise(self, noise: CoilNoise) -> Measured:
        """Return the data with another estimate of their noise; a note says where a given level is far too high."""
        if noise is self.noise or not self.noise.given:
            return replace(self, noise=noise)
        ratio = self.noise.level / noise.level
        note = f"the noise level ({self.noise.source}) is {ratio:.2g} times what the data show; theirs is used"
        return replace(self, noise=noise, notes=(*self.notes, note))

    @property
    def sampled(self) -> Tensor:
        """Return the mask of full shape ``(y, x)``."""
        return self.mask.expand(self.kspace.shape[-2:])

    @property
    def rings(self) -> Tensor:
        """Return the ring index of each sample, -1 where nothing was measured."""
        y, x = ((torch.arange(n, device=self.mask.device) - n // 2).abs() / max(n / 2, 1) for n in self.sampled.shape)
        # Samples along the edges of the sampled rectangle are similar, so the rings are rectangles.
        radius = torch.maximum(y[:, None], x[None])
        ring = (radius * _RINGS).long().clamp_max(_RINGS - 1)
        return torch.where(self.sampled, ring, -1)
