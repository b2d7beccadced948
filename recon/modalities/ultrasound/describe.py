"""Ultrasound data in lines of text: what the command line prints of them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from recon.commands.wording import short

if TYPE_CHECKING:
    from recon.modalities.ultrasound.data import PlaneWaveData
    from recon.options import RunConfig


def us_summary(data: PlaneWaveData) -> str:
    """Say in a few words what a file holds."""
    angles, elements, samples = data.shape
    return f"{data.format}, {len(data)} frame(s) of {angles} angle(s) x {elements} element(s) x {samples} samples"


def us_sampling(data: PlaneWaveData, settings: RunConfig) -> str:
    """Say which waves, elements and part of the field of view are used."""
    angles, elements, _ = data.shape
    parts = [
        f"{settings.angles or angles} of {angles} angle(s)",
        f"{settings.elements or elements} of {elements} element(s)"
        + (f" ({settings.array})" if settings.elements not in (None, elements) else ""),
    ]
    parts += [f"{name} {span} mm" for name, span in (("depth", settings.depth), ("width", settings.width)) if span]
    return ", ".join(parts)


def us_lines(data: PlaneWaveData) -> list[str]:
    """Describe channel data by their header."""
    scan = data.geometry
    angles, elements, samples = data.shape
    lines = [f"{data.path}", f"format: {data.format}", f"frames: {len(data)}"]
    lines.append(f"channel data: {angles} angle(s) x {elements} element(s) x {samples} samples")
    kind = "real (RF)"
    if scan.is_complex:
        kind = f"complex (IQ), demodulated at {scan.demodulation_frequency / 1e6:.4g} MHz"
    lines.append(
        f"samples: {kind}, {scan.sampling_frequency / 1e6:.4g} MHz, centre {scan.center_frequency / 1e6:.4g} MHz"
    )
    spread = np.degrees([scan.angles.min(), scan.angles.max()])
    lines.append(
        f"angles: {spread[0]:.4g} to {spread[1]:.4g} degrees" if angles > 1 else f"angle: {spread[0]:.4g} degrees"
    )
    x = scan.elements[:, 0] * 1e3
    pitch = f", every {np.median(np.abs(np.diff(x))):.4g} mm" if elements > 1 else ""
    lines.append(f"elements: {x.min():.4g} to {x.max():.4g} mm{pitch}, {scan.element_width * 1e3:.4g} mm wide")
    first = scan.initial_times * 1e6
    span = f"{first.min():.4g}" if np.ptp(first) < 1e-6 else f"{first.min():.4g} to {first.max():.4g}"
    lines.append(f"first sample: {span} us after the wave front passed the origin")
    depth = (scan.initial_times.max() + samples / scan.sampling_frequency) * scan.sound_speed / 2
    lines.append(f"sound speed: {scan.sound_speed:g} m/s, depth to {depth * 1e3:.3g} mm")
    if data.frame_rate is not None:
        lines.append(f"frame rate: {data.frame_rate:.4g} Hz")
    lines.extend(f"{name}: {short(value)}" for name, value in data.attributes.items())
    return lines


def picmus_lines(file: Path, kind: str) -> list[str]:
    """Describe a grid, an image or a phantom of the PICMUS challenge."""
    from recon.modalities.ultrasound.files import picmus_files

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
