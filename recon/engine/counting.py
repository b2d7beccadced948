"""How many evaluations of a denoiser a run really made, forwards and backwards."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from samplers import Denoiser


class Counted:
    """A denoiser that counts the images that go through it; everything else it knows is that of the denoiser.

    Attributes
    ----------
    images, back_propagated : int
        Images denoised, and gradients of an image taken.
    """

    def __init__(self, denoiser: Denoiser) -> None:
        self.denoiser, self.images, self.back_propagated = denoiser, 0, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.denoiser, name)

    def denoise(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        """Return ``E[x0 | x0 + sigma n = x]``, and count."""
        denoised = self.denoiser.denoise(x, sigma)
        self.images += len(x)
        if denoised.requires_grad:
            denoised.register_hook(self._went_back)
        return denoised

    def _went_back(self, gradient: Tensor) -> None:
        self.back_propagated += len(gradient)
