"""The base class of all forward models: a linear operator between two spaces of arrays."""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from numbers import Number
from typing import Any

import torch
from torch import Tensor

from operators.errors import InputError, ShapeError
from operators.space import PRECISION, Space

__all__ = ["LinearOperator", "Space"]


class LinearOperator(ABC):
    """A linear map A with an exactly matched adjoint A^H.

    ``<A x, y> = <x, A^H y>``; where one space is real and the other complex, the real parts are equal.
    Subclasses set ``domain`` and ``codomain`` through ``super().__init__`` and implement ``_forward`` and ``_adjoint``,
    and ``_normal`` where a fused A^H A is faster. Users write ``A(x)``, ``A.H(y)``, ``A.normal(x)``, ``A @ B``,
    ``A + B``, ``2.0 * A`` and ``A.to(device_or_dtype)``. Automatic differentiation uses the implemented adjoint.
    Operators are values: what they compute never changes after construction, though a shortcut to it may be built when
    it is first needed. An engine whose adjoint is only approximate sets ``exact_adjoint = False``; solvers that need an
    exact one then refuse it, also inside sums and products.
    """

    exact_adjoint: bool = True

    def __init__(self, domain: Space, codomain: Space) -> None:
        self.domain = domain
        self.codomain = codomain

    @abstractmethod
    def _forward(self, x: Tensor) -> Tensor:
        """Compute A x for a checked x of shape (..., *domain.shape)."""

    @abstractmethod
    def _adjoint(self, y: Tensor) -> Tensor:
        """Compute A^H y for a checked y of shape (..., *codomain.shape)."""

    def _normal(self, x: Tensor) -> Tensor:
        """Compute A^H A x; override where a fused version is faster."""
        return self._compute(self._compute(x, "forward"), "adjoint")

    def __call__(self, x: Tensor) -> Tensor:
        """Apply A to x of shape (..., *domain.shape)."""
        self.domain.check(x, f"{self._name}(x)")
        return _apply(x, self, "forward")

    def normal(self, x: Tensor) -> Tensor:
        """Apply A^H A to x of shape (..., *domain.shape)."""
        self.domain.check(x, f"{self._name}.normal(x)")
        return _apply(x, self, "normal")

    def free(self) -> None:
        """Free what is kept only to save time: called where memory is out."""
        for part in vars(self).values():
            if isinstance(part, LinearOperator):
                part.free()

    def weighted_normal(self, x: Tensor, weight: Tensor) -> Tensor:
        """Apply A^H W A; ``weight`` (>= 0) is the diagonal of W, broadcastable to the codomain."""
        return self.H(self(x) * weight)

    def fourier_gains(self, weight: float | Tensor) -> tuple[Tensor, tuple[int, ...]] | None:
        """Return the diagonal of F A^H W A F^H, of shape ``domain``, and the axes of the orthonormal FFT F.

        Zero frequency comes first. Preconditioners of A^H W A use it; None where there is no fast way to compute it.
        """
        return None

    @property
    def H(self) -> LinearOperator:
        """The adjoint as an operator; ``A.H.H is A``."""
        return _Adjoint(self)

    @property
    def n_data(self) -> int:
        """Number of measured values: fewer than the codomain has elements where a mask leaves zeros."""
        return math.prod(self.codomain.shape)

    @property
    def _name(self) -> str:
        return type(self).__name__

    def _compute(self, x: Tensor, kind: str) -> Tensor:
        if kind == "normal":
            value, space = self._normal(x), self.domain
        elif kind == "forward":
            value, space = self._forward(x), self.codomain
        else:
            value, space = self._adjoint(x), self.domain
        return value.real if value.is_complex() and not space.is_complex else value

    def to(self, target: torch.device | str | torch.dtype) -> LinearOperator:
        """Return a copy on another device or in another precision (complex stays complex, masks stay boolean)."""
        moved = copy.copy(self)
        for name, value in vars(self).items():
            object.__setattr__(moved, name, _move(value, target))
        return moved

    def __matmul__(self, other: LinearOperator) -> LinearOperator:
        return _Composed(self, other) if isinstance(other, LinearOperator) else NotImplemented

    def __add__(self, other: LinearOperator) -> LinearOperator:
        return _Sum(self, other) if isinstance(other, LinearOperator) else NotImplemented

    def __sub__(self, other: LinearOperator) -> LinearOperator:
        return _Sum(self, -other) if isinstance(other, LinearOperator) else NotImplemented

    def __mul__(self, scale: complex) -> LinearOperator:
        return _Scaled(self, scale) if isinstance(scale, Number) else NotImplemented

    __rmul__ = __mul__

    def __neg__(self) -> LinearOperator:
        return _Scaled(self, -1.0)

    def __repr__(self) -> str:
        return f"{self._name}({self.domain.shape} -> {self.codomain.shape})"


_TRANSPOSE = {"forward": "adjoint", "adjoint": "forward", "normal": "normal"}


