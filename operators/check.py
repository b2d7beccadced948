"""Check that an operator obeys its laws; for authors of operators, here and in other packages."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from operators.base import LinearOperator, Space
from operators.errors import ReconError, ShapeError

_TOLERANCE = {torch.float32: 1e-5, torch.complex64: 1e-5, torch.float64: 1e-10, torch.complex128: 1e-10}


class LawError(ReconError):
    """An operator breaks a law; the message says which, by how much, and names a constant factor if there is one."""


def check_operator(
    operator: LinearOperator,
    *,
    dtype: torch.dtype | None = None,
    trials: int = 3,
    seed: int = 0,
    tolerance: float | None = None,
    device: torch.device | str = "cpu",
) -> None:
    """Check shapes, linearity, adjoint, normal operator, derivative and batches on random arrays.

    ``A(a x + b z) = a A x + b A z``; ``<A x, y> = <x, A^H y>`` (real parts, where one space is real); ``A.normal(x) =
    A^H A x``; the vector-Jacobian product of A, and of ``_forward`` itself where autograd can follow it, is the whole
    vector ``A^H y``; a batch gives the same as its items one by one. For an operator with ``exact_adjoint =
    False`` the adjoint and the derivative are not checked.

    Parameters
    ----------
    operator : LinearOperator
        The operator A.
    dtype : torch.dtype, optional
        Check ``operator.to(dtype)`` instead.
    trials : int
        Number of random arrays for each law.
    seed : int
        Seed of this call's own generator.
    tolerance : float, optional
        Largest relative error allowed; by default 1e-10 in double and 1e-5 in single precision.
    device : torch.device or str
        Device of the operator.

    Raises
    ------
    LawError
        If a law is broken; the message names it and the error, and a constant factor where there is one.
    """
    if dtype is not None:
        operator = operator.to(dtype)
    limit = _TOLERANCE[operator.domain.dtype] if tolerance is None else tolerance
    generator = torch.Generator().manual_seed(seed)

    def draw(space: Space, *batch: int) -> Tensor:
        return torch.randn((*batch, *space.shape), dtype=space.dtype, generator=generator).to(device)

    name = repr(operator)
    _check_spaces(operator, draw(operator.domain, 2), draw(operator.codomain, 2), name)
    xs = [draw(operator.domain) for _ in range(trials + 1)]
    ys = [draw(operator.codomain) for _ in range(trials)]
    _check_linearity(operator, xs, limit, name)
    if operator.exact_adjoint:
        _check_adjoint(operator, xs, ys, limit, name)
    pairs = [(operator.normal(x), operator.H(operator(x))) for x in xs]
    _compare(pairs, limit, f"{name}: normal(x) is not A^H A x")
    if operator.exact_adjoint:
        pairs = [(g, operator.H(y)) for x, y in zip(xs, ys, strict=False) for g in _derivatives(operator, x, y)]
        _compare(pairs, limit, f"{name}: the vector-Jacobian product is not the adjoint")
    _check_batches(operator, draw(operator.domain, 3), draw(operator.codomain, 3), limit, name)


def _check_spaces(operator: LinearOperator, x: Tensor, y: Tensor, name: str) -> None:
    results = (("A(x)", operator(x), operator.codomain), ("A.H(y)", operator.H(y), operator.domain))
    for label, value, space in results:
        try:
            space.check(value, label)
        except ShapeError as error:
            raise LawError(f"{name}: the result is not in the operator's space: {error}") from None
        if tuple(value.shape[: value.ndim - space.ndim]) != (2,):
            raise LawError(f"{name}: {label} turned the batch axes (2,) into {space.batch_shape(value)}")
        if not bool(torch.isfinite(value.abs()).all()):
            raise LawError(f"{name}: {label} of finite values is not finite")


def _check_linearity(operator: LinearOperator, xs: list[Tensor], limit: float, name: str) -> None:
    both = operator.domain.is_complex and operator.codomain.is_complex
    a, b = (0.7 - 1.1j, -0.4 + 0.6j) if both else (0.7, -1.3)
    pairs = [(operator(a * x + b * z), a * operator(x) + b * operator(z)) for x, z in zip(xs[1:], xs[:-1], strict=True)]
    _compare(pairs, limit, f"{name} is not linear: A(a x + b z) differs from a A x + b A z")


def _check_adjoint(operator: LinearOperator, xs: list[Tensor], ys: list[Tensor], limit: float, name: str) -> None:
    ratios, worst = [], 0.0
    for x, noise in zip(xs, ys, strict=False):
        image = operator(x)
        # Adding a multiple of A x to y keeps the inner product large, so that a missing scale shows as one number.
        y = image + noise * ((_norm(image) or 1.0) / _norm(noise))
        back = operator.H(y)
        forward, adjoint = _inner(image, y), _inner(x, back)
        if not (operator.domain.is_complex and operator.codomain.is_complex):
            forward, adjoint = complex(forward.real), complex(adjoint.real)
        scale = max(_norm(image) * _norm(y), _norm(x) * _norm(back))
        error = abs(forward - adjoint) / scale if scale else 0.0
        worst = max(worst, error) if error == error else error
        ratios.append(adjoint / forward if forward else complex("nan"))
        if worst != worst:
            break
    if not worst <= limit:
        factor = _factor(ratios, "the adjoint")
        raise LawError(f"{name}: <A x, y> differs from <x, A^H y> by {worst:.2e} (allowed {limit:.0e}){factor}")


def _derivatives(operator: LinearOperator, x: Tensor, y: Tensor) -> Iterator[Tensor]:
    """Vector-Jacobian products of the public call and, where autograd can follow it, of the author's code."""
    x = x.detach().requires_grad_()
    yield torch.autograd.grad(operator(x), x, y)[0]
    try:
        value = operator._forward(x)
        followed = torch.autograd.grad(value, x, y.to(value.dtype))[0] if value.requires_grad else None
    except RuntimeError:  # a kernel without a derivative: only its adjoint is used
        return
    if followed is not None:
        yield followed


