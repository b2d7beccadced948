"""The scale of the priors: the .99 quantile of the magnitude, from undersampled k-space and a first image."""

from __future__ import annotations

import torch
from torch import Tensor

from operators import CartesianMRI
from operators.mri.autocalibration import Region
from operators.solve import conjugate_gradient

#: The .99 quantile of a brain blurred to the resolution of the calibration region, over that of the sharp brain.
_BLUR = 0.75
#: Iterations of SENSE that give the scale without a sampled centre.
_SENSE_ITERATIONS = 10
#: A first image below this fraction of the expected scale is rejected.
_LOST = 0.3


def scale_of(
    operator: CartesianMRI, data: Tensor, region: Region | None, noise: float, image: Tensor | None = None
) -> float:
    """Return the scale of the data, combined with that of a first image the more, the more of it was measured.

    Up to 4-fold undersampling it is the scale of the image; at 8-fold the image no longer counts: unmeasured parts are
    too dark in it, and the scale of the centre was as good. An image without the object is ignored.

    Parameters
    ----------
    operator : CartesianMRI
    data : Tensor, shape ``(coil, y, x)``
    region : (slice, slice), optional
        The fully sampled centre.
    noise : float
        Noise level, for data without signal.
    image : Tensor, shape ``domain``, optional
    """
    first = _first(operator, data, region, noise)
    found = 0.0 if image is None else quantile(image)
    if found < _LOST * first:
        return first
    if region is None:
        return found
    acceleration = data.numel() / operator.n_data
    share = min(max(2 - acceleration / 4, 0.0), 1.0)
    return found**share * first ** (1 - share)


def quantile(image: Tensor) -> float:
    """Return the .99 quantile of the magnitude of an image ``(y, x)``, or of the images of several maps together."""
    magnitude = image.abs() if image.ndim == 2 else image.abs().square().sum(0).sqrt()
    return float(torch.quantile(magnitude.flatten(), 0.99))


def _first(operator: CartesianMRI, data: Tensor, region: Region | None, noise: float) -> float:
    """Return the scale from the measured centre.

    The centre gives a blurred image whose quantile hardly depends on the sampling pattern, unlike that of a zero-filled
    image; the priors are trained with scales varied by 25 % either way. Without a centre, a few SENSE iterations are
    used.
    """
    if region is not None and min(side.stop - side.start for side in region) > 1:
        inner = torch.zeros(data.shape[-2:], device=data.device)
        inner[region[0], region[1]] = 1.0
        image, blur = operator.H(data * inner), _BLUR
    else:
        start = operator.H(data)[None]
        image = conjugate_gradient(
            operator.normal, start, iterations=_SENSE_ITERATIONS, item_ndim=operator.domain.ndim
        ).x[0]
        blur = 1.0
    scale = quantile(image) / blur
    return scale if scale > 0 else max(float(image.abs().max()), noise, 1e-30)
