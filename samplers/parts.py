"""Use a denoiser of single images for stacks of them, or for complex images through a network of real ones."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from operators.base import Space
from operators.errors import InputError
from samplers.denoiser import Denoiser
from samplers.knowledge import error_spectrum, error_std
from samplers.validation import require


@dataclass(frozen=True, eq=False)
class PartsAsBatch:
    """A denoiser of ``(item, y, x)`` images that treats items, and the two parts of complex images, as batch items.

    All of them go through the network in one call, and are coupled only by the data. With ``split_complex`` the
    denoiser is one of real images, such as a network trained on magnitudes: real and imaginary parts are two items.
    Complex noise of level sigma (``E|n|^2 = 1``) has ``sigma / sqrt(2)`` in each part, so that is the level passed to
    the denoiser, and its range of levels grows by ``sqrt(2)``.

    Parameters
    ----------
    denoiser : Denoiser
        Denoiser of images ``(batch, *image)``.
    split_complex : bool
        Whether complex images are passed on as two real images.
    image_ndim : int
        Number of axes of one image; all axes between these and the batch axis become batch items.

    References
    ----------
    Chung & Ye, "Score-based diffusion models for accelerated MRI", Medical Image Analysis 2022, algorithms 2 - 5.
    """

    denoiser: Denoiser
    split_complex: bool = True
    image_ndim: int = 2

    def __post_init__(self) -> None:
        require(self, self.image_ndim >= 1, "image_ndim >= 1", self.image_ndim)

    #: Stacks have more axes than the images of the denoiser.
    space: Space | None = None

    @property
    def sigma_min(self) -> float:
        """Smallest noise level; for split complex images that of the complex noise."""
        return self.denoiser.sigma_min * self._ratio

    @property
    def sigma_max(self) -> float:
        """Largest noise level; for split complex images that of the complex noise."""
        return self.denoiser.sigma_max * self._ratio

    @property
    def _ratio(self) -> float:
        return math.sqrt(2) if self.split_complex else 1.0

    def error_std(self, sigma: float) -> float | None:
        """Return the rms error of a (complex, if split) pixel; None if the denoiser does not know it."""
        error = error_std(self.denoiser, sigma / self._ratio)
        return None if error is None else self._ratio * error

    def error_spectrum(self, sigma: float, shape: tuple[int, ...]) -> Tensor | None:
        """Return the variance of that error by frequency of one image, the last axes of ``shape``; None if unknown."""
        found = error_spectrum(self.denoiser, sigma / self._ratio, tuple(shape[-self.image_ndim :]))
        return None if found is None else self._ratio**2 * found

    def denoise(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        """Return ``E[x0 | x]`` of every image and part, shape ``(batch, [item,] *image)`` like ``x``."""
        if self.split_complex and not x.is_complex():
            raise InputError("PartsAsBatch(split_complex=True) takes complex images; got real ones")
        parts = torch.stack([x.real, x.imag], dim=1) if self.split_complex else x[:, None]
        items = parts.reshape(-1, *x.shape[x.ndim - self.image_ndim :])
        if isinstance(sigma, Tensor) and sigma.ndim == 1 and len(sigma) > 1:
            sigma = sigma.repeat_interleave(len(items) // len(x))
        clean = self.denoiser.denoise(items, sigma / self._ratio).reshape(parts.shape)
        return torch.complex(clean[:, 0], clean[:, 1]) if self.split_complex else clean[:, 0]
