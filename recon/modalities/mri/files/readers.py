"""Selection of the reader of a k-space file by content."""

from __future__ import annotations

import os
from pathlib import Path

from recon.errors import InputError
from recon.files.dispatch import open_with, with_plugins
from recon.modalities.mri.data import KspaceScan
from recon.modalities.mri.files import bart, fastmri, ismrmrd, matlab, npy
from recon.modalities.protocols import Reader

READERS: dict[str, Reader] = {"npy": npy, "bart": bart, "ismrmrd": ismrmrd, "matlab": matlab, "fastmri": fastmri}
FORMATS = "fastMRI or ISMRMRD .h5, BART .cfl/.hdr, MATLAB .mat, NumPy .npy/.npz of complex k-space"


def open_kspace(path: str | os.PathLike[str]) -> KspaceScan:
    """Open a raw k-space file of any supported format.

    fastMRI `.h5` (multi-coil and single-coil), ISMRMRD `.h5`, BART `.cfl`/`.hdr` (the name may have either extension or
    none), MATLAB `.mat`, NumPy `.npy`/`.npz`.

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
    found: KspaceScan = open_with(with_plugins(READERS, "mri"), file, {}, FORMATS)
    return found
