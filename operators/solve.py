"""Per-sample solvers: Hermitian conjugate gradient, power iteration, exact Gaussian draws."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, overload

import torch
from torch import Tensor

from operators.base import LinearOperator
from operators.errors import InputError, ShapeError

Apply = Callable[[Tensor], Tensor]


@overload
def conjugate_gradient(
    operator: LinearOperator | Apply,
    rhs: Tensor,
    start: Tensor | None = ...,
    *,
    iterations: int = ...,
    tolerance: float = ...,
    item_ndim: int | None = ...,
    preconditioner: Apply | None = ...,
    return_residual: Literal[False] = ...,
) -> Tensor: ...


@overload
def conjugate_gradient(
    operator: LinearOperator | Apply,
    rhs: Tensor,
    start: Tensor | None = ...,
    *,
    iterations: int = ...,
    tolerance: float = ...,
    item_ndim: int | None = ...,
    preconditioner: Apply | None = ...,
    return_residual: Literal[True],
) -> tuple[Tensor, Tensor]: ...


def conjugate_gradient(
    operator: LinearOperator | Apply,
    rhs: Tensor,
    start: Tensor | None = None,
    *,
    iterations: int = 10,
    tolerance: float = 0.0,
    item_ndim: int | None = None,
    preconditioner: Apply | None = None,
    return_residual: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """Solve P x = b for a Hermitian positive (semi)definite P, each sample by itself.

    Inner products are Hermitian and run over the last `item_ndim` axes, so a sample never depends on its batch.
    The number of iterations is fixed and nothing waits for the device, so that the loop can be captured in a CUDA
    graph: a sample whose relative residual |b - P x| / |b| has fallen to `tolerance`, or that meets a direction with
    p^H P p <= 0, is frozen. A value that is not finite is never hidden: it spreads through its own sample.

    Parameters
    ----------
    operator : LinearOperator or callable
        Computes P x.
    rhs : tensor
        b, of shape (..., *item).
    start : tensor, optional
        First guess; zeros by default. It must have the shape of `rhs`.
    iterations : int
        Number of applications of P (one more with `start`).
    tolerance : float
        Relative residual below which a sample is left alone.
    item_ndim : int, optional
        Axes of one item; by default those of the operator's domain, or all axes of `rhs` for a plain callable.
    preconditioner : callable, optional
        A Hermitian positive definite approximation of the inverse of P.
    return_residual : bool
        Also return the relative residual of each sample, of shape (...), as the recursion updates it. For b = 0 it is
        relative to the residual of `start`.

    Raises
    ------
    InputError, ShapeError
        For a negative number of iterations or tolerance, a start that does not fit, or an operator without an exact
        adjoint.

    References
    ----------
    Hestenes and Stiefel, "Methods of conjugate gradients for solving linear systems", 1952.
    """
    _require_exact_adjoint(operator, "conjugate_gradient")
    dims = _item_dims(operator, rhs, item_ndim)
    if iterations < 0 or not tolerance >= 0:
        raise InputError(f"conjugate_gradient needs iterations, tolerance >= 0, got {iterations} and {tolerance}")
    if start is not None and start.shape != rhs.shape:
        raise ShapeError(f"conjugate_gradient got a start of {tuple(start.shape)} for a rhs of {tuple(rhs.shape)}")
    x = torch.zeros_like(rhs) if start is None else start
    r = rhs if start is None else rhs - operator(start)
    p = z = r if preconditioner is None else preconditioner(r)
    rr = _inner(r, r, dims)
    rz = rr if preconditioner is None else _inner(r, z, dims)
    bb = _inner(rhs, rhs, dims)
    reference = torch.where(bb > 0, bb, rr)
    goal = tolerance**2 * reference
    active = ~(rr <= goal)
    for _ in range(iterations):
        if active.device.type == "cpu" and not bool(active.any()):
            break  # all frozen; asking costs nothing where there is no device to wait for
        q = operator(p)
        pq = _inner(p, q, dims)
        active = active & ~(pq <= 0) & ~(rz <= 0)
        alpha = _ratio(rz, pq, active)
        x = x + alpha * p
        r = r - alpha * q
        z = r if preconditioner is None else preconditioner(r)
        rr = _inner(r, r, dims)
        rz_next = rr if preconditioner is None else _inner(r, z, dims)
        active = active & ~(rr <= goal)
        p = z + _ratio(rz_next, rz, active) * p
        rz = rz_next
    if not return_residual:
        return x
    relative = torch.where(reference > 0, (rr / torch.where(reference > 0, reference, 1)).sqrt(), rr)
    return x, relative.reshape(rhs.shape[: rhs.ndim - len(dims)])


def power_norm(operator: LinearOperator, iterations: int = 30, seed: int = 0) -> float:
    """Estimate the largest eigenvalue of A^H A by power iteration from a seeded start.

    The estimate is a Rayleigh quotient, so it never exceeds the true value (up to rounding).
    """
    if iterations < 1:
        raise InputError(f"power_norm needs at least one iteration, got {iterations}")
    space = operator.domain
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(space.shape, dtype=space.dtype, generator=generator).to(_device(operator))
    value = x.new_zeros(())
    for _ in range(iterations):
        norm = torch.linalg.vector_norm(x)
        x = x / torch.where(norm > 0, norm, 1)
        image = operator.normal(x)
        value = torch.real((x.conj() * image).sum())
        x = image
    return float(value.real)


@overload
def gaussian_draw(
    operator: LinearOperator,
    y: Tensor,
    noise_std: float | Tensor,
    prior_precision: LinearOperator | Apply | float | Tensor,
    *,
    data_noise: Tensor,
    prior_noise: Tensor,
    prior_mean: Tensor | None = ...,
    start: Tensor | None = ...,
    iterations: int = ...,
    tolerance: float = ...,
    preconditioner: Apply | None = ...,
    return_residual: Literal[False] = ...,
) -> Tensor: ...


@overload
def gaussian_draw(
    operator: LinearOperator,
    y: Tensor,
    noise_std: float | Tensor,
    prior_precision: LinearOperator | Apply | float | Tensor,
    *,
    data_noise: Tensor,
    prior_noise: Tensor,
    prior_mean: Tensor | None = ...,
    start: Tensor | None = ...,
    iterations: int = ...,
    tolerance: float = ...,
    preconditioner: Apply | None = ...,
    return_residual: Literal[True],
) -> tuple[Tensor, Tensor]: ...


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
    return_residual: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """Draw from the posterior of a linear-Gaussian model exactly, by perturbing and solving.

    For y = A x + noise_std n and the prior x ~ N(m, Q^-1), the posterior is N(P^-1 b, P^-1) with
    ``P = A^H W A + Q``, ``W = noise_std^-2``, ``b = A^H W y + Q m``. The solution of
    ``P x = b + A^H W^(1/2) data_noise + prior_noise`` is a draw of it, because the perturbation has covariance P.
    Zeros for both noises give the posterior mean. The solver holds no random numbers: the caller draws them.

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
        Q; a number or a tensor multiplies.
    data_noise : tensor
        Standard normal, like `y` (complex: E|n|^2 = 1).
    prior_noise : tensor
        A draw of N(0, Q), (..., *operator.domain.shape): Q^(1/2) times a standard normal.
    prior_mean : tensor, optional
        m; zero by default.
    start, iterations, tolerance, preconditioner, return_residual
        As in `conjugate_gradient`; the draw is exact when the solver has converged.

    References
    ----------
    Papandreou and Yuille, "Gaussian sampling by local perturbations", NeurIPS 2010.
    """
    _require_exact_adjoint(operator, "gaussian_draw")
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
    draw, residual = conjugate_gradient(
        lambda x: data(x) + prior(x),
        rhs,
        start,
        iterations=iterations,
        tolerance=tolerance,
        item_ndim=operator.domain.ndim,
        preconditioner=preconditioner,
        return_residual=True,
    )
    return (draw, residual) if return_residual else draw


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


def _require_exact_adjoint(operator: LinearOperator | Apply, owner: str) -> None:
    if isinstance(operator, LinearOperator) and not operator.exact_adjoint:
        raise InputError(f"{owner} needs an exact adjoint, which {operator!r} does not have; choose another engine")


def _item_dims(operator: LinearOperator | Apply, rhs: Tensor, item_ndim: int | None) -> tuple[int, ...]:
    if item_ndim is None:
        item_ndim = operator.domain.ndim if isinstance(operator, LinearOperator) else rhs.ndim
    if not 0 < item_ndim <= rhs.ndim:
        raise ShapeError(f"conjugate_gradient got item_ndim={item_ndim} for a rhs of shape {tuple(rhs.shape)}")
    return tuple(range(-item_ndim, 0))


def _inner(a: Tensor, b: Tensor, dims: tuple[int, ...]) -> Tensor:
    """Real part of a^H b for each sample; the item axes stay with length 1."""
    if a.is_complex():
        a, b = torch.view_as_real(a.resolve_conj()), torch.view_as_real(b.resolve_conj())
        return (a * b).sum(dim=(*(d - 1 for d in dims), -1), keepdim=True).squeeze(-1)
    return (a * b).sum(dim=dims, keepdim=True)


def _ratio(numerator: Tensor, denominator: Tensor, active: Tensor) -> Tensor:
    """Divide, for the active samples, 0 for the frozen ones."""
    zero = torch.zeros((), dtype=numerator.dtype, device=numerator.device)
    return torch.where(active, numerator / torch.where(active, denominator, 1), zero)


def _device(operator: LinearOperator) -> torch.device:
    """Return the device of the first tensor that an operator holds, searched through composed operators."""
    for value in vars(operator).values():
        if isinstance(value, Tensor):
            return value.device
        if isinstance(value, LinearOperator):
            return _device(value)
    return torch.device("cpu")
