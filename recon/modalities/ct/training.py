"""CT training images: DICOM slices, NIfTI volumes and plain arrays, as attenuation relative to water."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from recon.errors import InputError
from recon.files import dicom
from recon.files.nifti_read import read_nifti
from recon.images.files import kind_of, matching_files, pixel_spacing, read_npy
from recon.images.sources import Slice, SourceConfig, check_source
from recon.modalities.ct.files import dicom_images

#: Padding, and the values that some scanners write outside the field of view, lie below air.
LOWEST = -1024.0


def load_slices(root: Path, source: SourceConfig, held_out: bool = False) -> list[Slice]:
    """Return every slice with a body of the training files of ``source``, or of its held-out files.

    Raises
    ------
    ConfigError, InputError
        If a plane is unknown, no file matches, or a file cannot be read.
    """
    check_source(source)
    found = []
    for path in matching_files(root, source, held_out):
        volume, spacing = read_hounsfield(path, source)
        for plane in source.planes if kind_of(path) == "nifti" else source.planes[:1]:
            axis = {"axial": 0, "coronal": 1, "sagittal": 2}[plane] if kind_of(path) == "nifti" else 0
            sizes = tuple(s for k, s in enumerate(spacing) if k != axis)
            for k, image in enumerate(np.moveaxis(volume, axis, 0)):
                item = _slice(image, sizes, plane, f"{path.name}:{plane}:{k}")
                if item.mask.mean() > 0.1:
                    found.append(item)
    if not found:
        raise InputError(f"no slice of {source.pattern!r} in {root} shows a body")
    return found


def read_hounsfield(path: Path, source: SourceConfig) -> tuple[np.ndarray, tuple[float, ...]]:
    """Return Hounsfield units ``(z, y, x)`` float32 and the voxel size in mm; a 2D file gives one slice.

    Files that store no unit (``.npy``) use ``source.rescale`` and ``source.pixel``.
    """
    kind = kind_of(path)
    spacing: tuple[float, ...] = (1.0, source.pixel, source.pixel)
    if kind == "npy":
        image = read_npy(path, source.every)
    elif kind == "dicom":
        header = dicom.read_header(path)
        image, spacing = dicom_images.hounsfield(path)[None], (1.0, *pixel_spacing(path, header, source.pixel))
    elif kind == "nifti":
        volume, zooms = read_nifti(path)
        # (right, anterior, superior) to (z, y, x) as images are shown: anterior up.
        image, spacing = volume.T[:, ::-1], zooms[::-1]
    else:
        raise InputError(f"{path}: cannot train a CT prior; expected NIfTI, DICOM or .npy")
    if np.iscomplexobj(image) or not np.isfinite(image).all():
        raise InputError(f"{path}: expected finite real images, got {image.dtype} {image.shape}")
    slope, intercept = source.rescale
    return slope * image + np.float32(intercept), spacing


def _slice(image: np.ndarray, spacing: tuple[float, ...], plane: str, name: str) -> Slice:
    relative = (np.maximum(image, LOWEST) + 1000) / 1000
    body = ndimage.binary_opening(relative > 0.3, iterations=2)
    return Slice(relative.astype(np.float32), body, (spacing[0], spacing[1]), plane, name)


def real_evaluation_image(item: Slice, index: int) -> Tensor:
    """Return the slice ``(y, x)`` float32, cropped to multiples of 8."""
    rows, columns = (length - length % 8 for length in item.image.shape)
    return torch.from_numpy(item.image[:rows, :columns].astype(np.float32))
