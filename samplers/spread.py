"""How far a clean pixel may be from its denoised value, which weights the data in methods without a covariance.

Three rules, and the functions that they use.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from operators.errors import InputError
from samplers.denoiser import Denoiser
from samplers.knowledge import error_spectrum, error_std
from samplers.problem import Problem
from samplers.validation import require


class Spread(ABC):
    """A rule for the standard deviation of the clean image around the denoised one: a number times a map."""

    #: The number at large noise levels where it is given, and not what the denoiser knows of its error.
    std: float | None = None

    @abstractmethod
    def variance(self, sigma: float, denoiser: Denoiser) -> float:
        """Return the square of the number, r^2, at this noise level."""

    @abstractmethod
    def weights(self, denoised: Tensor, sigma: float) -> Tensor | None:
        """Return the map, shape ``(batch, *domain)``; None for 1 everywhere."""

    def error(self, sigma: float, denoiser: Denoiser, like: Tensor) -> Tensor:
        """Return the variance of the clean image around a denoised one where the map is 1.

        By frequency where the denoiser knows that, and r^2 where not. Both are relative to pixels that show signal, so
        the map is not normalised.

        Returns
        -------
        Tensor, shape ``()`` or that of the last two axes of ``like``
            Not centred.
        """
        spectrum = None if self.std is not None else _spectrum(denoiser, sigma, like)
        return like.real.new_full((), self.variance(sigma, denoiser)) if spectrum is None else spectrum


@dataclass(frozen=True)
class Uniform(Spread):
    """The same standard deviation for each pixel.

    Parameters
    ----------
    std : float, optional
        Standard deviation of the clean images around their denoised estimate at large sigma: ``r^2 = sigma^2 std^2 /
        (sigma^2 + std^2)``. None: r is the measured error of the denoiser (`clean_variance`).
    """

    std: float | None = None

    def __post_init__(self) -> None:
        require(self, self.std is None or self.std > 0, "std > 0", self.std)

    def variance(self, sigma: float, denoiser: Denoiser) -> float:
        """Return r^2."""
        return clean_variance(sigma, self.std, denoiser)

    def weights(self, denoised: Tensor, sigma: float) -> None:
        """Return None: all pixels are treated alike."""


@dataclass(frozen=True)
class Support(Spread):
    """Like `Uniform`, but up to five times smaller where the image is dark.

    This keeps the noise of the data out of the background.

    Parameters
    ----------
    level : float
        Magnitude below which a pixel of the denoised image counts as dark.
    std : float, optional
        As for `Uniform`.
    """

    level: float
    std: float | None = None

    def __post_init__(self) -> None:
        require(self, self.level > 0, "level > 0", self.level)
        require(self, self.std is None or self.std > 0, "std > 0", self.std)

    def variance(self, sigma: float, denoiser: Denoiser) -> float:
        """Return r^2 of the bright pixels."""
        return clean_variance(sigma, self.std, denoiser)

    def weights(self, denoised: Tensor, sigma: float) -> Tensor:
        """Return 1 where the image is bright, .2 where it is dark."""
        return support_weights(denoised, self.level)


@dataclass(frozen=True)
class LocalEnergy(Spread):
    """A standard deviation from the local energy of the denoised image, for pixels of locally constant variance.

    A dark region then has the same relative uncertainty as a bright one.

    Parameters
    ----------
    width : int
        Width of the neighbourhood in pixels, an odd number.
    """

    width: int = 5

    def __post_init__(self) -> None:
        require(self, self.width >= 1 and self.width % 2 == 1, "an odd width >= 1", self.width)

    def variance(self, sigma: float, denoiser: Denoiser) -> float:
        """Return 1: the map holds the full standard deviation."""
        return 1.0

    def error(self, sigma: float, denoiser: Denoiser, like: Tensor) -> Tensor:
        """Return 1, too."""
        return like.real.new_full((), self.variance(sigma, denoiser))

    def weights(self, denoised: Tensor, sigma: float) -> Tensor:
        """Return r of each pixel."""
        return local_spread(denoised, sigma, self.width)


def clean_variance(sigma: float, prior_std: float | None, denoiser: Denoiser) -> float:
    """Return r^2, the variance of a clean pixel given the noisy image, for a method without a covariance.

    Parameters
    ----------
    sigma : float
    prior_std : float or None
        ``r^2 = sigma^2 v / (sigma^2 + v)`` with ``v = prior_std^2``: independent Gaussian pixels. None: the measured
        error of the denoiser at this noise level, ``denoiser.error_std(sigma)^2``; a denoiser that does not know its
        error is assumed to have a ``prior_std`` of 1, as in the papers.
    denoiser : Denoiser
    """
    if prior_std is None:
        error = error_std(denoiser, sigma)
        if error is not None:
            # A denoiser's error cannot exceed sigma; the limit keeps 1/r^2 - 1/sigma^2 positive.
            return min(error, 0.99 * sigma) ** 2
        prior_std = 1.0
    return sigma**2 * prior_std**2 / (sigma**2 + prior_std**2)


def support_weights(denoised: Tensor, level: float, floor: float = 0.2, width: int = 5) -> Tensor:
    """Return how far each pixel may be from its denoised value: 1 where the image is bright, ``floor`` where dark.

    A denoiser makes errors where there is signal. The weight is the mean magnitude of the ``width x width``
    neighbourhood (last two axes) over ``level``, between ``floor`` and 1.

    Parameters
    ----------
    denoised : Tensor, shape ``(..., y, x)``
    level : float
        Magnitude above which a pixel counts as bright.
    """
    if denoised.ndim < 3:
        raise InputError(f"support_weights: expected images (batch, ..., y, x), got shape {tuple(denoised.shape)}")
    return (_local_mean(denoised.abs(), width) / level).clamp(floor, 1.0)


def local_spread(denoised: Tensor, sigma: float, width: int, floor: float = 0.1) -> Tensor:
    """Return the standard deviation of each clean pixel around the denoised one, from the energy around it.

    A pixel of variance v in noise of sigma is denoised to ``D = v x / (v + sigma^2)``, with the error ``r^2 = sigma^2 v
    / (sigma^2 + v)``. The energy of D gives v: ``E|D|^2 = v^2 / (v + sigma^2)``. It is averaged over the ``width x
    width`` neighbourhood (last two axes), so r follows the local brightness of the image.

    Parameters
    ----------
    denoised : Tensor, shape ``(..., y, x)``
    sigma : float
    width : int
        Odd.
    floor : float
        Least r over sigma, so that the data keep some weight where the denoiser sees nothing.
    """
    energy = _local_mean(denoised.abs().square(), width)
    variance = energy / 2 + (energy.square() / 4 + energy * sigma**2).sqrt()
    return sigma * (variance / (variance + sigma**2)).sqrt().clamp(min=floor)


def error_variance(problem: Problem, sigma: float, prior_std: float | None, denoiser: Denoiser) -> Tensor:
    """Return the variance of a denoised image around the clean one for the noise of these data: number or spectrum.

    Between ``r^2`` of `clean_variance` (data of little noise) and ``P`` of ``denoiser.error_spectrum`` (data of
    much noise), as ``P^a r^(2 - 2a)`` with ``a = s^2 / (s^2 + r^2)``, s^2 the noise variance in the measured
    directions. A spectrum is correct on average over pixels; for good data the few pixels with large errors matter,
    and a flat spectrum leaves them to the data.

    Returns
    -------
    Tensor, shape ``()`` or that of the spectrum
        Not centred (zero frequency first), for the last axes of an image.
    """
    flat = clean_variance(sigma, prior_std, denoiser)
    like, noise = problem.weighted_data, problem.information.variance
    spectrum = _spectrum(denoiser, sigma, like) if prior_std is None else None
    if spectrum is None or not math.isfinite(noise):
        return like.real.new_full((), flat)
    fraction = noise / (noise + flat)
    return spectrum**fraction * flat ** (1 - fraction)


def _spectrum(denoiser: Denoiser, sigma: float, like: Tensor) -> Tensor | None:
    """Return the variance of the denoiser's error by frequency, not centred; None if it is not known."""
    found = error_spectrum(denoiser, sigma, tuple(like.shape[-2:]))
    if found is None:
        return None
    return torch.fft.ifftshift(found.to(like.device, like.real.dtype)).clamp(max=(0.99 * sigma) ** 2)


def _local_mean(values: Tensor, width: int) -> Tensor:
    """Average over the ``width x width`` neighbourhood of each pixel (last two axes)."""
    planes = values.reshape(-1, 1, *values.shape[-2:])
    return functional.avg_pool2d(planes, width, 1, width // 2, count_include_pad=False).reshape(values.shape)
