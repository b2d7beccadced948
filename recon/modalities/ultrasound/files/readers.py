"""Choosing the reader of ultrasound channel data by content."""

import os
from pathlib import Path
from typing import Any, Protocol

from recon.files import hdf5
from recon.files.dispatch import is_known, open_with
from recon.modalities.ultrasound.data import PlaneWaveData
from recon.modalities.ultrasound.files import must, picmus, picmus_files, rf_frames, uff, zea


class UltrasoundReader(Protocol):
    """What a reader module offers; further keyword arguments of `read` are its options."""

    def sniff(self, path: Path) -> bool:
        """Tell by content whether this reader is responsible for the file."""

    def read(self, path: Path) -> PlaneWaveData:
        """Read the header; frames are read when they are asked for."""


US_READERS: dict[str, UltrasoundReader] = {
    "picmus": picmus,
    "uff": uff,
    "zea": zea,
    "rf-frames": rf_frames,
    "must": must,
}


def open_ultrasound(path: str | os.PathLike[str], **options: Any) -> PlaneWaveData:
    """Open channel data of plane waves, whatever their format.

    PICMUS HDF5, UFF (USTB), zea HDF5, HDF5 with RF frames (the in-vivo muscle data, Field II simulations), and `.mat`
    files of MUST and PyMUST; all with the time zero at which the wave front passes the origin.

    Parameters
    ----------
    path
        The file.
    **options
        Passed to the reader: `center_frequency` (PICMUS, UFF), `sound_speed` (RF frames).

    Returns
    -------
    PlaneWaveData
        Frames `(angle, element, sample)` that are read when they are asked for.

    Raises
    ------
    InputError
        If there is nothing, no reader knows it, it is damaged, or the reader has no such option.
    """
    found: PlaneWaveData = open_with(US_READERS, path, options, _unknown)
    return found


def is_ultrasound(path: str | os.PathLike[str]) -> bool:
    """Tell whether one of the ultrasound readers is responsible for a file."""
    return is_known(US_READERS, path)


def _unknown(file: Path) -> str:
    """Say what it is, if it is anything."""
    if not file.exists():
        return f"{file}: no such file"
    if file.is_dir():
        return f"{file}: is a folder; give one file of channel data"
    if file.stat().st_size == 0:
        return f"{file}: the file is empty (0 bytes)"
    if hdf5.is_hdf5(file):
        if known := picmus_files.hint(file):
            return f"{file}: {known}"
        with hdf5.open_hdf5(file) as content:
            return (
                f"{file}: an HDF5 file, but not PICMUS ('US/US_DATASET0000'), UFF ('channel_data'), zea "
                f"('data/raw_data') or RF frames ('data/rf_data'); it holds: {hdf5.keys(content)}"
            )
    return (
        f"{file}: not channel data that can be read here; expected HDF5 or a MATLAB 5 .mat (truncated files lose their "
        "signature, too; MATLAB 7.3 files are saved again with -v7)"
    )
