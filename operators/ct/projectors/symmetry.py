"""Find the symmetry of a set of rays under flips and 90-degree rotations of the image.

If a symmetry g of the square (or rectangle) maps the rays of angle i onto those of angle j, then the projections at j
are the projections of the image x(g .) at i. A matrix then needs only one angle per orbit, and the rotated and
flipped images are more columns of the same product: less memory, less to build, and each matrix entry is read once for
all of them. The type of geometry does not matter: the rays themselves are compared.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor

# Elements of the dihedral group as matrices acting on (column, row) about the middle of the image.
_IDENTITY, _TURN, _FLIP = np.eye(2), np.array([[0.0, -1.0], [1.0, 0.0]]), np.diag([-1.0, 1.0])
_ROTATIONS = [np.linalg.matrix_power(_TURN, k) for k in range(4)]
_SQUARE = [
    [*_ROTATIONS, *(r @ _FLIP for r in _ROTATIONS)],
    [_IDENTITY, _TURN, _FLIP, _TURN @ _FLIP],  # parallel rays: a rotation by 180 degrees changes nothing
    _ROTATIONS,
    [_IDENTITY, _TURN],
]
_RECTANGLE = [
    [_IDENTITY, -_IDENTITY, _FLIP, -_FLIP],
    [_IDENTITY, _FLIP],
    [_IDENTITY, -_FLIP],
    [_IDENTITY, -_IDENTITY],
]
_TOLERANCE = 1e-7  # pixels; rays closer than this count as the same
_FEW = 2  # up to this many copies, doubling them for 180 degrees of parallel rays costs less than it saves
_WASTE = 1.15  # computed over requested projections for which the smaller matrix is still worth it


class Orbits(NamedTuple):
    """How all projections follow from a few base rays.

    Attributes
    ----------
    points, directions : Tensor, shape (base ray, 2)
        Rays that are computed, as (column, row), relative to the middle of the image.
    pixels : Tensor, shape (pixel, turn)
        Pixel of the image at each position of each rotated or flipped copy.
    rays : Tensor, shape (angle * detector,)
        Flat index of each ray in (base ray, turn).
    """

    points: Tensor
    directions: Tensor
    pixels: Tensor
    rays: Tensor

    @property
    def turns(self) -> int:
        """Number of rotated and flipped copies, the image itself included."""
        return self.pixels.shape[1]


def find_orbits(points: Tensor, directions: Tensor, image_shape: tuple[int, int]) -> Orbits:
    """Find the symmetry with the fewest base rays.

    Where the symmetry allows it, all base rays run along the columns of the image.

    Parameters
    ----------
    points, directions : Tensor, shape (angle, detector, 2)
        Rays as (column, row), relative to the middle of the image.
    image_shape : (int, int)
        (y, x).
    """
    angles, detectors = points.shape[:2]
    few = [k * (detectors - 1) // 8 for k in range(5)]  # mirrored detectors are covered: elements are equally spaced
    few = sorted({*few, *(detectors - 1 - k for k in few)})
    p, d = points[:, few].numpy(), directions[:, few].numpy()
    best = _cover([_IDENTITY], {0: _matches(p, d, _IDENTITY)}, angles)
    elements = (_SQUARE if image_shape[0] == image_shape[1] else []) + _RECTANGLE
    cache: dict[bytes, tuple[np.ndarray, np.ndarray]] = {}
    for group in elements:
        maps = {}
        for k, g in enumerate(group):
            key = np.round(g).astype(np.int8).tobytes()
            if key not in cache:
                cache[key] = _matches(p, d, g)
            maps[k] = cache[key]
        found = _cover(group, maps, angles)
        if len(found[0]) < len(best[0]) and len(found[0]) * len(group) <= _WASTE * angles:
            best = found
    base, turn, place, flipped, group = best
    element = np.arange(detectors)
    detector = np.where(flipped[:, None], detectors - 1 - element, element)
    turn = np.repeat(turn[:, None], detectors, axis=1)
    kept = detectors
    mirrored = detectors > 1 and _mirrored(p[base], d[base])
    if mirrored and len(group) <= _FEW:
        kept = (detectors + 1) // 2
        group, twice = [*group, *(-g for g in group)], np.arange(len(group)) + len(group)
        turn = np.where(detector >= kept, twice[turn], turn)
        detector = np.minimum(detector, detectors - 1 - detector)
    rows = place[:, None] * kept + detector
    p, d = (v[base, :kept].reshape(-1, 2).numpy() for v in (points, directions))
    products = _products(group, _TURN.T, mirrored and kept == detectors)
    if products is not None:
        quarter, reversed_ = products
        level = np.abs(d[:, 1]) < np.abs(d[:, 0])
        turned = level[rows]
        rows = np.where(turned & reversed_[turn], place[:, None] * kept + kept - 1 - detector, rows)
        turn = np.where(turned, quarter[turn], turn)
        p, d = (np.where(level[:, None], v @ _TURN.T, v) for v in (p, d))
    pixels = np.stack([_permutation(g, image_shape) for g in group], -1)
    rays = (rows * len(group) + turn).reshape(-1)
    return Orbits(*(torch.from_numpy(v) for v in (p, d, pixels, rays)))


def _mirrored(p: np.ndarray, d: np.ndarray) -> bool:
    """Tell whether a rotation by 180 degrees reverses each projection, so that half of its rays suffice."""
    target, backwards = _matches(p, d, -_IDENTITY)
    return bool((target == np.arange(len(p))).all() and backwards.all())


def _products(group: list[np.ndarray], g: np.ndarray, mirrored: bool) -> tuple[np.ndarray, np.ndarray] | None:
    """Return the index of h g for each h of a list, or None if one is missing; -h g counts where rays are mirrored."""
    signs = (1, -1) if mirrored else (1,)
    found = [
        [(k, s < 0) for s in signs for k, other in enumerate(group) if np.array_equal(s * (h @ g), other)]
        for h in group
    ]
    if not all(found):
        return None
    numbers, reversed_ = zip(*(each[0] for each in found), strict=True)
    return np.array(numbers), np.array(reversed_)


def _signature(p: np.ndarray, d: np.ndarray) -> np.ndarray:
    """Describe lines by foot point and doubled angle, independent of the given point and direction."""
    foot = p - (p * d).sum(-1, keepdims=True) * d
    size = max(float(np.abs(foot).max()), 1.0)
    double = np.stack((d[..., 0] ** 2 - d[..., 1] ** 2, 2 * d[..., 0] * d[..., 1]), -1) * size
    return np.concatenate((foot, double), -1)


def _matches(p: np.ndarray, d: np.ndarray, g: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the angle that g maps each angle to (or -1), and whether the detector is reversed there."""
    own, mapped = _signature(p, d), _signature(p @ g.T, d @ g.T)
    ends = [0, -1]  # enough to find a candidate; all elements are compared afterwards
    tree = cKDTree(own[:, ends].reshape(len(p), -1))
    target, reversed_ = np.full(len(p), -1), np.zeros(len(p), bool)
    for backwards in (False, True):
        candidate = mapped[:, ::-1] if backwards else mapped
        _, nearest = tree.query(candidate[:, ends].reshape(len(p), -1))
        same = np.abs(candidate - own[nearest]).max((1, 2)) <= _TOLERANCE
        new = same & (target < 0)
        target[new], reversed_[new] = nearest[new], backwards
    return target, reversed_


