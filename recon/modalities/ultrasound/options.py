"""Which part of an acquisition of plane waves is used: waves, elements, samples, field of view."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from operators.ultrasound.geometry import PlaneWaveGeometry
from recon.errors import InputError
from recon.modalities.ultrasound import patterns
from recon.modalities.ultrasound import pulse as us_signal
from recon.modalities.ultrasound.data import PlaneWaveData


@dataclass(frozen=True)
class Acquisition:
    """Which of the channel data are used, for which part of the image.

    Parameters
    ----------
    angles : int, optional
        How many waves, spread over the range (1: the one closest to 0); all by default.
    elements : int, optional
        How many receiving elements; all by default.
    array : "uniform", "random" or "centre"
        Which elements: every n-th, a sparse array, or a smaller aperture.
    decimation : int, optional
        Keep every n-th of the demodulated samples. By default the most that keeps the band of the pulse; more is below
        the Nyquist rate, and the model knows it.
    depth, width : (float, float), optional
        Part of the field of view in mm; by default all that is recorded below the probe.
    attenuation : float
        Of the tissue in dB/(MHz cm): the model lets echoes fade, so the image does not.
    model_error : float, optional
        Share of the local strength of the data that counts as noise, for what the model leaves out; by default 1.25
        times what a first fit leaves, less the electronic noise, and at least 0.05.
    time_shift : float
        Microseconds that the samples lie later than the file says (minus ``signals.time_zero``).
    noise_std : float, optional
        Electronic noise of the samples in the file; estimated by default.
    seed : int
        Of the sparse array.
    """

    angles: int | None = None
    elements: int | None = None
    array: str = "uniform"
    decimation: int | None = None
    depth: tuple[float, float] | None = None
    width: tuple[float, float] | None = None
    attenuation: float = 0.0
    model_error: float | None = None
    time_shift: float = 0.0
    noise_std: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("angles", "elements", "decimation"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"{name}: expected 1 or more, came {value}")
        if self.array not in patterns.ARRAYS:
            raise InputError(f"array: expected one of {', '.join(patterns.ARRAYS)}, came {self.array!r}")
        for name in ("depth", "width"):
            span = getattr(self, name)
            if span is not None and not (len(span) == 2 and np.isfinite(span).all() and span[0] < span[1]):
                raise InputError(f"{name}: expected two rising numbers in mm, came {span}")
        for name in ("attenuation", "model_error", "noise_std"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value >= 0):
                raise InputError(f"{name}: expected a finite number >= 0, came {value}")
        if not math.isfinite(self.time_shift):
            raise InputError(f"time_shift: expected microseconds, came {self.time_shift}")

    def choose(self, data: PlaneWaveData) -> PlaneWaveData:
        """Return the waves and elements that are used, at the corrected time."""
        data = data.undersample(self.angles, self.elements, array=self.array, seed=self.seed)
        if self.noise_std is not None:
            level = self.noise_std
            data = replace(data, load_noise=lambda i: level)
        if self.attenuation:
            data = replace(data, geometry=replace(data.geometry, attenuation=self.attenuation))
        return data.shifted(self.time_shift * 1e-6) if self.time_shift else data

    def band(self, geometry: PlaneWaveGeometry) -> float | None:
        """Return the width in Hz of the band that demodulation keeps of real samples; None for complex ones.

        Samples below the Nyquist rate of the pulse are aliased, not filtered: the band stays that of the pulse.
        """
        if geometry.is_complex:
            return None
        most = us_signal.decimation_of(geometry)
        return geometry.sampling_frequency / min(self.decimation or most, most)

    def thin_out(self, data: PlaneWaveData) -> PlaneWaveData:
        """Return the complex samples that are used: real ones are demodulated, with the band of the pulse."""
        band = self.band(data.geometry)
        if band is None:
            return data.select(decimation=self.decimation or 1)
        if self.decimation == 1:
            raise InputError("decimation: real samples become half as many complex ones, so expected 2 or more, came 1")
        return data.to_iq(bandwidth=band).select(decimation=self.decimation or us_signal.decimation_of(data.geometry))
