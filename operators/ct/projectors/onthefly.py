"""Joseph's weights computed on the fly: no stored matrix, exact adjoint, any device; slower than the matrix."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from operators.base import LinearOperator, Space
from operators.ct.geometry import Beam
from operators.ct.projectors import joseph

_CPU_STEPS, _GPU_STEPS = 1 << 17, 1 << 23  # ray steps per chunk


class OnTheFlyProjector(LinearOperator):
    """Line integrals with the weights of `operators.ct.projectors.joseph`, recomputed in chunks of rays.

    Parameters
    ----------
    geometry : Beam
        Scanner geometry.
    image_shape : (int, int)
        (y, x).
    pixel_size : float
        Side of the square pixels in mm.
    """

    def __init__(self, geometry: Beam, image_shape: tuple[int, int], pixel_size: float) -> None:
        super().__init__(
            Space(image_shape, torch.float32, "y x"), Space(geometry.shape, torch.float32, "angle detector")
        )
        lines = joseph.make_lines(geometry, image_shape, pixel_size)
        by_row = lines.by_row.reshape(-1)
        self._by_row, self._by_column = (torch.nonzero(by_row == kind).reshape(-1) for kind in (True, False))
        # Stored as integers of a fixed unit, they survive .to(float32), which would move rays by a fraction of a pixel.
        self._lines = [value.reshape(-1).view(torch.int64) for value in lines[1:]]

    def _forward(self, x: Tensor) -> Tensor:
        flat = x.detach().reshape(-1, self.domain.shape[0] * self.domain.shape[1])
        out = flat.new_empty(len(flat), self.codomain.shape[0] * self.codomain.shape[1])
        for rays, pixels, weights in self._chunks(x.dtype):
            for image, sinogram in zip(flat, out, strict=True):
                sinogram[rays] = (image[pixels] * weights).sum((1, 2))
        return out.reshape(*self.domain.batch_shape(x), *self.codomain.shape)

    def _adjoint(self, y: Tensor) -> Tensor:
        flat = y.detach().reshape(-1, self.codomain.shape[0] * self.codomain.shape[1])
        out = flat.new_zeros(len(flat), self.domain.shape[0] * self.domain.shape[1])
        for rays, pixels, weights in self._chunks(y.dtype):
            for sinogram, image in zip(flat, out, strict=True):
                image.index_add_(0, pixels.reshape(-1), (sinogram[rays][:, None, None] * weights).reshape(-1))
        return out.reshape(*self.codomain.batch_shape(y), *self.domain.shape)

    def _chunks(self, dtype: torch.dtype) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Yield rays with the same main axis, and their pixels and weights."""
        for group, by_row in ((self._by_row, True), (self._by_column, False)):
            shape = (self.domain.shape[0], self.domain.shape[1])
            room = _CPU_STEPS if group.device.type == "cpu" else _GPU_STEPS
            for rays in group.split(max(room // shape[0 if by_row else 1], 1)):
                some = joseph.Lines(group, *(value[rays].view(torch.float64) for value in self._lines))
                pixels, weights = joseph.entries(some, by_row, shape)
                yield rays, pixels, weights.to(dtype)
