"""Pulse and noise of channel data, estimated from the data for the forward model."""

from __future__ import annotations

import math

import numpy as np
from scipy import ndimage

from operators.ultrasound.geometry import PlaneWaveGeometry
from operators.ultrasound.pulse import gaussian_pulse
from recon.errors import InputError
from recon.modalities.ultrasound.data import PlaneWaveData
from recon.modalities.ultrasound.signals import band_taper

#: Bandwidth kept by demodulation, relative to the centre frequency: a pulse of 67 % is 24 dB down at its ends.
BAND = 1.33
#: Bins of the spectrum below this fraction of its maximum (-17 dB) are ignored.
_SHARE = 0.02
#: Range of plausible bandwidths of a probe (-6 dB, relative to the centre frequency).
_BANDWIDTHS = (0.15, 1.2)
#: Length in seconds times the centre frequency over which the strength of the data is averaged.
_PERIODS = 12


def decimation_of(geometry: PlaneWaveGeometry) -> int:
    """Return the largest decimation from real to complex samples that keeps the band of the pulse."""
    return max(2, int(geometry.sampling_frequency / (BAND * geometry.center_frequency) + 1e-6))


def pulse_of(data: PlaneWaveData, index: int) -> tuple[float, float]:
    """Return centre frequency in Hz and bandwidth (-6 dB, relative to that of the geometry) of the echoes.

    The spectrum of echoes from many scatterers is that of the pulse: its mean over all channels is fitted by a Gaussian
    with the same first and second moment, over the bins within 17 dB of the maximum.

    Parameters
    ----------
    data : PlaneWaveData
        Real or complex channel data.
    index : int
        Number of the frame.
    """
    used = data if data.geometry.is_complex else data.to_iq()
    geometry = used.geometry
    values = used[index]
    window = np.hanning(values.shape[-1] + 2)[1:-1]
    power = np.mean(np.abs(np.fft.fft(values * window, axis=-1)) ** 2, axis=(0, 1))
    away = np.fft.fftshift(np.fft.fftfreq(len(power), 1 / geometry.sampling_frequency))
    power = np.fft.fftshift(ndimage.uniform_filter1d(power, max(1, len(power) // 100), mode="wrap"))
    power = np.where(power > _SHARE * power.max(), power, 0)
    # Base-band frequencies are relative to the demodulation frequency, which may not be the centre of the probe.
    mean = float((away * power).sum() / power.sum())
    spread = math.sqrt(float(((away - mean) ** 2 * power).sum() / power.sum()))
    center = mean + (geometry.demodulation_frequency or 0.0)
    bandwidth = 2 * math.sqrt(2 * math.log(2)) * math.sqrt(2) * spread / geometry.center_frequency
    if not geometry.demodulation_frequency:
        center = mean  # analytic data: frequencies are absolute
    return center, float(np.clip(bandwidth, *_BANDWIDTHS))


def pulse_samples(geometry: PlaneWaveGeometry, center: float, bandwidth: float, band: float | None) -> np.ndarray:
    """Return the analytic pulse at the sampling rate of the operator, with t = 0 in the middle.

    Parameters
    ----------
    geometry : PlaneWaveGeometry
        Geometry of the demodulated, decimated data.
    center : float
        Centre frequency in Hz.
    bandwidth : float
        Bandwidth relative to the centre frequency of the geometry.
    band : float, optional
        Width in Hz of the band-pass filter used for demodulation.
    """
    if not center > 0:
        raise InputError(f"the echoes have a centre frequency of {center:.4g} Hz: are these raw channel data?")
    rate = geometry.sampling_frequency * math.ceil(3.5 * geometry.center_frequency / geometry.sampling_frequency)
    pulse = gaussian_pulse(center, bandwidth * geometry.center_frequency / center, rate)
    if band is None:
        return pulse
    band = min(band, rate)
    pulse = np.pad(pulse, 16 * math.ceil(rate / band))  # room for the ringing of the filter
    away = np.abs(np.fft.fftfreq(len(pulse), 1 / rate) - geometry.demodulation_frequency)
    away = np.minimum(away, rate - away)
    spectrum = np.fft.fft(np.fft.ifftshift(pulse)) * band_taper(away, band / 2)
    return np.fft.fftshift(np.fft.ifft(spectrum))


def strength_of(values: np.ndarray, geometry: PlaneWaveGeometry) -> np.ndarray:
    """Return the rms over all elements and twelve periods around each sample, ``(angle, 1, sample)``."""
    width = max(1, round(_PERIODS * geometry.sampling_frequency / geometry.center_frequency))
    power = np.mean(np.abs(values) ** 2, axis=1, keepdims=True, dtype=np.float64)
    return np.sqrt(ndimage.uniform_filter1d(power, width, axis=-1, mode="nearest"))


def noise_of(electronic: np.ndarray, strength: np.ndarray, model_error: float) -> np.ndarray:
    """Return the standard deviation of each sample, ``sqrt(electronic^2 + (model_error strength)^2)``, float32.

    A model of plane waves, straight rays and one pulse is never exact, and its error grows with the echoes.
    """
    return np.sqrt(electronic.astype(np.float64) ** 2 + (model_error * strength) ** 2).astype(np.float32)
