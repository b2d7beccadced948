"""zea HDF5 files: raw data of plane waves.

`data/raw_data` (frame, tx, ax, el, 1 or 2); `scan/` holds `sampling_frequency`, `center_frequency`,
`demodulation_frequency`, `initial_times` (tx), `t0_delays` (tx, el), `polar_angles` (tx), `focus_distances` (tx; 0 or
infinite for plane waves), `sound_speed` (1540 m/s if missing), `tgc_gain_curve` (ax), which is undone, and in
newer files `t_peak`; `probe/probe_geometry` (el, 3). The newest files hold these in `tracks/track_0`, beside the probe.
Its time zero is the first firing element: the front of the angle th passes the origin at -min_e(p_e . v) / c, which is
taken off here, and so is `t_peak`, the time of the pulse's peak. The carrier of IQ data starts with the first sample.
Source: https://github.com/tue-bmd/zea
"""

from pathlib import Path

import h5py
import numpy as np

from recon.errors import InputError, ShapeError
from recon.files import hdf5
from recon.modalities.ultrasound.data import PlaneWaveData
from recon.modalities.ultrasound.files import hdf5 as us_hdf5
from recon.modalities.ultrasound.files.picmus import pitch

_DATA = "data/raw_data"
#: Possible locations of the element positions, by the name prefix of a track.
_PROBES = ("{}probe", "probe", "{}scan")


def sniff(path: Path) -> bool:
    """Tell whether this is an HDF5 file with raw data and a scan."""
    if not hdf5.is_hdf5(path):
        return False
    with hdf5.open_hdf5(path) as file:
        track = _track(file)
        return hdf5.has(file, track + _DATA) and hdf5.has(file, track + "scan/polar_angles")


def read(path: Path) -> PlaneWaveData:
    """Read the header of raw data.

    Raises
    ------
    InputError
        If something is missing or does not fit, or the waves are not plane.
    """
    with hdf5.open_hdf5(path) as file:
        track = _track(file)
        scan = f"{track}scan/"
        data = us_hdf5.samples(file, track + _DATA, (5,))
        frames, waves, count, elements, parts = data.shape
        if parts not in (1, 2):
            raise ShapeError(f"{path}: {_DATA}: expected 1 (RF) or 2 (IQ) channels on the last axis, got {data.shape}")
        geometry_name = next(
            (name for group in _PROBES if hdf5.has(file, name := f"{group.format(track)}/probe_geometry")), ""
        )
        positions = us_hdf5.array(file, geometry_name or "probe/probe_geometry", 2)
        if positions.shape != (elements, 3):
            raise ShapeError(f"{path}: {geometry_name}: expected ({elements}, 3), got shape {positions.shape}")
        angles = us_hdf5.array(file, scan + "polar_angles").reshape(-1)
        _check_plane(file, scan)
        center = _of_all_waves(file, scan + "center_frequency")
        speed = us_hdf5.number(file, scan + "sound_speed", 1540.0)
        modulation = us_hdf5.number(file, scan + "demodulation_frequency", center) if parts == 2 else 0.0
        gain = np.ones(1)
        if hdf5.has(file, scan + "tgc_gain_curve"):
            gain = us_hdf5.array(file, scan + "tgc_gain_curve").reshape(-1)
        geometry = us_hdf5.geometry(
            path,
            (waves, elements, count),
            element_positions=positions,
            angles=angles,
            sampling_frequency=us_hdf5.number(file, scan + "sampling_frequency"),
            center_frequency=center,
            sound_speed=speed,
            initial_times=_first_samples(path, file, scan, positions, angles, speed, 1 / center),
            demodulation_frequency=modulation,
            element_width=us_hdf5.number(file, "probe/element_width", 0.0) or 0.9 * pitch(positions[:, 0]),
        )

    def load(i: int) -> np.ndarray:
        with hdf5.open_hdf5(path) as file:
            values = np.asarray(us_hdf5.samples(file, track + _DATA, (5,))[i], np.float32).swapaxes(1, 2)
        if not modulation:
            return values[..., 0]
        return us_hdf5.turned(values[..., 0] + 1j * values[..., 1], modulation, -geometry.initial_times)

    found = PlaneWaveData(path, "zea", frames, load, geometry)
    return found if (gain == gain[0]).all() else found.without_gain(gain, noise="after")


def _track(file: h5py.File) -> str:
    """Return the name prefix of data and scan; several tracks are refused."""
    if not hdf5.has(file, "tracks/track_0/" + _DATA):
        return ""
    if hdf5.has(file, "tracks/track_1"):
        raise InputError(f"{file.filename}: contains several tracks; only files of one acquisition can be read")
    return "tracks/track_0/"


def _of_all_waves(file: h5py.File, name: str) -> float:
    """Read one number, or one that is repeated for each wave."""
    values = us_hdf5.array(file, name).reshape(-1)
    if not values.size or (values != values[0]).any():
        raise InputError(f"{file.filename}: {name}: expected one number for all waves, got {values.size} that differ")
    return float(values[0])


def _check_plane(file: h5py.File, scan: str) -> None:
    """Refuse focused and diverging waves, and waves that leave the image plane."""
    if hdf5.has(file, scan + "focus_distances"):
        focus = np.asarray(hdf5.dataset(file, scan + "focus_distances")[()], np.float64)
        if not (np.isinf(focus) | (focus == 0)).all():
            raise InputError(f"{file.filename}: scan/focus_distances are finite; only plane waves can be read")
    if hdf5.has(file, scan + "azimuth_angles") and np.abs(us_hdf5.array(file, scan + "azimuth_angles")).max() > 1e-3:
        raise InputError(f"{file.filename}: scan/azimuth_angles leave the image plane; only x-z waves can be read")


def _first_samples(
    path: Path, file: h5py.File, scan: str, positions: np.ndarray, angles: np.ndarray, speed: float, period: float
) -> np.ndarray:
    """Return the times of the first samples after the front passed the origin, `(tx,)`."""
    first = us_hdf5.array(file, scan + "initial_times").reshape(-1)
    if first.size not in (1, len(angles)):
        raise ShapeError(f"{path}: {first.size} scan/initial_times for {len(angles)} scan/polar_angles")
    delays = us_hdf5.array(file, scan + "t0_delays", 2) if hdf5.has(file, scan + "t0_delays") else np.zeros((1, 1))
    expected = us_hdf5.passing_times(positions, angles, speed)
    if delays.any():
        if delays.shape != expected.shape:
            raise ShapeError(f"{path}: scan/t0_delays: expected {expected.shape}, got shape {delays.shape}")
        passing = us_hdf5.clock_offset(path, delays, positions, angles, speed, period)
    else:
        passing = -expected.min(axis=1)
    peak = us_hdf5.array(file, scan + "t_peak").reshape(-1) if hdf5.has(file, scan + "t_peak") else np.zeros(1)
    return np.asarray(first - passing - (peak if peak.size == len(angles) else peak[:1]))
