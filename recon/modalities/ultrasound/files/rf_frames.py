"""RF frames of linear arrays in HDF5: the in-vivo muscle data, and simulations with Field II, in one layout.

`data/rf_data/frame_i/shot_j` (element, sample), `data/tx_mode/PW_*` the angles in rad, `data/f_sampling`, and
`trans_params/{f_central, x_pitch, x_width, x_num_of_elements}`, SI units, scalars of shape (), (1,) or (1, 1).
Sample n is taken `n / f_sampling - correction` after the front passed the origin; the correction is
`data/correction_time_shift` or `hardware_params/correction_time`. (Checked with the scatterers of the simulation: their
echoes add in phase at that time and 1540 m/s, at all three angles.)
Measured frames, which have `hardware_params`, have an offset, so the mean of each channel is subtracted.
The layout stores no sound speed: 1540 m/s by default.
"""

import re
from pathlib import Path

import h5py
import numpy as np

from recon.errors import InputError, ShapeError
from recon.files import hdf5
from recon.modalities.ultrasound.data import PlaneWaveData
from recon.modalities.ultrasound.files import hdf5 as us_hdf5

_FRAMES, _MODES = "data/rf_data", "data/tx_mode"
_CORRECTIONS = ("data/correction_time_shift", "hardware_params/correction_time")


def sniff(path: Path) -> bool:
    """Tell whether this is an HDF5 file with RF frames and a probe."""
    if not hdf5.is_hdf5(path):
        return False
    with hdf5.open_hdf5(path) as file:
        return us_hdf5.is_group(file, _FRAMES) and us_hdf5.is_group(file, "trans_params")


def read(path: Path, sound_speed: float = 1540.0) -> PlaneWaveData:
    """Read the header of RF frames.

    Parameters
    ----------
    path
        The file.
    sound_speed
        Sound speed in m/s.

    Raises
    ------
    InputError
        If something is missing or does not fit, or the waves are not plane.
    """
    with hdf5.open_hdf5(path) as file:
        frames = _numbered(file, _FRAMES, "frame")
        shots = _numbered(file, f"{_FRAMES}/{frames[0]}", "shot")
        first = us_hdf5.samples(file, f"{_FRAMES}/{frames[0]}/{shots[0]}", (2,))
        angles = _angles(file)
        count = round(us_hdf5.number(file, "trans_params/x_num_of_elements"))
        if count != first.shape[0]:
            raise ShapeError(f"{path}: {count} elements in trans_params, but the frames are {first.shape}")
        pitch = us_hdf5.number(file, "trans_params/x_pitch")
        x = (np.arange(count) - (count - 1) / 2) * pitch
        correction = next((us_hdf5.number(file, name) for name in _CORRECTIONS if hdf5.has(file, name)), 0.0)
        measured = us_hdf5.is_group(file, "hardware_params")
        geometry = us_hdf5.geometry(
            path,
            (len(shots), *first.shape),
            element_positions=np.stack([x, np.zeros(count)], axis=1),
            angles=angles,
            sampling_frequency=us_hdf5.number(file, "data/f_sampling"),
            center_frequency=us_hdf5.number(file, "trans_params/f_central"),
            sound_speed=sound_speed,
            initial_times=0.0 - correction,
            element_width=us_hdf5.number(file, "trans_params/x_width", 0.9 * pitch),
        )
        rate = us_hdf5.number(file, "data/fps", 0.0) or None

    def load(i: int) -> np.ndarray:
        with hdf5.open_hdf5(path) as file:
            parts = [_shot(file, f"{_FRAMES}/{frames[i]}/{shot}", geometry.shape[1:]) for shot in shots]
        values = np.stack(parts)
        return values - values.mean(axis=-1, keepdims=True) if measured else values

    facts = {"measured": measured}
    return PlaneWaveData(path, "rf-frames", len(frames), load, geometry, frame_rate=rate, attributes=facts)


def _numbered(file: h5py.File, group: str, stem: str) -> list[str]:
    """Return `stem_1`, `stem_2` ... of a group by their numbers."""
    if not us_hdf5.is_group(file, group):
        raise InputError(f"{file.filename}: {group} is not a group")
    found = {int(match[1]): name for name in file[group] if (match := re.fullmatch(rf"{stem}_(\d+)", name))}
    if not found:
        raise InputError(f"{file.filename}: {group}: expected {stem}_1, got {hdf5.keys(file[group])}")
    return [found[number] for number in sorted(found)]


def _angles(file: h5py.File) -> np.ndarray:
    modes = [name for name in (file[_MODES] if us_hdf5.is_group(file, _MODES) else ()) if name.startswith("PW_")]
    if len(modes) != 1:
        raise InputError(f"{file.filename}: expected one transmission {_MODES}/PW_*, got {modes or 'none'}")
    return us_hdf5.array(file, f"{_MODES}/{modes[0]}").reshape(-1)


def _shot(file: h5py.File, name: str, shape: tuple[int, ...]) -> np.ndarray:
    found = us_hdf5.samples(file, name, (2,))
    if found.shape != shape:
        raise ShapeError(f"{file.filename}: {name}: expected the shape {shape}, got {found.shape}")
    return np.asarray(found[()], np.float32)
