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
from operators.arrays import tensor
from recon.errors import InputError, ShapeError
from recon.files.dispatch import is_known
from recon.modalities.mri.data import KspaceScan, middle
from recon.modalities.mri.describe import layout_doubts
from recon.modalities.mri.files.mrd_noise import UNKNOWN_RATE, NoiseScan
from recon.modalities.mri.files.readers import READERS, open_kspace
from recon.modalities.mri.given import (
    given_array,
    given_mask,
    given_noise,
    in_field,
    of_slice,
    retrospective_sampling,
)
from recon.modalities.mri.options import MRI
from recon.modalities.mri.prepare import crop_oversampling, prepare
from recon.modalities.mri.prepared_slice import PreparedSlice
from recon.modalities.mri.sampling import infer_mask
from recon.modalities.mri.side_files import coil_maps, is_archive_without, noise, sampling_masks
from recon.verdict import Finding


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
        array = kspace if isinstance(kspace, Tensor) else np.asarray(kspace)
        if array.ndim not in (2, 3, 4):
            raise ShapeError(
                f"kspace: expected (coil, y, x), (y, x) or (slice, coil, y, x), got shape {tuple(array.shape)}"
            )
        tensor(array[:0], "kspace")  # an array of anything but numbers is refused before the first slice
        array = array[None] if array.ndim == 2 else array
        self.single = array.ndim == 3
        self._array = array[None] if self.single else array
        self.coils = int(self._array.shape[1])
        self._masks = None if mask is None else sampling_masks(mask, len(self), _plane(self._array.shape))
        self.geometry: dict[str, Any] = {}

    def __len__(self) -> int:
        return len(self._array)

    def __getitem__(self, index: int) -> Slice:
        kspace = tensor(self._array[index], "kspace")
        mask = None if self._masks is None else tensor(of_slice(self._masks, index), "mask")
        complete = kspace.is_complex() and bool(infer_mask(kspace).all())
        return Slice(kspace, mask, _root_sum_of_squares(kspace) if complete else None)


