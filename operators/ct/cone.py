"""Cone-beam CT on a circular orbit: line integrals of small volumes, with a stored matrix.

Coordinates are those of `operators.ct.geometry`, with z along the axis of rotation; in arrays, z grows with the slice
index and with the detector row. A detector with one row at z = 0 measures what a flat `FanBeam` measures.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import scipy.sparse
import torch
from torch import Tensor

from operators.base import LinearOperator, Space
from operators.ct.geometry import Numbers, finite, positive
from operators.ct.projectors.sparse import MAX_BYTES, Csr, multiply
from operators.errors import InputError, ShapeError

_CHUNK = 1 << 20  # matrix entries computed at once
_ENTRY = 8  # bytes


@dataclass(frozen=True)
class ConeBeam:
    """Rays from a source on a circular orbit to a flat detector.

    Parameters
    ----------
    angles : sequence of float, array or tensor
        Any list of angles in rad, as for `FanBeam`.
    det_count : (int, int)
        Number of detector rows and columns; rows are stacked along the axis of rotation.
    det_spacing : float or (float, float)
        Row and column spacing in mm, at the detector.
    source_to_iso, source_to_detector : float
        Distances of the source from the isocentre and from the detector in mm.
    detector_offset : (float, float)
        Shift of the detector along z and along its columns in mm.

    Raises
    ------
    InputError, ShapeError
        If there is no angle or no element, a length is not positive and finite, the detector is in front of the
        isocentre, or a ray makes 45 degrees or more with the plane of the orbit.
    """

    angles: Numbers
    det_count: tuple[int, int]
    det_spacing: float | tuple[float, float]
    source_to_iso: float
    source_to_detector: float
    detector_offset: tuple[float, float] = (0.0, 0.0)

    def __post_init__(self) -> None:
        object.__setattr__(self, "angles", finite(self.angles, "ConeBeam(angles)"))
        count = tuple(int(n) for n in self.det_count)
        if not len(self.angles) or len(count) != 2 or min(count) < 1:
            raise InputError(
                f"ConeBeam needs at least one angle and det_count (rows, columns) >= 1, got {self.det_count}"
            )
        spacing = self.det_spacing if isinstance(self.det_spacing, tuple) else (self.det_spacing,) * 2
        pairs = {"det_count": count, "det_spacing": spacing, "detector_offset": self.detector_offset}
        for field, pair in pairs.items():
            if len(pair) != 2 or not all(math.isfinite(v) for v in pair) or (field == "det_spacing" and min(pair) <= 0):
                raise InputError(f"ConeBeam expected a finite {field} (z, u) in mm, got {getattr(self, field)}")
            object.__setattr__(self, field, tuple(pair))
        positive(self, "source_to_iso")
        positive(self, "source_to_detector")
        if self.source_to_detector < self.source_to_iso:
            raise InputError(
                f"ConeBeam needs source_to_detector >= source_to_iso, got {self.source_to_detector} mm and "
                f"{self.source_to_iso} mm"
            )
        if float(self.coordinates(0).abs().max()) >= self.source_to_detector:
            raise InputError(
                "ConeBeam: the outer rows are 45 degrees or more off the plane of the orbit; is det_spacing in mm?"
            )

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of the projections, (angle, row, column)."""
        return len(self.angles), *self.det_count

    def coordinates(self, axis: int) -> Tensor:
        """Position of the rows (axis 0) or columns (1) of the detector in mm, in float64."""
        count, spacing = self.det_count[axis], self.det_spacing[axis]  # type: ignore[index]
        return (torch.arange(count, dtype=torch.float64) - (count - 1) / 2) * spacing + self.detector_offset[axis]

    def rays(self) -> tuple[Tensor, Tensor]:
        """Return the source and the unit direction of every ray, (angle, row, column, 3) as (x, y, z) in mm."""
        t = torch.tensor(self.angles, dtype=torch.float64)[:, None, None]
        z, u = self.coordinates(0)[None, :, None], self.coordinates(1)[None, None, :]
        zero = torch.zeros(self.shape, dtype=torch.float64)
        d = self.source_to_detector
        direction = torch.stack((u * t.cos() - d * t.sin() + zero, u * t.sin() + d * t.cos() + zero, z + zero), -1)
        source = self.source_to_iso * torch.stack((t.sin() + zero, zero - t.cos(), zero), -1)
        return source, direction / torch.linalg.vector_norm(direction, dim=-1, keepdim=True)


