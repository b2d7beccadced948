"""Read image volumes from NIfTI files and cut them into normalised magnitude slices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import ndimage

from recon.errors import ConfigError, InputError

# Canonical (right, anterior, superior) axis that each plane cuts across.
PLANES = {"sagittal": 0, "coronal": 1, "axial": 2}


@dataclass(frozen=True)
class SourceConfig:
    """A set of volumes that training draws from.

    Parameters
    ----------
    pattern : str
        Glob relative to the data folder.
    weight : float
        Share of the training images that comes from this source (normalised over sources).
    planes : sequence of str
        Planes to cut: "axial", "coronal", "sagittal". The first gets half of the draws when there are several.
    spacing : two floats
        Range of the pixel size in mm that images are resampled to.
    native : float
        Share of the images that keep the pixels of their file.
    max_zoom : float
        Never enlarge an image by more than this factor.
    held_out : sequence of str
        Files whose name starts with one of these are never trained on.
    hounsfield : two floats
        CT: slope and intercept that turn the values of the files into Hounsfield units.
    pixel : float
        CT: pixel size in mm of files that hold none (``.npy``).
    """

    pattern: str
    weight: float = 1.0
    planes: Sequence[str] = ("axial",)
    spacing: Sequence[float] = (0.8, 1.6)
    native: float = 0.4
    max_zoom: float = 1.0
    held_out: Sequence[str] = ()
    hounsfield: Sequence[float] = (1.0, 0.0)
    pixel: float = 1.0


@dataclass(frozen=True)
class Slice:
    """One image ``(y, x)`` in the scale of the prior, its mask of the head or body and pixel size in mm ``(y, x)``."""

    image: np.ndarray
    mask: np.ndarray
    spacing: tuple[float, float]
    plane: str
    name: str


def load_slices(root: Path, source: SourceConfig, held_out: bool = False) -> list[Slice]:
    """Return every usable slice of the training files of ``source``, or of its held-out files.

    Raises
    ------
    ConfigError
        If a plane is unknown.
    InputError
        If no file matches.
    """
    files = matching_files(root, source, held_out)
    return [item for path in files for plane in source.planes for item in _cut(path, plane)]


def matching_files(root: Path, source: SourceConfig, held_out: bool) -> list[Path]:
    """Return the training files of a source, or those held out; ConfigError or InputError where that makes no sense."""
    unknown = set(source.planes) - set(PLANES)
    if unknown:
        raise ConfigError(f"unknown plane {sorted(unknown)[0]!r}; expected some of {sorted(PLANES)}")
    files = sorted(root.glob(source.pattern))
    chosen = [f for f in files if f.name.startswith(tuple(source.held_out)) == held_out] if source.held_out else files
    if not chosen or (held_out and not source.held_out):
        kind = "held-out" if held_out else "training"
        raise InputError(f"no {kind} file matches {source.pattern!r} in {root}")
    return chosen


def _cut(path: Path, plane: str) -> list[Slice]:
    volume, spacing = read_volume(path)
    axis = PLANES[plane]
    volume = np.moveaxis(volume, axis, 0)
    first, second = (s for k, s in enumerate(spacing) if k != axis)
    # A slice is kept when its head covers a fair part of what the fullest slice covers.
    level = 0.15 * np.quantile(volume, 0.99)
    cover = (volume > level).mean(axis=(1, 2))
    keep = np.flatnonzero(cover > 0.35 * cover.max())
    return [_normalise(volume[k], (first, second), plane, f"{path.name}:{plane}:{k}") for k in keep]


def _normalise(image: np.ndarray, spacing: tuple[float, float], plane: str, name: str) -> Slice:
    image = image / np.quantile(image, 0.99)
    smooth = ndimage.gaussian_filter(image, 1.0)
    mask = ndimage.binary_dilation(ndimage.binary_fill_holes(smooth > 0.08), iterations=2)
    # Transposed so that the second canonical axis of the slice runs along y, as images are shown.
    return Slice(image.T.astype(np.float16), mask.T.copy(), (spacing[1], spacing[0]), plane, name)


def read_volume(path: Path) -> tuple[np.ndarray, tuple[float, ...]]:
    """Return a volume ``(right, anterior, superior)`` float32, not negative, and its voxel size in mm."""
    import nibabel

    try:
        image = nibabel.as_closest_canonical(nibabel.load(path))
        data = np.asarray(image.dataobj, dtype=np.float32)
    except Exception as error:
        raise InputError(f"cannot read the volume {path}: {error}") from error
    if data.ndim != 3 or not np.isfinite(data).all() or data.max() <= 0:
        raise InputError(f"{path}: expected a finite three-dimensional image, got shape {data.shape}")
    return np.maximum(data, 0), tuple(float(z) for z in image.header.get_zooms()[:3])