class FileSource:
    """A raw-data file: slices with the readout oversampling cropped, where that is possible."""

    def __init__(self, source: str | os.PathLike[str] | KspaceScan, mask: np.ndarray | Tensor | None) -> None:
        self.scan: KspaceScan = source if isinstance(source, KspaceScan) else open_kspace(source)
        self.path: Path | None = self.scan.path
        self.single = len(self.scan) == 1
        self.coils = self.scan.shape[0]
        self._masks = None if mask is None else sampling_masks(mask, len(self), _plane(self.scan.shape))
        self.geometry = {
            "voxel_size_mm": self.scan.voxel_size_mm,
            "recon_shape": self.scan.recon_shape,
        }
        if self.scan.affine is not None:
            self.geometry["affine"] = self._affine(self.scan.affine).tolist()

    def __len__(self) -> int:
        return len(self.scan)

    def __getitem__(self, index: int) -> Slice:
        kspace = torch.from_numpy(self.scan[index])
        mask = self._acquired(kspace, self.scan.mask)
        columns = kspace.shape[-1]
        if self.scan.acquired is None:
            complete = bool(mask.all())
        else:
            first, stop = self.scan.acquired
            complete = bool(mask[..., max(first, 0) : min(stop, columns)].all())
        if self._masks is not None:
            mask = self._acquired(kspace, of_slice(self._masks, index))
        axis = self.scan.readout_axis
        if axis is not None and self.scan.readout_oversampling > 1 and mask.shape[axis] == 1:
            kspace = crop_oversampling(kspace, axis, self.scan.readout_oversampling)
        if not complete:
            return Slice(kspace, mask, self._stored_reference(index, kspace))
        return Slice(kspace, mask, middle(_root_sum_of_squares(kspace), self.scan.image_shape))

    def _affine(self, affine: np.ndarray) -> np.ndarray:
        """Return the affine of the images; where a mask along the readout keeps its oversampling they begin earlier."""
        axis, masks = self.scan.readout_axis, self.scan.mask if self._masks is None else self._masks
        if axis is None or masks is None or masks.ndim < 2 or masks.shape[axis] == 1:
            return affine
        rows = self.scan.shape[axis]
        kept = min(round(rows / self.scan.readout_oversampling), rows)
        moved = affine.copy()
        moved[..., :3, 3] += affine[..., :3, 1 if axis == -2 else 0] * (kept // 2 - rows // 2)
        return moved

    def _acquired(self, kspace: Tensor, given: np.ndarray | None) -> Tensor:
        """Return the mask of the samples within the columns that the scanner encoded."""
        mask = infer_mask(kspace) if given is None else tensor(given, "mask").bool()
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
        self.sampling = retrospective_sampling(options, seed)
        self.pieces = open_source(source, given_mask(options.mask))
        self.path, self.single, self.geometry = self.pieces.path, self.pieces.single, self.pieces.geometry
        self.recording = self.pieces.scan
        slices, coils = len(self.pieces), self.pieces.coils
        maps, noise_scan = given_array(options.coil_maps, "coil_maps"), given_noise(options.noise_scan)
        if noise_scan is not None and not (options.noise_std is None and options.noise_covariance is None):
            raise InputError("noise_scan, noise_std and noise_covariance all define the noise: give one of them")
        self._maps = None if maps is None else coil_maps(maps, slices, coils)
        rates = None if self.recording is None else self.recording.sampling_rates
        self._covariances = None if noise_scan is None else noise(noise_scan, coils, rates)
        self._calibration = None if options.calibration is None else _calibration(options.calibration, slices, coils)
        if maps is not None and self._calibration is not None:
            raise InputError("coil_maps and calibration both define the coil maps: give one of them")
        self._doubts: list[str | Finding] = [] if self.recording is None else [*layout_doubts(self.recording)]
        if isinstance(noise_scan, NoiseScan) and (rates is None or noise_scan.dwell_us is None):
            self._doubts.append(UNKNOWN_RATE)
        self._last: tuple[int, Slice] | None = None

    @property
    def config(self) -> dict[str, Any]:
        """The options, for provenance: of files their paths, of arrays only that they were given."""
        known = {field.name: getattr(self.options, field.name) for field in dataclasses.fields(self.options)}
        for name in ("mask", "coil_maps", "calibration", "noise_scan", "noise_covariance"):
            if known[name] is not None and not isinstance(known[name], str):
                known[name] = "array" if name == "mask" else "given"
        return {**known, "coil_maps": known["coil_maps"] or "ESPIRiT"}

    @property
    def retrospective(self) -> bool:
        """Whether the data are undersampled on loading, by a pattern or by given samples."""
        return self.options.mask is not None or self.sampling is not None

    def __len__(self) -> int:
        return len(self.pieces)

    def prepare(self, index: int, device: torch.device | str) -> PreparedSlice:
        """Return a slice that is ready to be sampled."""
        piece = self._piece(index)
        settings = {name: getattr(self.options, name) for name in _SETTINGS}
        recording = self.recording
        if recording is not None:
            settings["measured_noise"] = (
                None if recording.noise_covariance is None else recording.noise_covariance[index]
            )
            settings["name"] = None if recording.names is None else recording.names[index]
            settings["image_shape"] = recording.image_shape
        covariances, covariance = self._covariances, self.options.noise_covariance
        ready = prepare(
            piece.kspace,
            piece.mask,
            sampling=self.sampling,
            device=device,
            coil_maps=None if self._maps is None else in_field(of_slice(self._maps, index), piece.kspace),
            noise_covariance=covariance if covariances is None else of_slice(covariances, index),
            calibration=self._calibration_scan(index),
            **settings,
        )
        return ready.with_doubts(self._doubts)

    def _calibration_scan(self, index: int) -> np.ndarray | torch.Tensor | None:
        """Return the calibration scan of a slice: the given one, or that of the file unless maps are given."""
        scan = self._calibration
        if scan is not None:
            return scan[0 if len(scan) == 1 else index].kspace
        recording = self.recording
        found = None if recording is None or self._maps is not None else recording.calibration(index)
        if recording is None or found is None:
            return None
        # Its readout is oversampled like that of the data, which may have been cropped.
        cropped = self._piece(index).kspace.shape[-2:] != recording.shape[-2:]
        if not cropped or recording.readout_axis is None:
            return found
        return crop_oversampling(tensor(found, "calibration"), recording.readout_axis, recording.readout_oversampling)

    def reference(self, index: int) -> np.ndarray | None:
        """Return the magnitude of the fully sampled image, or the reference in the file."""
        return self._piece(index).reference

    def _piece(self, index: int) -> Slice:
        """Return a slice; the last one is cached, since preparation and reference both need it."""
        if self._last is None or self._last[0] != index:
            self._last = (index, self.pieces[index])
        return self._last[1]


#: Options passed on to `prepare`.
_SETTINGS = ("noise_std", "model_error", "coils", "calib_size")


def _calibration(given: Any, slices: int, coils: int) -> ArraySource | FileSource:
    """Open a calibration scan: k-space of any format, or an array, of one slice or as many as the data have."""
    readable = isinstance(given, str) and is_known(READERS, given) and not is_archive_without(given, "kspace")
    scan = open_source(given if readable else given_array(given, "calibration"), None)
    if len(scan) not in (1, slices) or scan.coils != coils:
        raise InputError(
            f"calibration: expected {coils} coils and 1{f' or {slices}' if slices > 1 else ''} slice(s) as in the "
            f"data, got {scan.coils} coils and {len(scan)} slice(s)"
        )
    return scan


def _plane(shape: tuple[int, ...]) -> tuple[int, int]:
    return int(shape[-2]), int(shape[-1])


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