def _check_batches(operator: LinearOperator, x: Tensor, y: Tensor, limit: float, name: str) -> None:
    for label, apply, batch in (("A", operator, x), ("A.H", operator.H, y), ("A.normal", operator.normal, x)):
        one_by_one = torch.stack([apply(item) for item in batch])
        message = f"{name}: {label} of a batch differs from {label} of its items"
        _compare([(apply(batch), one_by_one), (apply(batch[:, None]), one_by_one[:, None])], limit, message)


def _compare(pairs: list[tuple[Tensor, Tensor]], limit: float, message: str) -> None:
    ratios, worst = [], 0.0
    for value, expected in pairs:
        if value.shape != expected.shape:
            raise LawError(f"{message}: expected shape {tuple(expected.shape)}, got {tuple(value.shape)}")
        size = max(_norm(value), _norm(expected))
        error = _norm(value - expected) / size if size else 0.0
        worst = max(worst, error) if error == error else error
        if worst != worst:
            break
        if _norm(expected):
            factor = _inner(expected, value) / _norm(expected) ** 2
            factor = factor if value.is_complex() else factor.real
            fits = _norm(value - factor * expected) <= limit * size
            ratios.append(factor if fits else complex("nan"))
    if not worst <= limit:
        raise LawError(f"{message}: relative error {worst:.2e} (allowed {limit:.0e}){_factor(ratios, 'it')}")


def _factor(ratios: list[complex], what: str) -> str:
    """Name the factor when all trials agree on one."""
    mean = sum(ratios) / len(ratios) if ratios else complex("nan")
    if not all(abs(r - mean) <= 1e-3 * abs(mean) for r in ratios) or abs(mean - 1) < 1e-3 or not ratios:
        return ""
    shown = f"{mean.real:.6g}" if abs(mean.imag) < 1e-3 * abs(mean) else f"{mean:.4g}"
    return f"; {what} is off by a factor {shown} in every trial: a scale is missing"


def _inner(a: Tensor, b: Tensor) -> complex:
    return complex((a.conj() * b).sum())


def _norm(a: Tensor) -> float:
    return float(torch.linalg.vector_norm(a))
