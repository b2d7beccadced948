"""Default engine: Joseph's matrix stored as a pair of CSR matrices, A and its transpose.

The entries are computed in double precision, stored in single precision and used in both directions, so the adjoint
is exact. All images of a batch, and their rotated and flipped copies (`operators.ct.projectors.symmetry`), are columns
of one product: each entry is read once for all of them.
"""

from __future__ import annotations

import hashlib
import warnings

import numpy as np
import scipy.sparse
import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

from operators.base import LinearOperator, Space
from operators.ct.geometry import Beam
from operators.ct.projectors import cache, joseph, turns
from operators.ct.projectors.matrix import build
from operators.ct.projectors.symmetry import find_orbits
from operators.errors import InputError

MAX_BYTES = 1 << 30
_ENTRY = 8  # bytes of a stored entry: a float32 value and an int32 index
_COLUMNS = 64  # columns per product; more would exceed the cache
_BAG = 16  # from this many columns on, gathering whole rows beats the library's sparse product on a CPU
_FORMAT = b"diffrecon joseph 2"

Csr = tuple[Tensor, Tensor, Tensor]


class SparseProjector(LinearOperator):
    """Line integrals by a stored matrix of Joseph's weights.

    Parameters
    ----------
    geometry : Beam
        Scanner geometry.
    image_shape : (int, int)
        (y, x).
    pixel_size : float
        Side of the square pixels in mm.
    max_bytes : int, optional
        Largest matrix that may be built; two of this size are stored, A and its transpose.
    use_cache : bool, optional
        Keep large matrices in the cache folder (`operators.ct.projectors.cache`).

    Raises
    ------
    InputError
        If the matrix would be larger than `max_bytes`; use the on-the-fly engine then.
    """

    def __init__(
        self,
        geometry: Beam,
        image_shape: tuple[int, int],
        pixel_size: float,
        max_bytes: int = MAX_BYTES,
        use_cache: bool = True,
    ) -> None:
        super().__init__(
            Space(image_shape, torch.float32, "y x"), Space(geometry.shape, torch.float32, "angle detector")
        )
        points, directions = joseph.pixel_rays(geometry, image_shape, pixel_size)
        key = _key(points, directions, image_shape, pixel_size)
        arrays = cache.load(key) if use_cache else None
        if arrays is None or not _usable(arrays, geometry.shape, image_shape):
            orbits = find_orbits(points, directions, image_shape)
            size = _estimate(orbits.directions, image_shape)
            if size > max_bytes:
                raise InputError(
                    f"the matrix of {geometry.shape[0]} x {geometry.shape[1]} rays and {image_shape} pixels takes "
                    f"about {size / 2**30:.2g} GiB, more than {max_bytes / 2**30:.2g} GiB; use engine='onthefly'"
                )
            lines = joseph.lines_of(orbits.points, orbits.directions, image_shape, pixel_size)
            matrix, transposed, rank = build(lines, image_shape)
            places = rank[orbits.rays // orbits.turns] * orbits.turns + orbits.rays % orbits.turns
            arrays = _arrays(matrix, transposed, orbits.pixels.numpy(), places.numpy())
            if use_cache:
                cache.save(key, arrays)
        tensors = {name: torch.from_numpy(value) for name, value in arrays.items()}
        self._matrix: Csr = (tensors["rows"], tensors["columns"], tensors["values"])
        self._transposed: Csr = (tensors["rows_t"], tensors["columns_t"], tensors["values_t"])
        self._pixels, self._places = tensors["pixels"], tensors["places"]
        self.turns = self._pixels.shape[1]
        self._kinds = turns.recognise(self._pixels, image_shape) if self.turns > 1 else None
        turn = torch.arange(self.turns)
        self._unturned = torch.empty_like(self._pixels)  # inverse of each flip or rotation
        self._unturned[self._pixels, turn] = torch.arange(len(self._pixels))[:, None] * self.turns + turn

    @property
    def nbytes(self) -> int:
        """Size of both stored matrices in bytes."""
        return sum(t.numel() * t.element_size() for t in (*self._matrix, *self._transposed))

    def _forward(self, x: Tensor) -> Tensor:
        flat = x.detach().reshape(-1, self._pixels.shape[0])
        out = flat.new_empty(len(flat), len(self._places))
        for items in self._chunks(len(flat)):
            columns = flat[items].t().contiguous()
            if self._kinds is not None and turns.single(columns):
                columns = turns.turn(columns.reshape(self.domain.shape), self._kinds)
            elif self.turns > 1:
                columns = columns.index_select(0, self._pixels.reshape(-1)).reshape(len(columns), -1)
            value = multiply(self._matrix, columns)
            out[items] = value.reshape(-1, flat[items].shape[0]).index_select(0, self._places).t()
        return out.reshape(*self.domain.batch_shape(x), *self.codomain.shape)

    def _adjoint(self, y: Tensor) -> Tensor:
        flat = y.detach().reshape(-1, len(self._places))
        pixels = len(self._pixels)
        rows = (self._matrix[0].numel() - 1) * self.turns
        out = flat.new_empty(len(flat), pixels)
        for items in self._chunks(len(flat)):
            batch = flat[items].shape[0]
            columns = flat.new_zeros(rows, batch).index_copy_(0, self._places, flat[items].t())
            value = multiply(self._transposed, columns.reshape(-1, self.turns * batch))
            if self._kinds is not None and turns.single(columns):
                value = turns.turn_back(value, self._kinds, self.domain.shape)[:, None]
            elif self.turns > 1:
                value = _sum_rows(value.reshape(-1, batch), self._unturned)
            out[items] = value.t()
        return out.reshape(*self.codomain.batch_shape(y), *self.domain.shape)

    def _chunks(self, items: int) -> list[slice]:
        size = max(_COLUMNS // self.turns, 1)
        return [slice(i, i + size) for i in range(0, items, size)]


def fits(geometry: Beam, image_shape: tuple[int, int], pixel_size: float, max_bytes: int = MAX_BYTES) -> bool:
    """Tell whether the matrix stays below `max_bytes` (symmetry included)."""
    points, directions = joseph.pixel_rays(geometry, image_shape, pixel_size)
    if _estimate(directions, image_shape) <= max_bytes:
        return True
    return _estimate(find_orbits(points, directions, image_shape).directions, image_shape) <= max_bytes


def _arrays(
    matrix: scipy.sparse.csr_matrix, transposed: scipy.sparse.csr_matrix, pixels: np.ndarray, places: np.ndarray
) -> dict[str, np.ndarray]:
    return {
        **{"rows": matrix.indptr, "columns": matrix.indices, "values": matrix.data},
        **{"rows_t": transposed.indptr, "columns_t": transposed.indices, "values_t": transposed.data},
        **{"pixels": pixels, "places": places},
    }


def multiply(matrix: Csr, columns: Tensor) -> Tensor:
    """Multiply a CSR matrix and dense columns."""
    rows, index, values = matrix
    values = values.to(columns.dtype)
    if columns.device.type == "cpu" and columns.shape[1] >= _BAG:
        return embedding_bag(index, columns, rows, mode="sum", per_sample_weights=values, include_last_offset=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # torch warns that CSR support is in beta
        size = (rows.numel() - 1, columns.shape[0])
        sparse = torch.sparse_csr_tensor(rows, index, values, size, check_invariants=False)
    if columns.shape[1] == 1:
        return (sparse @ columns[:, 0])[:, None]
    return sparse @ columns


def _sum_rows(values: Tensor, index: Tensor) -> Tensor:
    """Sum, for each row of an index, the rows that it lists."""
    if values.device.type == "cpu":
        return embedding_bag(index, values, mode="sum")
    return values.index_select(0, index.reshape(-1)).reshape(*index.shape, -1).sum(1)


def _estimate(directions: Tensor, image_shape: tuple[int, int]) -> int:
    """Return an upper bound of the matrix size in bytes: two entries per step."""
    by_row = directions[..., 1].abs() >= directions[..., 0].abs()
    steps = int(by_row.sum()) * image_shape[0] + int((~by_row).sum()) * image_shape[1]
    return 2 * steps * _ENTRY


def _key(points: Tensor, directions: Tensor, image_shape: tuple[int, int], pixel_size: float) -> str:
    digest = hashlib.sha256(_FORMAT)
    digest.update(repr((tuple(image_shape), tuple(points.shape), float(pixel_size))).encode())
    for rays in (points, directions):
        digest.update(rays.contiguous().numpy().tobytes())
    return digest.hexdigest()


def _usable(arrays: dict[str, np.ndarray], sinogram: tuple[int, int], image: tuple[int, int]) -> bool:
    """Check a cached matrix before compiled code uses its indices."""
    try:
        pixels, rays = image[0] * image[1], sinogram[0] * sinogram[1]
        turned, places = arrays["pixels"], arrays["places"]
        rows = len(arrays["rows"]) - 1
        good = turned.shape[0] == pixels and places.shape == (rays,) and len(arrays["rows_t"]) == pixels + 1
        for name, width in (("", pixels), ("_t", rows)):
            offsets, index, values = (arrays[part + name] for part in ("rows", "columns", "values"))
            good = good and offsets[0] == 0 and offsets[-1] == len(index) == len(values) and values.dtype == np.float32
            good = good and bool((np.diff(offsets) >= 0).all()) and index.min() >= 0 and index.max() < width
        top = rows * turned.shape[1]
        good = good and places.min() >= 0 and places.max() < top
        return bool(good and turned.min() >= 0 and turned.max() < pixels)
    except (KeyError, ValueError, IndexError):
        return False
