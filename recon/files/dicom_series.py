"""Writing images as derived DICOM series (extra `dicom`): new identities, linear pixels, and who derived them.

The header of each image, with patient, study and geometry, comes from the caller; what is said here is the same for all
kinds of images. Source: DICOM PS3.3, C.7.5.1 (General Equipment), C.7.6.1 (General Image), C.12.1 (SOP Common).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from recon import __version__
from recon.errors import InputError
from recon.files import dicom
from recon.files.atomic import atomic_folder

#: Largest stored value.
LIMIT = 32767
#: What the equipment that contributed did: PS3.16, CID 7005.
_PURPOSE = ("109102", "DCM", "Processing Equipment")


@dataclass(frozen=True)
class Kind:
    """A kind of image.

    Parameters
    ----------
    modality, sop_class : str
        As DICOM calls them.
    units : str
        Those of the values, in words.
    rescale_type : str
        The same as a defined term, "US" if there is none.
    slope : callable
        ``largest magnitude -> step between stored values``; may raise InputError.
    """

    modality: str
    sop_class: str
    units: str
    rescale_type: str
    slope: Callable[[float], float]


def write_series(
    target: Path,
    maps: Mapping[str, np.ndarray],
    header: Callable[[str, int], Any],
    kind: Kind,
    note: str = "",
    replace: bool = False,
) -> list[Path]:
    """Write one series for each map, as `target/<name>/<name>_0001.dcm` and so on, atomically.

    Parameters
    ----------
    target : Path
        Is created; it must not exist yet, unless it is replaced.
    maps : mapping
        For example ``{"mean": ..., "std": ...}``: real images ``(slice, y, x)``.
    header : callable
        ``(name, number of the image) -> Dataset``, without identity and pixels.
    kind : Kind
    note : str
        One sentence about the processing, for DerivationDescription.
    replace : bool
        Whether an earlier series makes way once this one is complete.

    Returns
    -------
    list of pathlib.Path
        The files.

    Raises
    ------
    InputError
        If the folder exists, or an image is not finite or does not fit int16.
    StorageError
        If the series cannot be written; there is no folder then.
    """
    if target.exists() and not replace:
        raise InputError(f"{target}: already exists; give a new folder for the DICOM series")
    if not maps or any(not name.isidentifier() for name in maps):
        raise InputError(f"DICOM series: expected maps with plain names such as 'mean', got {list(maps)}")
    for name, stack in maps.items():
        if not np.isfinite(stack).all():
            raise InputError(f"DICOM series: {name}: holds NaN or infinite values")
    uid = dicom.pydicom_module().uid
    written = []
    with atomic_folder(target, replace) as temporary:
        for position, (name, stack) in enumerate(maps.items()):
            (temporary / name).mkdir()
            slope, series = kind.slope(float(np.abs(stack).max())), uid.generate_uid(prefix=None)
            for number, image in enumerate(np.asarray(stack, np.float64), start=1):
                dataset = header(name, number - 1)
                with dicom.quiet():
                    _identify(dataset, kind, name, note, series)
                    dataset.SeriesNumber, dataset.InstanceNumber = 9000 + position, number
                    _put_pixels(dataset, image, slope, kind.rescale_type)
                    file = f"{name}/{name}_{number:04d}.dcm"
                    dataset.save_as(temporary / file, enforce_file_format=True)
                written.append(target / file)
    return written


def _identify(dataset: Any, kind: Kind, name: str, note: str, series: str) -> None:
    """Give an image its identity, and say what it is and who made it."""
    pydicom = dicom.pydicom_module()
    dataset.Modality, dataset.SOPClassUID = kind.modality, kind.sop_class
    dataset.SeriesInstanceUID, dataset.SOPInstanceUID = series, pydicom.uid.generate_uid(prefix=None)
    dataset.SeriesDescription = f"diffrecon {name[:16]} (derived, research use)"
    text = f"Derived, research use only, not for diagnosis. {name} of posterior samples, in {kind.units}. {note}"
    dataset.DerivationDescription = text.strip()[:1024]
    earlier = list(dataset.get("ContributingEquipmentSequence") or [])
    dataset.ContributingEquipmentSequence = pydicom.Sequence([*earlier, _equipment(pydicom)])
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = kind.sop_class
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID


def _equipment(pydicom: Any) -> Any:
    purpose, item = pydicom.Dataset(), pydicom.Dataset()
    purpose.CodeValue, purpose.CodingSchemeDesignator, purpose.CodeMeaning = _PURPOSE
    item.PurposeOfReferenceCodeSequence = pydicom.Sequence([purpose])
    item.Manufacturer, item.ManufacturerModelName, item.SoftwareVersions = "diffrecon", "diffrecon", __version__
    item.ContributionDescription = "Reconstruction by posterior sampling with a learned prior"
    return item


def _put_pixels(dataset: Any, image: np.ndarray, slope: float, rescale_type: str) -> None:
    """Store an image as int16 with a slope, which is written with as many digits as a decimal string has."""
    written = f"{slope:.9g}"
    stored = np.clip(np.rint(image / float(written)), -LIMIT, LIMIT).astype("<i2")
    dataset.Rows, dataset.Columns = image.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 16, 15, 1
    dataset.RescaleSlope, dataset.RescaleIntercept, dataset.RescaleType = written, "0", rescale_type
    dataset.add_new(0x7FE00010, "OW", stored.tobytes())
