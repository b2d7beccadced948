"""Information of the data about the image: three numbers and a map, from two products with a random image."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from operators.base import Space


@dataclass(frozen=True, eq=False)
class Information:
    """Summary of ``H = A^H W A``, with h its eigenvalues on the pixels that the data see.

    Attributes
    ----------
    precision : float
        Mean of h: the inverse noise variance of a pixel, if it is the same for all.
    variance : float
        ``mean(h) / mean(h^2)``, the noise variance in the measured directions: for undersampled data about that of a
        datum, whatever the undersampling.
    whiteness : float
        ``mean(h)^2 / mean(h^2)``, from 0 to 1: 1 where H is a multiple of the identity, so that the data are an image
        in white noise; about the fraction of the directions that were measured.
    seen : Tensor, bool, shape ``domain``
        Pixels that the data depend on.
    """

    precision: float
    variance: float
    whiteness: float
    seen: Tensor


def measure(normal: Callable[[Tensor], Tensor], space: Space, like: Tensor) -> Information:
    """Measure with a seeded random image; ``normal`` is the product with H, ``like`` gives device and precision."""
    probe = torch.randn(space.shape, dtype=space.dtype, generator=torch.Generator().manual_seed(0))
    probe = probe.to(device=like.device, dtype=like.dtype)[None]
    found = normal(probe).abs()[0]
    seen = found > 1e-3 * found.mean()
    probe = probe * seen
    image = normal(probe)
    own, mixed, power = (float((a.conj() * b).real.sum()) for a, b in ((probe, probe), (probe, image), (image, image)))
    if not mixed > 0:  # nothing was measured
        return Information(0.0, float("inf"), 0.0, seen)
    return Information(mixed / own, mixed / power, mixed**2 / (own * power), seen)