_Cover = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, list[np.ndarray]]


def _cover(group: list[np.ndarray], maps: dict[int, tuple[np.ndarray, np.ndarray]], angles: int) -> _Cover:
    """Add base angles one by one until every angle is the image of one."""
    turn, place = np.full(angles, -1), np.zeros(angles, np.int64)
    flipped = np.zeros(angles, bool)
    base: list[int] = []
    for angle in range(angles):
        if turn[angle] >= 0:
            continue
        for k in range(len(group)):
            target = maps[k][0][angle]
            if k == 0:
                target = angle  # also if two angles have the same rays
            if target >= 0 and turn[target] < 0:
                turn[target], place[target] = k, len(base)
                flipped[target] = maps[k][1][angle] if k else False
        base.append(angle)
    return np.array(base), turn, place, flipped, group


def _permutation(g: np.ndarray, image_shape: tuple[int, int]) -> np.ndarray:
    """Return the index of the pixel g p for every pixel p."""
    ny, nx = image_shape
    row, column = np.arange(ny)[:, None] - (ny - 1) / 2, np.arange(nx) - (nx - 1) / 2
    middle = (ny - 1) / 2 * nx + (nx - 1) / 2
    along = g[1] * nx + g[0]  # increments of the index along column and row
    return np.rint(row * along[1] + middle + column * along[0]).astype(np.int64).reshape(-1)
