"""The channel data selected by the options: plane waves, elements and demodulated samples."""

from __future__ import annotations

from dataclasses import replace

from operators.ultrasound.geometry import PlaneWaveGeometry
from recon.errors import InputError
from recon.modalities.ultrasound.data import PlaneWaveData
from recon.modalities.ultrasound.options import Ultrasound
from recon.modalities.ultrasound.pulse import decimation_of


def choose(options: Ultrasound, data: PlaneWaveData, seed: int = 0) -> PlaneWaveData:
    """Return the selected plane waves and elements, at the corrected time and speed; ``seed``: of a sparse array.

    The angles of the waves are kept when the sound speed is corrected.
    """
    if options.sound_speed is not None:
        data = replace(data, geometry=replace(data.geometry, sound_speed=options.sound_speed))
    data = data.undersample(options.angles, options.elements, array=options.array, seed=seed)
    if options.noise_std is not None:
        level = options.noise_std
        data = replace(data, load_noise=lambda i: level)
    if options.attenuation:
        data = replace(data, geometry=replace(data.geometry, attenuation=options.attenuation))
    return data.shifted(options.time_shift * 1e-6) if options.time_shift else data


def band(options: Ultrasound, geometry: PlaneWaveGeometry) -> float | None:
    """Return the width in Hz of the band that demodulation of real samples keeps; None for complex samples.

    Samples below the Nyquist rate of the pulse are aliased, not filtered: the band stays that of the pulse.
    """
    if geometry.is_complex:
        return None
    most = decimation_of(geometry)
    return geometry.sampling_frequency / min(options.decimation or most, most)


def thin_out(options: Ultrasound, data: PlaneWaveData) -> PlaneWaveData:
    """Return the complex samples that are used: real samples are demodulated with the band of the pulse."""
    width = band(options, data.geometry)
    if width is None:
        return data.select(decimation=options.decimation or 1)
    if options.decimation == 1:
        raise InputError("decimation: real samples become half as many complex ones; expected >= 2, got 1")
    return data.to_iq(bandwidth=width).select(decimation=options.decimation or decimation_of(data.geometry))
