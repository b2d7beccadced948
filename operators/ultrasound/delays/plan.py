"""What delay engines compute: positions in samples, weights and taps of each pixel, wave and element.

The echo of pixel j reaches element e after wave k at the position ``p = T_kj + r_ej - t0_k`` in samples (all lengths
are scaled by ``sampling_frequency / sound_speed``). It is spread over `taps` samples n around p by the kernel of an
interpolation *around the carrier*: ``kappa(n - p) exp(i theta (n - p))`` with ``theta = 2 pi f0 / fs``. An echo is
narrow-band once its carrier is removed, so that even two taps are accurate at four samples per period.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from operators.errors import InputError
from operators.ultrasound.geometry import Grid, PlaneWaveGeometry

SPREADING = {"none": 0.0, "cylindrical": 0.5, "spherical": 1.0}
WINDOWS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "boxcar": lambda u: np.ones_like(u),
    "hann": lambda u: 0.5 + 0.5 * np.cos(np.pi * u),
    "hamming": lambda u: 0.54 + 0.46 * np.cos(np.pi * u),
    "blackman": lambda u: 0.42 + 0.5 * np.cos(np.pi * u) + 0.08 * np.cos(2 * np.pi * u),
}
INTERPOLATIONS = ("linear", "cubic", "sinc")
_SINC_TAPS, _KAISER = 8, 6.0


@dataclass(frozen=True, eq=False)
class DelayPlan:
    """One acquisition and grid in units of samples; arrays are float64.

    Attributes
    ----------
    x, z : ndarray
        Pixel coordinates.
    elements : ndarray, shape (element, 3)
        Coordinates x and z, and distance from the image plane.
    element_weights : ndarray, shape (element,)
        Receive apodisation over the whole aperture.
    transmit_x, transmit_z : ndarray, shapes (angle, x) and (angle, z)
        The two parts of the transmit path; the time of the first sample is subtracted from `transmit_z`.
    transmit_weights : ndarray, shape (angle, z, x), or None
        Amplitude of the waves at the pixels.
    length : int
        Number of samples per row, including margins.
    theta : float
        Phase increment of the carrier per sample in rad.
    taps : ndarray, shape (tap, power)
        Interpolation weights as polynomials of the fraction ``p - floor(p)``; tap m falls on floor(p) + first + m.
    first : int
        Offset of the first tap.
    directivity : ndarray or None
        Polynomial in sin^2 of the angle of arrival, to be multiplied by its cosine.
    window : ndarray or None
        Apodisation as a polynomial in ``(2 f_number dx / dz)^2``, clipped at 1.
    f_number : float
        Receive f-number; 0 for the whole aperture.
    spreading : float
        Exponent of 1 / r in the geometric spreading.
    reference : float
        Distance at which the spreading weight is 1.
    attenuation : float
        Attenuation in neper per sample on the way back.
    """

    x: np.ndarray
    z: np.ndarray
    elements: np.ndarray
    element_weights: np.ndarray
    transmit_x: np.ndarray
    transmit_z: np.ndarray
    transmit_weights: np.ndarray | None
    length: int
    theta: float
    taps: np.ndarray
    first: int
    directivity: np.ndarray | None = None
    window: np.ndarray | None = None
    f_number: float = 0.0
    spreading: float = 0.0
    reference: float = 1.0
    attenuation: float = 0.0

    @property
    def rows(self) -> tuple[int, int]:
        """Numbers of waves and elements."""
        return len(self.transmit_x), len(self.elements)


def make_plan(
    geometry: PlaneWaveGeometry,
    grid: Grid,
    *,
    interpolation: str = "linear",
    oversampling: int = 1,
    margin: int = 0,
    length: int | None = None,
    directivity: bool = False,
    spreading: str = "none",
    attenuation: float = 0.0,
    transmit_mask: bool = False,
    f_number: float = 0.0,
    window: str = "boxcar",
) -> DelayPlan:
    """Express a geometry and a grid in samples at `oversampling` times the sampling frequency.

    Rows begin `margin` samples before the first sample of a channel.

    Raises
    ------
    InputError
        If an option is unknown or cannot be used.
    """
    choose(interpolation, INTERPOLATIONS, "interpolation")
    choose(spreading, SPREADING, "spreading")
    choose(window, WINDOWS, "window")
    if not (f_number >= 0 and math.isfinite(f_number)):
        raise InputError(f"f_number must be >= 0 (0 for the whole aperture), got {f_number}")
    rate = geometry.sampling_frequency * oversampling
    scale = rate / geometry.sound_speed
    elements = geometry.elements * scale
    x, z = grid.x * scale, grid.z * scale
    neper = attenuation * geometry.center_frequency * 1e-6 * 100 / scale * math.log(10) / 20
    angles = np.asarray(geometry.angles)[:, None]
    first, taps = interpolation_taps(interpolation)
    way = z * np.cos(angles), x * np.sin(angles)
    return DelayPlan(
        x=x,
        z=z,
        elements=np.stack((elements[:, 0], elements[:, 2], elements[:, 1]), 1),
        element_weights=_whole_window(elements[:, 0], window) if not f_number else np.ones(len(elements)),
        transmit_x=way[1],
        transmit_z=way[0] - np.asarray(geometry.initial_times)[:, None] * rate + margin,
        transmit_weights=_transmit_weights(geometry, grid, neper, scale, transmit_mask),
        length=length if length is not None else (geometry.sample_count - 1) * oversampling + 1 + 2 * margin,
        theta=2 * math.pi * geometry.center_frequency / rate,
        taps=taps,
        first=first,
        directivity=_directivity(geometry) if directivity else None,
        window=_polynomial(lambda u2: WINDOWS[window](np.sqrt(u2)), 1e-9) if f_number and window != "boxcar" else None,
        f_number=float(f_number),
        spreading=SPREADING[spreading],
        reference=0.01 * scale,
        attenuation=neper,
    )


def interpolation_taps(name: str) -> tuple[int, np.ndarray]:
    """Return the offset of the first tap, and the taps as polynomials of the fraction.

    "linear" has 2 taps, "cubic" 4 (Keys 1981, a = -1/2), "sinc" 8 (Kaiser window, taps that sum to 1).
    """
    if name == "linear":
        return 0, np.array([[1.0, -1.0], [0.0, 1.0]])
    if name == "cubic":
        return -1, 0.5 * np.array([[0, -1, 2, -1], [2, 0, -5, 3], [0, 1, 4, -3], [0, 0, -1, 1.0]])
    first = 1 - _SINC_TAPS // 2
    fraction = 0.5 - 0.5 * np.cos(np.pi * (np.arange(64) + 0.5) / 64)
    distance = fraction - np.arange(first, first + _SINC_TAPS)[:, None]
    inside = np.clip(1 - (2 * distance / _SINC_TAPS) ** 2, 0, None)
    values = np.sinc(distance) * np.i0(_KAISER * np.sqrt(inside)) / np.i0(_KAISER)
    values /= values.sum(0)
    taps = [np.polynomial.Polynomial.fit(fraction, row, 9, domain=[0, 1]).convert().coef for row in values]
    return first, np.stack([np.pad(row, (0, 10 - len(row))) for row in taps])


@lru_cache(maxsize=64)
def carrier(theta: float, tolerance: float) -> tuple[np.ndarray, np.ndarray]:
    """Return cos(theta f) and -sin(theta f) as polynomials in the fraction f in [0, 1). Not to be changed in place."""
    return _polynomial(lambda f: np.cos(theta * f), tolerance), _polynomial(lambda f: -np.sin(theta * f), tolerance)


def choose(name: str, known: object, what: str) -> None:
    """Raise InputError that lists the known names unless `name` is one of them."""
    names = list(known)  # type: ignore[call-overload]
    if name not in names:
        raise InputError(f"unknown {what} {name!r}; choose one of {', '.join(names)}")


def _polynomial(function: Callable[[np.ndarray], np.ndarray], tolerance: float) -> np.ndarray:
    """Fit a smooth function on [0, 1] by the polynomial of lowest degree within the tolerance."""
    nodes = 0.5 - 0.5 * np.cos(np.pi * (np.arange(128) + 0.5) / 128)
    values = function(nodes)
    for degree in range(0, 41):
        fit = np.polynomial.Chebyshev.fit(nodes, values, degree, domain=[0, 1])
        if np.abs(fit(nodes) - values).max() <= tolerance:
            break
    return fit.convert(domain=[-1, 1], kind=np.polynomial.Polynomial, window=[-1, 1]).coef


def _directivity(geometry: PlaneWaveGeometry) -> np.ndarray:
    """Return sinc(w sin / lambda) of a soft-baffle element as a polynomial in sin^2 (Selfridge et al. 1980)."""
    ratio = geometry.element_width / geometry.wavelength
    return _polynomial(lambda s2: np.sinc(ratio * np.sqrt(s2)), 1e-7)


def _whole_window(x: np.ndarray, window: str) -> np.ndarray:
    """Return the weights of a window over all elements; it ends half a pitch beyond the outermost ones."""
    half = np.ptp(x) / 2 * len(x) / max(len(x) - 1, 1)
    return WINDOWS[window]((x - (x.max() + x.min()) / 2) / half) if half else np.ones(len(x))


def _transmit_weights(
    geometry: PlaneWaveGeometry, grid: Grid, neper: float, scale: float, masked: bool
) -> np.ndarray | None:
    """Return the attenuation of the transmitted wave times its beam edges, as wide as the first Fresnel zone."""
    if not (neper or masked):
        return None
    angles = np.asarray(geometry.angles)[:, None, None]
    x, z = grid.x[None, None, :], grid.z[None, :, None]
    weights = np.exp(-neper * scale * np.clip(x * np.sin(angles) + z * np.cos(angles), 0, None))
    if masked:
        low, high = geometry.transmit_aperture or (-np.inf, np.inf)
        foot = x - z * np.tan(angles)
        edge = np.sqrt(geometry.wavelength * np.abs(z) / 2) + geometry.wavelength / 2
        inside = np.minimum(foot - low, high - foot) / edge
        weights = weights * np.clip(0.5 + inside / 2, 0, 1)
    return np.ascontiguousarray(weights)
