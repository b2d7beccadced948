"""Elementary operators: identity, diagonal, dense matrix, and one operator applied to each slice."""

from __future__ import annotations

import torch
from torch import Tensor

from operators.arrays import tensor
from operators.base import LinearOperator, Space
from operators.errors import InputError, ShapeError


class Identity(LinearOperator):
    """The identity, A x = x, on a space or on a shape (which then means complex64)."""

    def __init__(self, space: Space | tuple[int, ...]) -> None:
        space = space if isinstance(space, Space) else Space(space)
        super().__init__(space, space)

    def _forward(self, x: Tensor) -> Tensor:
        return x

    def _adjoint(self, y: Tensor) -> Tensor:
        return y

    def _normal(self, x: Tensor) -> Tensor:
        return x


class Diagonal(LinearOperator):
    """Multiplication by an array, (A x)_i = d_i x_i.

    Parameters
    ----------
    diagonal : tensor
        Real or complex, broadcastable to the space's shape. A boolean mask counts as 0 and 1.
    space : Space, optional
        Domain and codomain; the default has the diagonal's shape and is complex, in the diagonal's precision.
    """

    def __init__(self, diagonal: Tensor, space: Space | None = None) -> None:
        diagonal = tensor(diagonal, "Diagonal")
        diagonal = diagonal if diagonal.is_complex() or diagonal.is_floating_point() else diagonal.to(torch.float32)
        if not bool(torch.isfinite(diagonal).all()):
            raise InputError("Diagonal got values that are not finite")
        space = space or Space(tuple(diagonal.shape)).to(diagonal.dtype)
        if diagonal.is_complex() and not space.is_complex:
            raise InputError("Diagonal with complex values needs a complex space")
        try:
            fits = torch.broadcast_shapes(diagonal.shape, space.shape) == space.shape
        except RuntimeError:
            fits = False
        if not fits:
            raise ShapeError(f"Diagonal expected values that broadcast to {space.shape}, got {tuple(diagonal.shape)}")
        super().__init__(space, space)
        self.diagonal = diagonal

    def _forward(self, x: Tensor) -> Tensor:
        return x * self.diagonal

    def _adjoint(self, y: Tensor) -> Tensor:
        return y * self.diagonal.conj()

    def _normal(self, x: Tensor) -> Tensor:
        return x * (self.diagonal * self.diagonal.conj()).real


class Matrix(LinearOperator):
    """A dense matrix between two spaces, (A x)_i = sum_j a_ij x_j over the flattened items.

    Parameters
    ----------
    matrix : tensor
        Shape (rows, columns). The default spaces are complex for a complex matrix and real for a real one.
    domain, codomain : Space, optional
        Spaces with as many elements as the matrix has columns and rows, respectively; vectors by default.
    """

    def __init__(self, matrix: Tensor, domain: Space | None = None, codomain: Space | None = None) -> None:
        matrix = tensor(matrix, "Matrix")
        if matrix.ndim != 2 or not (matrix.is_floating_point() or matrix.is_complex()):
            raise ShapeError(f"Matrix expected a real or complex matrix, got {matrix.dtype} {tuple(matrix.shape)}")
        rows, columns = matrix.shape
        domain = domain or Space((columns,), matrix.dtype)
        codomain = codomain or Space((rows,), matrix.dtype)
        if _count(domain) != columns:
            raise ShapeError(
                f"Matrix has {columns} columns, but its domain {domain.shape} has {_count(domain)} elements"
            )
        if _count(codomain) != rows:
            raise ShapeError(
                f"Matrix has {rows} rows, but its codomain {codomain.shape} has {_count(codomain)} elements"
            )
        super().__init__(domain, codomain)
        self.matrix = matrix

    def _forward(self, x: Tensor) -> Tensor:
        return _multiply(self.matrix, x, self.domain, self.codomain)

    def _adjoint(self, y: Tensor) -> Tensor:
        return _multiply(self.matrix.mH, y, self.codomain, self.domain)


def _multiply(matrix: Tensor, x: Tensor, source: Space, target: Space) -> Tensor:
    batch = source.batch_shape(x)
    dtype = torch.promote_types(matrix.dtype, x.dtype)
    value = x.reshape(*batch, _count(source)).to(dtype) @ matrix.mT.to(dtype)
    return value.reshape(*batch, *target.shape)


def _count(space: Space) -> int:
    return int(torch.Size(space.shape).numel())


class Slices(LinearOperator):
    """One operator applied to each slice of a volume.

    Parameters
    ----------
    operator : LinearOperator
        Operator from images to data; all slices go through it at once, as a batch.
    count : int
        Number of slices: volumes are ``(..., count, *image)``, data ``(..., count, *data)``.
    """

    def __init__(self, operator: LinearOperator, count: int) -> None:
        if count < 1:
            raise InputError(f"Slices expected at least one slice, got {count}")
        domain, codomain = (
            Space((count, *space.shape), space.dtype, f"z {space.axes}")
            for space in (operator.domain, operator.codomain)
        )
        super().__init__(domain, codomain)
        self.operator = operator
        self.exact_adjoint = operator.exact_adjoint

    def _forward(self, x: Tensor) -> Tensor:
        return self.operator(x)

    def _adjoint(self, y: Tensor) -> Tensor:
        return self.operator.H(y)

    def _normal(self, x: Tensor) -> Tensor:
        return self.operator.normal(x)