class ConeCT(LinearOperator):
    """Line integrals of a volume along the rays of a cone beam, by Joseph's method in three dimensions.

    A ray steps along x or y, whichever it is closer to, and interpolates between the four voxels around it. Volumes
    are (..., z, y, x) in 1/mm, projections (..., angle, row, column), dimensionless. The adjoint is exact.

    Parameters
    ----------
    geometry : ConeBeam
    volume_shape : (int, int, int)
        (z, y, x). The isocentre is in the middle.
    voxel_size : float or (float, float)
        Voxel size in mm: one number, or that along z and that along y and x.
    max_bytes : int, optional
        Largest matrix that may be built; two of this size are stored, A and its transpose.

    Raises
    ------
    InputError, ShapeError
        If a shape or size cannot be used, the source is inside the volume, or the matrix is too large.
    """

    def __init__(
        self,
        geometry: ConeBeam,
        volume_shape: tuple[int, int, int],
        voxel_size: float | tuple[float, float],
        max_bytes: int = MAX_BYTES,
    ) -> None:
        shape = tuple(int(n) for n in volume_shape)
        size = tuple(float(v) for v in (voxel_size if isinstance(voxel_size, tuple) else (voxel_size,) * 2))
        if len(shape) != 3 or min(shape) < 1:
            raise ShapeError(f"ConeCT expected volume_shape (z, y, x) of positive lengths, got {volume_shape}")
        if len(size) != 2 or not all(v > 0 and math.isfinite(v) for v in size):
            raise InputError(f"ConeCT needs voxel_size > 0 mm, got {voxel_size}")
        if math.hypot(*shape[1:]) / 2 * size[1] >= geometry.source_to_iso:
            raise InputError(
                f"ConeCT: the source at {geometry.source_to_iso:.4g} mm is inside the volume; is the distance in mm?"
            )
        super().__init__(Space(shape, torch.float32, "z y x"), Space(geometry.shape, torch.float32, "angle row column"))
        self.geometry = geometry
        self.voxel_size = size
        self._matrix, self._transposed = _build(geometry, (shape[0], shape[1], shape[2]), size, max_bytes)

    def _forward(self, x: Tensor) -> Tensor:
        value = multiply(self._matrix, x.detach().reshape(-1, math.prod(self.domain.shape)).t().contiguous())
        return value.t().reshape(*self.domain.batch_shape(x), *self.codomain.shape)

    def _adjoint(self, y: Tensor) -> Tensor:
        value = multiply(self._transposed, y.detach().reshape(-1, math.prod(self.codomain.shape)).t().contiguous())
        return value.t().reshape(*self.codomain.batch_shape(y), *self.domain.shape)


def _build(geometry: ConeBeam, shape: tuple[int, int, int], size: tuple[float, ...], max_bytes: int) -> tuple[Csr, Csr]:
    """Return the matrix and its transpose."""
    nz, ny, nx = shape
    points, directions = (v.reshape(-1, 3) for v in geometry.rays())
    # voxel indices: y is up, rows go down
    scale = torch.tensor([1 / size[1], -1 / size[1], 1 / size[0]], dtype=torch.float64)
    middle = torch.tensor([(nx - 1) / 2, (ny - 1) / 2, (nz - 1) / 2], dtype=torch.float64)
    points, directions = points * scale + middle, directions * scale
    estimate = 4 * _ENTRY * len(points) * max(nx, ny)
    if estimate > max_bytes:
        raise InputError(
            f"the matrix of {len(points)} rays and {nz} x {ny} x {nx} voxels takes up to {estimate / 2**30:.2g} GiB, "
            f"more than {max_bytes / 2**30:.2g} GiB; use fewer views or larger voxels, or raise max_bytes"
        )
    room = max(_CHUNK // (4 * max(ny, nx)), 1)
    found = [_entries(p, d, shape) for p, d in zip(points.split(room), directions.split(room), strict=True)]
    counts, columns, values = (torch.cat(parts).numpy() for parts in zip(*found, strict=True))
    rows = np.concatenate([[0], np.cumsum(counts)])
    matrix = scipy.sparse.csr_matrix((values, columns, rows), shape=(len(points), nz * ny * nx))
    first, second = (
        tuple(torch.from_numpy(v) for v in (m.indptr, m.indices, m.data)) for m in (matrix, matrix.tocsc())
    )
    return (first[0], first[1], first[2]), (second[0], second[1], second[2])


def _entries(points: Tensor, directions: Tensor, shape: tuple[int, int, int]) -> tuple[Tensor, Tensor, Tensor]:
    """Return the number of entries of each ray, and their voxels and weights; rays are (column, row, slice)."""
    nz, ny, nx = shape
    by_row = directions[:, 1].abs() >= directions[:, 0].abs()
    (main, other), (here, there) = (
        [torch.where(by_row, v[:, a], v[:, 1 - a])[:, None] for a in (1, 0)] for v in (directions, points)
    )
    steps, width = (torch.where(by_row, a, b)[:, None] for a, b in ((ny, nx), (nx, ny)))
    stride, across = (torch.where(by_row, a, b)[:, None] for a, b in ((nx, 1), (1, nx)))
    k = torch.arange(max(nx, ny))[None]
    along = (k - here) / main  # distance from the point, mm
    place, level = there + along * other, points[:, 2:] + along * directions[:, 2:]
    place, level = place.clamp(-2, max(nx, ny) + 1), level.clamp(-2, nz + 1)  # far outside counts as outside
    first, below = place.floor(), level.floor()
    f, g = place - first, level - below
    columns, weights = [], []
    for i, side in ((0, 1 - f), (1, f)):
        for j, height in ((0, 1 - g), (1, g)):
            a, b = first.long() + i, below.long() + j
            inside = (k < steps) & (a >= 0) & (a < width) & (b >= 0) & (b < nz)
            weights.append(torch.where(inside, side * height / main.abs(), 0))
            columns.append(k * stride + a * across + b * ny * nx)
    weight, column = torch.stack(weights, -1), torch.stack(columns, -1)
    kept = weight > 0
    return kept.sum((1, 2)), column[kept].int(), weight[kept].float()
