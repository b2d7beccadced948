"""MATLAB files of MUST and PyMUST: `RF` or `IQ` and a struct `param`, version 5 to 7.2, read with scipy.

`RF` (sample, element[, frame]), or a cell array of them, one per wave; `param` in SI units: `fs`, `pitch`, `fc`, `c`
(1540 m/s by default), `t0` (time of the first sample), `width`, `Nelements`, `TXdelay` (wave, element), `PRF`.
Time starts at TXdelay = 0; the angles follow from the delays, and the time at which the front passes the origin is
subtracted. The carrier of `IQ` runs in the file's time.
Source: Garcia, IEEE IUS (2021); https://github.com/creatis-ULTIM/PyMUST
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from recon.errors import InputError, ShapeError
from recon.modalities.ultrasound.data import PlaneWaveData
from recon.modalities.ultrasound.files import hdf5 as us_hdf5

_MAGIC = b"MATLAB 5.0 MAT-file"
_EXPANSION = 100
_DAMAGE = (ValueError, TypeError, KeyError, IndexError, OSError, EOFError, MemoryError, OverflowError)
_BYTES = {"double": 8, "single": 4, "int64": 8, "uint64": 8, "int32": 4, "uint32": 4, "int16": 2, "uint16": 2}


def sniff(path: Path) -> bool:
    """Tell whether this is a MATLAB 5 file."""
    if not path.is_file():
        return False
    with open(path, "rb") as stream:
        return stream.read(len(_MAGIC)) == _MAGIC


def read(path: Path) -> PlaneWaveData:
    """Read the parameters; the samples of all frames are read together with the first frame.

    Raises
    ------
    InputError
        If something is missing or does not fit, or the waves are not plane.
    """
    name = _variable(path)
    param = _load(path, "param")
    data = _waves(path, name, _load(path, name))
    waves, count, elements, frames = data.shape
    fields = _fields(path, param)
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


def _variable(path: Path) -> str:
    """Return "RF" or "IQ" after checking from the headers that the variable is safe to read."""
    from scipy.io import whosmat

    with _matlab_errors(path):
        content = {name: (shape, kind) for name, shape, kind in whosmat(path)}
    name = next((name for name in ("RF", "IQ") if name in content), None)
    if name is None or "param" not in content:
        held = ", ".join(sorted(content)[:20]) or "nothing"
        raise InputError(f"{path}: expected a MATLAB file with the variables RF (or IQ) and param, got: {held}")
    shape, kind = content[name]
    declared = _BYTES.get(kind, 1)
    for length in shape:
        declared *= int(length)
    if declared > max(64 * 2**20, _EXPANSION * os.path.getsize(path)):
        raise InputError(f"{path}: {name} declares {declared} bytes, far more than the file can hold; refused")
    return name


def _load(path: Path, name: str) -> np.ndarray:
    from scipy.io import loadmat

    with _matlab_errors(path):
        return loadmat(path, variable_names=[name])[name]


@contextmanager
def _matlab_errors(path: Path) -> Iterator[None]:
    """Convert the errors of scipy for damaged files to an `InputError`."""
    try:
        yield
    except InputError:
        raise
    except (*_DAMAGE, zlib.error) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(f"{path}: cannot be read as a MATLAB file; it is damaged ({reason})") from error


def _waves(path: Path, name: str, found: np.ndarray) -> np.ndarray:
    """Return the samples as (wave, sample, element, frame)."""
    parts = list(found.ravel()) if found.dtype == object else [found]
    if not parts or any(not isinstance(part, np.ndarray) or part.dtype.kind not in "iufc" for part in parts):
        raise InputError(f"{path}: {name}: expected numbers (sample, element, frame) or a cell array of them")
    if len({part.shape for part in parts}) != 1 or parts[0].ndim not in (2, 3) or 0 in parts[0].shape:
        shapes = ", ".join(str(part.shape) for part in parts[:4])
        raise ShapeError(f"{path}: {name}: expected (sample, element, frame), none of them 0, got {shapes}")
    return np.stack([part if part.ndim == 3 else part[..., None] for part in parts])


def _fields(path: Path, param: np.ndarray) -> dict[str, float]:
    """Return the scalar fields of the struct."""
    if param.dtype.names is None or param.size != 1:
        raise InputError(f"{path}: param: expected a struct, got {param.dtype} {param.shape}")
    single: dict[str, float] = {}
    for name in param.dtype.names:
        value = np.asarray(param.reshape(-1)[0][name])
        if value.size == 1 and value.dtype.kind in "biuf":
            single[name] = float(value.reshape(-1)[0])
    return single


def _needed(path: Path, fields: dict[str, float], name: str) -> float:
    value = fields.get(name)
    if value is None or not np.isfinite(value) or value <= 0:
        raise InputError(f"{path}: param.{name}: expected a positive number, got {value}")
    return value


def _delays(path: Path, param: np.ndarray, waves: int, elements: int) -> np.ndarray:
    """Return the transmit delays (wave, element) in s."""
    entry: Any = param.reshape(-1)[0]["TXdelay"] if "TXdelay" in (param.dtype.names or ()) else None
    if entry is None:
        raise InputError(f"{path}: param.TXdelay is missing; the angles follow from it")
    rows = [np.ravel(row) for row in np.ravel(entry)] if entry.dtype == object else list(np.atleast_2d(entry))
    if len(rows) != waves or any(len(row) != elements for row in rows):
        raise ShapeError(f"{path}: param.TXdelay: expected ({waves}, {elements}), got shape {np.shape(entry)}")
    delays = np.array(rows, np.float64)
    if not np.isfinite(delays).all():
        raise InputError(f"{path}: param.TXdelay: elements that do not fire (NaN) are not supported")
    return delays
