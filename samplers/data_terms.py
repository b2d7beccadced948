"""Data terms shared by the strategies: each method says which one it uses, none writes its own."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from operators.errors import InputError
from operators.solve import conjugate_gradient
from samplers.denoiser import Denoiser
from samplers.noise import Noise
from samplers.problem import Problem

#: Whiteness from which on data count as an image in white noise.
WHITE = 0.9


def clean_variance(sigma: float, prior_std: float | None, denoiser: Denoiser) -> float:
    """Return r^2, the variance of a clean pixel given the noisy image, for a method without a covariance.

    Parameters
    ----------
    sigma : float
    prior_std : float or None
        ``r^2 = sigma^2 v / (sigma^2 + v)`` with ``v = prior_std^2``: independent Gaussian pixels. None: the error that
        the denoiser was measured to make at this noise level, ``denoiser.error_std(sigma)^2``; a denoiser that does
        not know its error is taken to have a ``prior_std`` of 1, as in the papers.
    denoiser : Denoiser
    """
    if prior_std is None:
        measured = getattr(denoiser, "error_std", None)
        error = measured(sigma) if callable(measured) else None
        if error is not None:
            # An error above sigma is none of a denoiser; the limit keeps 1/r^2 - 1/sigma^2 positive.
            return min(error, 0.99 * sigma) ** 2
        prior_std = 1.0
    return sigma**2 * prior_std**2 / (sigma**2 + prior_std**2)


def support_weights(denoised: Tensor, level: float, floor: float = 0.2, width: int = 5) -> Tensor:
    """Return how far each pixel may be from its denoised value, 1 in the object and ``floor`` in the air.

    A denoiser errs where there is something to see. The weight is the mean magnitude of the ``width x width``
    neighbourhood (last two axes) over ``level``, between ``floor`` and 1.

    Parameters
    ----------
    denoised : Tensor, shape ``(..., y, x)``
    level : float
        Magnitude from which on a pixel counts as object.
    """
    if denoised.ndim < 3:
        raise InputError(f"support_weights: expected images (batch, ..., y, x), came shape {tuple(denoised.shape)}")
    magnitude = denoised.abs().reshape(-1, 1, *denoised.shape[-2:])
    local = functional.avg_pool2d(magnitude, width, 1, width // 2, count_include_pad=False)
    return (local / level).clamp(floor, 1.0).reshape(denoised.shape)


def speckle_spread(denoised: Tensor, sigma: float, width: int, floor: float = 0.1) -> Tensor:
    """Return how far each pixel of denoised speckle is from the clean one, as a standard deviation.

    Speckle of local variance v in noise of sigma is denoised to ``D = v x / (v + sigma^2)``, with the error ``r^2 =
    sigma^2 v / (sigma^2 + v)``. The energy of D tells v: ``E|D|^2 = v^2 / (v + sigma^2)``. It is averaged over the
    ``width x width`` neighbourhood (last two axes), so r follows the local brightness of the image.

    Parameters
    ----------
    denoised : Tensor, shape ``(..., y, x)``
    sigma : float
    width : int
        Odd.
    floor : float
        Least r, over sigma: where the denoiser sees nothing the data keep some say.
    """
    energy = denoised.abs().square().reshape(-1, 1, *denoised.shape[-2:])
    energy = functional.avg_pool2d(energy, width, 1, width // 2, count_include_pad=False).reshape(denoised.shape)
    variance = energy / 2 + (energy.square() / 4 + energy * sigma**2).sqrt()
    return sigma * (variance / (variance + sigma**2)).sqrt().clamp(min=floor)


def error_variance(problem: Problem, sigma: float, prior_std: float | None, denoiser: Denoiser) -> Tensor:
    """Return the variance of a denoised image around the clean one, for data of this noise: a number or a spectrum.

    Between ``r^2`` of :func:`clean_variance` (data of little noise) and ``P`` of ``denoiser.error_spectrum`` (data of
    much noise), as ``P^a r^(2 - 2a)`` with ``a = s^2 / (s^2 + r^2)``, s^2 the variance of the noise in what was
    measured. A spectrum is right on average over pixels; where the data are good, the few pixels with large errors
    matter, and a flat spectrum leaves them to the data.

    Returns
    -------
    Tensor, shape ``()`` or that of the spectrum
        Not centred (zero frequency first), for the last axes of an image.
    """
    flat = clean_variance(sigma, prior_std, denoiser)
    like, shape = problem.weighted_data.real, tuple(problem.operator.domain.shape)
    table = getattr(denoiser, "error_spectrum", None) if prior_std is None else None
    found = table(sigma, shape[-2:]) if callable(table) else None
    noise = problem.information.variance
    if found is None or not math.isfinite(noise):
        return torch.tensor(flat, dtype=like.dtype, device=like.device)
    spectrum = torch.fft.ifftshift(found.to(like.device, like.dtype)).clamp(max=(0.99 * sigma) ** 2)
    share = noise / (noise + flat)
    return spectrum**share * flat ** (1 - share)


def join(problem: Problem, x: Tensor, sigma: float, sigma_min: float) -> tuple[Tensor, float, Tensor | None]:
    """Join state and data into one image in white noise, where the data are such an image.

    With ``H = A^H W A`` close to ``h`` times the identity the two are images of noise ``sigma`` and ``1 / sqrt(h)``,
    whose weighted mean ``level^2 (x / sigma^2 + A^H W y)`` has the noise ``level = (sigma^-2 + h)^-1/2``. What the
    data do not see of an image has the noise of x alone, and is scaled to that level.

    Parameters
    ----------
    problem : Problem
    x : Tensor, shape ``(batch, *domain)``
    sigma : float
    sigma_min : float
        Least level that the denoiser knows; no more of the data is taken than that allows.

    Returns
    -------
    shown : Tensor, shape ``(batch, *domain)``
    level : float
    shared : Tensor, shape ``domain``, or None
        The part of h that is in ``shown``, 0 where the data see nothing; None where the data are no such image.
    """
    known = problem.information
    share = min(1.0, (sigma_min**-2 - sigma**-2) / known.precision) if known.whiteness > WHITE else 0.0
    if share <= 0:
        return x, sigma, None
    level = (sigma**-2 + share * known.precision) ** -0.5
    shown = level**2 * (x / sigma**2 + share * problem.weighted_data)
    shown = torch.where(known.seen, shown, x * (level / sigma))
    return shown, level, share * known.precision * known.seen


def projection(problem: Problem, anchor: Tensor, iterations: int) -> tuple[Tensor, Tensor]:
    """Move the anchor onto the data, noise-free: conjugate gradients on ``A^H A x = A^H y`` started at the anchor.

    With exact convergence this is the projection on ``{x : A x = y}`` nearest to the anchor. A sample is left alone
    once its residual is 1e-5: the system is singular, and going on would only amplify rounding. Shapes as in
    :func:`samplers.proximal.proximal`.
    """
    operator = problem.operator
    return conjugate_gradient(
        operator.normal,
        operator.H(problem.y).expand_as(anchor),
        anchor,
        iterations=iterations,
        tolerance=1e-5,
        item_ndim=operator.domain.ndim,
    )


def likelihood_score(problem: Problem, x: Tensor) -> Tensor:
    """Return ``A^H W (y - A x)``, ``W = 1 / noise_std^2``: the score of the likelihood, shape ``(batch, *domain)``.

    In the engine's convention, like ``(D - x) / sigma^2`` for the prior. For complex images, where ``E|n|^2 = 1``, both
    are half the gradient with respect to real and imaginary parts; a Langevin step ``x + h score + sqrt(2 h) n`` then
    reads the same for real and for complex images.
    """
    return problem.weighted_data - problem.weighted_normal(x)


def likelihood_curvature(problem: Problem, iterations: int = 20) -> Tensor:
    """Estimate the largest eigenvalue of ``A^H W A`` by power iteration, as a tensor (nothing waits for a GPU)."""
    space = problem.operator.domain
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(space.shape, dtype=space.dtype, generator=generator).to(problem.y.device)
    tiny = torch.finfo(x.real.dtype).tiny
    for _ in range(iterations):
        x = problem.weighted_normal(x / torch.linalg.vector_norm(x).clamp(min=tiny))
    return torch.linalg.vector_norm(x)


def gaussian_step(
    problem: Problem, anchor: Tensor, variance: float, noise: Noise, iterations: int
) -> tuple[Tensor, Tensor]:
    """Draw from ``N(anchor, variance I)`` times the likelihood, exactly, by perturb-and-solve.

    A draw ``u`` of ``N(anchor, variance I)`` is moved onto data with noise added to them: ``u`` plus the solution of
    ``(I + variance A^H W A) c = variance A^H W (y + noise_std n - A u)``. Exact where conjugate gradients have
    converged; directions that A does not see are exact without any. Parameters and results as in
    :func:`samplers.proximal.proximal`.
    """
    operator = problem.operator
    anchor = anchor + math.sqrt(variance) * noise.normal(operator.domain)
    perturbed = operator.H(noise.normal(operator.codomain) / problem.noise_std)
    correction, residual = conjugate_gradient(
        lambda v: v + variance * problem.weighted_normal(v),
        variance * (likelihood_score(problem, anchor) + perturbed),
        iterations=iterations,
        item_ndim=operator.domain.ndim,
    )
    return anchor + correction, residual


def norms(x: Tensor) -> Tensor:
    """Return the Euclidean norm of each sample, shape ``(batch, 1, ...)`` so that it broadcasts over the batch."""
    return torch.linalg.vector_norm(x, dim=tuple(range(1, x.ndim)), keepdim=True)
