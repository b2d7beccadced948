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
from recon.files.atomic import atomic_folder
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
_LIMIT = 32767


def write_dicom(
    folder: str | os.PathLike[str],
    source: CTImages,
    maps: dict[str, np.ndarray],
    slices: Sequence[int] | None = None,
    note: str = "",
) -> list[Path]:
    """Write one derived series for each map, as `folder/<name>/<name>_0001.dcm` and so on, atomically.

    Parameters
    ----------
    folder
        Is created; it must not exist yet.
    source
        DICOM images; their headers are copied.
    maps
        For example `{"mean": ..., "std": ...}`: images `(slice, y, x)` or `(y, x)` in HU.
    slices
        The number of the source slice of each image; default: all slices.
    note
        One sentence about the processing, for DerivationDescription.

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
    target = Path(folder)
    chosen = list(range(len(source))) if slices is None else [int(i) for i in slices]
    if source.format != "dicom":
        raise InputError(f"{source.path}: derived DICOM needs DICOM images as its source, got {source.format}")
    if target.exists():
        raise InputError(f"{target}: already exists; give a new folder for the DICOM series")
    images = {name: _checked(name, image, source, chosen) for name, image in maps.items()}
    if not images or any(not name.isidentifier() for name in images):
        raise InputError(f"write_dicom: expected maps with plain names such as 'mean', got {list(maps)}")
    written = []
    with atomic_folder(target) as temporary:
        for position, (name, stack) in enumerate(images.items()):
            (temporary / name).mkdir()
            for path in _write_series(temporary / name, name, position, stack, source, chosen, note):
                written.append(target / path.relative_to(temporary))
    return written


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
    if not np.isfinite(stack).all():
        raise InputError(f"write_dicom: {name}: holds NaN or infinite values")
    return stack.astype(np.float64)


def _write_series(
    folder: Path, name: str, position: int, stack: np.ndarray, source: CTImages, chosen: list[int], note: str
) -> list[Path]:
    uid = dicom.pydicom_module().uid
    largest = float(np.abs(stack).max())
    slope = next((one for one in _SLOPES if largest <= one * _LIMIT), None)
    if slope is None:
        raise InputError(f"write_dicom: {name}: values up to {largest:.4g} do not fit; expected HU")
    series = uid.generate_uid(prefix=None)
    paths = []
    for number, (index, image) in enumerate(zip(chosen, stack, strict=True), start=1):
        dataset = _derive(source.files[index], name, note, (series, uid.generate_uid(prefix=None)))
        dataset.SeriesNumber = 9000 + position
        dataset.InstanceNumber = number
        _put_pixels(dataset, image, slope, name)
        path = folder / f"{name}_{number:04d}.dcm"
        with dicom.quiet():
            dataset.save_as(path, enforce_file_format=True)
        paths.append(path)
    return paths


def _derive(file: Path, name: str, note: str, identity: tuple[str, str]) -> Any:
    """Copy the header of a source slice under a new identity."""
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
        dataset.Modality, dataset.SOPClassUID = "CT", dicom.CT_IMAGE
        dataset.SeriesInstanceUID, dataset.SOPInstanceUID = identity
        dataset.SeriesDescription = f"diffrecon {name[:16]} (derived, research use)"
        text = f"Derived, research use only, not for diagnosis. {name} of posterior samples, in HU. {note}"
        dataset.DerivationDescription = text.strip()[:1024]
        if source_class and source_uid:
            item = pydicom.Dataset()
            item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = source_class, source_uid
            dataset.SourceImageSequence = pydicom.Sequence([item])
        dataset.file_meta = pydicom.dataset.FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
        dataset.file_meta.MediaStorageSOPClassUID = dicom.CT_IMAGE
        dataset.file_meta.MediaStorageSOPInstanceUID = identity[1]
    return dataset


def _put_pixels(dataset: Any, image: np.ndarray, slope: float, name: str) -> None:
    stored = np.rint(image / slope).astype("<i2")
    dataset.Rows, dataset.Columns = image.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 16, 15, 1
    dataset.RescaleSlope, dataset.RescaleIntercept, dataset.RescaleType = str(slope), "0", "HU"
    if name == "std":
        dataset.WindowCenter, dataset.WindowWidth = "50", "100"
    dataset.add_new(0x7FE00010, "OW", stored.tobytes())
