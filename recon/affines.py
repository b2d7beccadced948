"""Affines of slices, and the one of a stack of them."""

from __future__ import annotations

import numpy as np

#: Positions may deviate by this fraction of a step from even ones, as rounded numbers of headers do.
_EVEN = 0.05
#: Orientations and pixel sizes may differ by this fraction between slices.
_SAME = 1e-2
#: Note about a stack that has no affine of its own.
UNEVEN = (
    "the slices are not evenly spaced, or differ in orientation: the affine is that of the first slice with the mean "
    "step between slices, and geometry['affines'] has the affine of each slice"
)


def stacked(affines: np.ndarray) -> tuple[np.ndarray, bool]:
    """Return the affine of a stack of slices, and whether it is that of each of them.

    Parameters
    ----------
    affines : array, shape ``(slice, 4, 4)``
        From (x, y, slice) to mm of each slice, as if it were the first of a stack.

    Returns
    -------
    affine : array, shape ``(4, 4)``
        That of the first slice with the mean step from slice to slice, if they are not all in one place.
    even : bool
    """
    affine = np.array(affines[0], float)
    count, size = len(affines), float(np.linalg.norm(affine[:3, 2]))
    if count == 1:
        return affine, True
    origins = affines[:, :3, 3]
    step = (origins[-1] - origins[0]) / (count - 1)
    if np.linalg.norm(step) > _EVEN * size:
        affine[:3, 2], size = step, float(np.linalg.norm(step))
    expected = affine[:3, 3] + np.arange(count)[:, None] * affine[:3, 2]
    plane = affines[:, :3, :2] - affine[:3, :2]
    lengths = np.linalg.norm(affine[:3, :2], axis=0)
    even = np.abs(origins - expected).max() <= _EVEN * size and (np.abs(plane) <= _SAME * lengths).all()
    return affine, bool(even)
