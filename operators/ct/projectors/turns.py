"""Rotated and flipped copies of an image as views of it: on a CPU, faster than gathering its pixels one by one."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

_Turn = Callable[[np.ndarray], np.ndarray]

_FLIPS: list[_Turn] = [lambda a: a, lambda a: a[::-1], lambda a: a[:, ::-1], lambda a: a[::-1, ::-1]]
_TURNS: list[_Turn] = [*_FLIPS, *(lambda a, flip=flip: flip(a.T) for flip in _FLIPS)]
# A rotation by 90 degrees and its reverse are swapped; every other element is its own inverse.
_INVERSE = (0, 1, 2, 3, 4, 6, 5, 7)


def recognise(pixels: Tensor, image_shape: tuple[int, ...]) -> tuple[int, ...] | None:
    """Return the flip/rotation that each column of (pixel, turn) is, or None if any is neither."""
    index = np.arange(len(pixels)).reshape(image_shape)
    found = []
    for column in pixels.numpy().T:
        turned = column.reshape(image_shape)
        same = (k for k, turn in enumerate(_TURNS) if _equal(turn(index), turned))
        kind = next(same, None)
        if kind is None:
            return None
        found.append(kind)
    return tuple(found)


def _equal(a: np.ndarray, b: np.ndarray) -> bool:
    """Compare two images; most that differ already do so in their first row."""
    return a.shape == b.shape and np.array_equal(a[0], b[0]) and np.array_equal(a, b)


def single(columns: Tensor) -> bool:
    """Tell whether these columns are one image or sinogram that numpy can access."""
    return columns.shape[1] == 1 and columns.device.type == "cpu" and columns.dtype in (torch.float32, torch.float64)


def turn(image: Tensor, kinds: tuple[int, ...]) -> Tensor:
    """Return the rotated and flipped copies of an image (y, x) as columns (pixel, turn)."""
    out = torch.empty(*image.shape, len(kinds), dtype=image.dtype)
    columns, source = out.numpy(), image.numpy()
    for k, kind in enumerate(kinds):
        columns[..., k] = _TURNS[kind](source)
    return out.reshape(-1, len(kinds))


def turn_back(columns: Tensor, kinds: tuple[int, ...], image_shape: tuple[int, ...]) -> Tensor:
    """Undo the rotations and flips of columns (pixel, turn) and sum them, (pixel,); the adjoint of `turn`."""
    source = columns.numpy().reshape(*image_shape, len(kinds))
    total = np.zeros(image_shape, source.dtype)
    for k, kind in enumerate(kinds):
        total += _TURNS[_INVERSE[kind]](source[..., k])
    return torch.from_numpy(total).reshape(-1)
