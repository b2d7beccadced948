"""MRI training images: magnitude slices of NIfTI, DICOM and NumPy files, complex ones of k-space and NumPy files.

The type of a file follows from its extension (see `recon.images.files`). Magnitudes get a synthetic phase when they
are drawn; complex images keep the measured phase.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from recon.errors import InputError
from recon.files.nifti_read import read_nifti
from recon.images.augment import step_generator
from recon.images.files import kind_of, matching_files, read_dicom, read_npy, read_npz
from recon.images.sources import PLANES, Slice, SourceConfig, check_source
from recon.modalities.mri.kspace_images import read_kspace


def load_slices(root: Path, source: SourceConfig, held_out: bool = False) -> list[Slice]:
    """Return every usable slice of the training files of ``source``, or of its held-out files.

    Raises
    ------
    ConfigError
        If a plane is unknown.
    InputError
        If no file matches, or a file cannot be read.
    """
    check_source(source)
    files = matching_files(root, source, held_out)
    stacks = (stack for _, group in groupby(files, _stack_of) for stack in _read(list(group), source, held_out))
    found = [item for stack in stacks for item in _usable(stack)]
    if not found:
        raise InputError(
            f"no image is {'held out' if held_out else 'left to train on'} in {source.pattern!r} in {root}"
        )
    return found


@dataclass(frozen=True)
class _Stack:
    """Images ``(y, x)`` of one acquisition, which share one intensity scale."""

    images: Sequence[np.ndarray]
    spacings: Sequence[tuple[float, float]]
    plane: str
    names: Sequence[str]


def _stack_of(path: Path) -> tuple[str | None, Path]:
    """Return the key of a file's stack: DICOM slices of one folder form a stack, other files are stacks."""
    kind = kind_of(path)
    return kind, path.parent if kind == "dicom" else path


def _read(files: Sequence[Path], source: SourceConfig, held_out: bool) -> Iterator[_Stack]:
    """Read the files of one stack; volumes give one stack per plane."""
    path, plane = files[0], source.planes[0]
    kind = kind_of(path)
    if kind == "nifti":
        yield from (_cut(path, name) for name in source.planes)
        return
    if kind == "dicom":
        pairs = [read_dicom(file, source.pixel) for file in files]
        yield _Stack([i for i, _ in pairs], [s for _, s in pairs], plane, [f"{f.name}:{plane}:0" for f in files])
        return
    spacing = (source.pixel, source.pixel)
    images: Sequence[np.ndarray]
    if kind == "npz":
        archive, names = read_npz(path, source, held_out)
        if names:
            yield _Stack(list(archive), [spacing] * len(names), plane, [f"{name}:{plane}:0" for name in names])
        return
    if kind == "npy":
        images = list(read_npy(path, source.every))
    else:
        images, spacing = read_kspace(path, source.every, source.pixel)
    names = [f"{path.name}:{plane}:{source.every * k}" for k in range(len(images))]
    yield _Stack(images, [spacing] * len(images), plane, names)


def _cut(path: Path, plane: str) -> _Stack:
    volume, spacing = read_nifti(path)
    axis = PLANES[plane]
    first, second = (s for k, s in enumerate(spacing) if k != axis)
    # Transposed so that the second canonical axis of the slice runs along y, as images are shown.
    images = [image.T for image in np.moveaxis(volume, axis, 0)]
    names = [f"{path.name}:{plane}:{k}" for k in range(len(images))]
    return _Stack(images, [(second, first)] * len(images), plane, names)


def _usable(stack: _Stack) -> list[Slice]:
    """Return the slices in which the head covers enough of its largest cross-section."""
    magnitudes = [np.abs(i) if np.iscomplexobj(i) else np.maximum(i, 0) for i in stack.images]
    values = np.concatenate([m.ravel() for m in magnitudes])
    if not np.isfinite(values).all() or values.max() <= 0:
        raise InputError(f"{stack.names[0]}: expected finite images with a signal")
    level = 0.15 * np.quantile(values, 0.99)
    cover = np.array([(magnitude > level).mean() for magnitude in magnitudes])
    return [
        _normalise(stack.images[k], magnitudes[k], stack.spacings[k], stack.plane, stack.names[k])
        for k in np.flatnonzero(cover > 0.35 * cover.max()).tolist()
    ]


def _normalise(image: np.ndarray, magnitude: np.ndarray, spacing: tuple[float, float], plane: str, name: str) -> Slice:
    scale = np.quantile(magnitude, 0.99) or magnitude.max()
    smooth = ndimage.gaussian_filter(magnitude / scale, 1.0)
    mask = ndimage.binary_dilation(ndimage.binary_fill_holes(smooth > 0.08), iterations=2)
    if np.iscomplexobj(image):
        return Slice((image / scale).astype(np.complex64), mask, spacing, plane, name)
    return Slice((magnitude / scale).astype(np.float16), mask, spacing, plane, name)


def evaluation_image(item: Slice, index: int) -> Tensor:
    """Return the slice ``(y, x)`` complex64, cropped to multiples of 8; a magnitude gets a fixed smooth phase."""
    rows, columns = (length - length % 8 for length in item.image.shape)
    if np.iscomplexobj(item.image):
        return torch.from_numpy(item.image[:rows, :columns].copy())
    magnitude = torch.from_numpy(item.image[:rows, :columns].astype(np.float32))
    rng = step_generator(7, index)
    y = torch.linspace(-1, 1, rows)[:, None]
    x = torch.linspace(-1, 1, columns)[None, :]
    a = rng.normal(0, 1, 6).astype(np.float32)
    phase = 3 * a[0] + a[1] * y + a[2] * x + 0.7 * (a[3] * y * x + a[4] * y.square() + a[5] * x.square())
    return torch.polar(magnitude, phase)
