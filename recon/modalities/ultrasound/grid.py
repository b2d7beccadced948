"""The pixel grid of an acquisition, and the part of the record that shows it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from operators.ultrasound.geometry import Grid, PlaneWaveGeometry
from recon.errors import InputError

#: Spacing of rows and columns in wavelengths. Least squares on this grid fits the echoes of scatterers between the
#: pixels (67 % bandwidth, waves at 0 and 11 degrees) as well as on a grid of 1/8: the residual after 30 iterations is
#: 2.1 %; it is 3.7 % on (0.4, 1/3) and 11 % on (1/2, 1/2), because the base-band image is aliased there.
ROWS, COLUMNS = 1 / 4, 1 / 3
#: Depth of the first row below the probe, in wavelengths.
_DEAD_ZONE = 10
#: Elements with a lateral distance above this fraction of the depth are ignored.
_ASIDE = 0.5
#: Length of an echo on either side of its time, in periods.
_PULSE = 4


@dataclass(frozen=True, eq=False)
class Region:
    """A part of a larger grid."""

    grid: Grid
    rows: slice
    columns: slice


def scene_of(
    geometry: PlaneWaveGeometry, depth: tuple[float, float] | None, width: tuple[float, float] | None
) -> tuple[Grid, Region]:
    """Return the full insonified grid and the requested region of it.

    Steered waves, and the soft edges of any wave, also insonify the tissue beside the aperture, so the grid extends as
    far as they do. By default the requested region is the one below the aperture.

    Parameters
    ----------
    geometry : PlaneWaveGeometry
    depth, width : (float, float), optional
        Ranges in mm.

    Raises
    ------
    InputError
        If nothing was recorded from that region.
    """
    first, last = recorded_depths(geometry)
    left, right = geometry.transmit_aperture or (0.0, 0.0)
    if right - left < geometry.wavelength:
        left, right = left - geometry.wavelength, right + geometry.wavelength
    if last <= first:
        raise InputError(f"nothing is recorded below {first * 1e3:.3g} mm: the record ends at {last * 1e3:.3g} mm")
    bottom = last
    if depth is not None:
        if depth[1] * 1e-3 <= first:
            raise InputError(
                f"depth: {depth[0]:g} to {depth[1]:g} mm is outside the record, which covers {first * 1e3:.3g} to "
                f"{last * 1e3:.3g} mm"
            )
        bottom = min(last, _latest_depth(geometry, depth[1] * 1e-3))
    z = np.arange(first, bottom + 1e-9, ROWS * geometry.wavelength)
    x = np.arange(left, right + 1e-9, COLUMNS * geometry.wavelength)
    x += (left + right - x[0] - x[-1]) / 2  # centred under the aperture
    if width is None:
        width = x[0] * 1e3, x[-1] * 1e3
    x = _widened(x, geometry, bottom)
    rows, columns = _within(z, depth, "depth"), _within(x, width, "width")
    return Grid(x, z), Region(Grid(x[columns], z[rows]), rows, columns)


def _widened(x: np.ndarray, geometry: PlaneWaveGeometry, bottom: float) -> np.ndarray:
    """Return the columns under the aperture, and those beside it that a wave reaches above the bottom."""
    soft = math.sqrt(geometry.wavelength * bottom / 2) + geometry.wavelength / 2  # as in the operator
    aside = bottom * np.tan(np.asarray(geometry.angles))
    step = x[1] - x[0]
    more = [math.ceil((max(0.0, far) + soft) / step) for far in (-aside.min(), aside.max())]
    return np.concatenate([x[0] - step * np.arange(more[0], 0, -1), x, x[-1] + step * np.arange(1, more[1] + 1)])


def recorded_depths(geometry: PlaneWaveGeometry) -> tuple[float, float]:
    """Return the depths in m of the first and the last echo of an unsteered wave, without the dead zone."""
    count = (geometry.sample_count - 1) / geometry.sampling_frequency
    first = float(geometry.initial_times.max()) * geometry.sound_speed / 2
    last = (float(geometry.initial_times.min()) + count) * geometry.sound_speed / 2
    return max(first, _DEAD_ZONE * geometry.wavelength), last


def record_window(geometry: PlaneWaveGeometry, scene: Grid, region: Region) -> slice:
    """Return the samples that can contain echoes of the region; earlier and much later ones are dropped."""
    waves = np.outer(np.sin(geometry.angles), scene.x)
    margin = _PULSE / geometry.center_frequency
    begin = (waves.min() + scene.z[0] * (1 + np.cos(geometry.angles).min())) / geometry.sound_speed - margin
    end = (waves.max() + region.grid.z[-1] * (1 + math.hypot(1, _ASIDE))) / geometry.sound_speed + margin
    start = math.floor((begin - geometry.initial_times.max()) * geometry.sampling_frequency)
    stop = math.ceil((end - geometry.initial_times.min()) * geometry.sampling_frequency) + 1
    start = min(max(start, 0), geometry.sample_count - 1)
    return slice(start, max(min(stop, geometry.sample_count), start + 1))


def _latest_depth(geometry: PlaneWaveGeometry, depth: float) -> float:
    """Return the depth whose first echoes begin when the last ones from ``depth`` end."""
    tilt = float(np.abs(np.sin(geometry.angles)).max()) * max(map(abs, geometry.transmit_aperture or (0.0, 0.0)))
    path = depth * (1 + math.hypot(1, _ASIDE)) + 2 * tilt + 2 * _PULSE * geometry.wavelength
    return path / (1 + float(np.cos(geometry.angles).min()))


def _within(axis: np.ndarray, span: tuple[float, float] | None, name: str) -> slice:
    """Return a mask of the coordinates within a span given in mm."""
    if span is None:
        return slice(0, len(axis))
    low, high = (edge * 1e-3 for edge in span)
    inside = np.flatnonzero((axis >= low - 1e-9) & (axis <= high + 1e-9))
    if len(inside) < 2 and axis[0] <= low and high <= axis[-1]:
        step = (axis[-1] - axis[0]) / (len(axis) - 1) * 1e3
        raise InputError(f"{name}: {span[0]:g} to {span[1]:g} mm holds fewer than two pixels of {step:.3g} mm")
    if len(inside) < 2:
        raise InputError(
            f"{name}: {span[0]:g} to {span[1]:g} mm is outside the image, which covers {axis[0] * 1e3:.3g} to "
            f"{axis[-1] * 1e3:.3g} mm"
        )
    return slice(int(inside[0]), int(inside[-1]) + 1)
