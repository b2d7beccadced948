"""Plane-wave acquisitions and image grids as immutable values, in SI units.

The x axis runs along the probe, z into the body. Time starts at the origin: ``t = 0`` when the plane wave front of
each angle passes it. A wave at the angle th (positive towards +x) reaches the point (x, z) at
``(x sin th + z cos th) / sound_speed``, and its echo reaches element e after another ``|r - r_e| / sound_speed``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from torch import Tensor

from operators.errors import InputError, ShapeError

Numbers = Sequence[float] | np.ndarray | Tensor | float


#: Smallest distance of a carrier from a multiple of half the sampling frequency, over that half: closer carriers
#: overlap their mirror image.
_LEAST_GAP = 0.1
#: m/s, from gases to metals: any other number is in another unit.
_SPEEDS = (100.0, 10_000.0)


@dataclass(frozen=True, eq=False)
class PlaneWaveGeometry:
    """Acquisition of channel data (..., angle, element, sample).

    Sample n of angle k is taken at ``initial_times[k] + n / sampling_frequency``. Real data (`is_complex` False) are
    radio-frequency (RF) samples. Complex data are ``analytic(t) exp(-2 pi i demodulation_frequency t)``: the analytic
    signal itself if that frequency is 0, else base-band (IQ) samples, with the same time origin.

    Parameters
    ----------
    element_positions : array, shape (element, 2) or (element, 3)
        (x, z) or (x, y, z) in m; images lie in the plane y = 0.
    angles : array, shape (angle,)
        Angles of the transmitted plane waves in rad, within +-pi/2.
    sampling_frequency, center_frequency : float
        Sampling frequency and centre frequency of the pulse in Hz.
    sound_speed : float
        Speed of sound in m/s.
    sample_count : int
        Number of samples per channel.
    initial_times : float or array, shape (angle,)
        Time of the first sample in s; 0 is when the wave front passes the origin.
    demodulation_frequency : float
        Demodulation frequency in Hz; 0 for RF or analytic data.
    is_complex : bool, optional
        Whether the data are complex; by default, they are if `demodulation_frequency` is not 0.
    element_width : float
        Width of an element in m; 0 for point elements.
    attenuation : float
        Attenuation of the tissue in dB/(MHz cm), along the whole path to the scatterer and back.
    transmit_aperture : (float, float), optional
        Ends of the transmitting aperture along x in m; by default those of the elements. It does not change
        when receiving elements are removed (`select`).

    Raises
    ------
    InputError, ShapeError
        If there is no angle, element or sample, a value is not finite, or a unit cannot be SI.
    """

    element_positions: Any
    angles: Any
    sampling_frequency: float
    center_frequency: float
    sound_speed: float
    sample_count: int
    initial_times: Any = 0.0
    demodulation_frequency: float = 0.0
    is_complex: bool | None = None
    element_width: float = 0.0
    attenuation: float = 0.0
    transmit_aperture: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        elements = finite_array(self.element_positions, "PlaneWaveGeometry(element_positions)")
        if elements.ndim != 2 or elements.shape[1] not in (2, 3):
            raise ShapeError(
                f"PlaneWaveGeometry expected element_positions (element, 2 or 3) in m, got shape {elements.shape}"
            )
        angles = np.atleast_1d(finite_array(self.angles, "PlaneWaveGeometry(angles)"))
        if angles.ndim != 1:
            raise ShapeError(f"PlaneWaveGeometry expected a list of angles, got shape {angles.shape}")
        for count, what in ((len(elements), "element"), (angles.size, "angle")):
            if not count:
                raise InputError(f"PlaneWaveGeometry needs at least one {what}, got none")
        if np.abs(angles).max() >= math.pi / 2:
            raise InputError(
                f"PlaneWaveGeometry needs angles within +-pi/2 rad, got {angles[np.abs(angles).argmax()]:.4g}; "
                "are they in degrees?"
            )
        if np.abs(elements).max() > 1:
            raise InputError(
                f"PlaneWaveGeometry: an element is {np.abs(elements).max():.4g} m from the origin; are they in mm?"
            )
        times = finite_array(self.initial_times, "PlaneWaveGeometry(initial_times)")
        if times.ndim > 1 or times.size not in (1, angles.size):
            raise ShapeError(f"PlaneWaveGeometry expected 1 or {angles.size} initial_times, got shape {times.shape}")
        aperture = self.transmit_aperture or (float(elements[:, 0].min()), float(elements[:, 0].max()))
        values = {
            "element_positions": frozen(elements),
            "angles": frozen(angles),
            "initial_times": frozen(np.broadcast_to(times.reshape(-1), angles.shape).copy()),
            "sample_count": positive_count(self.sample_count, "sample_count"),
            "is_complex": self.demodulation_frequency != 0 if self.is_complex is None else bool(self.is_complex),
            "transmit_aperture": (float(aperture[0]), float(aperture[1])),
        }
        for name in ("sampling_frequency", "center_frequency", "sound_speed"):
            values[name] = self._number(name, least=None)
        speed = self._number("sound_speed", least=None)
        if not _SPEEDS[0] <= speed <= _SPEEDS[1]:
            low, high = _SPEEDS
            raise InputError(f"PlaneWaveGeometry: sound_speed is {speed:g}; expected {low:g} to {high:g} m/s")
        for name in ("demodulation_frequency", "element_width", "attenuation"):
            values[name] = self._number(name, least=0.0)
        for name, value in values.items():
            object.__setattr__(self, name, value)
        if self.demodulation_frequency and not self.is_complex:
            raise InputError("PlaneWaveGeometry: demodulated data are complex, got is_complex=False")

    def _number(self, name: str, least: float | None) -> float:
        value = float(np.asarray(getattr(self, name)).reshape(-1)[0]) if np.size(getattr(self, name)) == 1 else math.nan
        if not math.isfinite(value) or (value <= 0 if least is None else value < least):
            bound = "> 0" if least is None else ">= 0"
            raise InputError(f"PlaneWaveGeometry needs one {name} {bound}, got {getattr(self, name)}")
        return value

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of the channel data, (angle, element, sample)."""
        return len(self.angles), len(self.element_positions), self.sample_count

    @property
    def wavelength(self) -> float:
        """Wavelength at the centre frequency in m."""
        return self.sound_speed / self.center_frequency

    @property
    def elements(self) -> np.ndarray:
        """Element positions as (x, y, z) in m, shape (element, 3)."""
        points = np.asarray(self.element_positions)
        return points if points.shape[1] == 3 else np.insert(points, 1, 0.0, axis=1)

    def spectral_zone(self, frequency: float | None = None) -> int:
        """Return which multiple of half the sampling frequency lies below a carrier: odd zones have mirrored spectra.

        Parameters
        ----------
        frequency : float, optional
            Carrier in Hz; the centre frequency by default.

        Raises
        ------
        InputError
            If it is so close to a multiple that the spectrum of real samples overlaps its mirror image.
        """
        carrier = self.center_frequency if frequency is None else frequency
        zones = 2 * carrier / self.sampling_frequency
        if abs(zones - round(zones)) < _LEAST_GAP:
            raise InputError(
                f"RF sampled at {self.sampling_frequency / 1e6:.4g} MHz cannot be demodulated at {carrier / 1e6:.4g} "
                "MHz: the spectrum and its mirror image coincide"
            )
        return math.floor(zones)

    def select(
        self, angles: Sequence[int] | None = None, elements: Sequence[int] | None = None, decimation: int = 1
    ) -> PlaneWaveGeometry:
        """Return the geometry of ``data[angles][:, elements][:, :, ::decimation]``; the transmission is unchanged.

        Parameters
        ----------
        angles, elements : sequence of int, optional
            Indices to keep; all by default.
        decimation : int
            Keep every N-th sample.

        Raises
        ------
        InputError
            If a selection is empty, or an index does not exist.
        """
        step = positive_count(decimation, "decimation")
        waves = _indices(angles, len(self.angles), "angle")
        receivers = _indices(elements, len(self.element_positions), "element")
        return replace(
            self,
            angles=self.angles[waves],
            initial_times=self.initial_times[waves],
            element_positions=self.element_positions[receivers],
            sampling_frequency=self.sampling_frequency / step,
            sample_count=-(-self.sample_count // step),
        )


@dataclass(frozen=True, eq=False)
class Grid:
    """Pixel grid of an image (..., z, x).

    Parameters
    ----------
    x, z : array
        Increasing coordinates of the columns and of the rows in m.

    Raises
    ------
    InputError, ShapeError
        If coordinates are empty, not finite, not increasing, or not in m.
    """

    x: Any
    z: Any

    def __post_init__(self) -> None:
        for name in ("x", "z"):
            values = np.atleast_1d(finite_array(getattr(self, name), f"Grid({name})"))
            if values.ndim != 1 or not values.size:
                raise ShapeError(f"Grid expected a list of {name} coordinates, got shape {values.shape}")
            if (np.diff(values) <= 0).any():
                raise InputError(f"Grid needs increasing {name} coordinates")
            if np.abs(values).max() > 1:
                raise InputError(f"Grid: {name} reaches {np.abs(values).max():.4g} m; are the coordinates in mm?")
            object.__setattr__(self, name, frozen(values))

    @property
    def shape(self) -> tuple[int, int]:
        """Shape of an image, (z, x)."""
        return len(self.z), len(self.x)

    @property
    def spacing(self) -> tuple[float, float]:
        """Mean row and column spacing in m; 0 along an axis with one point."""
        return _mean_step(self.z), _mean_step(self.x)


def finite_array(values: Numbers, owner: str) -> np.ndarray:
    """Return the numbers as float64, or raise InputError if some are not finite."""
    try:
        array = np.array(values, dtype=np.float64)
    except (TypeError, ValueError):
        raise InputError(f"{owner} expected real numbers, got {type(values).__name__}") from None
    if not np.isfinite(array).all():
        raise InputError(f"{owner} contains {int((~np.isfinite(array)).sum())} values that are not finite")
    return array


def positive_count(value: Any, name: str) -> int:
    """Return a whole number >= 1, or raise InputError."""
    if isinstance(value, bool) or np.size(value) != 1 or int(value) != value or value < 1:
        raise InputError(f"expected a whole number {name} >= 1, got {value}")
    return int(value)


def frozen(array: np.ndarray) -> np.ndarray:
    """Make an array read-only."""
    array.flags.writeable = False
    return array


def _indices(chosen: Sequence[int] | None, count: int, what: str) -> np.ndarray:
    if chosen is None:
        return np.arange(count)
    index = np.atleast_1d(np.asarray(chosen))
    if not index.size:
        raise InputError(f"the selection contains no {what}; expected at least one of {count}")
    if index.ndim != 1 or index.dtype.kind not in "iu" or index.min() < -count or index.max() >= count:
        raise InputError(f"{what} out of range: expected whole numbers from 0 to {count - 1}, got {chosen}")
    return index


def _mean_step(values: np.ndarray) -> float:
    return float((values[-1] - values[0]) / (len(values) - 1)) if len(values) > 1 else 0.0
