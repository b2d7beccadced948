"""Choosing the reader of CT images or projections by content."""

import os
from pathlib import Path
from typing import Any, Protocol

from recon.files import hdf5
from recon.files.dispatch import is_known, open_with
from recon.modalities.ct.data import CTImages, CTProjections
from recon.modalities.ct.files import data_exchange, dicom_ctpd, dicom_images, lodopab, npy_images


class CTReader(Protocol):
    """What a reader module offers; further keyword arguments of `read` are its options."""

    def sniff(self, path: Path) -> bool:
        """Tell by content whether this reader is responsible for the file or folder."""

    def read(self, path: Path) -> CTImages | CTProjections:
        """Read the headers; slices are read when they are asked for."""


CT_READERS: dict[str, CTReader] = {
    "dicom-ct-pd": dicom_ctpd,
    "dicom": dicom_images,
    "lodopab": lodopab,
    "data-exchange": data_exchange,
    "npy-folder": npy_images,
}


def open_ct(path: str | os.PathLike[str], **options: Any) -> CTImages | CTProjections:
    """Open CT images or projections, whatever their format.

    Folders of DICOM images (or one of them), folders of DICOM-CT-PD projections, LoDoPaB-CT `.hdf5` files or folders,
    Data Exchange `.h5`, and folders of numbered `.npy` slices.

    Parameters
    ----------
    path
        A file or a folder.
    **options
        Passed to the reader: `series` (DICOM images), `positions_mm` (DICOM-CT-PD), `part` (LoDoPaB),
        `rotation_centre`, `pixel_size_mm`, `angles` (Data Exchange).

    Returns
    -------
    CTImages or CTProjections
        Slices that are read when they are asked for.

    Raises
    ------
    InputError
        If there is nothing, no reader knows it, it is damaged, or the reader has no such option.
    """
    found: CTImages | CTProjections = open_with(CT_READERS, path, options, _unknown)
    return found


def is_ct(path: str | os.PathLike[str]) -> bool:
    """Tell whether one of the CT readers is responsible for a file or folder."""
    return is_known(CT_READERS, path)


def _unknown(file: Path) -> str:
    """Say what it is, if it is anything."""
    if not file.exists():
        return f"{file}: no such file or folder"
    if file.is_dir():
        named = [entry.name for entry in sorted(file.iterdir()) if entry.suffix.lower() in (".dcm", ".ima")]
        if named:
            return f"{file}: {named[0]} and {len(named) - 1} more are named like DICOM, but none has 'DICM' at byte 128"
        inner = sorted(entry.name for entry in file.iterdir() if entry.is_dir())
        hint = f"; name one of its folders: {', '.join(inner[:12])}" if inner else ""
        return f"{file}: no CT data in this folder (DICOM files or numbered .npy slices){hint}"
    if file.stat().st_size == 0:
        return f"{file}: the file is empty (0 bytes)"
    if hdf5.is_hdf5(file):
        with hdf5.open_hdf5(file) as content:
            return (
                f"{file}: an HDF5 file, but neither Data Exchange ('exchange/data') nor LoDoPaB ('data' of 1000 x 513 "
                f"or 362 x 362); it holds: {hdf5.keys(content)}"
            )
    return (
        f"{file}: not CT data that can be read here; expected DICOM (there is no 'DICM' at byte 128), LoDoPaB or Data "
        "Exchange HDF5, or a folder of slices (truncated files lose their signature, too)"
    )
