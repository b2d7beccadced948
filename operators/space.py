"""The space of an operator's arrays: shape, number type and axis names of one item."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from operators.errors import InputError, ShapeError

_DEFAULT_AXES = {0: "", 1: "x", 2: "y x", 3: "z y x"}
PRECISION = {
    torch.float32: (torch.float32, torch.complex64),
    torch.complex64: (torch.float32, torch.complex64),
    torch.float64: (torch.float64, torch.complex128),
    torch.complex128: (torch.float64, torch.complex128),
}


@dataclass(frozen=True)
class Space:
    """The shape, number type and axis names of one item.

    Arrays may carry any leading batch axes in front of ``shape``.

    Parameters
    ----------
    shape : tuple of int
        Lengths of the item's axes.
    dtype : torch.dtype
        A floating-point or complex type. `check` compares only real or complex, not the precision.
    axes : str
        Names of the axes, separated by spaces, for messages.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype = torch.complex64
    axes: str = "y x"

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", tuple(int(n) for n in self.shape))
        if any(n < 1 for n in self.shape):
            raise InputError(f"Space needs positive lengths, got shape {self.shape}")
        if self.dtype not in PRECISION:
            raise InputError(f"Space needs float32, float64, complex64 or complex128, got {self.dtype}")
        if len(self.axes.split()) != len(self.shape):
            if self.axes != "y x":
                raise InputError(
                    f"Space of shape {self.shape} expected {len(self.shape)} axis names, got {self.axes!r}"
                )
            numbered = " ".join(f"axis{i}" for i in range(len(self.shape)))
            object.__setattr__(self, "axes", _DEFAULT_AXES.get(len(self.shape), numbered))

    @property
    def ndim(self) -> int:
        """The number of axes of one item."""
        return len(self.shape)

    @property
    def is_complex(self) -> bool:
        """Whether the items are complex."""
        return self.dtype.is_complex

    def batch_shape(self, x: Tensor) -> tuple[int, ...]:
        """Return the leading axes that `x` has in front of one item."""
        return tuple(x.shape[: x.ndim - self.ndim])

    def to(self, dtype: torch.dtype) -> Space:
        """Return the same space in the precision of `dtype`; real stays real and complex stays complex."""
        return replace(self, dtype=PRECISION[dtype][self.is_complex])

    def check(self, x: Tensor, owner: str = "array") -> None:
        """Raise ShapeError unless `x` is an item of this space, or a batch of items.

        Rank, lengths and real or complex are compared; the precision is not. `owner` is named in the message.
        """
        if not isinstance(x, Tensor):
            raise ShapeError(f"{owner} expected a torch tensor, got {type(x).__name__}; use torch.as_tensor")
        kind = "complex" if self.is_complex else "real floating-point"
        if not (x.is_complex() if self.is_complex else x.is_floating_point()):
            raise ShapeError(f"{owner} expected {kind} values, got {x.dtype}")
        if x.ndim < self.ndim or tuple(x.shape[x.ndim - self.ndim :]) != self.shape:
            expected = ", ".join(f"{name}={n}" for name, n in zip(self.axes.split(), self.shape, strict=True))
            raise ShapeError(f"{owner} expected shape (..., {expected}), got {tuple(x.shape)}")
