"""Point sets on a grid for the masks: uniform, weighted, Poisson disc, spokes and a spiral."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

Generator = np.random.Generator
_POISSON_SLOPE = 2.0  # the minimum distance at the edge is 1 + slope times that at the centre
_POISSON_SPREAD = 0.4
_GOLDEN_ANGLE = math.pi * (math.sqrt(5) - 1) / 2


def weighted_points(log_weight: np.ndarray, free: np.ndarray, count: int, rng: Generator) -> np.ndarray:
    """Draw `count` distinct free indices with probability proportional to a weight (Gumbel top-k)."""
    key = np.where(free, log_weight + rng.gumbel(size=log_weight.shape), -np.inf)
    return np.argsort(-key, kind="stable")[:count]


def uniform_points(center: np.ndarray, target: int, rng: Generator) -> np.ndarray:
    """Add uniformly drawn points to the centre until `target` points are sampled."""
    mask = center.copy()
    free = np.flatnonzero(~center)
    mask.ravel()[rng.choice(free, target - int(center.sum()), replace=False)] = True
    return mask


def poisson_points(center: np.ndarray, target: int, rng: Generator) -> np.ndarray:
    """Variable-density Poisson disc around a full centre.

    The minimum distance grows linearly with the distance from the centre of k-space; its scale is searched by
    bisection, and the few surplus points are dropped at random, which keeps every distance.
    """
    profile = 1 + _POISSON_SLOPE * _radius(center.shape)
    # On a grid only some distances exist; without varying radii the density would jump from ring to ring.
    profile = profile * (1 + _POISSON_SPREAD * rng.uniform(size=center.shape))
    order = rng.permutation(center.size)
    low, high = 1 / profile.max(), 1.0
    while int(poisson_disc(profile * high, center, order).sum()) > target:
        low, high = high, 2 * high
    best = center if target == int(center.sum()) else np.ones_like(center)
    count = center.size
    for _ in range(14):
        if count <= 1.01 * target:
            break
        middle = math.sqrt(low * high)
        mask = poisson_disc(profile * middle, center, order)
        found = int(mask.sum())
        if found >= target:
            low, best, count = middle, mask, found
        else:
            high = middle
    extra = np.flatnonzero(best & ~center)
    best = best.copy()
    best.ravel()[rng.permutation(extra)[: max(int(best.sum()) - target, 0)]] = False
    return best


def poisson_disc(radius: np.ndarray, center: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Throw darts at all grid points in the given order, and keep those outside all discs.

    An accepted point forbids all points closer than its own radius, so two points are never closer than the smaller
    of their radii. The centre is kept whole and its points have discs like all others.
    """
    ny, nx = radius.shape
    reach = math.ceil(radius.max())
    blocked = np.zeros((ny + 2 * reach, nx + 2 * reach), dtype=bool)
    discs, sizes, index = _discs(radius)
    blocked[reach : reach + ny, reach : reach + nx] |= center

    def stamp(point: int) -> None:
        y, x = divmod(point, nx)
        kind = kinds[point]
        size = sizes[kind]
        y, x = y + reach, x + reach
        blocked[y - size : y + size + 1, x - size : x + size + 1] |= discs[kind]

    kinds = index.tolist()
    for point in np.flatnonzero(center).tolist():
        stamp(point)
    rows, columns = np.divmod(order, nx)
    positions = ((rows + reach) * (nx + 2 * reach) + columns + reach).tolist()
    free, accepted = blocked.ravel(), []
    for point, position in zip(order.tolist(), positions, strict=True):
        if not free[position]:
            stamp(point)
            accepted.append(point)
    mask = center.copy()
    mask.ravel()[accepted] = True
    return mask


