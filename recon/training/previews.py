"""Images drawn from a prior alone, to look at and to compare with what it was trained on."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

from samplers.base import Denoiser
from samplers.schedule import karras

#: Nothing in the images that priors are trained on is left at this noise level (their bright pixels are about 1).
_START = 10.0


@torch.no_grad()
def draw_prior(
    denoiser: Denoiser,
    shape: tuple[int, int],
    count: int,
    seed: int,
    steps: int = 18,
    real: bool = False,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Return ``(count, y, x)`` draws of a prior, by Heun's method along its probability flow.

    Parameters
    ----------
    denoiser : Denoiser
    shape : (int, int)
    count : int
    seed : int
        Draw k is the same image whatever ``count`` is.
    steps : int
        Of sigma; each but the last asks the network twice.
    real : bool
        Whether the prior is one of real images.
    device : torch.device or str
        Where the denoiser is; noise is drawn on the CPU.

    Source: Karras et al., NeurIPS 2022, algorithm 1.
    """
    dtype = torch.float32 if real else torch.complex64
    levels = karras(min(_START, denoiser.sigma_max), denoiser.sigma_min, steps)
    noise = [
        torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(seed * 4096 + k)) for k in range(count)
    ]
    x = levels[0] * torch.stack(noise).to(device)
    for sigma, following in itertools.pairwise(levels):
        slope = (x - denoiser.denoise(x, sigma)) / sigma
        moved = x + (following - sigma) * slope
        if following > 0:
            ahead = (moved - denoiser.denoise(moved, following)) / following
            moved = x + (following - sigma) * (slope + ahead) / 2
        x = moved
    return x
