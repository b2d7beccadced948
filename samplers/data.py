"""Data terms shared by the strategies: each method says which one it uses, none writes its own."""

from __future__ import annotations

from torch import Tensor

from operators.solve import conjugate_gradient
from samplers.problem import Problem


def proximal(problem: Problem, anchor: Tensor, variance: float, iterations: int) -> tuple[Tensor, Tensor]:
    """Find the mean of ``N(anchor, variance I)`` times the likelihood by conjugate gradients.

    Solves ``(I + variance A^H W A) x = anchor + variance A^H W y`` with ``W = 1 / noise_std^2``, started at the anchor.

    Parameters
    ----------
    problem : Problem
    anchor : Tensor, shape ``(batch, *domain)``
    variance : float
        Variance of the image around the anchor (r^2 in the papers).
    iterations : int
        Conjugate-gradient iterations; fixed, so that a GPU is never waited for.

    Returns
    -------
    x : Tensor, shape ``(batch, *domain)``
    residual : Tensor, shape ``(batch,)``
        Relative residual of the linear system.
    """
    space = problem.operator.domain
    correction, residual = conjugate_gradient(
        lambda v: v + variance * problem.weighted_normal(v),
        variance * (problem.weighted_data - problem.weighted_normal(anchor)),
        iterations=iterations,
        item_ndim=space.ndim,
        return_residual=True,
    )
    return anchor + correction, residual


def projection(problem: Problem, anchor: Tensor, iterations: int) -> tuple[Tensor, Tensor]:
    """Move the anchor onto the data, noise-free: conjugate gradients on ``A^H A x = A^H y`` started at the anchor.

    With exact convergence this is the projection on ``{x : A x = y}`` nearest to the anchor. A sample is left alone
    once its residual is 1e-5: the system is singular, and going on would only amplify rounding. Shapes as in
    :func:`proximal`.
    """
    operator = problem.operator
    return conjugate_gradient(
        operator.normal,
        operator.H(problem.y).expand_as(anchor),
        anchor,
        iterations=iterations,
        tolerance=1e-5,
        item_ndim=operator.domain.ndim,
        return_residual=True,
    )
