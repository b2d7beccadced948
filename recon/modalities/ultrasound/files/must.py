"""MATLAB files of MUST and PyMUST: `RF` or `IQ` and a struct `param`, version 5 to 7.

`RF` (sample, element[, frame]), or a cell array of them, one per wave; `param` in SI units: `fs`, `pitch`, `fc`, `c`
(1540 m/s by default), `t0` (time of the first sample), `width`, `Nelements`, `TXdelay` (wave, element), `PRF`.
Time starts at TXdelay = 0; the angles follow from the delays, and the time at which the front passes the origin is
subtracted. The carrier of `IQ` runs in the file's time.
Source: Garcia, IEEE IUS (2021); https://github.com/creatis-ULTIM/PyMUST
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from recon.errors import InputError, ShapeError
from recon.files import mat5
from recon.files.mat5_matrix import Value
from recon.modalities.ultrasound.data import PlaneWaveData
from recon.modalities.ultrasound.files import hdf5 as us_hdf5


def sniff(path: Path) -> bool:
    """Tell whether this is a MATLAB file of version 5 to 7 with the variables of channel data."""
    return mat5.is_mat5(path) and not {"RF", "IQ", "param"}.isdisjoint(mat5.MatFile(path).variables)


def read(path: Path) -> PlaneWaveData:
    """Read the parameters; the samples of all frames are read together with the first frame.

    Raises
    ------
    InputError
        If something is missing or does not fit, or the waves are not plane.
    """
    file = mat5.MatFile(path)
    name = _variable(file)
    param = _struct(path, file.read("param"))
    data = _waves(path, name, file.read(name))
    waves, count, elements, frames = data.shape
    fields = _fields(param)
    sound_speed, pitch = fields.get("c", 1540.0), _needed(path, fields, "pitch")
    if np.isfinite(fields.get("radius", np.inf)):
        raise InputError(f"{path}: param.radius is finite; only linear arrays can be read")
    x = (np.arange(elements) - (elements - 1) / 2) * pitch
    positions = np.stack([x, np.zeros(elements), np.zeros(elements)], axis=1)
    delays = _delays(path, param, waves, elements)
    center = _needed(path, fields, "fc")
    slope = np.polyfit(x, delays.T, 1)[0] if elements > 1 else np.zeros(waves)
    if (np.abs(slope * sound_speed) >= 1).any():
        raise InputError(f"{path}: param.TXdelay is steeper than any plane wave at {sound_speed:g} m/s")
    angles = np.arcsin(slope * sound_speed)
    offset = us_hdf5.clock_offset(path, delays, positions, angles, sound_speed, 1 / center)
    modulation = center if name == "IQ" else 0.0
    geometry = us_hdf5.geometry(
        path,
        (waves, elements, count),
        element_positions=positions,
        angles=angles,
        sampling_frequency=_needed(path, fields, "fs"),
        center_frequency=center,
        sound_speed=sound_speed,
        initial_times=fields.get("t0", 0.0) - offset,
        demodulation_frequency=modulation,
        element_width=fields.get("width", 0.9 * pitch),
    )

    def load(i: int) -> np.ndarray:
        values = data[..., i].swapaxes(1, 2)
        return us_hdf5.turned(values, modulation, offset) if modulation else values.astype(np.float32)

    rate = fields["PRF"] / waves if fields.get("PRF") else None
    facts = {name: fields[name] for name in ("bandwidth",) if name in fields}
    return PlaneWaveData(path, "must", frames, load, geometry, frame_rate=rate, attributes=facts)


def _variable(file: mat5.MatFile) -> str:
    """Return "RF" or "IQ"."""
    name = next((name for name in ("RF", "IQ") if name in file.variables), None)
    if name is None or "param" not in file.variables:
        held = ", ".join(sorted(file.variables)[:20]) or "nothing"
        raise InputError(f"{file.path}: expected a MATLAB file with the variables RF (or IQ) and param, got: {held}")
    return name


def _waves(path: Path, name: str, found: Value) -> np.ndarray:
    """Return the samples as (wave, sample, element, frame)."""
    parts = [part for part in (found if isinstance(found, list) else [found]) if isinstance(part, np.ndarray)]
    if not parts or len(parts) != (len(found) if isinstance(found, list) else 1):
        raise InputError(f"{path}: {name}: expected numbers (sample, element, frame) or a cell array of them")
    if len({part.shape for part in parts}) != 1 or parts[0].ndim not in (2, 3) or 0 in parts[0].shape:
        shapes = ", ".join(str(part.shape) for part in parts[:4])
        raise ShapeError(f"{path}: {name}: expected (sample, element, frame), none of them 0, got {shapes}")
    return np.stack([part if part.ndim == 3 else part[..., None] for part in parts])


def _struct(path: Path, param: Value) -> dict[str, Value]:
    """Return the fields of the struct."""
    only = param[0] if isinstance(param, list) and len(param) == 1 else None
    if not isinstance(only, dict):
        raise InputError(f"{path}: param: expected a struct of one element")
    return only


def _fields(param: dict[str, Value]) -> dict[str, float]:
    """Return the real numbers among the fields."""
    numbers = {name: value for name, value in param.items() if isinstance(value, np.ndarray) and value.size == 1}
    return {name: float(value.item()) for name, value in numbers.items() if value.dtype.kind in "iuf"}


def _needed(path: Path, fields: dict[str, float], name: str) -> float:
    value = fields.get(name)
    if value is None or not np.isfinite(value) or value <= 0:
        raise InputError(f"{path}: param.{name}: expected a positive number, got {value}")
    return value


def _delays(path: Path, param: dict[str, Value], waves: int, elements: int) -> np.ndarray:
    """Return the transmit delays (wave, element) in s."""
    if "TXdelay" not in param:
        raise InputError(f"{path}: param.TXdelay is missing; the angles follow from it")
    entry = param["TXdelay"]
    cells = entry if isinstance(entry, list) else [entry]
    arrays = [cell for cell in cells if isinstance(cell, np.ndarray) and cell.dtype.kind in "iuf" and cell.ndim == 2]
    if len(arrays) != len(cells):
        raise InputError(f"{path}: param.TXdelay: expected real numbers (wave, element) or a cell array of them")
    rows = [cell.ravel() for cell in arrays] if isinstance(entry, list) else [row for cell in arrays for row in cell]
    if len(rows) != waves or any(len(row) != elements for row in rows):
        shape = (len(rows), len(rows[0])) if rows else (0,)
        raise ShapeError(f"{path}: param.TXdelay: expected ({waves}, {elements}), got shape {shape}")
    delays = np.array(rows, np.float64)
    if not np.isfinite(delays).all():
        raise InputError(f"{path}: param.TXdelay: elements that do not fire (NaN) are not supported")
    return delays
