"""Writing results as derived DICOM series (extra `dicom`): new identities, the geometry of the source.

Every slice copies the header of the source slice it belongs to: patient, study, frame of reference, position,
orientation and spacing stay; series and instance are new; private elements are left out. The images say that they are
derived and for research use. Source: DICOM PS3.3, C.7.6.1 (General Image) and C.8.2.1 (CT Image).
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from recon.errors import InputError, ShapeError
from recon.files import dicom
from recon.files.dicom_series import LIMIT, Kind, write_series
from recon.modalities.ct.data import CTImages

# Attributes of the source's pixels that do not apply to ours. Lossy compression of the source stays marked.
_STALE = (
    *("PixelData", "PixelPaddingValue", "PixelPaddingRangeLimit", "SmallestImagePixelValue", "LargestImagePixelValue"),
    *(
        "IconImageSequence",
        "ModalityLUTSequence",
        "VOILUTSequence",
        "SmallestPixelValueInSeries",
        "LargestPixelValueInSeries",
    ),
    *("DigitalSignaturesSequence", "MACParametersSequence", "EncryptedAttributesSequence", "FloatPixelData"),
)
_SLOPES = (0.1, 0.125, 0.25, 0.5, 1.0, 2.0, 4.0)


def write_dicom(
    folder: str | os.PathLike[str],
    source: CTImages,
    maps: dict[str, np.ndarray],
    slices: Sequence[int] | None = None,
    note: str = "",
    replace: bool = False,
) -> list[Path]:
    """Write one derived series for each map, as `folder/<name>/<name>_0001.dcm` and so on, atomically.

    Parameters
    ----------
    folder
        Is created; it must not exist yet, unless it is replaced.
    source
        DICOM images; their headers are copied.
    maps
        For example `{"mean": ..., "std": ...}`: images `(slice, y, x)` or `(y, x)` in HU.
    slices
        The number of the source slice of each image; default: all slices.
    note
        One sentence about the processing, for DerivationDescription.
    replace
        Whether an earlier series makes way once this one is complete.

    Returns
    -------
    list of pathlib.Path
        The files.

    Raises
    ------
    InputError
        If the folder exists, the source is not DICOM, or an image is not finite or does not fit int16.
    ShapeError
        If images and slices do not fit together.
    StorageError
        If the series cannot be written; there is no folder then.
    """
    chosen = list(range(len(source))) if slices is None else [int(i) for i in slices]
    if source.format != "dicom":
        raise InputError(f"{source.path}: {not_dicom(source)}")
    images = {name: _checked(name, image, source, chosen) for name, image in maps.items()}

    def header(name: str, number: int) -> Any:
        return _header(source.files[chosen[number]], name)

    return write_series(Path(folder), images, header, _KIND, note, replace)


def not_dicom(source: Any) -> str:
    """Return why a recording has no derived DICOM series; empty if it has."""
    return "" if source.format == "dicom" else f"derived DICOM needs DICOM images as its source, got {source.format}"


def _checked(name: str, images: np.ndarray, source: CTImages, chosen: list[int]) -> np.ndarray:
    stack = np.asarray(images)
    stack = stack[None] if stack.ndim == 2 else stack
    if stack.dtype.kind not in "biuf" or stack.shape != (len(chosen), *source.shape):
        raise ShapeError(
            f"write_dicom: {name}: expected real images {(len(chosen), *source.shape)} (slice, y, x) on the grid of "
            f"the source, got {stack.dtype} {stack.shape}"
        )
    if any(not 0 <= i < len(source) for i in chosen):
        raise InputError(f"write_dicom: slices must be between 0 and {len(source) - 1}, got {chosen}")
    return stack.astype(np.float64)


def _slope(largest: float) -> float:
    slope = next((one for one in _SLOPES if largest <= one * LIMIT), None)
    if slope is None:
        raise InputError(f"write_dicom: values up to {largest:.4g} do not fit; expected HU")
    return slope


_KIND = Kind("CT", dicom.CT_IMAGE, "HU", "HU", _slope)


def _header(file: Path, name: str) -> Any:
    """Copy the header of a source slice, without what belongs to its pixels and its identity."""
    pydicom = dicom.pydicom_module()
    with dicom.quiet():
        dataset = dicom.read_all(file)
        kind = list(dataset.get("ImageType") or [])[2:]
        source_class, source_uid = dataset.get("SOPClassUID"), dataset.get("SOPInstanceUID")
        for keyword in _STALE:
            if keyword in dataset:
                del dataset[keyword]
        dataset.remove_private_tags()
        for tag in [tag for tag in dataset.keys() if 0x6000 <= tag.group <= 0x60FF]:  # noqa: SIM118 - overlays
            del dataset[tag]
        dataset.ImageType = ["DERIVED", "SECONDARY", *(kind or ["AXIAL"])]
        if source_class and source_uid:
            item = pydicom.Dataset()
            item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = source_class, source_uid
            dataset.SourceImageSequence = pydicom.Sequence([item])
        if name == "std":
            dataset.WindowCenter, dataset.WindowWidth = "50", "100"
    return dataset
