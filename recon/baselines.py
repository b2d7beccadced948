"""Reconstructions without a learned prior, for comparison: weighted least squares and total variation."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from operators.solve import conjugate_gradient
from recon.errors import InputError
from samplers import Problem


def least_squares(problem: Problem, iterations: int = 30) -> Tensor:
    """Return ``argmin_x |(A x - y) / noise_std|^2`` by conjugate gradients from zero.

    Few iterations regularise: the error falls and then rises again as the noise is fitted.

    Parameters
    ----------
    problem : Problem
    iterations : int

    Returns
    -------
    Tensor, shape ``domain``
        In the scale of the problem.
    """
    if iterations < 1:
        raise InputError(f"least_squares: expected iterations >= 1, got {iterations}")
    return conjugate_gradient(
        problem.weighted_normal,
        problem.weighted_data[None],
        iterations=iterations,
        item_ndim=problem.operator.domain.ndim,
    ).x[0]


def total_variation(
    problem: Problem,
    weight: float,
    iterations: int = 50,
    nonnegative: bool = False,
    start: Tensor | None = None,
    edge: float = 0.05,
    cg_iterations: int = 8,
) -> Tensor:
    """Return ``argmin_x |(A x - y) / noise_std|^2 / 2 + weight TV(x)``, TV isotropic over the last two axes.

    For complex images the real and imaginary parts are coupled. Solved by the alternating direction method of
    multipliers: conjugate gradients for the image, shrinkage for its gradient.

    Parameters
    ----------
    problem : Problem
    weight : float
        Regularisation weight, in units of the inverse scale of the problem; above 0.
    iterations : int
    nonnegative : bool
        For real images: allow no value below zero.
    start : Tensor, shape ``domain``, optional
    edge : float
        Gradient that is shrunk to zero in one step. It sets the speed of convergence, not the solution.
    cg_iterations : int
        Conjugate-gradient iterations for the image in each iteration, started from the previous image.

    Returns
    -------
    Tensor, shape ``domain``

    References
    ----------
    Boyd et al., "Distributed optimization and statistical learning via the alternating direction method of
    multipliers", Foundations and Trends in Machine Learning 3 (2011), section 6.4; Goldstein & Osher, "The split
    Bregman method for L1-regularized problems", SIAM J. Imaging Sci. 2 (2009).
    """
    if not (weight > 0 and math.isfinite(weight)) or iterations < 1 or not edge > 0:
        raise InputError(f"total_variation: expected weight > 0 and iterations >= 1, got {weight} and {iterations}")
    data = problem.weighted_data
    x = torch.zeros_like(data) if start is None else start.to(data)
    bounded = nonnegative and not x.is_complex()
    rho = weight / edge
    u, v = gradient(x) * 0, torch.zeros_like(x)  # scaled multipliers of the gradient and of the bound
    for _ in range(iterations):
        z, w = _shrink(gradient(x) + u, edge), (x + v).clamp(min=0) if bounded else v
        right = data - rho * divergence(z - u) + (rho * (w - v) if bounded else 0)
        x = conjugate_gradient(
            lambda x: problem.weighted_normal(x) - rho * divergence(gradient(x)) + (rho * x if bounded else 0),
            right[None],
            x[None],
            iterations=cg_iterations,
            item_ndim=problem.operator.domain.ndim,
        ).x[0]
        u = u + gradient(x) - z
        v = v + x - w if bounded else v
    return x.clamp(min=0) if bounded else x


def _shrink(z: Tensor, by: float) -> Tensor:
    """Shorten each gradient vector by this much, at most to zero."""
    length = z.abs().square().sum(dim=0).sqrt()
    return z * (1 - by / length.clamp(min=by))


def gradient(x: Tensor) -> Tensor:
    """Return forward differences along the last two axes, ``(2, *x)``, zero across the border."""
    down, across = torch.zeros_like(x), torch.zeros_like(x)
    down[..., :-1, :] = x[..., 1:, :] - x[..., :-1, :]
    across[..., :, :-1] = x[..., :, 1:] - x[..., :, :-1]
    return torch.stack([down, across])


def divergence(q: Tensor) -> Tensor:
    """Return the negative adjoint of `gradient`."""
    down, across = q
    out = torch.zeros_like(down)
    out[..., :-1, :] += down[..., :-1, :]
    out[..., 1:, :] -= down[..., :-1, :]
    out[..., :, :-1] += across[..., :, :-1]
    out[..., :, 1:] -= across[..., :, :-1]
    return out
