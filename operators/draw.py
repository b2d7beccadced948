"""Exact draws from Gaussian posteriors, by perturbing the data and solving."""

from __future__ import annotations

import torch
from torch import Tensor

from operators.base import LinearOperator
from operators.errors import InputError
from operators.solve import Apply, Solution, conjugate_gradient, require_exact_adjoint


def gaussian_draw(
    operator: LinearOperator,
    y: Tensor,
    noise_std: float | Tensor,
    prior_precision: LinearOperator | Apply | float | Tensor,
    *,
    data_noise: Tensor,
    prior_noise: Tensor,
    prior_mean: Tensor | None = None,
    start: Tensor | None = None,
    iterations: int = 50,
    tolerance: float = 0.0,
    preconditioner: Apply | None = None,
) -> Solution:
    """Draw from the posterior of a linear-Gaussian model exactly, by perturbing and solving.

    For y = A x + noise_std n and the prior x ~ N(m, Q^-1), the posterior is N(P^-1 b, P^-1) with
    ``P = A^H W A + Q``, ``W = noise_std^-2``, ``b = A^H W y + Q m``. The solution of
    ``P x = b + A^H W^(1/2) data_noise + prior_noise`` is a draw from it, because the perturbation has covariance P.
    Zeros for both noises give the posterior mean. The solver draws no random numbers: the caller provides them.

    Parameters
    ----------
    operator : LinearOperator
        A.
    y : tensor
        Data, (..., *operator.codomain.shape).
    noise_std : float or tensor
        Standard deviation of the noise (for complex data: sqrt(E|n|^2)), broadcastable to `y`: one number, one per
        datum (infinite where nothing was measured), or one per sample with trailing axes of length 1.
    prior_precision : LinearOperator, callable, number or tensor
        Q; a number or a tensor acts by multiplication.
    data_noise : tensor
        Standard normal, like `y` (complex: E|n|^2 = 1).
    prior_noise : tensor
        A draw from N(0, Q), (..., *operator.domain.shape): Q^(1/2) times a standard normal.
    prior_mean : tensor, optional
        m; zero by default.
    start, iterations, tolerance, preconditioner
        As in `conjugate_gradient`; the draw is exact when the solver has converged.

    Returns
    -------
    Solution
        The draw ``x`` and the relative ``residual`` of the equations.

    References
    ----------
    Papandreou and Yuille, "Gaussian sampling by local perturbations", NeurIPS 2010.
    """
    require_exact_adjoint(operator, "gaussian_draw")
    operator.codomain.check(y, "gaussian_draw(y)")
    operator.codomain.check(data_noise, "gaussian_draw(data_noise)")
    operator.domain.check(prior_noise, "gaussian_draw(prior_noise)")
    if isinstance(noise_std, int | float) and not noise_std > 0:
        raise InputError(f"gaussian_draw needs noise_std > 0, got {noise_std}")
    whitening = 1 / torch.as_tensor(noise_std, dtype=y.real.dtype, device=y.device)
    prior = prior_precision if callable(prior_precision) else _multiplication(prior_precision)
    rhs = operator.H(whitening * (whitening * y + data_noise)) + prior_noise
    if prior_mean is not None:
        rhs = rhs + prior(prior_mean)
    data = _weighted_normal(operator, whitening**2)
    return conjugate_gradient(
        lambda x: data(x) + prior(x),
        rhs,
        start,
        iterations=iterations,
        tolerance=tolerance,
        item_ndim=operator.domain.ndim,
        preconditioner=preconditioner,
    )


def _weighted_normal(operator: LinearOperator, weight: Tensor) -> Apply:
    """A^H W A; through the fused normal operator where W is one number per sample."""
    ndim = operator.codomain.ndim
    if all(n == 1 for n in weight.shape[-ndim:]):
        batch = weight.shape[: max(weight.ndim - ndim, 0)]
        per_sample = weight.reshape(*batch, *(1,) * operator.domain.ndim) if batch else weight.reshape(())
        return lambda x: per_sample * operator.normal(x)
    return lambda x: operator.H(weight * operator(x))


def _multiplication(factor: float | Tensor) -> Apply:
    return lambda x: factor * x
