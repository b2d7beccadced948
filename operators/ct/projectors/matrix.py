"""Build Joseph's matrix and its transpose as CSR matrices, without a general sort."""

from __future__ import annotations

import numpy as np
import scipy.sparse
import torch
from torch import Tensor

from operators.ct.projectors import joseph

_CHUNK = 1 << 15  # ray steps computed at once; fits the cache
_BAND = 1 << 12  # pixels transposed at once; fits the cache


def build(
    lines: joseph.Lines, image_shape: tuple[int, int]
) -> tuple[scipy.sparse.csr_matrix, scipy.sparse.csr_matrix, Tensor]:
    """Return the matrix of the rays (those that step by rows come first), its transpose, and each ray's row.

    Two entries are stored per step inside the image; a pixel outside the image has zero weight.
    """
    by_row = lines.by_row.reshape(-1)
    order = torch.argsort(~by_row, stable=True)
    rank = torch.empty_like(order)
    rank[order] = torch.arange(len(order))
    start, slope, weight = (value.reshape(-1)[order].numpy() for value in lines[1:])
    split = int(by_row.sum())
    parts = [(slice(0, split), image_shape), (slice(split, None), image_shape[::-1])]
    first, steps = (np.concatenate(v) for v in zip(*(_inside(start[r], slope[r], n) for r, n in parts), strict=True))
    rows = np.concatenate([[0], 2 * np.cumsum(steps)])
    index = np.int32 if rows[-1] < 2**31 else np.int64
    columns, values = np.empty(rows[-1], index), np.empty(rows[-1], np.float32)
    chunks = np.searchsorted(rows, np.arange(0, rows[-1], 2 * _CHUNK)).tolist()
    for a, b in zip(edges := sorted({*chunks, split, len(order)}), edges[1:], strict=False):
        entries = slice(rows[a], rows[b])
        _fill(
            columns[entries],
            values[entries],
            start[a:b],
            slope[a:b],
            weight[a:b],
            first[a:b],
            steps[a:b],
            image_shape,
            b <= split,
        )
    matrix = scipy.sparse.csr_matrix(
        (values, columns, rows.astype(index)), shape=(len(order), image_shape[0] * image_shape[1])
    )
    return matrix, _transpose(matrix, start, slope, first, steps, split, image_shape), rank


def _transpose(
    matrix: scipy.sparse.csr_matrix,
    start: np.ndarray,
    slope: np.ndarray,
    first: np.ndarray,
    steps: np.ndarray,
    split: int,
    image_shape: tuple[int, int],
) -> scipy.sparse.csr_matrix:
    """Transpose the matrix, whose first `split` rays step by rows, one band of image rows after the other.

    The steps of a ray that touch a band are consecutive, and their places in the transpose stay in the cache. A ray
    that steps by columns can touch two bands with one step, so a band then has a margin for entries of its neighbour.
    """
    (ny, nx), index = image_shape, matrix.indices.dtype
    rows = np.zeros(ny * nx + 1, index)
    columns, values = np.empty_like(matrix.indices), np.empty_like(matrix.data)
    pairs = [v.reshape(-1, 2).view(np.dtype((np.void, 2 * v.itemsize)))[:, 0] for v in (matrix.indices, matrix.data)]
    starts, height, filled = matrix.indptr[:-1] // 2, max(_BAND // nx, 1), 0
    margin = nx if split < len(start) else 0
    low, high = np.empty_like(first), np.empty_like(first)
    for top in range(0, ny, height):
        bottom = min(top + height, ny)
        inner = slice(margin, margin + (bottom - top) * nx)
        edges = (-np.inf if top == 0 else top - 1, np.inf if bottom == ny else bottom)
        low[:split], high[:split] = top, bottom
        low[split:], high[split:] = _between(start[split:], slope[split:], *edges, image_shape[1])
        low, high = ((edge - first).clip(0, steps) for edge in (low, high))
        ends = np.concatenate([[0], np.cumsum(high - low)]).astype(index)
        take = np.repeat((starts + low - ends[:-1]).astype(index), high - low)
        take += np.arange(ends[-1], dtype=index)
        places, weights = (v.take(take) for v in pairs)
        places = places.view(index)
        places -= index.type(top * nx - margin)
        if margin:
            places.clip(0, inner.stop + margin - 1, out=places)
        shape = (len(starts), inner.stop + margin)
        part = scipy.sparse.csr_matrix((weights.view(values.dtype), places, 2 * ends), shape=shape).tocsc()
        kept = slice(*part.indptr[[inner.start, inner.stop]].tolist())
        count = kept.stop - kept.start
        rows[top * nx + 1 : bottom * nx + 1] = part.indptr[inner.start + 1 : inner.stop + 1] - kept.start + filled
        columns[filled : filled + count], values[filled : filled + count] = part.indices[kept], part.data[kept]
        filled += count
    return scipy.sparse.csr_matrix((values, columns, rows), shape=matrix.shape[::-1])


