"""Choosing the reader of a file by its content."""

import os
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path
from typing import Protocol

from recon.errors import InputError
from recon.files import hdf5
from recon.modalities.mri.data import KspaceScan
from recon.modalities.mri.files import bart, fastmri, npy
from recon.modalities.ultrasound.files import picmus_files


class Reader(Protocol):
    """What a reader module offers."""

    def sniff(self, path: Path) -> bool:
        """Tell by content whether this reader is responsible for the file."""

    def read(self, path: Path) -> KspaceScan:
        """Read the headers; slices are read when they are asked for."""


READERS: dict[str, Reader] = {"npy": npy, "bart": bart, "fastmri": fastmri}


def open_kspace(path: str | os.PathLike[str]) -> KspaceScan:
    """Open a raw k-space file, whatever its format.

    fastMRI `.h5` (multi-coil and single-coil), BART `.cfl`/`.hdr` (the name may be given with either ending or none),
    NumPy `.npy`/`.npz`, and what other distributions offer as `diffrecon.readers`.

    Parameters
    ----------
    path
        The file.

    Returns
    -------
    KspaceScan
        Slices `(coil, y, x)` that are read when they are asked for.

    Raises
    ------
    InputError
        If there is no such file, no reader knows it, or it is damaged.
    """
    file = Path(path)
    if file.is_dir():
        raise InputError(f"{file}: is a folder; give one raw-data file")
    try:
        for reader in _readers():
            if reader.sniff(file):
                return reader.read(file)
        problem = _unknown(file)
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror or error})") from error
    raise InputError(problem)


def _readers() -> Iterator[Reader]:
    yield from READERS.values()
    for entry in entry_points(group="diffrecon.readers"):
        yield entry.load()


def _unknown(file: Path) -> str:
    """Say what the file is, if it is anything."""
    if not file.exists():
        return f"{file}: no such file"
    if file.stat().st_size == 0:
        return f"{file}: the file is empty (0 bytes)"
    if hdf5.is_hdf5(file):
        if known := picmus_files.hint(file):
            return f"{file}: {known}"
        with hdf5.open_hdf5(file) as content:
            hint = ""
            if hdf5.has(content, "dataset/xml"):
                hint = "; this is an ISMRMRD acquisition file, convert it to the fastMRI layout first"
            return f"{file}: an HDF5 file without the dataset 'kspace' (it holds: {hdf5.keys(content)}){hint}"
    return (
        f"{file}: not a k-space file that can be read here; expected fastMRI .h5, BART .cfl/.hdr or NumPy .npy/.npz "
        "(truncated files lose their signature, too)"
    )
