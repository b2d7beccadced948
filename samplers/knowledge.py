"""Optional knowledge of a denoiser: its error, and the covariance of its images.

Samplers query it by the functions of this file, which return None for what is unknown.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from samplers.covariance import CovarianceModel
from samplers.denoiser import Denoiser


@runtime_checkable
class KnowsError(Protocol):
    """A denoiser that knows its error; either method may be missing, and both may return None."""

    def error_std(self, sigma: float) -> float | None:
        """Return the rms error of a pixel at this noise level."""

    def error_spectrum(self, sigma: float, shape: tuple[int, ...]) -> Tensor | None:
        """Return the variance of that error by centred Fourier coefficient (orthonormal) of images of this shape."""


@runtime_checkable
class CarriesCovariance(Protocol):
    """A denoiser with a covariance model of its images, for any image size."""

    @property
    def covariance_model(self) -> CovarianceModel | None: ...  # noqa: D102


def error_std(denoiser: Denoiser, sigma: float) -> float | None:
    """Return the rms error of a pixel at this noise level; None if the denoiser does not know it."""
    ask = _method(denoiser, "error_std")
    return None if ask is None else ask(sigma)


def error_spectrum(denoiser: Denoiser, sigma: float, shape: tuple[int, ...]) -> Tensor | None:
    """Return the variance of the error by frequency; None if the denoiser does not know it."""
    ask = _method(denoiser, "error_spectrum")
    return None if ask is None else ask(sigma, shape)


def covariance_model(denoiser: Denoiser) -> CovarianceModel | None:
    """Return the covariance model of the denoiser, or None."""
    return getattr(denoiser, "covariance_model", None)


def _method(denoiser: Denoiser, name: str) -> Callable[..., Any] | None:
    """Look up a method by name, since a denoiser may define only some, or forward those of another denoiser."""
    found = getattr(denoiser, name, None)
    return found if callable(found) else None
