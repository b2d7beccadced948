"""Opening untrusted NumPy files: headers of `.npy`, members of `.npz`.

Nothing is ever unpickled, and sizes are compared with the file before memory is allocated.
"""

import io
import struct
import threading
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path
from tokenize import TokenError
from typing import IO, NamedTuple

import numpy as np

from recon.errors import InputError

#: Held while a header is parsed: two threads that do so in Python 3.11 may end in a SystemError of its parser ("AST
#: constructor recursion depth mismatch").
PARSING = threading.Lock()
_MAGIC, _ZIP = b"\x93NUMPY", b"PK\x03\x04"
_MAX_HEADER = 10_000
_EXPANSION, _ALWAYS_FINE = 100, 64 * 2**20


class Header(NamedTuple):
    """Shape, type and order of a stored array, and where in the file its values begin."""

    shape: tuple[int, ...]
    dtype: np.dtype
    fortran: bool
    offset: int


def sniff(path: Path) -> bool:
    """Tell by the first bytes whether this is a NumPy file."""
    if not path.is_file():
        return False
    with open(path, "rb") as stream:
        start = stream.read(6)
    return start == _MAGIC or start[:4] == _ZIP


def is_archive(path: Path) -> bool:
    """Tell by the first bytes whether a NumPy file is an `.npz` archive."""
    with open(path, "rb") as stream:
        return stream.read(4) == _ZIP


def array_header(path: Path) -> Header:
    """Return the header of a `.npy` file, after comparing it with the size of the file."""
    with open(path, "rb") as stream:
        return _read_header(stream, path.stat().st_size, str(path))


def map_array(path: Path, header: Header) -> np.ndarray:
    """Map the array of a `.npy` file into memory, read-only."""
    order = "F" if header.fortran else "C"
    return np.memmap(path, header.dtype, "r", header.offset, header.shape, order)  # type: ignore[call-overload]


def members(path: Path) -> set[str]:
    """Return the names of the arrays in an `.npz` file.

    Raises
    ------
    InputError
        If the archive is damaged, or an array unpacks to more than the file can plausibly contain.
    """
    with _archive(path) as archive:
        for info in archive.infolist():
            if info.file_size > max(_ALWAYS_FINE, _EXPANSION * info.compress_size):
                raise InputError(
                    f"{path}: {info.filename} unpacks from {info.compress_size} to {info.file_size} bytes; refused as "
                    "a decompression bomb"
                )
        return {info.filename.removesuffix(".npy") for info in archive.infolist()}


def member_header(path: Path, name: str) -> Header:
    """Return the header of one array in an `.npz` file."""
    with _archive(path) as archive, archive.open(f"{name}.npy") as stream:
        return _read_header(stream, archive.getinfo(f"{name}.npy").file_size, f"{path}: {name}")


def read_member(path: Path, name: str) -> np.ndarray:
    """Unpack one array of an `.npz` file."""
    where = f"{path}: {name}"
    with _archive(path) as archive, archive.open(f"{name}.npy") as stream:
        header = _read_header(stream, archive.getinfo(f"{name}.npy").file_size, where)
        content = stream.read()
    if len(content) != prod(header.shape) * header.dtype.itemsize:
        raise InputError(f"{where}: the array is truncated")
    return np.frombuffer(content, header.dtype).reshape(header.shape, order="F" if header.fortran else "C")


def read_archive(path: Path, needed: str, *others: str) -> dict[str, np.ndarray]:
    """Return arrays of an `.npz` file by name: one that must be there, and others that may.

    Raises
    ------
    InputError
        If the file is damaged, contains objects, or lacks the required array.
    """
    found = members(path)
    if needed not in found:
        raise InputError(f"{path}: expected an array {needed!r} in this .npz file, got {sorted(found)}")
    return {name: read_member(path, name) for name in (needed, *others) if name in found}


def _read_header(stream: IO[bytes], size: int, where: str) -> Header:
    """Read the header of an array with `size` bytes, including the header."""
    start = stream.read(12)
    if len(start) < 12 or start[:6] != _MAGIC or start[6] not in (1, 2, 3):
        raise InputError(f"{where}: the NumPy header is damaged or truncated")
    width = 2 if start[6] == 1 else 4
    length = struct.unpack("<H" if width == 2 else "<I", start[8 : 8 + width])[0]
    offset = 8 + width + length
    if not 2 <= length <= _MAX_HEADER or offset > size:
        raise InputError(f"{where}: declares a NumPy header of {length} bytes; refused")
    head = io.BytesIO(start + stream.read(offset - 12))
    version = np.lib.format.read_magic(head)
    parse = np.lib.format.read_array_header_1_0 if width == 2 else np.lib.format.read_array_header_2_0
    try:
        with PARSING:
            shape, fortran, dtype = parse(head)
    except (ValueError, TypeError, SyntaxError, TokenError, RecursionError, MemoryError) as error:
        raise InputError(f"{where}: the NumPy header (version {version[0]}) cannot be read") from error
    if dtype.hasobject:
        raise InputError(
            f"{where}: contains Python objects, which could run code; save a plain numerical array instead"
        )
    declared, found = prod(shape) * dtype.itemsize, size - offset
    if any(length < 0 for length in shape) or declared != found:
        raise InputError(f"{where}: declares {shape} {dtype} = {declared} bytes, but contains {found}; it is truncated")
    return Header(shape, dtype, fortran, offset)


@contextmanager
def _archive(path: Path) -> Iterator[zipfile.ZipFile]:
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except InputError:
        raise
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, ValueError) as error:
        raise InputError(f"{path}: the .npz archive is damaged or truncated ({error})") from error
