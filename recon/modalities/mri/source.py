"""MRI k-space of a file or an array as a sequence of slices that are read on demand."""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from operators import ifftc
from operators.mri.masks import PATTERNS
from recon.errors import InputError, ShapeError
from recon.modalities.mri.data import KspaceScan
from recon.modalities.mri.files.readers import open_kspace
from recon.modalities.mri.options import MRI
from recon.modalities.mri.prepare import Sampling, crop_oversampling, infer_mask, prepare
from recon.modalities.mri.prepared_slice import PreparedSlice


@dataclass(frozen=True, eq=False)
class Slice:
    """The k-space of one slice, its mask, and the magnitude of the fully sampled image if known."""

    kspace: Tensor
    mask: Tensor | None
    reference: np.ndarray | None


class ArraySource:
    """k-space held in memory: ``(y, x)``, ``(coil, y, x)`` or ``(slice, coil, y, x)``."""

    path: Path | None = None
    scan: KspaceScan | None = None

    def __init__(self, kspace: np.ndarray | Tensor, mask: np.ndarray | Tensor | None) -> None:
        array = torch.as_tensor(kspace)
        if array.ndim not in (2, 3, 4):
            raise ShapeError(
                f"kspace: expected (coil, y, x), (y, x) or (slice, coil, y, x), got shape {tuple(array.shape)}"
            )
        array = array[None] if array.ndim == 2 else array
        self.single = array.ndim == 3
        self._array = array[None] if self.single else array
        self._mask = mask
        self.geometry: dict[str, Any] = {}

    def __len__(self) -> int:
        return len(self._array)

    def __getitem__(self, index: int) -> Slice:
        kspace = self._array[index]
        mask = None if self._mask is None else torch.as_tensor(self._mask)
        complete = kspace.is_complex() and mask is None and bool(infer_mask(kspace).all())
        return Slice(kspace, mask, _root_sum_of_squares(kspace) if complete else None)


class FileSource:
    """A raw-data file: slices with the readout oversampling cropped, where that is possible."""

    def __init__(self, source: str | os.PathLike[str] | KspaceScan, mask: np.ndarray | Tensor | None) -> None:
        self.scan: KspaceScan = source if isinstance(source, KspaceScan) else open_kspace(source)
        self.path: Path | None = self.scan.path
        self.single = len(self.scan) == 1
        self._mask = mask
        self.geometry = {
            "voxel_size_mm": self.scan.voxel_size_mm,
            "recon_shape": self.scan.recon_shape,
        }
        if self.scan.affine is not None:
            self.geometry["affine"] = self.scan.affine.tolist()

    def __len__(self) -> int:
        return len(self.scan)

    def __getitem__(self, index: int) -> Slice:
        kspace = torch.from_numpy(self.scan[index])
        mask = self._acquired(kspace)
        columns = kspace.shape[-1]
        if self.scan.acquired is None:
            complete = bool(mask.all())
        else:
            first, stop = self.scan.acquired
            complete = bool(mask[..., max(first, 0) : min(stop, columns)].all())
        axis = self.scan.readout_axis
        if axis is not None and self.scan.readout_oversampling > 1 and mask.shape[axis] == 1:
            kspace = crop_oversampling(kspace, axis, self.scan.readout_oversampling)
        return Slice(kspace, mask, _root_sum_of_squares(kspace) if complete else self._stored_reference(index, kspace))

    def _acquired(self, kspace: Tensor) -> Tensor:
        """Return the mask of the measured samples."""
        given = self._mask if self._mask is not None else self.scan.mask
        mask = infer_mask(kspace) if given is None else torch.as_tensor(given).bool()
        mask = mask[None] if mask.ndim == 1 else mask
        if self.scan.acquired is not None:
            first, stop = self.scan.acquired
            position = torch.arange(kspace.shape[-1])
            mask = mask & ((position >= first) & (position < stop))[None]
        return mask

    def _stored_reference(self, index: int, kspace: Tensor) -> np.ndarray | None:
        """Return the file's own reference if it has the shape of the reconstruction."""
        stored = self.scan.reference(index)
        return stored if stored is not None and stored.shape == tuple(kspace.shape[-2:]) else None


