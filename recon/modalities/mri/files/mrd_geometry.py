"""Position and orientation of a slice of an ISMRMRD file as an affine."""

from __future__ import annotations

import numpy as np

#: Directions may deviate this much from unit length and right angles.
_TOLERANCE = 1e-2


def directions(head: np.ndarray) -> np.ndarray | None:
    """Return readout, phase and slice direction as rows `(3, 3)`, or None where the header has none."""
    axes = np.stack([head[name] for name in ("read_dir", "phase_dir", "slice_dir")]).astype(np.float64)
    if not np.isfinite(axes).all() or not np.isfinite(head["position"]).all():
        return None
    return axes if np.abs(axes @ axes.T - np.eye(3)).max() <= _TOLERANCE else None


def affine_of(
    first: np.ndarray, row: np.ndarray, column: np.ndarray, step: np.ndarray, shape: tuple[int, int]
) -> np.ndarray:
    """Return the affine of (column, row, slice) in the frame of NIfTI, whose x and y are opposite to those of DICOM.

    Parameters
    ----------
    first : array, shape ``(3,)``
        Centre of the slice in mm: pixel `n // 2` along both axes.
    row, column, step : array, shape ``(3,)``
        Vectors from row to row, column to column, and slice to slice, in mm.
    shape : (int, int)
        `(y, x)`.
    """
    corner = first - row * (shape[0] // 2) - column * (shape[1] // 2)
    affine = np.eye(4)
    affine[:3] = np.stack([column, row, step, corner], axis=1)
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
