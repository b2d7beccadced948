"""Opening untrusted HDF5 files: everything is checked from the headers before any data are read.

HDF5 can point to other files (external links, external raw storage, virtual datasets), can run plug-in code (filters),
and can declare sizes that exceed the file. Imaging data need none of this, so all of it is refused.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from recon.errors import InputError
from recon.files.hdf5_attributes import text_attribute
from recon.files.hdf5_heap import check_heaps, read_text

SIGNATURE = b"\x89HDF\r\n\x1a\n"
# HDF5 may start after a user block of 512, 1024, 2048 ... bytes.
_OFFSETS = (0, *(512 << k for k in range(8)))
# The filters that h5py itself provides: gzip, shuffle, fletcher32, szip, nbit, scale-offset, lzf.
_FILTERS = {1, 2, 3, 4, 5, 6, 32000}
# Measured data hardly compress; data that unpack to more than this multiple of their stored size are a bomb or empty.
_EXPANSION = 100
_ALWAYS_FINE = 64 * 2**20
_MAX_ATTRIBUTE_BYTES = 2**16
_MAX_ATTRIBUTES = 256


def is_hdf5(path: Path) -> bool:
    """Tell whether a file has the HDF5 signature."""
    if not path.is_file():
        return False
    with open(path, "rb") as stream:
        for offset in _OFFSETS:
            stream.seek(offset)
            if stream.read(8) == SIGNATURE:
                return True
    return False


@contextmanager
def open_hdf5(path: Path) -> Iterator[h5py.File]:
    """Open a file for reading; any failure inside the block becomes an `InputError` that names the file."""
    try:
        with h5py.File(path, "r") as file:
            yield file
    except InputError:
        raise
    except (OSError, KeyError, ValueError, TypeError, RuntimeError, OverflowError, MemoryError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(f"{path}: cannot be read as HDF5, it is damaged or truncated ({reason})") from error


def keys(group: h5py.Group, limit: int = 20) -> str:
    """List the names in a group for a message."""
    names = sorted(group)
    return ", ".join(names[:limit]) + (", ..." if len(names) > limit else "") if names else "nothing"


def dataset(file: h5py.File, name: str) -> h5py.Dataset:
    """Return a dataset after checking that it is safe to read.

    Raises
    ------
    InputError
        If it is missing, reached through a link, stored outside the file, compressed with an unknown filter, declares
        more data than the file can contain, or refers to a damaged heap.
    """
    where = f"{file.filename}: {name}"
    found = _follow(file, name)
    if not isinstance(found, h5py.Dataset):
        raise InputError(f"{where}: expected a dataset, got a group")
    if found.external:
        raise InputError(
            f"{where}: stored in another file ({found.external[0][0]}), which is refused; copy the data into one file"
        )
    if found.is_virtual:
        raise InputError(
            f"{where}: a virtual dataset that points to other files, which is refused; copy the data into one file"
        )
    if found.shape is None:
        raise InputError(f"{where}: contains no data")
    _check_filters(found, where)
    _check_size(found, where)
    check_heaps(found)
    return found


def has(file: h5py.File, name: str) -> bool:
    """Tell whether a name exists, without following links."""
    group: h5py.Group = file
    parts = name.strip("/").split("/")
    for k, part in enumerate(parts):
        if part not in group.keys():  # noqa: SIM118 - `in group` would follow links
            return False
        if k < len(parts) - 1:
            if not isinstance(group.get(part, getlink=True), h5py.HardLink):
                return True
            child = group[part]
            if not isinstance(child, h5py.Group):
                return False
            group = child
    return True


def _follow(file: h5py.File, name: str) -> h5py.Group | h5py.Dataset:
    """Return an object that is reached over hard links only."""
    here: Any = file
    for part in name.strip("/").split("/"):
        link = here.get(part, getlink=True) if isinstance(here, h5py.Group) else None
        if link is None:
            raise InputError(f"{file.filename}: there is no dataset {name!r} (the file contains: {keys(file)})")
        if not isinstance(link, h5py.HardLink):
            target = getattr(link, "filename", None) or getattr(link, "path", "elsewhere")
            raise InputError(
                f"{file.filename}: {name} is a link to {target!r}, which is refused; store the data itself"
            )
        here = here[part]
    return here


def _check_filters(found: h5py.Dataset, where: str) -> None:
    plist = found.id.get_create_plist()
    for k in range(plist.get_nfilters()):
        code = plist.get_filter(k)[0]
        if code not in _FILTERS:
            raise InputError(
                f"{where}: compressed with the unknown HDF5 filter {code}; repack the file with gzip (h5repack)"
            )


def _check_size(found: h5py.Dataset, where: str) -> None:
    """Compare declared and stored sizes in exact integers."""
    declared = found.dtype.itemsize
    for length in found.shape:
        declared *= int(length)
    stored = int(found.id.get_storage_size())
    on_disk = os.path.getsize(found.file.filename)
    if stored > on_disk:
        raise InputError(f"{where}: claims {_size(stored)} of storage in a file of {_size(on_disk)}; it is truncated")
    packed = found.chunks is not None and found.id.get_create_plist().get_nfilters() > 0
    chunk = found.dtype.itemsize
    for length in found.chunks or ():
        chunk *= int(length)
    if packed and max(declared, chunk) > max(_ALWAYS_FINE, _EXPANSION * stored):
        raise InputError(
            f"{where}: declares {_size(max(declared, chunk))}, but only {_size(stored)} are stored; refused as a "
            "decompression bomb"
        )
    if not packed and declared > stored:
        raise InputError(f"{where}: declares {_size(declared)}, but only {_size(stored)} are stored; it is incomplete")


def attributes(item: h5py.HLObject, names: Sequence[str] | None = None) -> dict[str, Any]:
    """Read small plain attributes (numbers, strings, short lists), all or those with the given names.

    Raises
    ------
    InputError
        If text leads to a damaged heap, or is stored where only the HDF5 library could find it.
    """
    plain: dict[str, Any] = {}
    for name in list(item.attrs)[:_MAX_ATTRIBUTES]:
        if names is not None and name not in names:
            continue
        header = item.attrs.get_id(name)
        if isinstance(header.get_type(), h5py.h5t.TypeVlenID):
            continue
        if header.get_storage_size() > _MAX_ATTRIBUTE_BYTES or header.dtype.kind not in "biufSUO":
            continue
        value: Any = None
        if header.dtype.kind != "O":
            value = item.attrs[name]
        elif header.shape is not None:
            value = _variable_text(item, name, header, needed=names is not None)
        if isinstance(value, bytes):
            value = value.decode("utf-8", "replace")
        if isinstance(value, np.ndarray | np.generic):
            value = value.tolist()
        if isinstance(value, str | int | float | bool | list):
            plain[name] = value
    return plain


def _variable_text(item: h5py.HLObject, name: str, header: h5py.h5a.AttrID, needed: bool) -> str | list[str] | None:
    """Return a text attribute of variable length; None for objects of other kinds."""
    if h5py.check_string_dtype(header.dtype) is None or len(header.shape) > 1:
        return None
    found = text_attribute(item, name, int(np.prod(header.shape, dtype=np.int64)), _MAX_ATTRIBUTE_BYTES)
    if found is None and needed:
        raise InputError(
            f"{item.file.filename}: the attribute {name!r} of {item.name} is text of variable length outside of the "
            "object's header, which is refused; store it with a fixed length"
        )
    return found[0] if found and header.shape == () else found


def text(found: h5py.Dataset, limit: int = 2**20) -> str:
    """Read a scalar string dataset of at most `limit` bytes."""
    where = f"{found.file.filename}: {found.name}"
    if found.shape not in ((), (1,)) or found.dtype.kind not in "SO" or found.dtype.itemsize > limit:
        raise InputError(f"{where}: expected one string of at most {_size(limit)}, got {found.dtype} {found.shape}")
    if found.dtype.kind == "O":
        if h5py.check_string_dtype(found.dtype) is None:
            raise InputError(f"{where}: expected text, got {found.dtype}")
        return read_text(found, limit)
    value = found[()] if found.shape == () else found[0]
    if not isinstance(value, bytes | str) or len(value) > limit:
        raise InputError(f"{where}: expected one string of at most {_size(limit)}")
    return value if isinstance(value, str) else value.decode("utf-8", "replace")


def _size(n_bytes: int) -> str:
    value = float(n_bytes)
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "bytes" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"
