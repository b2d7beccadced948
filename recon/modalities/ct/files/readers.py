"""Selection of the reader of CT images or projections by content."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from recon.files.dispatch import open_with, with_plugins
from recon.modalities.ct.data import CTImages, CTProjections
from recon.modalities.ct.files import data_exchange, dicom_ctpd, dicom_images, geometry_toml, lodopab, npy_images
from recon.modalities.protocols import Reader

READERS: dict[str, Reader] = {
    "dicom-ct-pd": dicom_ctpd,
    "dicom": dicom_images,
    "lodopab": lodopab,
    "data-exchange": data_exchange,
    "npy-folder": npy_images,
    "geometry-toml": geometry_toml,
}
FORMATS = (
    "DICOM, DICOM-CT-PD, LoDoPaB or Data Exchange HDF5, a folder of numbered .npy slices, a TOML file of a geometry"
)


def open_ct(path: str | os.PathLike[str], **options: Any) -> CTImages | CTProjections:
    """Open CT images or projections of any supported format.

    Folders of DICOM images (or one of them), folders of DICOM-CT-PD projections, LoDoPaB-CT `.hdf5` files or folders,
    Data Exchange `.h5`, folders of numbered `.npy` slices, and TOML files with the geometry of a `.npy` file.

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
        Slices that are read on demand.

    Raises
    ------
    InputError
        If it does not exist, no reader recognises it, it is damaged, or the reader has no such option.
    """
    found: CTImages | CTProjections = open_with(with_plugins(READERS, "ct"), path, options, FORMATS, hint(Path(path)))
    return found


def hint(path: Path) -> str | None:
    """Describe a folder that looks like CT data, or a file named like DICOM, for the error message; else None."""
    if not path.is_dir():
        named_so = path.is_file() and path.suffix.lower() in (".dcm", ".ima")
        return "it is named like DICOM but has no 'DICM' at byte 128" if named_so else None
    named = [entry.name for entry in sorted(path.iterdir()) if entry.suffix.lower() in (".dcm", ".ima")]
    if named:
        return f"{named[0]} and {len(named) - 1} more are named like DICOM but none has 'DICM' at byte 128"
    inner = sorted(entry.name for entry in path.iterdir() if entry.is_dir())
    return f"name one of its folders: {', '.join(inner[:12])}" if inner else None
