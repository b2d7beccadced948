"""Read CT training images: DICOM slices, NIfTI volumes and plain arrays, as attenuation relative to water."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from scipy import ndimage

from recon.errors import InputError
from recon.training.volumes import Slice, SourceConfig, matching_files

#: Padding and what some scanners write outside of the field of view are below the air.
LOWEST = -1024.0


def load_slices(root: Path, source: SourceConfig, held_out: bool = False) -> list[Slice]:
    """Return every slice with a body of the training files of ``source``, or of its held-out files.

    Raises
    ------
    ConfigError, InputError
        If a plane is unknown, no file matches, or a file cannot be read.
    """
    found = []
    for path in matching_files(root, source, held_out):
        volume, spacing = read_hounsfield(path, source)
        for plane in source.planes if len(volume) > 1 else source.planes[:1]:
            axis = {"axial": 0, "coronal": 1, "sagittal": 2}[plane]
            sizes = tuple(s for k, s in enumerate(spacing) if k != axis)
            for k, image in enumerate(np.moveaxis(volume, axis, 0)):
                item = _slice(image, sizes, plane, f"{path.name}:{plane}:{k}")
                if item.mask.mean() > 0.1:
                    found.append(item)
    if not found:
        raise InputError(f"no slice of {source.pattern!r} in {root} shows a body")
    return found


def read_hounsfield(path: Path, source: SourceConfig) -> tuple[np.ndarray, tuple[float, ...]]:
    """Return Hounsfield units ``(z, y, x)`` float32 and the voxel size in mm; one slice for a file with one.

    Files without a unit of their own (``.npy``) take ``source.hounsfield`` and ``source.pixel``.
    """
    spacing: tuple[float, ...] = (1.0, source.pixel, source.pixel)
    try:
        if path.suffix == ".npy":
            image = np.load(path, allow_pickle=False)[None]
        elif path.suffix.lower() in (".dcm", ".ima"):
            image, spacing = _read_dicom(path)
        else:
            image, spacing = _read_nifti(path)
    except Exception as error:
        raise InputError(f"cannot read the CT image {path}: {error}") from error
    slope, intercept = source.hounsfield
    if image.ndim != 3 or not np.isfinite(image).all():
        raise InputError(f"{path}: expected finite images, got shape {image.shape}")
    return slope * image.astype(np.float32) + np.float32(intercept), spacing


def _read_dicom(path: Path) -> tuple[np.ndarray, tuple[float, ...]]:
    import pydicom

    data = pydicom.dcmread(path)
    image = data.pixel_array.astype(np.float32) * float(data.get("RescaleSlope", 1))
    image = image + float(data.get("RescaleIntercept", 0))
    return image[None], (float(data.get("SliceThickness") or 1), *(float(s) for s in data.PixelSpacing))


def _read_nifti(path: Path) -> tuple[np.ndarray, tuple[float, ...]]:
    import nibabel

    image = nibabel.as_closest_canonical(nibabel.load(path))
    zooms = image.header.get_zooms()[:3]
    # (right, anterior, superior) to (z, y, x) as images are shown: anterior up.
    return np.asarray(image.dataobj, dtype=np.float32).T[:, ::-1], tuple(float(z) for z in zooms[::-1])


def _slice(image: np.ndarray, spacing: tuple[float, ...], plane: str, name: str) -> Slice:
    relative = (np.maximum(image, LOWEST) + 1000) / 1000
    body = ndimage.binary_opening(relative > 0.3, iterations=2)
    return Slice(relative.astype(np.float32), body, (spacing[0], spacing[1]), plane, name)
