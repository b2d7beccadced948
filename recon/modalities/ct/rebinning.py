"""Single-slice rebinning: fan-beam sinograms of single slices from a helical cone-beam scan.

Every ray of the fan of slice z is taken from the view that passes the same angle within half a rotation of z, in the
detector row where the measured ray crosses the slice at its point nearest to the axis; its line integral is multiplied
by the cosine of the cone angle. Exact for objects that do not change along the axis; otherwise the error grows with the
cone angle. Works on the cylindrical (or flat) detector directly and follows each view's own focal spot (flying focal
spot): a measured ray is sorted by its actual path, not by the position of the gantry.

Source: Noo, Defrise, Clackdoyle, Phys. Med. Biol. 44 (1999) 561, equations (1) and (2), here for a cylinder.

Directions here are those of DICOM-CT-PD, seen from the foot of the table: at the angle phi the focal spot is at
(-sin phi, cos phi) (x to the right, y up), columns grow along (cos phi, sin phi), rows against z.
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

_CHUNK = 192  # views that are interpolated together
_FIXED_POINT = 4  # iterations: each gains at least two digits


@dataclass(frozen=True, eq=False)
class Detector:
    """The detector: lengths in mm, the central element 1-based as DICOM-CT-PD gives it."""

    rows: int
    columns: int
    row_spacing: float
    column_spacing: float
    central_row: float
    central_column: float
    distance: float
    curved: bool = True

    def angle(self, column: np.ndarray) -> np.ndarray:
        """Angle of a column (0-based) around the focal centre, from the central ray."""
        ratio = (column + 1 - self.central_column) * self.column_spacing / self.distance
        return ratio if self.curved else np.arctan(ratio)

    def column(self, angle: np.ndarray) -> np.ndarray:
        """Fractional column (0-based) at an angle around the focal centre."""
        ratio = angle if self.curved else np.tan(angle)
        return ratio * self.distance / self.column_spacing + self.central_column - 1


@dataclass(frozen=True, eq=False)
class Trajectory:
    """One entry per view, in ascending order of `phi`: the focal centre, and the focal spot's shift from it."""

    phi: np.ndarray
    z: np.ndarray
    rho: np.ndarray
    shift_phi: np.ndarray
    shift_z: np.ndarray
    shift_rho: np.ndarray

    @property
    def radius(self) -> float:
        """The radius of the circular path of the fan's source."""
        return float(np.mean(self.rho))

    @property
    def step(self) -> float:
        """The mean angle between two views."""
        return float((self.phi[-1] - self.phi[0]) / (len(self.phi) - 1))

    @property
    def views_per_turn(self) -> int:
        """The number of views of one rotation."""
        return round(2 * np.pi / self.step)

    @property
    def full_turn(self) -> bool:
        """Whether the scan covers a full rotation."""
        return len(self.phi) >= self.views_per_turn

    @property
    def feed(self) -> float:
        """Table feed per rotation in mm; its sign is the direction."""
        return float((self.z[-1] - self.z[0]) / (self.phi[-1] - self.phi[0]) * 2 * np.pi)


class View(NamedTuple):
    """The measured data of a view: stored values `(row, column)`, their scaling, and the photons of each column."""

    stored: np.ndarray
    slope: float
    intercept: float
    photons: np.ndarray | None


class _Rays(NamedTuple):
    """The rays of one fan, each array `(state, column)`; angles relative to `phi` of the view."""

    column: np.ndarray
    beta: np.ndarray
    foot: np.ndarray
    length: np.ndarray


