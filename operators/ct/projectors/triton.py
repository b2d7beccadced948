"""GPU engine in Triton: a ray-driven projection and its exact adjoint, a pixel-driven gather with the same weights.

A pixel at step r and position c of a ray's lines gets ``weight max(0, 1 - |start + slope r - c|)`` in both directions.
The gather finds the rays of a projection within one pixel by bisection, since their positions are monotone along
each run of detector elements with one main axis; no atomic sums, so results are reproducible. The kernels need
Triton; `emulate_gather` computes the adjoint's index algebra in numpy.
"""

from __future__ import annotations

import functools
import itertools
from typing import Any

import numpy as np
import torch
from torch import Tensor

from operators.base import LinearOperator, Space
from operators.ct.geometry import Beam
from operators.ct.projectors import joseph
from operators.errors import InputError

_RAYS, _PIXELS = 128, 128  # rays and pixels of one program


class TritonProjector(LinearOperator):
    """Line integrals on a CUDA device without a stored matrix; in single precision.

    Raises
    ------
    InputError
        If Triton is missing or a tensor is not on a CUDA device.
    """

    def __init__(self, geometry: Beam, image_shape: tuple[int, int], pixel_size: float) -> None:
        super().__init__(
            Space(image_shape, torch.float32, "y x"), Space(geometry.shape, torch.float32, "angle detector")
        )
        kernels()
        lines = joseph.make_lines(geometry, image_shape, pixel_size)
        self._by_row = lines.by_row.to(torch.uint8)
        # Measured from the middle of the image, positions lose less accuracy in single precision.
        self._start = centred_start(lines, image_shape).to(torch.float32)
        self._slope, self._weight = lines.slope.to(torch.float32), lines.weight.to(torch.float32)
        table, self._reach = runs(lines, image_shape)
        self._runs = torch.from_numpy(table)

    def to(self, target: torch.device | str | torch.dtype) -> LinearOperator:
        """Return a copy on another device; double precision is refused."""
        if target in (torch.float64, torch.complex128):
            raise InputError(f"engine='triton' computes in float32, not {target}; use engine='sparse' or 'onthefly'")
        return super().to(target)

    def _forward(self, x: Tensor) -> Tensor:
        images, (angles, detectors) = self._on_device(x, self.domain), self.codomain.shape
        out = images.new_empty(len(images), angles, detectors)
        rays = angles * detectors
        grid = (-(-rays // _RAYS), len(images))
        lines = (self._by_row, self._start, self._slope, self._weight)
        with torch.cuda.device_of(images):  # Triton launches on the current GPU, which need not be that of the tensor
            kernels().project[grid](images, out, *lines, rays, *self.domain.shape, _RAYS)
        return out.to(x.dtype).reshape(*self.domain.batch_shape(x), angles, detectors)

    def _adjoint(self, y: Tensor) -> Tensor:
        data, (ny, nx) = self._on_device(y, self.codomain), self.domain.shape
        out = data.new_empty(len(data), ny, nx)
        grid = (-(-ny * nx // _PIXELS), len(data))
        lines = (self._start, self._slope, self._weight)
        with torch.cuda.device_of(data):
            kernels().gather[grid](
                data,
                out,
                *lines,
                self._runs,
                len(self._runs),
                self.codomain.shape[0] * self.codomain.shape[1],
                ny,
                nx,
                self._reach,
                int(self.codomain.shape[1]).bit_length() + 1,
                _PIXELS,
            )
        return out.to(y.dtype).reshape(*self.codomain.batch_shape(y), ny, nx)

    def _on_device(self, x: Tensor, space: Space) -> Tensor:
        if x.device.type != "cuda" or self._start.device != x.device:
            raise InputError(
                f"engine='triton' on {self._start.device} got a tensor on {x.device}; both need the same GPU"
            )
        return x.detach().reshape(-1, *space.shape).to(torch.float32).contiguous()


def centred_start(lines: joseph.Lines, image_shape: tuple[int, int]) -> Tensor:
    """Return the position of each ray at the middle step, relative to the middle of the other axis."""
    ny, nx = image_shape
    middle = torch.where(lines.by_row, (ny - 1) / 2, (nx - 1) / 2)
    across = torch.where(lines.by_row, (nx - 1) / 2, (ny - 1) / 2)
    return lines.start + lines.slope * middle - across


def runs(lines: joseph.Lines, image_shape: tuple[int, int]) -> tuple[np.ndarray, int]:
    """Return runs of elements with the same main axis, and how many rays can be within one pixel of a point.

    Returns
    -------
    ndarray, shape (run, 4)
        int32: first ray and one past the last (flat), whether they step by rows, whether positions increase.
    int
    """
    by_row = lines.by_row.numpy()
    angles, detectors = by_row.shape
    start, slope = centred_start(lines, image_shape).numpy(), lines.slope.numpy()
    table, reach = [], 1
    for angle in range(angles):
        ends = [0, *(np.flatnonzero(np.diff(by_row[angle].astype(np.int8))) + 1).tolist(), detectors]
        for a, b in itertools.pairwise(ends):
            half = (image_shape[0 if by_row[angle, a] else 1] - 1) / 2
            at_ends = start[angle, a:b] + slope[angle, a:b] * np.array([[-half], [half]])
            step = np.diff(at_ends)
            table.append((angle * detectors + a, angle * detectors + b, by_row[angle, a], b - a < 2 or step[0, 0] > 0))
            if b - a > 1:
                reach = max(reach, int(np.ceil(2 / np.abs(step).min())) + 2)
    return np.array(table, np.int32), min(reach, detectors)


def emulate_gather(lines: joseph.Lines, y: np.ndarray, image_shape: tuple[int, int]) -> np.ndarray:
    """Compute the adjoint of one sinogram (ray,) by the formulas of the kernel, vectorised over pixels."""
    table, reach = runs(lines, image_shape)
    start, slope, weight = (v.numpy().reshape(-1) for v in (centred_start(lines, image_shape), lines[2], lines[3]))
    row, column = (i - (n - 1) / 2 for i, n in zip(np.indices(image_shape), image_shape, strict=True))
    image = np.zeros(image_shape)
    for first, last, by_row, rising in table:
        step, place = (row, column) if by_row else (column, row)
        low, high = np.full(image_shape, first), np.full(image_shape, last)
        for _ in range(int(last - first).bit_length() + 1):
            middle = np.minimum((low + high) // 2, last - 1)
            position = start[middle] + slope[middle] * step
            before = (position <= place - 1) if rising else (position >= place + 1)
            open_ = low < high
            low = np.where(open_ & before, middle + 1, low)
            high = np.where(open_ & ~before, middle, high)
        for k in range(reach):
            ray = np.minimum(low + k, last - 1)
            hat = np.maximum(1 - np.abs(start[ray] + slope[ray] * step - place), 0)
            image += np.where(low + k < last, hat * weight[ray] * y[ray], 0)
    return image


def available() -> bool:
    """Tell whether Triton can be imported."""
    try:
        kernels()
    except InputError:
        return False
    return True


@functools.cache
def kernels() -> Any:
    """Return the kernels, or raise InputError that names the alternative."""
    try:
        from operators.ct.projectors import triton_kernels
    except ImportError as error:
        raise InputError(
            f"engine='triton' needs a GPU build of torch with Triton ({error}); or use engine='auto'"
        ) from None
    return triton_kernels
