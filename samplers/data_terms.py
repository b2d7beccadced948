"""Data terms shared by the samplers; each documents which one it uses."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from operators.solve import conjugate_gradient
from samplers.noise import Noise
from samplers.problem import Problem

#: Least whiteness at which data count as an image in white noise.
WHITE = 0.9


def join(problem: Problem, x: Tensor, sigma: float, sigma_min: float) -> tuple[Tensor, float, Tensor | None]:
    """Combine state and data into one image in white noise, if the data are such an image.

    With ``H = A^H W A`` close to ``h`` times the identity the two are images of noise ``sigma`` and ``1 / sqrt(h)``,
    whose weighted mean ``level^2 (x / sigma^2 + A^H W y)`` has the noise ``level = (sigma^-2 + h)^-1/2``. What the
    data do not see of an image has the noise of x alone, and is scaled to that level.

    Parameters
    ----------
    problem : Problem
    x : Tensor, shape ``(batch, *domain)``
    sigma : float
    sigma_min : float
        Smallest noise level of the denoiser; it limits how much of the data is used.

    Returns
    -------
    shown : Tensor, shape ``(batch, *domain)``
    level : float
    shared : Tensor, shape ``domain``, or None
        The part of h that is used in ``shown``, 0 where the data see nothing; None if the data are no such image.
    """
    known = problem.information
    fraction = min(1.0, (sigma_min**-2 - sigma**-2) / known.precision) if known.whiteness > WHITE else 0.0
    if fraction <= 0:
        return x, sigma, None
    level = (sigma**-2 + fraction * known.precision) ** -0.5
    shown = level**2 * (x / sigma**2 + fraction * problem.weighted_data)
    shown = torch.where(known.seen, shown, x * (level / sigma))
    return shown, level, fraction * known.precision * known.seen


def projection(problem: Problem, anchor: Tensor, iterations: int) -> tuple[Tensor, Tensor]:
    """Project the anchor onto noise-free data: conjugate gradients on ``A^H A x = A^H y`` started at the anchor.

    With exact convergence this is the projection on ``{x : A x = y}`` nearest to the anchor. A sample is frozen
    once its residual is 1e-5: the system is singular, and further steps would only amplify rounding. Shapes as in
    `samplers.proximal.proximal`.
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
    x = Noise(0, [0], problem.y).normal(space)[0]
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
    `samplers.proximal.proximal`.
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
