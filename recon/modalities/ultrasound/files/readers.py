"""Selection of the reader of ultrasound channel data by content."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from recon.errors import InputError
from recon.files import hdf5
from recon.files.dispatch import open_with, with_plugins
from recon.modalities.protocols import Reader
from recon.modalities.ultrasound.data import PlaneWaveData
from recon.modalities.ultrasound.files import must, picmus, picmus_files, rf_frames, uff, zea

READERS: dict[str, Reader] = {
    "picmus": picmus,
    "uff": uff,
    "zea": zea,
    "rf-frames": rf_frames,
    "must": must,
}
FORMATS = "PICMUS, UFF, zea or RF-frame HDF5, MUST .mat up to version 7"


def open_ultrasound(path: str | os.PathLike[str], **options: Any) -> PlaneWaveData:
    """Open channel data of plane waves in any supported format.

    PICMUS HDF5, UFF (USTB), zea HDF5, HDF5 with RF frames (the in-vivo muscle data, Field II simulations), and `.mat`
    files of MUST and PyMUST; in all of them time zero is when the wave front passes the origin.

    Parameters
    ----------
    path
        The file.
    **options
        Passed to the reader: `center_frequency` (PICMUS, UFF), `sound_speed` (RF frames).

    Returns
    -------
    PlaneWaveData
        Frames `(angle, element, sample)` that are read on demand.

    Raises
    ------
    InputError
        If it does not exist, no reader recognises it, it is damaged, or the reader has no such option.
    """
    if Path(path).is_dir():
        raise InputError(f"{path}: is a folder; give one file of channel data")
    found: PlaneWaveData = open_with(with_plugins(READERS, "ultrasound"), path, options, FORMATS, hint(Path(path)))
    return found


def hint(path: Path) -> str | None:
    """Describe a file of the PICMUS challenge without channel data, for the error message; else None."""
    return picmus_files.hint(path) if path.is_file() and hdf5.is_hdf5(path) else None
