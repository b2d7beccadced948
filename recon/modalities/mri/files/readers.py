"""Selection of the reader of a k-space file by content."""

from __future__ import annotations

import os
from pathlib import Path

from recon.errors import InputError
from recon.files import hdf5
from recon.files.dispatch import open_with, with_plugins
from recon.modalities.mri.data import KspaceScan
from recon.modalities.mri.files import bart, fastmri, npy
from recon.modalities.protocols import Reader

READERS: dict[str, Reader] = {"npy": npy, "bart": bart, "fastmri": fastmri}
FORMATS = "fastMRI .h5, BART .cfl/.hdr, NumPy .npy/.npz of complex k-space"


def open_kspace(path: str | os.PathLike[str]) -> KspaceScan:
    """Open a raw k-space file of any supported format.

    fastMRI `.h5` (multi-coil and single-coil), BART `.cfl`/`.hdr` (the name may have either extension or none),
    NumPy `.npy`/`.npz`.

    Parameters
    ----------
    path
        The file.

    Returns
    -------
    KspaceScan
        Slices `(coil, y, x)` that are read on demand.

    Raises
    ------
    InputError
        If the file does not exist, no reader recognises it, or it is damaged.
    """
    file = Path(path)
    if file.is_dir():
        raise InputError(f"{file}: is a folder; give one raw-data file")
    found: KspaceScan = open_with(with_plugins(READERS, "mri"), file, {}, FORMATS, hint(file))
    return found


def hint(file: Path) -> str | None:
    """Describe an HDF5 file that holds k-space in an unsupported layout, for the error message; else None."""
    if not file.is_file() or not hdf5.is_hdf5(file):
        return None
    with hdf5.open_hdf5(file) as content:
        if hdf5.has(content, "dataset/xml"):
            return "this is an ISMRMRD acquisition file; convert it to the fastMRI layout first"
    return None
