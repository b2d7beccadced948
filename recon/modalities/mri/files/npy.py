"""NumPy files: `.npy` with k-space `(y, x)`, `(coil, y, x)` or `(slice, coil, y, x)`; `.npz` with `kspace` [, `mask`].

Nothing is ever unpickled, and sizes are compared with the file before memory is taken.
"""

import io
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from math import prod
from pathlib import Path
from tokenize import TokenError
from typing import IO

import numpy as np

from recon.errors import InputError, ShapeError
from recon.files.arrays import check_complex, check_lengths, sampling_mask
from recon.modalities.mri.data import KspaceScan

_MAGIC, _ZIP = b"\x93NUMPY", b"PK\x03\x04"
_MAX_HEADER = 10_000
_EXPANSION, _ALWAYS_FINE = 100, 64 * 2**20


def sniff(path: Path) -> bool:
    """Tell by the first bytes whether this is a NumPy file."""
    if not path.is_file():
        return False
    with open(path, "rb") as stream:
        start = stream.read(6)
    return start == _MAGIC or start[:4] == _ZIP


def read(path: Path) -> KspaceScan:
    """Read the header of a `.npy` or `.npz` file.

    Raises
    ------
    InputError
        If it holds Python objects, real numbers, or less data than it announces.
    """
    with open(path, "rb") as stream:
        archive = stream.read(4) == _ZIP
    if archive:
        return _read_npz(path)
    with open(path, "rb") as stream:
        shape, dtype, fortran, offset = _array_header(stream, path.stat().st_size, str(path))
    slices, one = _layout(shape, dtype, str(path))

    def load(index: int) -> np.ndarray:
        order = "F" if fortran else "C"
        stored = np.memmap(path, dtype=dtype, mode="r", offset=offset, shape=shape, order=order)  # type: ignore[call-overload]
        return stored.reshape(one) if slices is None else stored[index]

    return KspaceScan(path, "npy", slices or 1, load, dataset="array", slice_shape=one)


def array_header(path: Path) -> tuple[tuple[int, ...], np.dtype]:
    """Return shape and type of the array in a `.npy` file, compared with the size of the file."""
    with open(path, "rb") as stream:
        shape, dtype, _, _ = _array_header(stream, path.stat().st_size, str(path))
    return shape, dtype


def read_archive(path: Path, needed: str, *others: str) -> dict[str, np.ndarray]:
    """Return arrays of an `.npz` file by name: one that must be there, and others that may.

    Raises
    ------
    InputError
        If the file is damaged, holds objects, or lacks what is needed.
    """
    found = _members(path)
    if needed not in found:
        raise InputError(f"{path}: an .npz file must hold {needed!r} here, this one holds {sorted(found)}")
    return {name: _array(path, name) for name in (needed, *others) if name in found}


def _read_npz(path: Path) -> KspaceScan:
    found = _members(path)
    if "kspace" not in found:
        raise InputError(f"{path}: an .npz file must hold 'kspace' [and 'mask'], this one holds {sorted(found)}")
    with _archive(path) as archive, archive.open("kspace.npy") as stream:
        size = archive.getinfo("kspace.npy").file_size
        shape, dtype, _, _ = _array_header(stream, size, f"{path}: kspace")
    slices, one = _layout(shape, dtype, f"{path}: kspace")
    mask = None
    if "mask" in found:
        mask = sampling_mask(_array(path, "mask"), one[1:], f"{path}: mask")

    @cache  # an archive cannot be mapped: it is unpacked once, when the first slice is asked for
    def whole() -> np.ndarray:
        return _array(path, "kspace").reshape(slices or 1, *one)

    return KspaceScan(path, "npy", slices or 1, lambda i: whole()[i], dataset="kspace", slice_shape=one, mask=mask)


def _layout(shape: tuple[int, ...], dtype: np.dtype, where: str) -> tuple[int | None, tuple[int, int, int]]:
    """Return the number of slices (None without that axis) and (coil, y, x)."""
    check_complex(dtype, where)
    if len(shape) not in (2, 3, 4):
        raise ShapeError(f"{where}: expected (y, x), (coil, y, x) or (slice, coil, y, x), got the shape {shape}")
    names = ("slice", "coil", "y", "x")[4 - len(shape) :]
    check_lengths(shape, " ".join(names), where)
    coils = shape[-3] if len(shape) > 2 else 1
    return (shape[0] if len(shape) == 4 else None), (coils, shape[-2], shape[-1])


def _array_header(stream: IO[bytes], size: int, where: str) -> tuple[tuple[int, ...], np.dtype, bool, int]:
    """Return shape, dtype, Fortran order and data offset of an array of `size` bytes, header included."""
    start = stream.read(12)
    if len(start) < 12 or start[:6] != _MAGIC or start[6] not in (1, 2, 3):
        raise InputError(f"{where}: the NumPy header is damaged or truncated")
    width = 2 if start[6] == 1 else 4
    length = struct.unpack("<H" if width == 2 else "<I", start[8 : 8 + width])[0]
    offset = 8 + width + length
    if not 2 <= length <= _MAX_HEADER or offset > size:
        raise InputError(f"{where}: announces a NumPy header of {length} bytes; refused")
    head = io.BytesIO(start + stream.read(offset - 12))
    version = np.lib.format.read_magic(head)
    parse = np.lib.format.read_array_header_1_0 if width == 2 else np.lib.format.read_array_header_2_0
    try:
        shape, fortran, dtype = parse(head)
    except (ValueError, TypeError, SyntaxError, TokenError, RecursionError, MemoryError) as error:
        raise InputError(f"{where}: the NumPy header (version {version[0]}) cannot be read") from error
    if dtype.hasobject:
        raise InputError(f"{where}: holds Python objects, which could run code; save plain complex64 instead")
    declared, found = prod(shape) * dtype.itemsize, size - offset
    if any(length < 0 for length in shape) or declared != found:
        raise InputError(
            f"{where}: announces {shape} {dtype} = {declared} bytes, but {found} are there; it is truncated"
        )
    return shape, dtype, fortran, offset


@contextmanager
def _archive(path: Path) -> Iterator[zipfile.ZipFile]:
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except InputError:
        raise
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, ValueError) as error:
        raise InputError(f"{path}: the .npz archive is damaged or truncated ({error})") from error


def _members(path: Path) -> set[str]:
    """Return the names of the arrays, after checking that none of them unpacks to more than the file can hold."""
    with _archive(path) as archive:
        for info in archive.infolist():
            if info.file_size > max(_ALWAYS_FINE, _EXPANSION * info.compress_size):
                raise InputError(
                    f"{path}: {info.filename} unpacks from {info.compress_size} to {info.file_size} bytes; refused as "
                    "a decompression bomb"
                )
        return {info.filename.removesuffix(".npy") for info in archive.infolist()}


def _array(path: Path, name: str) -> np.ndarray:
    """Unpack one array."""
    where = f"{path}: {name}"
    with _archive(path) as archive, archive.open(f"{name}.npy") as stream:
        size = archive.getinfo(f"{name}.npy").file_size
        shape, dtype, fortran, _ = _array_header(stream, size, where)
        content = stream.read()
    if len(content) != prod(shape) * dtype.itemsize:
        raise InputError(f"{where}: is truncated")
    return np.frombuffer(content, dtype).reshape(shape, order="F" if fortran else "C")
