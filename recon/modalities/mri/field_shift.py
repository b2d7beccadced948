"""Images that are shifted by half of the field of view: found by their energy, and moved to the middle."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from operators import ifftc
from operators.mri.autocalibration import Region

#: Mean energy of the middle of an image shifted by half the field of view, and of its corners and its rim, relative to
#: the whole image: below .2 and above 1 on brains and hearts; the middle of centred images has at least .8. Each corner
#: has at least a fraction of the energy of all four, unlike those of an object near one corner or side.
_EMPTY, _FULL, _EACH_CORNER = 0.2, 0.7, 0.03
_LEAST_REGION = 8
#: Note about such an image.
SHIFTED = (
    "the image is shifted by half of the field of view, as k-space alternates in sign (FFT without ifftshift): it is "
    "reconstructed in the middle, and the result shifted back"
)


def half_shift(kspace: Tensor, region: Region | None) -> tuple[int, int] | None:
    """Return the shift (y, x) in pixels that puts an object in the four corners into the middle of the image.

    k-space of an image shifted by half of the field of view alternates in sign, as a plain FFT of a centred image does.

    Parameters
    ----------
    kspace : Tensor, shape ``(coil, y, x)``
    region : (slice, slice) or None
        Calibration region.

    Returns
    -------
    (int, int) or None
        (0, 0) for a centred image; None if the region is too small to tell.
    """
    if region is None or min(side.stop - side.start for side in region) < _LEAST_REGION:
        return None
    image = ifftc(kspace[:, region[0], region[1]]).abs().square().sum(0)
    image = image / image.mean().clamp_min(1e-30)
    core = _block(image, 3 / 8, 5 / 8)
    swapped = torch.fft.fftshift(image)
    corners = _block(swapped, 3 / 8, 5 / 8)  # the four corners of the image, which meet here
    rim = torch.cat([_block(swapped, 5 / 12, 7 / 12, axis).flatten() for axis in (0, 1)])
    quarters = [float(part.sum()) for half in corners.tensor_split(2, 0) for part in half.tensor_split(2, 1)]
    empty = float(core.mean()) < _EMPTY and float(corners.mean()) > _FULL and float(rim.mean()) > _FULL
    if not empty or min(quarters) < _EACH_CORNER * sum(quarters):
        return 0, 0
    return kspace.shape[-2] // 2, kspace.shape[-1] // 2


def shifted(kspace: Tensor, shift: tuple[int, int]) -> Tensor:
    """Return the k-space of the image rolled by a shift (y, x) in pixels."""
    for axis, by in zip((-2, -1), shift, strict=True):
        if by:
            n = kspace.shape[axis]
            frequency = torch.arange(n, dtype=torch.float64) - n // 2
            ramp = torch.polar(torch.ones_like(frequency), -2 * math.pi * frequency * by / n).to(kspace)
            kspace = kspace * (ramp[:, None] if axis == -2 else ramp)
    return kspace


def _block(image: Tensor, first: float, stop: float, axis: int | None = None) -> Tensor:
    """Return the part between two fractions of both axes, or of one."""
    for k in (0, 1) if axis is None else (axis,):
        n = image.shape[k]
        begin = int(n * first)
        image = image.narrow(k, begin, max(int(n * stop) - begin, 1))
    return image
