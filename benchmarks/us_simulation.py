"""Channel data of PICMUS phantoms, scatterer by scatterer, and the image that a posterior should find.

Not our operator: every echo is an impulse at its own time, on a time axis 64 times finer than the period, with its own
directivity and spreading; the pulse comes last. Scatterers lie where the phantom has them, not on pixels.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from scipy import fft, special

from operators import Grid, PlaneWaveGeometry
from operators.ultrasound.pulse import gaussian_pulse
from recon.io import PlaneWaveData
from recon.modalities.ultrasound.files.picmus_files import PicmusPhantom
from recon.modalities.ultrasound.training import BAND, PIXEL, band

PITCH, CENTER, RATE, SPEED = 0.3e-3, 5.208e6, 20.832e6, 1540.0
#: -6 dB bandwidth of the pulse, which the pipeline does not know.
BANDWIDTH = 0.6
_FINER = 16


def channel_data(
    phantom: PicmusPhantom, name: str, *, waves: int, elements: int, depth: float, noise: float, seed: int = 0
) -> PlaneWaveData:
    """Return what the middle of a PICMUS probe sends and hears down to ``depth`` (m); ``noise`` in rms of the data."""
    x = (np.arange(elements) - (elements - 1) / 2) * PITCH
    geometry = PlaneWaveGeometry(
        np.stack([x, 0 * x], 1),
        np.deg2rad(np.linspace(-16, 16, waves)) if waves > 1 else [0.0],
        RATE,
        CENTER,
        SPEED,
        int(depth * 2.3 / SPEED * RATE),
        element_width=0.9 * PITCH,
    )
    near = (np.abs(phantom.positions[:, 0]) < 15e-3) & (phantom.positions[:, 2] < 1.15 * depth)
    at = phantom.positions[near][:, [0, 2]]
    values = _echoes(at, phantom.amplitudes[near], x, geometry)
    values = values + noise * values.std() * np.random.default_rng(seed).standard_normal(values.shape)
    values = values.astype(np.float32)
    return PlaneWaveData(Path(f"picmus-{name}"), "simulated", 1, lambda i: values, geometry)


def _echoes(at: np.ndarray, amplitudes: np.ndarray, x: np.ndarray, geometry: PlaneWaveGeometry) -> np.ndarray:
    rate = _FINER * RATE
    length = fft.next_fast_len(_FINER * (geometry.sample_count + 64), real=True)
    pulse = gaussian_pulse(CENTER, BANDWIDTH, rate).real
    padded = np.zeros(length)
    padded[: len(pulse)] = pulse
    transfer = fft.rfft(np.roll(padded, -(len(pulse) // 2)))
    values = np.empty((len(geometry.angles), len(x), geometry.sample_count))
    for e, position in enumerate(x):
        way = np.hypot(at[:, 0] - position, at[:, 1])
        sine = (at[:, 0] - position) / way
        weight = amplitudes * np.sinc(0.9 * PITCH / geometry.wavelength * sine) * (at[:, 1] / way) / np.sqrt(way / 1e-2)
        for k, angle in enumerate(geometry.angles):
            # What the wave from these elements does not hit is silent; the edge is as wide as the first Fresnel zone.
            aside = np.abs(at[:, 0] - at[:, 1] * np.tan(angle)) - np.abs(x).max()
            hit = 0.5 * special.erfc(aside / np.sqrt(geometry.wavelength * at[:, 1]))
            time = (at[:, 0] * np.sin(angle) + at[:, 1] * np.cos(angle) + way) / SPEED
            sample = np.rint(time * rate).astype(int)
            heard = (sample >= 0) & (sample < length)
            impulses = np.bincount(sample[heard], (hit * weight)[heard], length)
            values[k, e] = fft.irfft(fft.rfft(impulses) * transfer, length)[::_FINER][: geometry.sample_count]
    return values


def true_image(phantom: PicmusPhantom, grid: Grid, wavelength: float) -> np.ndarray:
    """Return the base-band reflectivity of the phantom on a grid of the pipeline, within the band of the prior."""
    at = phantom.positions[:, [2, 0]]
    low = np.array([grid.z[0], grid.x[0]]) - 6 * wavelength
    high = np.array([grid.z[-1], grid.x[-1]]) + 6 * wavelength
    near = ((at > low) & (at < high)).all(axis=1)
    at, strength = at[near], phantom.amplitudes[near] * np.exp(-4j * np.pi * at[near][:, 0] / wavelength)
    image = np.zeros(grid.shape, dtype=complex)
    kernels = [_kernel(step, edges) for step, edges in zip(PIXEL, BAND, strict=True)]
    for part in np.array_split(np.arange(len(at)), len(at) // 2000 + 1):
        along = [
            np.interp(np.abs(axis[:, None] - at[part, k]) / spacing, *kernels[k], right=0.0)
            for k, (axis, spacing) in enumerate(zip((grid.z, grid.x), grid.spacing, strict=True))
        ]
        image += (along[0] * strength[part]) @ along[1].T
    return image


def _kernel(step: float, edges: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
    """Return distances in pixels and what a point shows there, 1 at its place."""
    count = 1024
    transfer = band(count, step, edges)
    distance = np.linspace(0, 100, 20001)
    waves = np.cos(2 * np.pi * np.outer(distance, np.arange(count // 2) / count))
    weights = np.where(np.arange(count // 2) > 0, 2, 1) * transfer[: count // 2]
    return distance, waves @ weights / weights.sum()
