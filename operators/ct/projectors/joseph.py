"""Joseph's interpolation of a line integral, the discretisation of all exact engines.

A ray steps along its main axis (the one it is closer to) from one row or column of pixels to the next, and
interpolates linearly along the other axis: with row r and position c = start + slope r,
``(A x)_ray = weight sum_r [(1 - f) x[r, floor c] + f x[r, floor c + 1]]``, ``f = c - floor c``,
``weight = pixel_size / |cos|`` of the angle to the main axis. Pixels outside the image count as zero.

Reference: Joseph, "An improved algorithm for reprojecting rays through pixel images", IEEE TMI 1982.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from operators.ct.geometry import Beam


class Lines(NamedTuple):
    """Rays in the index coordinates of an image, each of shape (angle, detector).

    ``by_row`` is True where the main axis is y (one step per row); then the ray is at column ``start + slope * row``,
    otherwise at row ``start + slope * column``. ``weight`` is the length of a step in mm.
    """

    by_row: Tensor
    start: Tensor
    slope: Tensor
    weight: Tensor


def pixel_rays(geometry: Beam, image_shape: tuple[int, int], pixel_size: float) -> tuple[Tensor, Tensor]:
    """Points and unit directions of all rays as (column, row) indices, relative to the middle of the array."""
    points, directions = geometry.rays()
    flip = torch.tensor([1.0, -1.0], dtype=torch.float64)  # y is up, rows go down
    shift = torch.tensor(geometry.image_shift[::-1], dtype=torch.float64)
    return points * flip / pixel_size + shift, directions * flip


def make_lines(geometry: Beam, image_shape: tuple[int, int], pixel_size: float) -> Lines:
    """Return all rays of a geometry as `Lines` of an image, in float64."""
    points, directions = pixel_rays(geometry, image_shape, pixel_size)
    return lines_of(points, directions, image_shape, pixel_size)


def lines_of(points: Tensor, directions: Tensor, image_shape: tuple[int, int], pixel_size: float) -> Lines:
    """Turn points and directions, as `pixel_rays` gives them, into `Lines`."""
    column, row = points[..., 0] + (image_shape[1] - 1) / 2, points[..., 1] + (image_shape[0] - 1) / 2
    dx, dy = directions.unbind(-1)
    by_row = dy.abs() >= dx.abs()
    main = torch.where(by_row, dy, dx)
    slope = torch.where(by_row, dx, dy) / main
    start = torch.where(by_row, column - row * slope, row - column * slope)
    return Lines(by_row, start, slope, pixel_size / main.abs())


def entries(lines: Lines, by_row: bool, image_shape: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Return pixels and weights of rays with the same main axis.

    Parameters
    ----------
    lines : Lines
        Rays of one main axis, each field of shape (ray,).
    by_row : bool
        Whether their main axis is y.
    image_shape : (int, int)
        (y, x).

    Returns
    -------
    Tensor, Tensor
        Flat pixel indices (int32) and weights (float64), both (ray, step, 2); outside the image, the weight is
        zero and the pixel is an arbitrary valid one.
    """
    ny, nx = image_shape
    steps, width = (ny, nx) if by_row else (nx, ny)
    stride, across = (nx, 1) if by_row else (1, nx)
    k = torch.arange(steps, dtype=torch.int32, device=lines.start.device)
    position = torch.addcmul(lines.start[:, None], lines.slope[:, None], k.to(lines.start.dtype))
    position.clamp_(-2, width + 1)  # far outside counts as outside; the clamp keeps the integer conversion safe
    first = torch.floor(position)
    fraction = position.sub_(first)
    first = first.to(torch.int32)
    upper = fraction * lines.weight[:, None]
    weights = torch.stack((lines.weight[:, None] - upper, upper), -1)
    pixels = torch.stack((first, first + 1), -1)
    weights.masked_fill_((pixels < 0) | (pixels >= width), 0)
    pixels.clamp_(0, width - 1)
    if across != 1:
        pixels *= across
    pixels += (k * stride)[:, None]
    return pixels, weights
