"""k-space in NumPy files: `.npy` `(y, x)`, `(coil, y, x)` or `(slice, coil, y, x)`; `.npz` with `kspace` [, `mask`]."""

from functools import cache
from pathlib import Path

import numpy as np

from recon.errors import InputError, ShapeError
from recon.files import npy
from recon.modalities.mri.data import KspaceScan
from recon.modalities.mri.files.arrays import check_complex, check_lengths, sampling_mask


def sniff(path: Path) -> bool:
    """Tell from the first bytes whether this is a NumPy file."""
    return npy.sniff(path)


def read(path: Path) -> KspaceScan:
    """Read the header of a `.npy` or `.npz` file.

    Raises
    ------
    InputError
        If it holds Python objects or real numbers, or less data than it declares.
    """
    if npy.is_archive(path):
        return _read_npz(path)
    header = npy.array_header(path)
    slices, one = _layout(header, str(path))

    def load(index: int) -> np.ndarray:
        stored = npy.map_array(path, header)
        return stored.reshape(one) if slices is None else stored[index]

    return KspaceScan(path, "npy", slices or 1, load, dataset="array", slice_shape=one)


def _read_npz(path: Path) -> KspaceScan:
    found = npy.members(path)
    if "kspace" not in found:
        raise InputError(f"{path}: expected an .npz file with 'kspace' [and 'mask'], got {sorted(found)}")
    slices, one = _layout(npy.member_header(path, "kspace"), f"{path}: kspace")
    mask = None
    if "mask" in found:
        mask = sampling_mask(npy.read_member(path, "mask"), one[1:], f"{path}: mask")

    @cache  # an archive cannot be memory-mapped: it is unpacked once, with the first slice
    def whole() -> np.ndarray:
        return npy.read_member(path, "kspace").reshape(slices or 1, *one)

    return KspaceScan(path, "npy", slices or 1, lambda i: whole()[i], dataset="kspace", slice_shape=one, mask=mask)


def _layout(header: npy.Header, where: str) -> tuple[int | None, tuple[int, int, int]]:
    """Return the number of slices (None without that axis) and (coil, y, x)."""
    shape = header.shape
    check_complex(header.dtype, where)
    if len(shape) not in (2, 3, 4):
        raise ShapeError(f"{where}: expected (y, x), (coil, y, x) or (slice, coil, y, x), got {shape}")
    names = ("slice", "coil", "y", "x")[4 - len(shape) :]
    check_lengths(shape, " ".join(names), where)
    coils = shape[-3] if len(shape) > 2 else 1
    return (shape[0] if len(shape) == 4 else None), (coils, shape[-2], shape[-1])
