"""The error of a denoiser by noise level and frequency, measured on images that it generates.

A few images are drawn with the denoiser's own reverse process and noised to a ladder of levels; denoising them again
shows the spectrum of the error, and up to which noise level the Jacobian is that of a conditional mean.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from operators.base import Space
from samplers import schedule
from samplers.covariance import CovarianceModel
from samplers.denoiser import Denoiser
from samplers.jacobian import differences
from samplers.noise import Noise
from samplers.stepping import Past, advance

#: Number of calls that draw the images, and number of noise levels at which they are denoised again.
STEPS, LEVELS = 24, 12
#: Total number of pixels of the images, and limits of the number of images.
PIXELS, FEWEST, MOST = 8192, 4, 32
#: Images with more pixels than this are denoised one by one.
LARGE = 65536
#: Largest antisymmetric fraction of ``u^H J v`` of a trusted Jacobian, and largest deviation of ``sigma^2 tr J`` from
#: the error. An exact denoiser shows rounding, .001; a network .15 - .5.
ASYMMETRY, TRACE = 0.05, 3.0
#: Length of the differences in that test, relative to the noise level: short, because of curvature.
DIFFERENCE_STEP = 0.02
#: The error of a denoiser is below sigma; the limits keep the covariance finite and positive.
LIMIT, FLOOR = 0.98, 1e-12
_SEED = 20240521


@dataclass(frozen=True, eq=False)
class MeasuredError:
    """The error of a denoiser by noise level, and the range in which its Jacobian can be used.

    Parameters
    ----------
    sigmas : tuple of float
        Noise levels, increasing.
    log_prior : Tensor, shape ``(level, *domain)``
        Logarithm of the variance P of each centred Fourier coefficient such that ``P sigma^2 / (P + sigma^2)`` is the
        error's.
    jacobian_below : float
        Noise level up to which the Jacobian passed the test at every level; 0 for none, infinity for all.
    negative : bool
        Whether it failed with a negative trace, which is impossible for a covariance.
    """

    sigmas: tuple[float, ...]
    log_prior: Tensor
    jacobian_below: float
    negative: bool = False

    @property
    def finite(self) -> bool:
        """Whether the table is finite for every level and frequency."""
        return bool(torch.isfinite(self.log_prior).all())

    def model(self, sigma: float) -> CovarianceModel:
        """Return the covariance model at one noise level, interpolated in the logarithms."""
        at = [math.log(s) for s in self.sigmas]
        k = max(1, sum(s < sigma for s in self.sigmas[:-1]))
        fraction = min(max((math.log(sigma) - at[k - 1]) / (at[k] - at[k - 1]), 0.0), 1.0)
        return spectral_model(torch.lerp(self.log_prior[k - 1], self.log_prior[k], fraction))


def spectral_model(log_prior: Tensor) -> CovarianceModel:
    """Return the stationary covariance model of a spectrum, given as its logarithm."""
    prior = log_prior.exp()
    return CovarianceModel(prior.mean().sqrt(), prior / prior.mean())


@torch.no_grad()
def error_of_own_images(denoiser: Denoiser, space: Space, like: Tensor) -> MeasuredError:
    """Measure the error of a denoiser on images of ``space`` that it draws itself, and test its Jacobian on them.

    Costs ``STEPS + LEVELS`` calls with at most ``MOST`` images, and two more for each level of a trusted Jacobian.
    The table may contain non-finite values if the denoiser's own images do.
    """
    pixels = math.prod(space.shape)
    count = min(max(PIXELS // max(pixels, 1), FEWEST), MOST)
    groups = [range(k, k + 1) for k in range(count)] if pixels > LARGE else [range(count)]
    noises = [Noise(_SEED, numbers, like) for numbers in groups]
    images = [_draw(denoiser, space, noise) for noise in noises]
    sigmas = schedule.geometric(denoiser.sigma_max, denoiser.sigma_min, LEVELS)[-2::-1]
    rows, jacobian_below, trusted, negative = [], 0.0, True, False
    for sigma in sigmas:
        power, tests = torch.zeros(()), torch.zeros(4)
        for drawn, noise in zip(images, noises, strict=True):
            x = drawn + sigma * noise.normal(space)
            denoised = denoiser.denoise(x, sigma)
            power = power.to(x.device) + _log_power(denoised - drawn) * (len(drawn) / count)
            if trusted:
                tests = tests + _jacobian_sums(denoiser, x, sigma, denoised, denoised - drawn, noise, space)
        negative = negative or float(tests[2]) < 0
        trusted = trusted and _is_covariance(tests)
        jacobian_below = sigma if trusted else jacobian_below
        # The logarithm of an exponential variable of mean 1 is -.5772 on average.
        rows.append(log_prior((smooth(power) + 0.5772).exp() / sigma**2, sigma))
    return MeasuredError(tuple(sigmas), torch.stack(rows), math.inf if trusted else jacobian_below, negative)


def _draw(denoiser: Denoiser, space: Space, noise: Noise) -> Tensor:
    """Draw images from the denoiser by reverse diffusion."""
    levels = schedule.geometric(denoiser.sigma_max, denoiser.sigma_min, STEPS)
    x, past = levels[0] * noise.normal(space), None
    for sigma, following in itertools.pairwise(levels):
        denoised = denoiser.denoise(x, sigma)
        x = advance("sde-2m", x, sigma, following, denoised, past, lambda: noise.normal(space))
        past = Past(sigma, denoised)
    return x


def _log_power(error: Tensor) -> Tensor:
    """Return the mean logarithm of the power of each Fourier coefficient (not centred)."""
    axes = tuple(range(1, error.ndim))
    power = torch.fft.fftn(error, dim=axes, norm="ortho").abs().square()
    tiny = torch.finfo(power.dtype).tiny
    return power.clamp(min=tiny).log().mean(dim=0)


def smooth(spectrum: Tensor) -> Tensor:
    """Average over neighbouring frequencies; finer grids use more neighbours."""
    for axis, size in enumerate(spectrum.shape):
        for _ in range(max(1, size // 32) if size > 4 else 0):
            spectrum = (spectrum.roll(1, axis) + 2 * spectrum + spectrum.roll(-1, axis)) / 4
    return spectrum


def log_prior(ratio: Tensor, sigma: float) -> Tensor:
    """Return log P, centred, for errors of variance ``ratio sigma^2 = P sigma^2 / (P + sigma^2)``."""
    ratio = ratio.clamp(FLOOR, LIMIT**2)
    return torch.fft.fftshift((ratio / (1 - ratio) * sigma**2).log())


def _jacobian_sums(
    denoiser: Denoiser, x: Tensor, sigma: float, denoised: Tensor, error: Tensor, noise: Noise, space: Space
) -> Tensor:
    """Return sums over the images: antisymmetric and whole ``u^H J v`` squared, ``sigma^2 tr J``, squared error."""
    product = differences(denoiser, x, sigma, denoised, DIFFERENCE_STEP)
    u, v = noise.normal(space), noise.normal(space)
    ju, jv = product(u), product(v)

    def inner(a: Tensor, b: Tensor) -> Tensor:
        return (a.conj() * b).real.flatten(1).sum(dim=1)

    forth, back = inner(u, jv), inner(v, ju)
    trace = sigma**2 * (inner(u, ju) + inner(v, jv)) / 2
    sums = [(forth - back).square(), (forth.square() + back.square()) / 2, trace, inner(error, error)]
    return torch.stack([value.sum() for value in sums]).cpu()


def _is_covariance(sums: Tensor) -> bool:
    """Whether ``sigma^2 J`` looks like the covariance of the error: symmetric, and of the right trace."""
    antisymmetric, whole, trace, error = sums.tolist()
    return antisymmetric <= ASYMMETRY**2 * whole and error / TRACE <= trace <= error * TRACE
