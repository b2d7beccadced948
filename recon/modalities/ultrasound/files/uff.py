"""Ultrasound File Format (UFF) of USTB: channel data of plane waves, read with h5py alone.

An HDF5 file with a group (usually called `channel_data`) that holds `sampling_frequency`,
`initial_time`, `sound_speed`, `modulation_frequency` of shape (1, 1); `data` (time, channel, wave, frame) in MATLAB, so
(frame, wave, channel, time) in HDF5, trailing axes of length 1 left out, complex ones as a group of `real` and `imag`;
`probe/geometry` (7, element): x, y, z, azimuth, elevation, width, height; `sequence`, one `uff.wave` or a list of them
(`sequence_0001` ...) with `wavefront` (0 = plane), `source/{azimuth, elevation, distance}` and `delay`.
The first sample of a wave is taken at `initial_time + delay` after the front passed the origin; the carrier of IQ data
runs without the delay. Source: Bernard et al., IEEE IUS (2018); http://www.ustb.no, https://pypi.org/project/pyuff-ustb
"""

from pathlib import Path

import h5py
import numpy as np

from recon.errors import InputError
from recon.files import hdf5
from recon.modalities.ultrasound.data import PlaneWaveData
from recon.modalities.ultrasound.files import hdf5 as us_hdf5

_PLANE = 0
_PARTS = ("data", "sequence", "probe", "sampling_frequency", "sound_speed")


def sniff(path: Path) -> bool:
    """Tell whether this is an HDF5 file with UFF channel data."""
    if not hdf5.is_hdf5(path):
        return False
    with hdf5.open_hdf5(path) as file:
        return _location(file) is not None


def read(path: Path, center_frequency: float | None = None) -> PlaneWaveData:
    """Read the header of channel data.

    Parameters
    ----------
    path
        The file.
    center_frequency
        Centre frequency in Hz; by default that of the pulse in the file, else the modulation frequency.

    Raises
    ------
    InputError
        If something is missing or does not fit, or the waves are not plane.
    """
    with hdf5.open_hdf5(path) as file:
        root = _location(file)
        if root is None:
            raise InputError(f"{path}: contains no UFF channel data")
        data = us_hdf5.samples(file, _part(file, root), (2, 3, 4))
        frames = data.shape[0] if data.ndim == 4 else 1
        waves, channels, count = (1, *data.shape)[-3:]
        modulation = us_hdf5.number(file, f"{root}/modulation_frequency", 0.0)
        if us_hdf5.is_group(file, f"{root}/data") != (modulation > 0):
            raise InputError(
                f"{path}: expected a modulation frequency > 0 for complex data and 0 for real data, got {modulation}"
            )
        probe = us_hdf5.array(file, f"{root}/probe/geometry", 2)
        if probe.shape[0] != 7:
            raise InputError(f"{path}: probe/geometry: expected (7, element), got shape {probe.shape}")
        angles, delays = _sequence(file, root)
        center = center_frequency or us_hdf5.number(file, f"{root}/pulse/center_frequency", 0.0) or modulation
        if not center:
            raise InputError(f"{path}: the file states no centre frequency; give center_frequency= in Hz")
        geometry = us_hdf5.geometry(
            path,
            (waves, channels, count),
            element_positions=probe[:3].T,
            angles=angles,
            sampling_frequency=us_hdf5.number(file, f"{root}/sampling_frequency"),
            center_frequency=center,
            sound_speed=us_hdf5.number(file, f"{root}/sound_speed"),
            initial_times=us_hdf5.number(file, f"{root}/initial_time") + delays,
            demodulation_frequency=modulation,
            element_width=float(np.median(probe[5])),
        )
        name = next((key for key in ("PRF", "prf") if hdf5.has(file, f"{root}/{key}")), None)
        rate = us_hdf5.number(file, f"{root}/{name}") / waves if name else None

    def load(i: int) -> np.ndarray:
        with hdf5.open_hdf5(path) as file:
            if not modulation:
                return _frame(file, f"{root}/data", i)
            values = _frame(file, f"{root}/data/real", i) + 1j * _frame(file, f"{root}/data/imag", i)
        return us_hdf5.turned(values, modulation, -delays)

    return PlaneWaveData(path, "uff", frames, load, geometry, frame_rate=rate, attributes={"location": root})


def _location(file: h5py.File) -> str | None:
    """Return the name of the first group with the contents of channel data.

    The attribute `class` would also identify it, but its strings have variable length, with which the HDF5 library can
    loop forever in a damaged file.
    """
    for name in sorted(file):
        if us_hdf5.is_group(file, name) and all(hdf5.has(file, f"{name}/{part}") for part in _PARTS):
            return name
    return None


def _part(file: h5py.File, root: str) -> str:
    return f"{root}/data/real" if us_hdf5.is_group(file, f"{root}/data") else f"{root}/data"


def _sequence(file: h5py.File, root: str) -> tuple[np.ndarray, np.ndarray]:
    """Return angles and delays of all waves, which must be plane waves in the image plane."""
    base = f"{root}/sequence"
    if not us_hdf5.is_group(file, base):
        raise InputError(f"{file.filename}: {base} is missing; channel data need their transmitted waves")
    listed = sorted((name for name in file[base] if name.startswith("sequence_")), key=lambda name: int(name[9:]))
    found = []
    for wave in [f"{base}/{name}" for name in listed] or [base]:
        front = us_hdf5.number(file, f"{wave}/wavefront", -1.0)
        # Older files have no wavefront and mark plane waves by a source at infinity.
        plane = front == _PLANE if front >= 0 else _at_infinity(file, f"{wave}/source/distance")
        if not plane:
            raise InputError(f"{file.filename}: {wave} is not a plane wave; only plane waves can be read")
        if abs(us_hdf5.number(file, f"{wave}/source/elevation", 0.0)) > 1e-3:
            raise InputError(f"{file.filename}: {wave} leaves the image plane (elevation is not 0)")
        azimuth = us_hdf5.number(file, f"{wave}/source/azimuth")
        found.append((azimuth, us_hdf5.number(file, f"{wave}/delay", 0.0)))
    angles, delays = np.array(found, np.float64).T
    return angles, delays


def _at_infinity(file: h5py.File, name: str) -> bool:
    """Read a distance, the only number that may be infinite."""
    return hdf5.has(file, name) and bool(np.isinf(np.asarray(hdf5.dataset(file, name)[()], np.float64)).all())


def _frame(file: h5py.File, name: str, i: int) -> np.ndarray:
    data = us_hdf5.samples(file, name, (2, 3, 4))
    values = np.asarray(data[i] if data.ndim == 4 else data[()], np.float32)
    return values if values.ndim == 3 else values[None]
