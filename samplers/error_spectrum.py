"""What a denoiser that knows nothing of its error does not tell: measured once, on images of its own making.

A few images are drawn with the denoiser's own reverse process and noised to a ladder of levels; what it makes of them
shows the spectrum of its error, and up to which noise level its Jacobian is that of a conditional mean.
"""

from __future__ import annotations

import itertools
import math
import weakref
from dataclasses import dataclass

import torch
from torch import Tensor

from operators.base import Space
from samplers import schedule
from samplers.base import Denoiser
from samplers.covariance import CovarianceModel
from samplers.jacobian import differences
from samplers.noise import Noise
from samplers.stepping import Past, advance

#: Calls that draw the images, and noise levels at which they are denoised again.
STEPS, LEVELS = 24, 12
#: How many images: as many pixels as this together, but neither fewer nor more images than that.
PIXELS, FEWEST, MOST = 8192, 4, 32
#: Images of more pixels than this go through the denoiser one by one.
LARGE = 65536
#: Largest share of ``u^H J v`` that may be antisymmetric for a Jacobian that is trusted, and how far ``sigma^2 tr J``
#: may be from the error. An exact denoiser shows rounding, .001; the shipped networks .15 - .5.
ASYMMETRY, TRACE = 0.05, 3.0
#: Length of the differences in that test, of the noise level: short, for what is curved.
DIFFERENCE_STEP = 0.02
#: No error of a denoiser reaches sigma; the limit keeps the covariance finite.
LIMIT = 0.98
_SEED = 20240521


@dataclass(frozen=True, eq=False)
class MeasuredError:
    """The error of a denoiser by noise level, and where its Jacobian can be used.

    Parameters
    ----------
    sigmas : tuple of float
        Noise levels, increasing.
    log_prior : Tensor, shape ``(level, *domain)``
        Logarithm of the variance P of each centred Fourier coefficient such that ``P sigma^2 / (P + sigma^2)`` is the
        error's.
    jacobian_below : float
        Noise level up to which the Jacobian passed the test at every level; 0 for none, infinity for all.
    """

    sigmas: tuple[float, ...]
    log_prior: Tensor
    jacobian_below: float

    def model(self, sigma: float) -> CovarianceModel:
        """Return the covariance model at one noise level, interpolated in the logarithms."""
        at = [math.log(s) for s in self.sigmas]
        k = max(1, sum(s < sigma for s in self.sigmas[:-1]))
        share = min(max((math.log(sigma) - at[k - 1]) / (at[k] - at[k - 1]), 0.0), 1.0)
        prior = torch.lerp(self.log_prior[k - 1], self.log_prior[k], share).exp()
        return CovarianceModel(prior.mean().sqrt(), prior / prior.mean())


_KEPT: dict[int, tuple[weakref.ref[Denoiser], dict[tuple, MeasuredError | None]]] = {}


def measured_error(denoiser: Denoiser, space: Space, like: Tensor) -> MeasuredError | None:
    """Measure the error of a denoiser on images of ``space``; once for each denoiser, size, precision and device.

    Costs ``STEPS + LEVELS`` calls with at most ``MOST`` images, and two more for each level of a trusted Jacobian. The
    random numbers are always the same, so that samples depend on their own seed and number alone. The result is kept
    as long as the denoiser lives: a network that is trained on has to be wrapped anew.

    Returns
    -------
    MeasuredError or None
        None where the denoiser's own images are not finite.
    """
    kept = _kept(denoiser)
    key = (tuple(space.shape), like.dtype, str(like.device))
    if key not in kept:
        kept[key] = _measure(denoiser, space, like)
    return kept[key]


def _kept(denoiser: Denoiser) -> dict[tuple, MeasuredError | None]:
    """Return what is known of a denoiser; by identity, since it need not be hashable."""
    number = id(denoiser)
    if number in _KEPT and _KEPT[number][0]() is denoiser:
        return _KEPT[number][1]
    try:
        reference = weakref.ref(denoiser, lambda _: _KEPT.pop(number, None) and None)
    except TypeError:  # cannot be referred to weakly: measured anew for each batch
        return {}
    _KEPT[number] = (reference, {})
    return _KEPT[number][1]


@torch.no_grad()
def _measure(denoiser: Denoiser, space: Space, like: Tensor) -> MeasuredError | None:
    pixels = math.prod(space.shape)
    count = min(max(PIXELS // max(pixels, 1), FEWEST), MOST)
    groups = [range(k, k + 1) for k in range(count)] if pixels > LARGE else [range(count)]
    noises = [Noise(_SEED, numbers, like) for numbers in groups]
    images = [_draw(denoiser, space, noise) for noise in noises]
    if not all(bool(torch.isfinite(drawn).all()) for drawn in images):
        return None
    sigmas = schedule.geometric(denoiser.sigma_max, denoiser.sigma_min, LEVELS)[-2::-1]
    rows, jacobian_below, trusted = [], 0.0, True
    for sigma in sigmas:
        power, tests = 0.0, torch.zeros(4)
        for drawn, noise in zip(images, noises, strict=True):
            x = drawn + sigma * noise.normal(space)
            denoised = denoiser.denoise(x, sigma)
            power = power + _log_power(denoised - drawn) * (len(drawn) / count)
            if trusted:
                tests = tests + _jacobian_sums(denoiser, x, sigma, denoised, denoised - drawn, noise, space)
        trusted = trusted and _is_covariance(tests)
        jacobian_below = sigma if trusted else jacobian_below
        rows.append(_log_prior(_smooth(power), sigma, count))
    table = torch.stack(rows)
    if not bool(torch.isfinite(table).all()):
        return None
    return MeasuredError(tuple(sigmas), table, math.inf if trusted else jacobian_below)


def _draw(denoiser: Denoiser, space: Space, noise: Noise) -> Tensor:
    """Draw images of the denoiser, by its own reverse diffusion."""
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


def _smooth(log_power: Tensor) -> Tensor:
    """Average over neighbouring frequencies, the more of them the finer they are."""
    for axis, size in enumerate(log_power.shape):
        for _ in range(max(1, size // 32) if size > 4 else 0):
            log_power = (log_power.roll(1, axis) + 2 * log_power + log_power.roll(-1, axis)) / 4
    return log_power


def _log_prior(log_power: Tensor, sigma: float, count: int) -> Tensor:
    """Return log P, centred, from the mean log power of an error ``P sigma^2 / (P + sigma^2)``."""
    # The logarithm of an exponential variable of mean 1 is -.5772 on average.
    ratio = (log_power + 0.5772).exp() / sigma**2
    ratio = ratio.clamp(1e-12, LIMIT**2)
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
