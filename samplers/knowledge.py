"""What a denoiser may know besides how to denoise: its error, and the covariance of its images.

All of it is optional. Samplers ask by the functions of this file, which say None for what is not known.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from samplers.covariance import CovarianceModel
from samplers.denoiser import Denoiser


@runtime_checkable
class KnowsError(Protocol):
    """A denoiser that knows how far it is off; one method may be there without the other, and both may say None."""

    def error_std(self, sigma: float) -> float | None:
        """Return the rms error of a pixel at this noise level."""

    def error_spectrum(self, sigma: float, shape: tuple[int, ...]) -> Tensor | None:
        """Return the variance of that error by centred Fourier coefficient (orthonormal) of images of this shape."""


@runtime_checkable
class CarriesCovariance(Protocol):
    """A denoiser with a covariance model of its images, of any size."""

    @property
    def covariance_model(self) -> CovarianceModel | None: ...  # noqa: D102


def error_std(denoiser: Denoiser, sigma: float) -> float | None:
    """Return the rms error of a pixel at this noise level; None where the denoiser does not know it."""
    ask = _method(denoiser, "error_std")
    return None if ask is None else ask(sigma)


def error_spectrum(denoiser: Denoiser, sigma: float, shape: tuple[int, ...]) -> Tensor | None:
    """Return the variance of the error by frequency; None where the denoiser does not know it."""
    ask = _method(denoiser, "error_spectrum")
    return None if ask is None else ask(sigma, shape)


def covariance_model(denoiser: Denoiser) -> CovarianceModel | None:
    """Return the covariance model that the denoiser carries; None where it carries none."""
    return denoiser.covariance_model if isinstance(denoiser, CarriesCovariance) else None


def _method(denoiser: Denoiser, name: str) -> Callable[..., Any] | None:
    """Find a method by its name, as a denoiser may know one thing alone, or pass on what another one knows."""
    found = getattr(denoiser, name, None)
    return found if callable(found) else None
