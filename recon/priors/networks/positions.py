"""Coordinates of pixels, for networks that are told where in the image they look."""

from __future__ import annotations

import torch
from torch import Tensor


def coordinates(first: int, count: int, length: int, device: torch.device | str = "cpu") -> Tensor:
    """Return ``(count,)`` centres of the pixels from ``first`` on, of an axis whose ``length`` pixels span -1 to 1."""
    return (2 * torch.arange(first, first + count, dtype=torch.float32, device=device) + 1) / length - 1


def positions(
    shape: tuple[int, int],
    padded: tuple[int, int] | None = None,
    margin: tuple[int, int] = (0, 0),
    device: torch.device | str = "cpu",
) -> Tensor:
    """Return ``(1, 2, y, x)``: the y and x coordinate of every pixel of an image of ``shape``.

    Parameters
    ----------
    shape : (int, int)
        Of the image.
    padded : (int, int), optional
        Its size with the pixels that were added around it; their coordinates go on beyond -1 and 1.
    margin : (int, int)
        How many of them are above, and to the left.
    """
    y, x = (
        coordinates(-before, count, length, device)
        for length, count, before in zip(shape, padded or shape, margin, strict=True)
    )
    return torch.stack(torch.meshgrid(y, x, indexing="ij"))[None]
