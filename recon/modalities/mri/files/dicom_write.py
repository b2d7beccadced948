"""Writing results as derived DICOM series (extra `dicom`): MR images with the position that the raw data state.

Raw data have no DICOM header to copy, so study, frame of reference and series are new, and who the patient is is left
empty. Source: DICOM PS3.3, C.7.6.2 (Image Plane) and C.8.3.1 (MR Image).
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from recon import __version__
from recon.errors import InputError
from recon.files import dicom
from recon.files.dicom_series import LIMIT, Kind, write_series
from recon.posterior_samples import PosteriorSamples

_MR_IMAGE = "1.2.840.10008.5.1.4.1.1.4"
_NOTE = "posterior mean and standard deviation of the magnitude"
#: Attributes that must be there and may be empty: nothing is known of them.
_EMPTY = (
    *("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "StudyID"),
    *("ReferringPhysicianName", "AccessionNumber", "PatientPosition", "PositionReferenceIndicator"),
    *("ScanOptions", "MRAcquisitionType", "EchoTime", "EchoTrainLength", "RepetitionTime"),
)


def _slope(largest: float) -> float:
    return largest / LIMIT if largest > 0 else 1.0


_KIND = Kind("MR", _MR_IMAGE, "the units of the raw data", "US", _slope)


def lacks_geometry(recording: Any) -> str:
    """Return why a recording has no DICOM series; empty if it has."""
    if getattr(recording, "affine", None) is not None:
        return ""
    return "DICOM series need the position and direction of slices, which only ISMRMRD files state; this one does not"


def write_dicom(posterior: PosteriorSamples, folder: Path, recording: Any = None) -> None:
    """Write mean and std of the magnitude as one series each; a folder of an earlier run is replaced.

    Parameters
    ----------
    posterior : PosteriorSamples
        With the affine of its slices in ``geometry``.
    folder : Path
    recording : optional
        The source, which says why there is no affine.

    Raises
    ------
    InputError
        If there is no affine.
    """
    known = posterior.usable  # slices without a result are left out
    found = posterior.geometry.get("affine")
    if found is None:
        raise InputError(f"{folder}: {lacks_geometry(recording)}")
    each = posterior.geometry.get("affines")
    each = _stacked(np.asarray(found, float), len(posterior.slice_valid)) if each is None else np.asarray(each, float)
    each = np.diag([-1.0, -1.0, 1.0, 1.0]) @ each  # in the frame of DICOM
    affine = each[0]
    planes = [_plane(one) for one, valid in zip(each, posterior.slice_valid, strict=True) if valid]
    thickness = (posterior.geometry.get("voxel_size_mm") or (float(np.linalg.norm(affine[:3, 2])),))[0]
    common = _common(posterior.provenance, thickness, float(np.linalg.norm(affine[:3, 2])))
    maps = {name: _stack(getattr(known.magnitude, name)) for name in ("mean", "std")}
    write_series(folder, maps, lambda name, k: _header(common, planes[k], name), _KIND, _NOTE, replace=True)


def _stack(images: np.ndarray) -> np.ndarray:
    return images if images.ndim == 3 else images[None]


def _stacked(affine: np.ndarray, count: int) -> np.ndarray:
    """Return the affine of each of evenly spaced slices."""
    each = np.tile(affine, (count, 1, 1))
    each[:, :3, 3] += np.arange(count)[:, None] * affine[:3, 2]
    return each


def _plane(affine: np.ndarray) -> dict[str, list[str]]:
    """Return position and orientation of a slice: the first direction is that of a row, from column to column."""
    column, row = affine[:3, 0], affine[:3, 1]
    spacing = [float(np.linalg.norm(one)) for one in (row, column)]
    values = {
        "ImagePositionPatient": affine[:3, 3],
        "ImageOrientationPatient": np.concatenate([column / spacing[1], row / spacing[0]]),
        "PixelSpacing": np.array(spacing),
    }
    return {name: [_decimal(value) for value in numbers] for name, numbers in values.items()}


def _decimal(value: float) -> str:
    """Return a number in the 16 characters of a decimal string."""
    return f"{0.0 if abs(value) < 1e-9 else value:.9g}"


def _common(record: dict[str, Any], thickness: float, distance: float) -> dict[str, Any]:
    """Return what is the same for all images of both series."""
    uid = dicom.pydicom_module().uid
    known: dict[str, Any] = dict.fromkeys(_EMPTY, "")
    known |= {
        "SpecificCharacterSet": "ISO_IR 192",
        "StudyInstanceUID": uid.generate_uid(prefix=None),
        "FrameOfReferenceUID": uid.generate_uid(prefix=None),
        "PatientIdentityRemoved": "YES",
        "DeidentificationMethod": "written from raw data without any identity",
        "Manufacturer": "diffrecon",
        "ManufacturerModelName": "diffrecon",
        "SoftwareVersions": __version__,
        "ScanningSequence": "RM",
        "SequenceVariant": "NONE",
        "BurnedInAnnotation": "NO",
        "SliceThickness": _decimal(thickness),
        "SpacingBetweenSlices": _decimal(distance),
    }
    if "date_utc" in record:
        moment = datetime.fromisoformat(record["date_utc"])
        known |= {
            "ContentDate": f"{moment:%Y%m%d}",
            "ContentTime": f"{moment:%H%M%S}",
            "TimezoneOffsetFromUTC": "+0000",
        }
    return known


def _header(common: dict[str, Any], plane: dict[str, list[str]], name: str) -> Any:
    dataset = dicom.pydicom_module().Dataset()
    with dicom.quiet():
        dataset.ImageType = ["DERIVED", "SECONDARY", "OTHER", name.upper()]
        for keyword, value in {**common, **plane}.items():
            setattr(dataset, keyword, value)
    return dataset
