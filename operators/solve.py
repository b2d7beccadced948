"""Per-sample solvers: Hermitian conjugate gradient and power iteration."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from operators.base import LinearOperator
from operators.errors import InputError, ShapeError

Apply = Callable[[Tensor], Tensor]


class Solution(NamedTuple):
    """The result of a solver.

    Attributes
    ----------
    x : tensor
        The solution, of the shape of the right-hand side.
    residual : tensor
        The relative residual |b - P x| / |b| of each sample, of the batch shape, as the recursion updates it. For b = 0
        it is relative to the residual of the first guess.
    """

    x: Tensor
    residual: Tensor


def conjugate_gradient(
    operator: LinearOperator | Apply,
    rhs: Tensor,
    start: Tensor | None = None,
    *,
    iterations: int = 10,
    tolerance: float = 0.0,
    item_ndim: int | None = None,
    preconditioner: Apply | None = None,
) -> Solution:
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
        Relative residual below which a sample is frozen.
    item_ndim : int, optional
        Axes of one item; by default those of the operator's domain, or all axes of `rhs` for a plain callable.
    preconditioner : callable, optional
        A Hermitian positive definite approximation of the inverse of P.

    Returns
    -------
    Solution
        ``x`` of the shape of `rhs` and the relative ``residual`` of each sample, of shape (...).

    Raises
    ------
    InputError, ShapeError
        For a negative number of iterations or tolerance, a start that does not fit, or an operator without an exact
        adjoint.

    References
    ----------
    Hestenes and Stiefel, "Methods of conjugate gradients for solving linear systems", 1952.
    """
    require_exact_adjoint(operator, "conjugate_gradient")
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
    relative = torch.where(reference > 0, (rr / torch.where(reference > 0, reference, 1)).sqrt(), rr)
    return Solution(x, relative.reshape(rhs.shape[: rhs.ndim - len(dims)]))


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


def require_exact_adjoint(operator: LinearOperator | Apply, owner: str) -> None:
    """Raise InputError in the name of ``owner`` where the adjoint is only close to one."""
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
