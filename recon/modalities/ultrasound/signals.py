"""Channel data as signals: demodulation, noise level, and the time zero of a data set.

Arrays are `(angle, element, sample)`, times are those of `operators.ultrasound.geometry`: sample n of angle k is taken
at `initial_times[k] + n / sampling_frequency`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike
from scipy import fft

from recon.errors import InputError, ShapeError

if TYPE_CHECKING:
    from operators.ultrasound.geometry import PlaneWaveGeometry

# Fewer samples than this before the first echo are not enough to estimate the noise.
_LEAST_QUIET = 256
_QUIET_BAND = 16
#: An element with less than this fraction of the median power is dead.
_SILENT = 1e-6


def iq_geometry(geometry: PlaneWaveGeometry, frequency: float, bandwidth: float | None) -> PlaneWaveGeometry:
    """Return the geometry of demodulated data, after checking that they can be demodulated."""
    if geometry.is_complex:
        raise InputError("the data are already complex (IQ); demodulation takes real RF")
    fs = geometry.sampling_frequency
    if not (np.isfinite(frequency) and frequency > 0):
        raise InputError(f"the demodulation frequency must be > 0 Hz, got {frequency}")
    geometry.spectral_zone(frequency)
    if bandwidth is not None and not 0 < bandwidth <= fs:
        raise InputError(f"the bandwidth must lie between 0 and {fs:.4g} Hz, got {bandwidth}")
    return replace(geometry, demodulation_frequency=float(frequency), is_complex=True)


def demodulate(
    values: np.ndarray, geometry: PlaneWaveGeometry, frequency: float, bandwidth: float | None = None
) -> np.ndarray:
    """Return `analytic(t) exp(-2 pi i f t)` of real RF, complex64 of the same shape.

    The analytic signal is made by keeping the half of the spectrum in which `frequency` lies; for band-pass sampled
    data (a sampling frequency below twice the centre frequency) that may be the half with negative frequencies. The
    time is that of the geometry, with the first sample at `initial_times`: the phase at the echo's peak does not depend
    on when the recording began.

    Parameters
    ----------
    values : array, `(angle, element, sample)`
        Real RF samples.
    geometry
        Geometry of the samples.
    frequency : float
        Demodulation frequency in Hz.
    bandwidth : float, optional
        Two-sided bandwidth in Hz; a raised cosine over the outer tenth on each side.
    """
    n, fs = values.shape[-1], geometry.sampling_frequency
    size = fft.next_fast_len(2 * n)
    spectrum = fft.fft(values.astype(np.float64), size)
    bins = fft.fftfreq(size)
    upper = bins < 0 if geometry.spectral_zone(frequency) % 2 else bins > 0
    weights = 2.0 * upper
    weights[[i for i in (0, size // 2) if i == 0 or size % 2 == 0]] = 1.0
    if bandwidth is not None:
        # Distance of each (aliased) frequency from the carrier.
        away = np.abs((bins - frequency / fs + 0.5) % 1 - 0.5) * fs
        weights = weights * band_taper(away, bandwidth / 2)
    analytic = fft.ifft(spectrum * weights)[..., :n]
    times = geometry.initial_times[:, None, None] + np.arange(n) / fs
    return (analytic * np.exp(-2j * np.pi * frequency * times)).astype(np.complex64)


def noise_level(values: np.ndarray, geometry: PlaneWaveGeometry) -> float:
    """Estimate the standard deviation of white noise in channel data (for complex data: the total complex std).

    Where samples were taken before the wave left (times below 0 and before the first echo of any point in front of the
    probe), they hold noise alone. Otherwise the quietest sixteenth of the spectrum, away from 0 Hz, is taken as its
    floor: correct for receivers whose band is narrower than the sampled one, too low after an anti-aliasing filter.
    Complex samples may have no such band; then the quietest sixteenth of the record is used, if it is lower.
    """
    quiet = _before_echoes(values, geometry)
    if quiet.size >= _LEAST_QUIET and quiet.any():
        return float(np.sqrt(np.mean(np.abs(quiet - quiet.mean()) ** 2)))
    window = np.hanning(values.shape[-1] + 2)[1:-1]
    power = np.mean(np.abs(fft.fft(values * window, axis=-1)) ** 2, axis=(0, 1)) / np.sum(window**2)
    if not geometry.is_complex:
        power = power[: len(power) // 2 + 1]
        power = power[max(2, len(power) // 50) :]  # without an offset and slow drifts
    width = max(4, len(power) // _QUIET_BAND)
    smooth = np.convolve(power, np.ones(width) / width, "valid") if len(power) > width else power
    level = float(np.sqrt(smooth.min()))
    return min(level, _quietest_stretch(values)) if geometry.is_complex else level


def silent_elements(values: np.ndarray) -> np.ndarray:
    """Return the numbers of the elements without signal in data `(angle, element, sample)`."""
    power = np.mean(np.abs(values) ** 2, axis=(0, 2), dtype=np.float64)
    return np.flatnonzero(power < _SILENT * np.median(power))


def _quietest_stretch(values: np.ndarray) -> float:
    """Return the rms of the quietest sixteenth of the record, over all waves and elements, ignoring blanked samples."""
    power = np.asarray(np.mean(np.abs(values) ** 2, axis=(0, 1), dtype=np.float64))
    power = power[power > 0]
    width = max(4, len(power) // _QUIET_BAND)
    return float(np.sqrt(np.convolve(power, np.ones(width) / width, "valid").min())) if len(power) > width else np.inf


def time_zero(
    values: np.ndarray,
    geometry: PlaneWaveGeometry,
    points: ArrayLike,
    *,
    search: float = 5e-6,
    aperture: float = 1.0,
) -> float:
    """Estimate the delay of a data set from scatterers at known positions; `PlaneWaveData.shifted(-late)` corrects it.

    The echoes of each point are summed in phase over the elements at the times of the model plus a common delay; the
    delay with the largest sum of magnitudes over points and angles is returned, in s. It refers to the peak of the
    pulse's envelope, so a model with a pulse centred on 0 fits the corrected data.

    Parameters
    ----------
    values : array, `(angle, element, sample)`
        RF or IQ samples.
    geometry
        Geometry of the samples.
    points : array_like, `(point, 2)`
        Positions (x, z) in m.
    search : float
        Largest delay searched for, in s.
    aperture : float
        Elements within `z * aperture / 2` of a point's x are summed (f-number `1 / aperture`).

    Raises
    ------
    InputError, ShapeError
        If the points have a wrong shape, or none of their echoes was recorded.
    """
    known = np.atleast_2d(np.asarray(points, np.float64))
    if known.ndim != 2 or known.shape[1] != 2 or not np.isfinite(known).all():
        raise ShapeError(f"points: expected (point, 2) of finite (x, z) in m, got {known.shape}")
    carrier = geometry.demodulation_frequency
    if not geometry.is_complex:
        carrier = geometry.center_frequency
        values = demodulate(values, iq_geometry(geometry, carrier, None), carrier)
    step = 1 / (8 * geometry.center_frequency)
    delays = np.arange(-np.ceil(search / step), np.ceil(search / step) + 1) * step
    score = np.zeros(len(delays))
    for x, z in known:
        score += _coherence(values, geometry, carrier, (x, z), delays, aperture)
    best = int(score.argmax())
    if score[best] == 0 or best in (0, len(score) - 1):
        raise InputError(f"no echo of the given points within +-{search * 1e6:.3g} us; are the positions in m?")
    before, here, after = score[best - 1 : best + 2]
    return float(delays[best] + 0.5 * (before - after) / (before - 2 * here + after) * step)


def _coherence(
    values: np.ndarray,
    geometry: PlaneWaveGeometry,
    carrier: float,
    point: tuple[float, float],
    delays: np.ndarray,
    aperture: float,
) -> np.ndarray:
    """Return the magnitude of the sum over the elements, summed over the angles, for each delay."""
    x, z = point
    elements = geometry.elements
    active = np.flatnonzero(np.abs(elements[:, 0] - x) <= max(z * aperture / 2, 0.0))
    total = np.zeros(len(delays))
    way_back = np.sqrt((elements[active, 0] - x) ** 2 + elements[active, 1] ** 2 + (elements[active, 2] - z) ** 2)
    for k, angle in enumerate(geometry.angles):
        way = x * np.sin(angle) + z * np.cos(angle) + way_back
        times = way[:, None] / geometry.sound_speed + delays[None]
        position = (times - geometry.initial_times[k]) * geometry.sampling_frequency
        first = np.clip(np.floor(position).astype(int), 0, values.shape[-1] - 2)
        part = np.clip(position - first, 0, 1)
        inside = (position >= 0) & (position <= values.shape[-1] - 1)
        rows = active[:, None]
        found = values[k][rows, first] * (1 - part) + values[k][rows, first + 1] * part
        total += np.abs(np.sum(inside * found * np.exp(2j * np.pi * carrier * times), axis=0))
    return total


def _before_echoes(values: np.ndarray, geometry: PlaneWaveGeometry) -> np.ndarray:
    """Return the samples before any echo from z > 0 can arrive: before the wave leaves the first part of the probe."""
    last = geometry.elements[:, 0]
    starts = np.minimum(last.min() * np.sin(geometry.angles), last.max() * np.sin(geometry.angles))
    # A pulse of about two periods may begin before its nominal time.
    until = starts / geometry.sound_speed - 2 / geometry.center_frequency
    count = np.floor((until - geometry.initial_times) * geometry.sampling_frequency).astype(int)
    parts = [values[k, :, : max(0, n)].ravel() for k, n in enumerate(count)]
    return np.concatenate(parts)


def band_taper(away: np.ndarray, half: float) -> np.ndarray:
    """Gain of the band-pass filter of `demodulate`, by the distance from its centre in Hz.

    One up to 0.9 half, zero from half on, a raised cosine between.
    """
    outer = np.clip((away / half - 0.9) / 0.1, 0, 1)
    return np.asarray(0.5 * (1 + np.cos(np.pi * outer)))
