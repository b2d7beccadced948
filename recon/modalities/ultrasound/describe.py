"""Text descriptions of channel data and of the other PICMUS files, and warnings about them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from recon.files import hdf5
from recon.modalities.protocols import Findings
from recon.modalities.recording import short
from recon.modalities.ultrasound.data import PlaneWaveData
from recon.modalities.ultrasound.files import picmus_files
from recon.modalities.ultrasound.options import Ultrasound
from recon.modalities.ultrasound.signals import silent_elements


def summary(data: PlaneWaveData) -> str:
    """Describe format and size in a few words."""
    angles, elements, samples = data.shape
    return f"{data.format}, {len(data)} frame(s) of {angles} angle(s) x {elements} element(s) x {samples} samples"


def sampling(data: PlaneWaveData, options: Ultrasound) -> str:
    """Describe the plane waves, elements and part of the field of view that are used."""
    angles, elements, _ = data.shape
    parts = [
        f"{options.angles or angles} of {angles} angle(s)",
        f"{options.elements or elements} of {elements} element(s)"
        + (f" ({options.array})" if options.elements not in (None, elements) else ""),
    ]
    spans = (("depth", options.depth), ("width", options.width))
    parts += [f"{name} {span[0]:g} to {span[1]:g} mm" for name, span in spans if span]
    return ", ".join(parts)


def lines(data: PlaneWaveData) -> list[str]:
    """Describe the header of channel data."""
    scan = data.geometry
    angles, elements, samples = data.shape
    found = [f"channel data: {angles} angle(s) x {elements} element(s) x {samples} samples"]
    kind = "real (RF)"
    if scan.is_complex:
        kind = f"complex (IQ), demodulated at {scan.demodulation_frequency / 1e6:.4g} MHz"
    found.append(
        f"samples: {kind}, {scan.sampling_frequency / 1e6:.4g} MHz, centre {scan.center_frequency / 1e6:.4g} MHz"
    )
    spread = np.degrees([scan.angles.min(), scan.angles.max()])
    found.append(
        f"angles: {spread[0]:.4g} to {spread[1]:.4g} degrees" if angles > 1 else f"angle: {spread[0]:.4g} degrees"
    )
    x = scan.elements[:, 0] * 1e3
    pitch = f", every {np.median(np.abs(np.diff(x))):.4g} mm" if elements > 1 else ""
    found.append(f"elements: {x.min():.4g} to {x.max():.4g} mm{pitch}, {scan.element_width * 1e3:.4g} mm wide")
    first = scan.initial_times * 1e6
    span = f"{first.min():.4g}" if np.ptp(first) < 1e-6 else f"{first.min():.4g} to {first.max():.4g}"
    found.append(f"first sample: {span} us after the wave front passed the origin")
    depth = (scan.initial_times.max() + samples / scan.sampling_frequency) * scan.sound_speed / 2
    found.append(f"sound speed: {scan.sound_speed:g} m/s, depth to {depth * 1e3:.3g} mm")
    if data.frame_rate is not None:
        found.append(f"frame rate: {data.frame_rate:.4g} Hz")
    found.extend(f"{name}: {short(value)}" for name, value in data.attributes.items())
    return found


def inspect(data: PlaneWaveData) -> Findings:
    """Read every frame of channel data and describe its signal and noise; damaged frames raise an InputError."""
    findings = Findings()
    for i, values in enumerate(data):
        noise = float(data.noise_std(i).max())
        findings.facts.append(f"frame {i}: largest value {np.abs(values).max():.4g}, noise about {noise:.3g}")
        dead = silent_elements(values)
        if len(dead):
            names = ", ".join(map(str, dead[:12])) + (", ..." if len(dead) > 12 else "")
            findings.warnings.append(f"frame {i}: element(s) {names} carry no signal and are excluded")
        offset = 0.0 if data.geometry.is_complex else _offset(values)
        if offset > 0.05:
            findings.warnings.append(f"frame {i}: the RF has an offset of {offset:.2g} times its rms")
    return findings


def _offset(values: np.ndarray) -> float:
    """Return the mean of real values over their rms."""
    return float(abs(values.mean(dtype=np.float64)) / np.sqrt(np.mean(values.astype(np.float64) ** 2)))


def auxiliary(file: Path) -> list[str] | None:
    """Describe a grid, an image or a phantom of the PICMUS challenge; None for any other file."""
    kind = picmus_files.kind(file) if hdf5.is_hdf5(file) else None
    if kind is None:
        return None
    lines = [f"{file}", f"format: picmus {kind}"]
    if kind == "phantom":
        phantom = picmus_files.read_picmus_phantom(file)
        lines.append(f"scatterers: {len(phantom.amplitudes)}")
        lines.append(
            f"points: {len(phantom.points)}, cysts: {len(phantom.cysts)}, speckle: {len(phantom.speckle)} region(s)"
        )
        return lines
    grid = picmus_files.read_picmus_scan(file) if kind == "scan" else None
    if grid is None:
        image = picmus_files.read_picmus_image(file)
        grid = image.grid
        lines.append(f"images of {', '.join(map(str, image.plane_waves))} plane wave(s)")
    (rows, columns), x, z = grid.shape, grid.x * 1e3, grid.z * 1e3
    lines.append(f"grid: {rows} x {columns} (z, x), z {z[0]:.4g} to {z[-1]:.4g} mm, x {x[0]:.4g} to {x[-1]:.4g} mm")
    return lines
