"""Training files: which ones match a source, their kind, and the images in those that contain slices."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from recon.errors import InputError
from recon.files import dicom, npy

if TYPE_CHECKING:
    from recon.images.sources import SourceConfig

#: Kind of a file by its ending; DICOM files without an ending are recognised by their content.
SUFFIXES = {
    **{".nii.gz": "nifti", ".nii": "nifti", ".dcm": "dicom", ".ima": "dicom", ".npy": "npy", ".npz": "npz"},
    **{".h5": "raw", ".hdf5": "raw", ".cfl": "raw"},
}


def kind_of(path: Path) -> str | None:
    """Return "nifti", "dicom", "npy", "npz" or "raw" (measured data, which a modality reads); None for other files."""
    known = next((kind for suffix, kind in SUFFIXES.items() if path.name.lower().endswith(suffix)), None)
    if known is None and not path.suffix and dicom.is_dicom(path):
        return "dicom"
    return known


def matching_files(root: Path, source: SourceConfig, held_out: bool) -> list[Path]:
    """Return the training files of a source, or the held-out ones; a matching folder stands for its files.

    An ``.npz`` file may contain both (see `read_npz`).

    Raises
    ------
    InputError
        If nothing matches, or a matching file is of unknown kind.
    """
    matches = sorted(root.glob(source.pattern))
    files = [file for match in matches for file in (_inside(match) if match.is_dir() else [match])]
    for file in files:
        if kind_of(file) is None:
            raise InputError(f"{file}: not a training file; expected one of {', '.join(SUFFIXES)}, or DICOM")
    chosen = [
        f for f in files if _is_held_out(f, root, source) == held_out or (kind_of(f) == "npz" and source.held_out)
    ]
    if not chosen:
        kind = "held-out" if held_out else "training"
        raise InputError(f"no {kind} file matches {source.pattern!r} in {root}")
    return chosen


def _inside(folder: Path) -> list[Path]:
    """Return the files of a known kind in a folder; others beside them (a licence, a table) are ignored."""
    return [file for file in sorted(folder.iterdir()) if file.is_file() and kind_of(file) is not None]


def _is_held_out(file: Path, root: Path, source: SourceConfig) -> bool:
    return any(part.startswith(tuple(source.held_out)) for part in file.relative_to(root).parts)


def read_npy(path: Path, every: int = 1) -> np.ndarray:
    """Return images ``(slice, y, x)`` of a ``.npy`` file, real or complex; every N-th slice only.

    Raises
    ------
    InputError
        If it is damaged, contains objects, or is neither ``(y, x)`` nor ``(slice, y, x)``.
    """
    header = npy.array_header(path)
    _check_images(header.shape, header.dtype, path)
    return _thinned(np.load(path, mmap_mode="r", allow_pickle=False), every)


def read_npz(path: Path, source: SourceConfig, held_out: bool) -> tuple[np.ndarray, list[str]]:
    """Return ``images (slice, y, x)`` of a ``.npz`` file, and the names of the slices.

    If the file has ``names``, one per image, those that start with one of ``source.held_out`` are held out.

    Raises
    ------
    InputError
        If it is damaged, has no usable ``images``, or their number differs from that of ``names``.
    """
    content = npy.read_archive(path, "images", "names")
    _check_images(content["images"].shape, content["images"].dtype, path)
    images = _thinned(content["images"], source.every)
    if "names" not in content:
        return images, [f"{path.name}:{source.every * k}" for k in range(len(images))]
    names = [str(name) for name in content["names"].ravel()][:: source.every]
    if len(names) != len(images):
        raise InputError(f"{path}: contains {len(content['names'])} names for {len(content['images'])} images")
    chosen = [k for k, name in enumerate(names) if name.startswith(tuple(source.held_out)) == held_out]
    return images[chosen], [names[k] for k in chosen]


def _check_images(shape: tuple[int, ...], dtype: np.dtype, path: Path) -> None:
    if len(shape) not in (2, 3) or 0 in shape or dtype.kind not in "biufc":
        raise InputError(f"{path}: expected images (y, x) or (slice, y, x), got {dtype} {shape}")


def _thinned(images: np.ndarray, every: int) -> np.ndarray:
    images = images[None] if images.ndim == 2 else images[::every]
    return np.array(images, dtype=np.complex64 if images.dtype.kind == "c" else np.float32)


def read_dicom(path: Path, pixel: float) -> tuple[np.ndarray, tuple[float, float]]:
    """Return the image ``(y, x)`` of a DICOM file, float32, rescaled according to its header, and its pixel size."""
    header = dicom.read_header(path)
    slope, intercept = (dicom.number(header, f"Rescale{name}", path) for name in ("Slope", "Intercept"))
    image = dicom.pixels(path, header).read().astype(np.float32)
    image = image * np.float32(1 if slope is None else slope) + np.float32(intercept or 0)
    return image, pixel_spacing(path, header, pixel)


def pixel_spacing(path: Path, header: object, pixel: float) -> tuple[float, float]:
    """Return the pixel size ``(y, x)`` in mm of a DICOM header; ``pixel`` if it has none."""
    spacing = dicom.numbers(header, "PixelSpacing", path)
    if spacing is None:
        return pixel, pixel
    if spacing.shape != (2,) or not (np.isfinite(spacing) & (spacing > 0)).all():
        raise InputError(f"{path}: PixelSpacing must be two positive lengths, got {spacing.tolist()}")
    return float(spacing[0]), float(spacing[1])
