"""Channel data of the PICMUS challenge: HDF5, one group `US/US_DATASET0000`.

`data/real` and `data/imag` float32 (angle, element, sample), `angles` in rad, `probe_geometry` (3, element) in m, and
`sampling_frequency`, `sound_speed`, `initial_time`, `modulation_frequency`, `PRF` of shape (1,). RF files have the
modulation frequency 0 and an `imag` of zeros. The time zero is when the wave front passes the origin, as everywhere
here; but see `recon.modalities.ultrasound.signals.time_zero`: the simulated data appear about 0.186 mm too deep.
The format names neither the centre frequency of RF (5.208 MHz, that of the challenge's L11-4v) nor the width of the
elements (0.27 of 0.30 mm, the same probe).
Source: Liebgott et al., IEEE IUS (2016).
"""

from pathlib import Path

import h5py
import numpy as np

from recon.errors import InputError
from recon.files import hdf5
from recon.modalities.ultrasound.data import PlaneWaveData
from recon.modalities.ultrasound.files import hdf5 as us_hdf5

GROUP = "US/US_DATASET0000"
CENTER_FREQUENCY = 5.208e6
_WIDTH = 0.27 / 0.30
_FACTS = ("name", "author", "affiliation", "creation_date", "version")


def sniff(path: Path) -> bool:
    """Tell whether this is an HDF5 file of channel data (not of images, scans or phantoms)."""
    if not hdf5.is_hdf5(path):
        return False
    with hdf5.open_hdf5(path) as file:
        return hdf5.has(file, f"{GROUP}/data/real") and hdf5.has(file, f"{GROUP}/probe_geometry")


def read(path: Path, center_frequency: float | None = None) -> PlaneWaveData:
    """Read the header of channel data.

    Parameters
    ----------
    path
        The file.
    center_frequency
        Centre frequency in Hz; by default the modulation frequency of IQ data, or 5.208 MHz.

    Raises
    ------
    InputError
        If something is missing or does not fit.
    """
    with hdf5.open_hdf5(path) as file:
        data = us_hdf5.samples(file, f"{GROUP}/data/real", (2, 3, 4))
        modulation = us_hdf5.number(file, f"{GROUP}/modulation_frequency", 0.0)
        frames = data.shape[0] if data.ndim == 4 else 1
        shape = (1, *data.shape) if data.ndim == 2 else data.shape[-3:]
        if modulation and us_hdf5.samples(file, f"{GROUP}/data/imag", (data.ndim,)).shape != data.shape:
            raise InputError(f"{path}: data/real and data/imag have different shapes")
        elements = us_hdf5.array(file, f"{GROUP}/probe_geometry", 2)
        if elements.shape[0] != 3:
            raise InputError(f"{path}: probe_geometry: expected (3, element), got shape {elements.shape}")
        geometry = us_hdf5.geometry(
            path,
            shape,
            element_positions=elements.T,
            angles=us_hdf5.array(file, f"{GROUP}/angles").reshape(-1),
            sampling_frequency=us_hdf5.number(file, f"{GROUP}/sampling_frequency"),
            center_frequency=center_frequency or modulation or CENTER_FREQUENCY,
            sound_speed=us_hdf5.number(file, f"{GROUP}/sound_speed"),
            initial_times=us_hdf5.number(file, f"{GROUP}/initial_time", 0.0),
            demodulation_frequency=modulation,
            element_width=_WIDTH * pitch(elements[0]),
        )
        rate = us_hdf5.number(file, f"{GROUP}/PRF", 0.0) / len(geometry.angles)
        facts = _facts(file[GROUP])

    def load(i: int) -> np.ndarray:
        with hdf5.open_hdf5(path) as file:
            parts = [_frame(file, "real", i)] + ([_frame(file, "imag", i)] if modulation else [])
        values = parts[0] if len(parts) == 1 else parts[0] + 1j * parts[1]
        return values.reshape(shape)

    return PlaneWaveData(path, "picmus", frames, load, geometry, frame_rate=rate or None, attributes=facts)


def pitch(x: np.ndarray) -> float:
    """Return the median distance of neighbouring elements in m; 0 for a single element."""
    return float(np.median(np.abs(np.diff(x)))) if len(x) > 1 else 0.0


def _frame(file: h5py.File, part: str, i: int) -> np.ndarray:
    data = us_hdf5.samples(file, f"{GROUP}/data/{part}", (2, 3, 4))
    return np.asarray(data[i] if data.ndim == 4 else data[()], np.float32)


def _facts(group: h5py.Group) -> dict[str, str]:
    """Read strings of fixed length, as in the challenge's files.

    With strings of variable length the HDF5 library can loop forever in a damaged file.
    """
    names = [name for name in _FACTS if name in group.attrs and group.attrs.get_id(name).dtype.kind == "S"]
    found = {}
    for name, value in hdf5.attributes(group, names).items():
        first = value[0] if isinstance(value, list) and len(value) == 1 else value
        found[name] = first.decode("utf-8", "replace") if isinstance(first, bytes) else str(first)
    return found
