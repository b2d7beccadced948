"""Pulses of an ultrasound system: the echo of a scatterer on one channel, as an analytic signal."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from operators.errors import InputError, ShapeError


def gaussian_pulse(center_frequency: float, bandwidth: float, rate: float) -> np.ndarray:
    """Return exp(-t^2 / (2 s^2)) exp(2 pi i f0 t), sampled around t = 0 at an odd number of points.

    Parameters
    ----------
    center_frequency : float
        Centre frequency f0 in Hz.
    bandwidth : float
        Full width of the spectrum at half its amplitude (-6 dB), over f0.
    rate : float
        Sampling rate in Hz.

    Raises
    ------
    InputError
        If the bandwidth is not positive.
    """
    if not (0 < bandwidth < math.inf):
        raise InputError(f"expected a pulse bandwidth > 0 (a fraction of the centre frequency), got {bandwidth}")
    sigma = math.sqrt(2 * math.log(2)) / (math.pi * bandwidth * center_frequency)
    half = math.ceil(5 * sigma * rate)
    t = np.arange(-half, half + 1) / rate
    return np.exp(-0.5 * (t / sigma) ** 2) * np.exp(2j * math.pi * center_frequency * t)


def as_pulse(samples: np.ndarray | Tensor) -> np.ndarray:
    """Check a pulse with t = 0 in its middle; a real one becomes its analytic signal.

    Raises
    ------
    InputError, ShapeError
        If the pulse is not a list of an odd number of finite values.
    """
    values = np.asarray(samples.numpy(force=True) if isinstance(samples, Tensor) else samples)
    if values.ndim != 1 or values.size % 2 == 0:
        raise ShapeError(f"expected a pulse of an odd number of samples, t = 0 in the middle, got shape {values.shape}")
    if not np.isfinite(values).all():
        raise InputError("the pulse contains values that are not finite")
    if np.iscomplexobj(values):
        return values.astype(np.complex128)
    return analytic(torch.from_numpy(values.astype(np.float64))).numpy()


def analytic(signal: Tensor) -> Tensor:
    """Return the analytic signal along the last axis: positive frequencies doubled, negative ones removed.

    Its real part is the signal. The signal is zero-padded, so that its end does not leak into its beginning.

    Parameters
    ----------
    signal : Tensor, shape (..., sample)
        Real signal.
    """
    count = signal.shape[-1]
    length = fast_length(count + count // 2)
    spectrum = torch.fft.fft(signal, length)
    gain = torch.zeros(length, dtype=signal.dtype, device=signal.device)
    gain[1 : (length + 1) // 2] = 2
    gain[0] = 1
    if length % 2 == 0:
        gain[length // 2] = 1
    return torch.fft.ifft(spectrum * gain)[..., :count]


def fast_length(count: int) -> int:
    """Return the smallest length >= `count` of the form 2^a 3^b 5^c."""
    best = 1 << (count - 1).bit_length()
    for five in (1, 5, 25, 125):
        for three in (1, 3, 9, 27):
            size = five * three
            while size < count:
                size *= 2
            best = min(best, size)
    return best