class _Apply(torch.autograd.Function):
    """Differentiate through an operator by its own adjoint: both modes, any order, and under vmap."""

    @staticmethod
    def forward(x: Tensor, operator: LinearOperator, kind: str) -> Tensor:
        value = operator._compute(x, kind)
        return value.view_as(value) if value is x else value

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        _, ctx.operator, ctx.kind = inputs

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return _Apply.apply(grad, ctx.operator, _TRANSPOSE[ctx.kind]), None, None

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, *_: Any) -> Tensor:
        return _Apply.apply(tangent, ctx.operator, ctx.kind)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], x: Tensor, operator: LinearOperator, kind: str) -> tuple[Tensor, int]:
        return _Apply.apply(x.movedim(in_dims[0], 0), operator, kind), 0


def _apply(x: Tensor, operator: LinearOperator, kind: str) -> Tensor:
    return _Apply.apply(x, operator, kind)


def _move(value: Any, target: torch.device | str | torch.dtype) -> Any:
    """Move tensors, spaces and operators, also inside tuples, lists and dicts; leave everything else alone."""
    if isinstance(value, tuple | list):
        return type(value)(_move(item, target) for item in value)
    if isinstance(value, dict):
        return {key: _move(item, target) for key, item in value.items()}
    if isinstance(target, torch.dtype):
        if target not in PRECISION:
            raise InputError(f"expected float32, float64, complex64 or complex128 as an operator's dtype, got {target}")
        if isinstance(value, Tensor) and (value.is_floating_point() or value.is_complex()):
            return value.to(PRECISION[target][value.is_complex()])
        return value.to(target) if isinstance(value, Space | LinearOperator) else value
    return value.to(target) if isinstance(value, Tensor | LinearOperator) else value


class _Adjoint(LinearOperator):
    def __init__(self, operator: LinearOperator) -> None:
        super().__init__(operator.codomain, operator.domain)
        self.operator = operator
        self.exact_adjoint = operator.exact_adjoint

    @property
    def H(self) -> LinearOperator:
        return self.operator

    @property
    def _name(self) -> str:
        return f"{self.operator._name}.H"

    def _forward(self, x: Tensor) -> Tensor:
        return self.operator._compute(x, "adjoint")

    def _adjoint(self, y: Tensor) -> Tensor:
        return self.operator._compute(y, "forward")


class _Composed(LinearOperator):
    def __init__(self, outer: LinearOperator, inner: LinearOperator) -> None:
        if outer.domain.shape != inner.codomain.shape or outer.domain.is_complex != inner.codomain.is_complex:
            raise ShapeError(
                f"{outer._name} @ {inner._name}: the left takes {outer.domain}, the right returns {inner.codomain}"
            )
        super().__init__(inner.domain, outer.codomain)
        self.outer, self.inner = outer, inner
        self.exact_adjoint = outer.exact_adjoint and inner.exact_adjoint
        self._is_normal = isinstance(outer, _Adjoint) and outer.operator is inner

    @property
    def n_data(self) -> int:
        return self.outer.n_data

    def _forward(self, x: Tensor) -> Tensor:
        return self.inner.normal(x) if self._is_normal else self.outer(self.inner(x))

    def _adjoint(self, y: Tensor) -> Tensor:
        return self.inner.normal(y) if self._is_normal else self.inner.H(self.outer.H(y))

    def _normal(self, x: Tensor) -> Tensor:
        return self.inner.H(self.outer.normal(self.inner(x)))


class _Sum(LinearOperator):
    def __init__(self, first: LinearOperator, second: LinearOperator) -> None:
        pairs = ((first.domain, second.domain), (first.codomain, second.codomain))
        if any(a.shape != b.shape or a.is_complex != b.is_complex for a, b in pairs):
            raise ShapeError(f"cannot add {first!r} and {second!r}: both need the same domain and codomain")
        super().__init__(first.domain, first.codomain)
        self.first, self.second = first, second
        self.exact_adjoint = first.exact_adjoint and second.exact_adjoint

    def _forward(self, x: Tensor) -> Tensor:
        return self.first(x) + self.second(x)

    def _adjoint(self, y: Tensor) -> Tensor:
        return self.first.H(y) + self.second.H(y)


class _Scaled(LinearOperator):
    def __init__(self, operator: LinearOperator, scale: complex) -> None:
        scale = complex(scale)
        if scale.imag and not (operator.domain.is_complex and operator.codomain.is_complex):
            raise InputError(f"a complex factor {scale} needs a complex domain and codomain, got {operator!r}")
        if not (math.isfinite(scale.real) and math.isfinite(scale.imag)):
            raise InputError(f"an operator's factor must be finite, got {scale}")
        super().__init__(operator.domain, operator.codomain)
        self.operator, self.scale = operator, scale if scale.imag else scale.real
        self.exact_adjoint = operator.exact_adjoint

    @property
    def n_data(self) -> int:
        return self.operator.n_data

    def _forward(self, x: Tensor) -> Tensor:
        return self.scale * self.operator(x)

    def _adjoint(self, y: Tensor) -> Tensor:
        return self.scale.conjugate() * self.operator.H(y)

    def _normal(self, x: Tensor) -> Tensor:
        return abs(self.scale) ** 2 * self.operator.normal(x)
