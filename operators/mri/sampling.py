"""Sampling: keep the measured points, write zeros elsewhere."""

from __future__ import annotations

import math

import numpy as np
from torch import Tensor

from operators.arrays import tensor
from operators.base import LinearOperator, Space
from operators.errors import InputError, ShapeError


class Sampling(LinearOperator):
    """Keep the sampled points of k-space and write zeros elsewhere; its own adjoint and normal operator.

    Parameters
    ----------
    mask : array or tensor
        True at the sampled points; broadcastable to the last axes of `space`.
    space : Space or tuple of int
        Domain and codomain, such as (coil, y, x); a shape means complex64.
    """

    def __init__(self, mask: Tensor | np.ndarray, space: Space | tuple[int, ...]) -> None:
        space = space if isinstance(space, Space) else Space(space)
        super().__init__(space, space)
        self.mask = boolean(mask, "Sampling")
        if not fits(self.mask, space.shape):
            raise ShapeError(f"Sampling expected a mask that broadcasts to {space.shape}, got {tuple(self.mask.shape)}")

    @property
    def n_data(self) -> int:
        """Sampled points."""
        repeats = math.prod(self.domain.shape) // self.mask.numel()
        return int(self.mask.sum()) * repeats

    def _forward(self, x: Tensor) -> Tensor:
        return x * self.mask

    def _adjoint(self, y: Tensor) -> Tensor:
        return y * self.mask

    def _normal(self, x: Tensor) -> Tensor:
        return x * self.mask


def boolean(mask: Tensor | np.ndarray, owner: str) -> Tensor:
    """Return a mask of zeros and ones as booleans."""
    mask = tensor(mask, f"{owner}: mask")
    if mask.ndim == 0 or 0 in mask.shape:
        raise ShapeError(f"{owner} expected a mask that broadcasts to the image, got shape {tuple(mask.shape)}")
    found = mask.bool()
    if not bool((found.to(mask.dtype) == mask).all()):
        raise InputError(f"{owner} expected a mask of zeros and ones (or booleans), got other values")
    return found


def fits(mask: Tensor, shape: tuple[int, ...]) -> bool:
    """Tell whether a mask broadcasts to a shape."""
    lengths = zip(reversed(mask.shape), reversed(shape), strict=False)
    return mask.ndim <= len(shape) and all(m in (1, n) for m, n in lengths)
