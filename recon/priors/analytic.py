"""Analytic priors: Gaussians and Gaussian mixtures, with exact denoisers and posteriors.

Samplers are tested against them, and they are the fastest priors for trying out a pipeline.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property

import torch
from torch import Tensor

from operators.base import Space
from operators.errors import InputError, ShapeError
from operators.fourier import fftc, ifftc


class GaussianPrior:
    """A Gaussian prior ``N(mean, C)`` with C diagonal in the Fourier basis or in pixels.

    Parameters
    ----------
    mean : Tensor, shape ``(*domain)``
        Mean image, real or complex; determines the image space.
    spectrum : Tensor, shape ``(*domain)``, optional
        Variance of each centred, orthonormal Fourier coefficient (a stationary prior); symmetric for real images.
    std_map : Tensor, shape ``(*domain)``, optional
        Standard deviation of each pixel (pixels are independent). Pass either this or ``spectrum``.

    Notes
    -----
    Complex images are circular: the variance ``E|x - mean|^2`` is split evenly between the two parts.
    """

    def __init__(self, mean: Tensor, *, spectrum: Tensor | None = None, std_map: Tensor | None = None) -> None:
        if (spectrum is None) == (std_map is None):
            raise InputError("GaussianPrior: expected exactly one of spectrum and std_map")
        variance = spectrum if spectrum is not None else std_map.square()  # type: ignore[union-attr]
        if variance.shape != mean.shape:
            raise ShapeError(f"GaussianPrior: expected a variance of shape {tuple(mean.shape)}, got {variance.shape}")
        if bool((variance < 0).any()) or not bool(torch.isfinite(variance).all()):
            raise InputError("GaussianPrior: the variances must be finite and >= 0")
        self.mean = mean
        self.variance = variance.to(mean.real.dtype)
        self.stationary = spectrum is not None
        self.space = Space(tuple(mean.shape), mean.dtype, "z y x"[-2 * mean.ndim + 1 :])
        largest = float(self.variance.max().sqrt())
        self.sigma_min = 1e-3 * largest
        self.sigma_max = 100.0 * largest

    @classmethod
    def power_law(
        cls,
        shape: Sequence[int],
        std: float = 0.3,
        exponent: float = 2.0,
        corner: float = 0.02,
        dtype: torch.dtype = torch.complex64,
    ) -> GaussianPrior:
        """Return a zero-mean stationary prior with an image-like spectrum.

        The variance at frequency ``f`` (cycles per pixel) is proportional to ``(f^2 + corner^2)^(-exponent / 2)``.

        Parameters
        ----------
        shape : sequence of int
            Image shape.
        std : float
            Standard deviation of a pixel.
        exponent, corner : float
            Exponent of the fall-off, and width of the flat centre of the spectrum.
        dtype : torch.dtype
            complex64, complex128, float32 or float64.
        """
        axes = [(torch.arange(n, dtype=torch.float64) - n // 2) / n for n in shape]
        radius2 = sum(f.square() for f in torch.meshgrid(*axes, indexing="ij"))
        spectrum = (radius2 + corner**2) ** (-exponent / 2)
        spectrum = spectrum * (std**2 / spectrum.mean())
        mean = torch.zeros(tuple(shape), dtype=dtype)
        return cls(mean, spectrum=spectrum.to(mean.real.dtype))

    def denoise(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        """Return ``mean + C (C + sigma^2)^-1 (x - mean)``, shape ``(batch, *domain)``."""
        gain = self.variance / (self.variance + self._sigma2(sigma))
        return self.mean + self._filter(x - self.mean, gain)

    def error_std(self, sigma: float) -> float:
        """Return the rms error per pixel of ``denoise`` at this noise level."""
        variance = self._host_variance
        return float((variance * sigma**2 / (variance + sigma**2)).mean().sqrt())

    def error_spectrum(self, sigma: float, shape: tuple[int, ...]) -> Tensor | None:
        """Return the variance of each centred Fourier coefficient of the error; None unless stationary."""
        return self.variance * sigma**2 / (self.variance + sigma**2) if self.stationary else None

    def covariance(self, x: Tensor) -> Tensor:
        """Return ``C x``."""
        return self._filter(x, self.variance)

    def draw(self, white: Tensor) -> Tensor:
        """Return ``mean + C^(1/2) white``: samples of the prior, from white noise ``(batch, *domain)``."""
        return self.mean + self._filter(white, self.variance.sqrt())

    def log_density(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        """Return the log density of ``N(mean, C + sigma^2)`` at ``x``, shape ``(batch,)``."""
        total = self.variance + self._sigma2(sigma)
        z = x - self.mean
        z = fftc(z, self._axes) if self.stationary else z
        weight = 1.0 if z.is_complex() and self.mean.is_complex() else 0.5
        constant = math.log(math.pi) if weight == 1.0 else math.log(2 * math.pi)
        terms = z.abs().square() / total + total.log() + constant
        return -weight * terms.flatten(-self.mean.ndim).sum(dim=-1)

    def to(self, device: torch.device | str | torch.dtype) -> GaussianPrior:
        """Return the prior on another device or in another precision (a complex or real dtype)."""
        mean = self.mean.to(device)
        variance = self.variance.to(device=mean.device, dtype=mean.real.dtype)
        if self.stationary:
            return GaussianPrior(mean, spectrum=variance)
        return GaussianPrior(mean, std_map=variance.sqrt())

    @property
    def _axes(self) -> tuple[int, ...]:
        return tuple(range(-self.mean.ndim, 0))

    @cached_property
    def _host_variance(self) -> Tensor:
        """The variance on the CPU, copied once, so that no step waits for a GPU."""
        return self.variance.cpu()

    def _sigma2(self, sigma: float | Tensor) -> Tensor:
        """Return sigma^2 in a shape that broadcasts over ``(batch, *domain)``."""
        if isinstance(sigma, Tensor):
            sigma2 = sigma.to(self.variance).square()
        else:  # a fill: a copy would wait for a GPU
            sigma2 = self.variance.new_full((), float(sigma) ** 2)
        return sigma2.reshape(sigma2.shape + (1,) * self.mean.ndim)

    def _filter(self, x: Tensor, gain: Tensor) -> Tensor:
        """Multiply by ``gain`` in the basis where the prior is diagonal."""
        if not self.stationary:
            return gain * x
        filtered = ifftc(gain * fftc(x, self._axes), self._axes)
        return filtered if self.mean.is_complex() else filtered.real


class GaussianMixturePrior:
    """A mixture of Gaussian priors, with the exact denoiser.

    Parameters
    ----------
    components : sequence of GaussianPrior
        Components with the same image space.
    weights : sequence of float, optional
        Probabilities of the components (equal by default); normalised.
    """

    def __init__(self, components: Sequence[GaussianPrior], weights: Sequence[float] | None = None) -> None:
        if not components:
            raise InputError("GaussianMixturePrior: expected at least one component, got none")
        if len({tuple(component.space.shape) for component in components}) > 1:
            raise ShapeError("GaussianMixturePrior: the components have images of different shapes")
        values = [1.0] * len(components) if weights is None else [float(w) for w in weights]
        if len(values) != len(components) or min(values) < 0 or not sum(values) > 0:
            raise InputError(f"GaussianMixturePrior: expected {len(components)} weights >= 0, got {values}")
        self.components = list(components)
        self.weights = [value / sum(values) for value in values]
        self.space = components[0].space
        spread = max(float((c.mean - components[0].mean).abs().max()) for c in components)
        self.sigma_min = min(component.sigma_min for component in components)
        self.sigma_max = max(component.sigma_max for component in components) + 10 * spread

    def responsibilities(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        """Return the posterior probability of each component, shape ``(batch, component)``."""
        densities = [math.log(max(w, 1e-300)) + c.log_density(x, sigma) for w, c in self._pairs()]
        return torch.softmax(torch.stack(densities, dim=-1), dim=-1)

    def denoise(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        """Return ``sum_k r_k(x) D_k(x)``: the exact posterior mean, shape ``(batch, *domain)``."""
        weights = self.responsibilities(x, sigma)
        images = torch.stack([component.denoise(x, sigma) for component in self.components], dim=-1)
        weights = weights.reshape(weights.shape[:-1] + (1,) * len(self.space.shape) + weights.shape[-1:])
        return (weights * images).sum(dim=-1)

    def _pairs(self) -> list[tuple[float, GaussianPrior]]:
        return list(zip(self.weights, self.components, strict=True))