def _discs(radius: np.ndarray) -> tuple[list[np.ndarray], list[int], np.ndarray]:
    """List the distinct discs of a radius map, and the number of every point's disc.

    On a grid the disc {d^2 < r^2} changes only where r^2 passes an integer, so r^2 rounded up names it exactly.
    """
    squares, index = np.unique(np.ceil(radius.ravel() ** 2 - 1e-9).astype(int), return_inverse=True)
    discs, sizes = [], []
    for square in squares.tolist():
        size = max(math.isqrt(max(square - 1, 0)), 0)
        steps = np.arange(-size, size + 1)
        discs.append(steps[:, None] ** 2 + steps**2 < max(square, 1))
        sizes.append(size)
    return discs, sizes, index.reshape(-1)


def radial_points(center: np.ndarray, target: int, rng: Generator) -> np.ndarray:
    """Golden-angle spokes through the centre, drawn on the grid until `target` points are sampled."""
    ny, nx = center.shape
    start = rng.uniform(0, math.pi)
    steps = np.linspace(-1, 1, 2 * max(ny, nx) + 1)
    steps = steps[np.argsort(np.abs(steps), kind="stable")]

    def spokes(count: float) -> np.ndarray:
        angle = start + _GOLDEN_ANGLE * np.arange(math.ceil(count))
        # The spoke ends on the rectangle's rim, so that the corners are reached.
        length = 1 / np.maximum(np.abs(np.cos(angle)), np.abs(np.sin(angle)))
        return _flat(np.outer(length * np.sin(angle), steps), np.outer(length * np.cos(angle), steps), (ny, nx))

    return _until(center, target, spokes, target / max(ny, nx) + 1)


def spiral_points(center: np.ndarray, target: int, rng: Generator) -> np.ndarray:
    """Draw an Archimedean spiral from the centre to the corners on the grid, with `target` points."""
    ny, nx = center.shape
    start = rng.uniform(0, 2 * math.pi)

    def spiral(turns: float) -> np.ndarray:
        # Equal steps of arc length, about a third of a pixel, on a spiral that reaches the corners.
        arc = math.pi * turns * 2 * max(ny, nx)
        radius = np.sqrt(np.linspace(0, 1, math.ceil(1.5 * arc) + 2)) * math.sqrt(2)
        angle = start + 2 * math.pi * turns * radius / math.sqrt(2)
        return _flat(radius * np.sin(angle), radius * np.cos(angle), (ny, nx))

    return _until(center, target, spiral, 1.0)


def _until(center: np.ndarray, target: int, points: Callable[[float], np.ndarray], count: float) -> np.ndarray:
    """Extend a trajectory until it samples `target` points, then drop the last ones."""

    def sampled(count: float) -> tuple[np.ndarray, np.ndarray]:
        path = points(count)
        _, first = np.unique(path, return_index=True)
        path = path[np.sort(first)]
        path = path[~center.ravel()[path]]
        return path, path[: target - int(center.sum())]

    needed = target - int(center.sum())
    low = high = count
    while len(sampled(high)[0]) < needed:
        low, high = high, 1.5 * high
        if high > 4 * center.size:
            break
    for _ in range(12):
        middle = (low + high) / 2
        low, high = (low, middle) if len(sampled(middle)[0]) >= needed else (middle, high)
    mask = center.copy()
    mask.ravel()[sampled(high)[1]] = True
    missing = target - int(mask.sum())
    mask.ravel()[np.flatnonzero(~mask)[:missing]] = True
    return mask


def _flat(y: np.ndarray, x: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """List the indices on the grid, in order, that a trajectory in units of half the field passes."""
    rows = np.round(y * (shape[0] / 2)).astype(int) + shape[0] // 2
    columns = np.round(x * (shape[1] / 2)).astype(int) + shape[1] // 2
    inside = (rows >= 0) & (rows < shape[0]) & (columns >= 0) & (columns < shape[1])
    return (rows[inside] * shape[1] + columns[inside]).ravel()


def _radius(shape: tuple[int, ...]) -> np.ndarray:
    """Distance from the centre of k-space, 1 at the corners."""
    y, x = ((np.arange(n) - n // 2) / max(n // 2, 1) for n in shape)
    return np.sqrt((y[:, None] ** 2 + x**2) / 2)
