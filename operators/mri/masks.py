"""Cartesian undersampling masks: whole columns, or points in two phase-encode axes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from operators.errors import InputError, ShapeError
from operators.mri.patterns import poisson_points, radial_points, spiral_points, uniform_points, weighted_points

Generator = np.random.Generator
_CALIBRATION_LINES = 12
_GAUSSIAN_STD = 15 / 128  # of the number of columns, as in the published Score-MRI experiments


def make_mask(
    shape: tuple[int, int],
    pattern: str,
    acceleration: float,
    center_fraction: float | None = None,
    seed: int | Sequence[int] = 0,
) -> np.ndarray:
    """Draw a sampling mask with a fully sampled centre, reproducibly from its seed.

    Column patterns have shape (1, x): they sample whole columns, the phase encodes of the last axis. Point patterns
    have shape (y, x). Exactly round(n / acceleration) of the n columns or points are sampled, the centre included,
    except in the two fastMRI patterns, which keep that package's rules bit for bit (there `random` draws the number).

    Parameters
    ----------
    shape : (int, int)
        Lengths of k-space along y and x; the centre is at n // 2.
    pattern : str
        Columns: ``equispaced``, ``random``, ``magic`` (equispaced, with the lines of the two halves of k-space
        interleaved under conjugate symmetry), ``gaussian1d``, ``fastmri-random``, ``fastmri-equispaced``.
        Points: ``uniform2d``, ``gaussian2d``, ``poisson`` (variable-density Poisson disc), ``radial`` (golden-angle
        spokes on the grid), ``spiral`` (an Archimedean spiral on the grid).
    acceleration : float
        R >= 1.
    center_fraction : float, optional
        Length of the fully sampled centre as a fraction of the columns, or of each axis for point patterns. The
        default for columns is 0.08 up to R = 6 and 0.04 above, for points, where a centre is cheap, 0.08; but at
        least 12 lines, since coil maps need them, if these are no more than two thirds (points: a quarter) of the
        samples.
        The two fastMRI patterns keep that package's fractions.
    seed : int or sequence of int
        Seed of a generator used only by this call; the global one is never used.

    Returns
    -------
    numpy.ndarray
        Booleans, (1, x) or (y, x).

    Raises
    ------
    InputError
        For an unknown pattern, R < 1, or a centre with more than n / R samples.
    """
    ny, nx = _lengths(shape)
    if pattern not in PATTERNS:
        raise InputError(f"make_mask: unknown pattern {pattern!r}; choose one of {', '.join(PATTERNS)}")
    if not (math.isfinite(acceleration) and acceleration >= 1):
        raise InputError(f"make_mask needs a finite acceleration >= 1, got {acceleration}")
    columns = pattern not in _POINTS
    share = (0.08 if acceleration <= 6 or not columns else 0.04) if center_fraction is None else center_fraction
    if not 0 <= share <= 1:
        raise InputError(f"make_mask needs a center_fraction from 0 to 1, got {center_fraction}")
    lengths = (1, nx) if columns else (ny, nx)
    target = round(math.prod(lengths) / acceleration)
    least = _least_center(target, columns) if center_fraction is None and pattern not in _FASTMRI else 0
    center = tuple(
        1 if columns and axis == 0 else min(max(round(n * share), least), n) for axis, n in enumerate(lengths)
    )
    if target == 0:
        raise InputError(f"make_mask: acceleration {acceleration:g} leaves no samples for {pattern} on {(ny, nx)}")
    if math.prod(center) > target:
        raise InputError(
            f"make_mask: {pattern} at acceleration {acceleration:g} on {(ny, nx)} samples {target} "
            f"{'columns' if columns else 'points'}, but its centre alone takes {math.prod(center)}; "
            f"lower center_fraction ({share:g}) or the acceleration"
        )
    if pattern in _FASTMRI:
        return _FASTMRI[pattern](nx, acceleration, center[1], np.random.RandomState(seed))[None]
    mask = center_block(lengths, (center[0], center[1]))
    rng = np.random.default_rng(seed)
    if columns:
        return _COLUMNS[pattern](mask[0], target - center[1], rng)[None]
    return _POINTS[pattern](mask, target, rng)


def center_block(shape: tuple[int, int], lengths: tuple[int, int]) -> np.ndarray:
    """Mask of a centred block, which starts at n // 2 - length // 2 along each axis."""
    mask = np.zeros(shape, dtype=bool)
    window = tuple(slice(n // 2 - m // 2, n // 2 - m // 2 + m) for n, m in zip(shape, lengths, strict=True))
    mask[window] = True
    return mask


def _least_center(target: int, columns: bool) -> int:
    """Return the lines of the centre needed for coil maps, if they leave enough samples outside it."""
    affordable = 2 * target // 3 if columns else math.isqrt(target // 4)
    return min(_CALIBRATION_LINES, affordable)


def _lengths(shape: tuple[int, int]) -> tuple[int, int]:
    lengths = tuple(int(n) for n in shape)
    if len(lengths) != 2 or min(lengths) < 1:
        raise ShapeError(f"make_mask expected a shape (y, x) of positive lengths, got {tuple(shape)}")
    return lengths[0], lengths[1]


def _equispaced(center: np.ndarray, lines: int, rng: Generator) -> np.ndarray:
    outside = np.flatnonzero(~center)
    chosen = ((np.arange(lines) + rng.uniform()) * len(outside) / max(lines, 1)).astype(int)
    return _with(center, outside[chosen])


def _random(center: np.ndarray, lines: int, rng: Generator) -> np.ndarray:
    return _with(center, rng.choice(np.flatnonzero(~center), lines, replace=False))


def _gaussian(center: np.ndarray, lines: int, rng: Generator) -> np.ndarray:
    n = len(center)
    distance = (np.arange(n) - n // 2) / (n * _GAUSSIAN_STD)
    return _with(center, weighted_points(-0.5 * distance**2, ~center, lines, rng))


def _magic(center: np.ndarray, lines: int, rng: Generator) -> np.ndarray:
    """Put even steps of a half-spacing grid on one side of the centre, odd steps on the other."""
    middle = len(center) // 2
    free = np.flatnonzero(~center)
    left, right = free[free < middle][::-1], free[free >= middle]
    sides = [left, right] if len(left) >= len(right) else [right, left]
    if len(left) == len(right) and rng.uniform() < 0.5:
        sides.reverse()
    start = rng.uniform()
    chosen = []
    for parity, side in enumerate(sides):
        count = (lines + 1 - parity) // 2
        position = (np.arange(count) + (parity + start) / 2) / max(count, 1) * len(side)
        chosen.append(side[position.astype(int)])
    return _with(center, np.concatenate(chosen))


def _with(center: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    mask = center.copy()
    mask[chosen] = True
    return mask


def _fastmri_random(n: int, acceleration: float, low: int, rng: np.random.RandomState) -> np.ndarray:
    probability = (n / acceleration - low) / max(n - low, 1)
    return (rng.uniform(size=n) < probability) | _fastmri_center(n, low)


def _fastmri_equispaced(n: int, acceleration: float, low: int, rng: np.random.RandomState) -> np.ndarray:
    """Apply the rule `equispaced_fraction`: a spacing stretched so that the centre's lines are accounted for."""
    mask = _fastmri_center(n, low)
    surplus = low * acceleration - n
    if surplus >= 0:
        return mask
    spacing = acceleration * (low - n) / surplus
    offset = rng.randint(0, round(spacing))
    mask[np.around(np.arange(offset, n - 1, spacing)).astype(int)] = True
    return mask


def _fastmri_center(n: int, low: int) -> np.ndarray:
    mask = np.zeros(n, dtype=bool)
    start = (n - low + 1) // 2
    mask[start : start + low] = True
    return mask


def _gaussian_2d(center: np.ndarray, target: int, rng: Generator) -> np.ndarray:
    ny, nx = center.shape
    y, x = (np.arange(ny) - ny // 2) / ny, (np.arange(nx) - nx // 2) / nx
    log_weight = -0.5 * (y[:, None] ** 2 + x**2) / 0.2**2
    mask = center.copy()
    mask.ravel()[weighted_points(log_weight.ravel(), ~center.ravel(), target - int(center.sum()), rng)] = True
    return mask


_COLUMNS: dict[str, Callable[[np.ndarray, int, Generator], np.ndarray]] = {
    "equispaced": _equispaced,
    "random": _random,
    "magic": _magic,
    "gaussian1d": _gaussian,
}
_FASTMRI: dict[str, Callable[[int, float, int, np.random.RandomState], np.ndarray]] = {
    "fastmri-random": _fastmri_random,
    "fastmri-equispaced": _fastmri_equispaced,
}
_POINTS: dict[str, Callable[[np.ndarray, int, Generator], np.ndarray]] = {
    "gaussian2d": _gaussian_2d,
    "uniform2d": uniform_points,
    "poisson": poisson_points,
    "radial": radial_points,
    "spiral": spiral_points,
}
COLUMN_PATTERNS = (*_COLUMNS, *_FASTMRI)
PATTERNS = (*_COLUMNS, *_FASTMRI, *_POINTS)