class KspaceSource:
    """k-space of a path, a recording or an array, with the options that turn each slice into a Problem.

    Parameters
    ----------
    source : path, KspaceScan or array
    options : MRI
    seed : int
        Seed of the retrospective undersampling pattern.

    Raises
    ------
    InputError
        If the source is of another type, or the options contradict each other.
    """

    def __init__(self, source: Any, options: MRI, seed: int = 0) -> None:
        self.options, self.seed = options, seed
        self.sampling = _sampling(options, seed)
        self.pieces = open_source(source, None if isinstance(options.mask, str) else options.mask)
        self.path, self.single, self.geometry = self.pieces.path, self.pieces.single, self.pieces.geometry
        self.recording = self.pieces.scan
        self._last: tuple[int, Slice] | None = None

    @property
    def config(self) -> dict[str, Any]:
        """The options, for provenance; for arrays only that they were given."""
        known = {field.name: getattr(self.options, field.name) for field in dataclasses.fields(self.options)}
        covariance, maps, mask = (known[name] for name in ("noise_covariance", "coil_maps", "mask"))
        return {
            **known,
            "mask": mask if mask is None or isinstance(mask, str) else "array",
            "noise_covariance": "given" if covariance is not None else None,
            "coil_maps": "given" if maps is not None else "ESPIRiT",
        }

    @property
    def retrospective(self) -> bool:
        """Whether the data are undersampled on loading."""
        return self.sampling is not None

    def __len__(self) -> int:
        return len(self.pieces)

    def prepare(self, index: int, device: torch.device | str) -> PreparedSlice:
        """Return a slice that is ready to be sampled."""
        piece = self._piece(index)
        settings = {name: getattr(self.options, name) for name in _SETTINGS}
        scan = self.recording
        if scan is not None:
            settings["measured_noise"] = None if scan.noise_covariance is None else scan.noise_covariance[index]
            settings["name"] = None if scan.names is None else scan.names[index]
        return prepare(piece.kspace, piece.mask, sampling=self.sampling, device=device, **settings)

    def reference(self, index: int) -> np.ndarray | None:
        """Return the magnitude of the fully sampled image, or the reference in the file."""
        return self._piece(index).reference

    def _piece(self, index: int) -> Slice:
        """Return a slice; the last one is cached, since preparation and reference both need it."""
        if self._last is None or self._last[0] != index:
            self._last = (index, self.pieces[index])
        return self._last[1]


#: Options passed on to `prepare`.
_SETTINGS = ("coil_maps", "noise_std", "noise_covariance", "model_error", "coils", "calib_size")


def _sampling(options: MRI, seed: int) -> Sampling | None:
    """Return the retrospective undersampling, or None to use the data unchanged."""
    mask, acceleration, center_fraction = options.mask, options.acceleration, options.center_fraction
    if isinstance(mask, str) and mask not in PATTERNS:
        raise InputError(f"mask: expected one of {', '.join(PATTERNS)}, got {mask!r}")
    if acceleration is None and not isinstance(mask, str):
        if center_fraction is not None:
            raise InputError("center_fraction belongs to retrospective undersampling: give acceleration as well")
        return None
    if mask is not None and not isinstance(mask, str):
        raise InputError("acceleration does not apply to a mask array: give a pattern name, or no acceleration")
    return Sampling(mask or "random", 4.0 if acceleration is None else acceleration, center_fraction, seed)


def open_source(source: Any, mask: np.ndarray | Tensor | None) -> ArraySource | FileSource:
    """Return the slices of a path, a recording or an array.

    Raises
    ------
    InputError
        If the source is of another type.
    """
    if isinstance(source, str | os.PathLike | KspaceScan):
        return FileSource(source, mask)
    if isinstance(source, np.ndarray | Tensor):
        return ArraySource(source, mask)
    raise InputError(f"source: expected a path or a k-space array, got {type(source).__name__}")


def _root_sum_of_squares(kspace: Tensor) -> np.ndarray:
    return ifftc(kspace.to(torch.complex64)).abs().square().sum(dim=0).sqrt().numpy()