class Rebinner:
    """Fan sinograms of slices; each view is read once if slices are accessed in order.

    Parameters
    ----------
    trajectory, detector
        The geometry.
    load
        `load(k)` reads view k.
    """

    def __init__(self, trajectory: Trajectory, detector: Detector, load: Callable[[int], View]) -> None:
        self.trajectory, self.detector = trajectory, detector
        self._load = load
        self._views: OrderedDict[int, View] = OrderedDict()
        self._fan = detector.angle(np.arange(detector.columns, dtype=float))
        states = np.stack([trajectory.rho, trajectory.shift_rho, trajectory.shift_phi], axis=1)
        unique, self._state = np.unique(states, axis=0, return_inverse=True)
        self._state = self._state.reshape(-1)
        self._rays = _trace(unique, detector, self._fan, trajectory.radius)

    @property
    def angles(self) -> np.ndarray:
        """The angles of the fan's views `(angle,)`: one rotation, or all of a shorter scan."""
        t = self.trajectory
        if t.full_turn:
            return t.phi[0] + np.arange(t.views_per_turn) * (2 * np.pi / t.views_per_turn)
        return t.phi[0] + np.arange(len(t.phi)) * t.step

    def slice(self, z: float) -> tuple[np.ndarray, np.ndarray | None]:
        """Return the sinogram `(angle, detector)` of the slice at z, and the photons equivalent to its noise.

        Interpolation averages neighbouring elements: the noise of a value is that of `photons` incident quanta.
        """
        target = self._targets(z)
        reach = 4 * abs(self.trajectory.step) + np.abs(self._rays.beta).max()
        first, stop = np.searchsorted(self.trajectory.phi, [target.min() - reach, target.max() + reach])
        chunks = range(first, stop, _CHUNK)
        parts = [self._resample(np.arange(k, min(k + _CHUNK, stop)), z) for k in chunks]
        for k in [k for k in self._views if not first <= k < stop]:
            del self._views[k]
        values, photons = np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts])
        views = np.arange(first, stop)
        beta = self.trajectory.phi[views, None] + self._rays.beta[self._state[views]]
        sinogram, quanta = _interpolate_views(beta, values, photons, target)
        return sinogram, quanta if np.isfinite(quanta).all() else None

    def _targets(self, z: float) -> np.ndarray:
        """Return the angles, each shifted by whole rotations to where the scan passes the slice."""
        t, angles = self.trajectory, self.angles
        if not t.full_turn:
            return angles
        middle = (t.phi[0] + t.phi[-1]) / 2
        if t.feed:
            order = np.argsort(t.z)
            middle = float(np.interp(z, t.z[order], t.phi[order]))
        half = np.pi - t.step / 2
        # At the ends of the scan the window is shifted rather than truncated.
        start = min(max(middle - half, t.phi[0]), max(t.phi[-1] - 2 * half, t.phi[0])) - t.step / 2
        return start + np.mod(angles - start, 2 * np.pi)

    def _resample(self, views: np.ndarray, z: float) -> tuple[np.ndarray, np.ndarray]:
        """Read views and take the rays of the fan from each: values and photons `(view, column)`."""
        t, d = self.trajectory, self.detector
        for k in views:
            if k not in self._views:
                self._views[int(k)] = self._load(int(k))
        held = [self._views[int(k)] for k in views]
        column, _, foot, length = (array[self._state[views]] for array in self._rays)
        spot, centre = (t.z[views] + t.shift_z[views])[:, None], t.z[views][:, None]
        height = (z - spot) * length / foot  # height of the element over the focal spot
        row = d.central_row - 1 - (spot + height - centre) / d.row_spacing
        stored = np.stack([view.stored for view in held])
        values, averaging = _bilinear(stored, row, column)
        slope, intercept = (np.array([[getattr(view, name)] for view in held]) for name in ("slope", "intercept"))
        cosine = length / np.hypot(length, height)
        photons = np.full(values.shape, np.nan, np.float32)
        given = [view.photons for view in held if view.photons is not None]
        if len(given) == len(held):
            photons[:] = np.stack(given) / averaging
        return ((values * slope + intercept) * cosine).astype(np.float32), photons


def _trace(states: np.ndarray, detector: Detector, fan: np.ndarray, radius: float) -> _Rays:
    """Find which column measures each ray of the fan, for each state (rho, shift of rho, shift of phi).

    The frame turns with the gantry: focal centre at (0, rho), detector below. With the focal spot away from the centre,
    the ray to the column at the angle g runs at another fan angle; g follows from a fixed-point iteration.
    """
    rho, shift_rho, shift_phi = (states[:, k, None] for k in range(3))
    source = (-(rho + shift_rho) * np.sin(shift_phi), (rho + shift_rho) * np.cos(shift_phi))
    at = np.broadcast_to(fan, (len(states), len(fan))).copy()
    for iteration in range(_FIXED_POINT + 1):
        reach = detector.distance if detector.curved else detector.distance / np.cos(at)
        dx, dy = reach * np.sin(at) - source[0], rho - reach * np.cos(at) - source[1]
        length = np.hypot(dx, dy)
        dx, dy = dx / length, dy / length
        gamma = np.arcsin(np.clip((-source[0] * dy + source[1] * dx) / radius, -1, 1))
        if iteration < _FIXED_POINT:
            at += fan - gamma
    foot = -(source[0] * dx + source[1] * dy)
    return _Rays(detector.column(at), np.arctan2(dx, -dy) - gamma, foot, length)


def _bilinear(stored: np.ndarray, row: np.ndarray, column: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Interpolate `(view, row, column)` at one place per (view, ray); outside, the nearest element counts.

    Also returns the sum of the squared weights: the fraction of the variance that remains.
    """
    views, rows, columns = stored.shape
    row, column = np.clip(row, 0, rows - 1), np.clip(column, 0, columns - 1)
    r, c = np.minimum(row.astype(np.intp), max(rows - 2, 0)), np.minimum(column.astype(np.intp), max(columns - 2, 0))
    a, b = (row - r).astype(np.float32), (column - c).astype(np.float32)
    flat, base = stored.reshape(-1), (np.arange(views)[:, None] * rows + r) * columns + c
    down, right = columns if rows > 1 else 0, 1 if columns > 1 else 0
    upper = flat[base] * (1 - b) + flat[base + right] * b
    lower = flat[base + down] * (1 - b) + flat[base + down + right] * b
    return upper * (1 - a) + lower * a, (a**2 + (1 - a) ** 2) * (b**2 + (1 - b) ** 2)


def _interpolate_views(
    beta: np.ndarray, values: np.ndarray, photons: np.ndarray, target: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Interpolate each column `(view, column)` from its own angles to the target angles, with its photons."""
    out, quanta = (np.empty((len(target), values.shape[1]), np.float32) for _ in range(2))
    for i in range(values.shape[1]):
        order = np.argsort(beta[:, i], kind="stable")  # a flying focal spot may overtake the gantry
        angle, value, photon = beta[order, i], values[order, i], photons[order, i]
        k = np.clip(np.searchsorted(angle, target), 1, len(angle) - 1)
        gap = np.maximum(angle[k] - angle[k - 1], 1e-12)
        w = np.clip((target - angle[k - 1]) / gap, 0, 1)
        out[:, i] = value[k - 1] * (1 - w) + value[k] * w
        quanta[:, i] = 1 / ((1 - w) ** 2 / photon[k - 1] + w**2 / photon[k])
    return out, quanta