def _between(
    start: np.ndarray, slope: np.ndarray, lower: float, upper: float, steps: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the first step, and one past the last, at which rays may be between two positions (at most one extra)."""
    slack = 1e-6
    least = slack / (2 * steps)  # replaces a smaller slope; moves a ray by at most the slack
    safe = np.where(np.abs(slope) < least, least, slope)
    ends = np.sort(np.stack(((lower - slack - start) / safe, (upper + slack - start) / safe)), axis=0)
    low, high = np.clip(np.stack((np.floor(ends[0]), np.ceil(ends[1]) + 1)), 0, steps).astype(np.int64)
    return low, high


def _inside(start: np.ndarray, slope: np.ndarray, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Return the first step and the number of steps at which rays are within one pixel of an image (steps, width)."""
    length, width = shape
    level = np.abs(slope) < 1e-12
    safe = np.where(level, 1.0, slope)
    ends = np.sort(np.stack(((-1 - start) / safe, (width - start) / safe)), axis=0)
    within = (start > -1) & (start < width)
    low = np.where(level, np.where(within, 0, length), ends[0]).clip(0, length)
    high = np.where(level, np.where(within, length - 1, -1), ends[1]).clip(-1, length - 1)
    first = np.ceil(low).astype(np.int64)
    return first, (np.floor(high).astype(np.int64) - first + 1).clip(0)


def _fill(
    columns: np.ndarray,
    values: np.ndarray,
    start: np.ndarray,
    slope: np.ndarray,
    weight: np.ndarray,
    first: np.ndarray,
    steps: np.ndarray,
    image_shape: tuple[int, int],
    by_row: bool,
) -> None:
    """Write the entries of consecutive rays with the same main axis."""
    nx = image_shape[1]
    width, stride, across = (nx, nx, 1) if by_row else (image_shape[0], 1, nx)
    offset = first - np.concatenate([[0], np.cumsum(steps)[:-1]])
    k = np.arange(int(steps.sum()), dtype=np.int32) + np.repeat(offset.astype(np.int32), steps)
    position = np.repeat(slope, steps)
    position *= k
    position += np.repeat(start, steps)
    whole = np.floor(position)
    position -= whole
    left = whole.astype(np.int32)
    weights = np.repeat(weight.astype(np.float32), steps)
    right_weight = position.astype(np.float32)
    right_weight *= weights
    weights -= right_weight
    values[0::2], values[1::2] = weights, right_weight
    k *= stride
    if across != 1:
        left_column = left * across
        left_column += k
    else:
        left_column = left + k
    columns[0::2], columns[1::2] = left_column, left_column + across
    # At an edge, one of the two pixels (rarely, by rounding, both) is outside and has zero weight.
    edge = np.flatnonzero(left.view(np.uint32) >= width - 1)
    for side in (0, 1):
        pixel = left[edge] + side
        values[2 * edge[(pixel < 0) | (pixel >= width)] + side] = 0
        columns[2 * edge + side] = np.clip(pixel, 0, width - 1) * across + k[edge]
