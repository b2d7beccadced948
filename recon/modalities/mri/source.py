"""MRI k-space, of a file or an array, as a sequence of slices that are read when they are needed."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from operators import ifftc
from recon.errors import InputError, ShapeError
from recon.modalities.mri.data import KspaceScan
from recon.modalities.mri.files.readers import open_kspace
from recon.modalities.mri.prepare import Prepared, Sampling, crop_oversampling, infer_mask, prepare


@dataclass(frozen=True, eq=False)
class Slice:
    """The k-space of one slice, its mask, and the magnitude of the fully sampled image where that is known."""

    kspace: Tensor
    mask: Tensor | None
    reference: np.ndarray | None


class ArraySource:
    """k-space held in memory: ``(y, x)``, ``(coil, y, x)`` or ``(slice, coil, y, x)``."""

    path: Path | None = None

    def __init__(self, kspace: np.ndarray | Tensor, mask: np.ndarray | Tensor | None) -> None:
        array = torch.as_tensor(kspace)
        if array.ndim not in (2, 3, 4):
            raise ShapeError(
                f"kspace: expected (coil, y, x), (y, x) or (slice, coil, y, x), came shape {tuple(array.shape)}"
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
    """A raw-data file: slices with the readout oversampling cropped, where that is legal."""

    def __init__(self, path: str | os.PathLike[str], mask: np.ndarray | Tensor | None) -> None:
        self.scan: KspaceScan = open_kspace(path)
        self.path: Path | None = self.scan.path
        self.single = len(self.scan) == 1
        self._mask = mask
        self.geometry = {
            "voxel_size_mm": self.scan.voxel_size_mm,
            "recon_shape": self.scan.recon_shape,
        }

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
        """Return the mask of what was really measured."""
        given = self._mask if self._mask is not None else self.scan.mask
        mask = infer_mask(kspace) if given is None else torch.as_tensor(given).bool()
        mask = mask[None] if mask.ndim == 1 else mask
        if self.scan.acquired is not None:
            first, stop = self.scan.acquired
            position = torch.arange(kspace.shape[-1])
            mask = mask & ((position >= first) & (position < stop))[None]
        return mask

    def _stored_reference(self, index: int, kspace: Tensor) -> np.ndarray | None:
        """Return the file's own reference where it has the shape of our image."""
        stored = self.scan.reference(index)
        return stored if stored is not None and stored.shape == tuple(kspace.shape[-2:]) else None


class KspaceSource:
    """k-space of a path or an array, with the settings that turn each slice into a Problem.

    Parameters
    ----------
    source : path or array
    mask : str or array, optional
        A pattern for retrospective undersampling, or where the data were sampled.
    acceleration, center_fraction : float, optional
        Of retrospective undersampling.
    seed : int
        Of its pattern.
    **settings
        Of `recon.modalities.mri.prepare.prepare`: ``coil_maps``, ``noise_std``, ``noise_covariance``,
        ``model_error``, ``coils``, ``calib_size``.

    Raises
    ------
    InputError
        If the source is neither, or the settings contradict each other.
    """

    modality = "mri"

    def __init__(
        self,
        source: Any,
        *,
        mask: str | np.ndarray | Tensor | None,
        acceleration: float | None,
        center_fraction: float | None,
        seed: int,
        **settings: Any,
    ) -> None:
        self.pieces = open_source(source, None if isinstance(mask, str) else mask)
        self.sampling = _sampling(mask, acceleration, center_fraction, seed)
        self.settings = settings
        self.path, self.single, self.geometry = self.pieces.path, self.pieces.single, self.pieces.geometry
        self.config = {
            **settings,
            "acceleration": acceleration,
            "mask": mask if mask is None or isinstance(mask, str) else "array",
            "center_fraction": center_fraction,
            "noise_covariance": "given" if settings.get("noise_covariance") is not None else None,
            "coil_maps": "given" if settings.get("coil_maps") is not None else "ESPIRiT",
        }

    def __len__(self) -> int:
        return len(self.pieces)

    def prepare(self, index: int, device: torch.device | str) -> tuple[Prepared, np.ndarray | None]:
        """Return a slice that is ready to be sampled, and its reference where there is one."""
        piece = self.pieces[index]
        ready = prepare(piece.kspace, piece.mask, sampling=self.sampling, device=device, **self.settings)
        return ready, piece.reference


def _sampling(mask: Any, acceleration: float | None, center_fraction: float | None, seed: int) -> Sampling | None:
    """Return the retrospective undersampling, or None to use the data as they are."""
    if acceleration is None and not isinstance(mask, str):
        if center_fraction is not None:
            raise InputError("center_fraction belongs to retrospective undersampling: give acceleration as well")
        return None
    if mask is not None and not isinstance(mask, str):
        raise InputError("mask is an array, so acceleration has no meaning: give a pattern name, or no acceleration")
    return Sampling(mask or "random", 4.0 if acceleration is None else acceleration, center_fraction, seed)


def open_source(source: Any, mask: np.ndarray | Tensor | None) -> ArraySource | FileSource:
    """Return the slices of a path or an array.

    Raises
    ------
    InputError
        If the source is neither.
    """
    if isinstance(source, str | os.PathLike):
        return FileSource(source, mask)
    if isinstance(source, np.ndarray | Tensor):
        return ArraySource(source, mask)
    raise InputError(f"source: expected a path, a k-space array or a Problem, came {type(source).__name__}")


def _root_sum_of_squares(kspace: Tensor) -> np.ndarray:
    return ifftc(kspace.to(torch.complex64)).abs().square().sum(dim=0).sqrt().numpy()
