"""Checking the heaps of an HDF5 file before values of variable length are read from them.

Strings and sequences of variable length are references (length, address, number) into global heaps. The HDF5 library
trusts the sizes inside a heap, and damage there ends the process. Format: HDF5 File Format Specification, III.E.
"""

from __future__ import annotations

import os
import struct
from typing import BinaryIO

import h5py
import numpy as np

from recon.errors import InputError

_REFERENCE = np.dtype([("length", "<u4"), ("address", "<u8"), ("number", "<u4")])
_POINTER = 8
_KIND = 3  # the byte of an encoded type of variable length that says what it is
_HEAD, _OBJECT = struct.Struct("<4sB3xQ"), struct.Struct("<HH4xQ")


def check_heaps(found: h5py.Dataset) -> None:
    """Refuse a dataset whose references of variable length are of an unknown kind, or lead to a damaged heap.

    The heaps of filtered datasets, whose references cannot be read without the library, and of files with a user block
    are not checked.

    Raises
    ------
    InputError
        If a heap or one of its objects contradicts itself or the references.
    """
    where = f"{found.file.filename}: {found.name.strip('/')}"
    _check_kind(found.id.get_type(), where)
    fields, strings = _variable_fields(found.dtype)
    if not fields or found.file.userblock_size or found.id.get_create_plist().get_nfilters():
        return
    # Strings of variable length are pointers in memory, and references in the file.
    stride = found.id.get_type().get_size() + strings * (_REFERENCE.itemsize - _POINTER)
    with open(found.file.filename, "rb") as stream:
        size = os.fstat(stream.fileno()).st_size
        heaps: dict[int, dict[int, int]] = {}
        for offset, count in _pieces(found):
            raw = np.frombuffer(_read(stream, offset, count * stride, size), np.uint8).reshape(-1, stride)
            for start, width in fields:
                references = raw[:, start : start + _REFERENCE.itemsize].copy().view(_REFERENCE)[:, 0]
                for length, address, number in references[references["length"] > 0].tolist():
                    if address not in heaps:
                        heaps[address] = _objects(stream, address, size, where)
                    if heaps[address].get(number, -1) < length * width:
                        raise _damaged(where, f"object {number} of the heap at {address} is missing or too short")


def _check_kind(kind: h5py.h5t.TypeID, where: str) -> None:
    """Refuse types of variable length that are neither strings nor sequences: HDF5 calls functions by this number."""
    if isinstance(kind, h5py.h5t.TypeCompoundID):
        for k in range(kind.get_nmembers()):
            _check_kind(kind.get_member_type(k), where)
    elif isinstance(kind, h5py.h5t.TypeVlenID):
        number = kind.encode()[_KIND] & 0x0F
        if number:  # 0: sequence; strings (1) are another type of h5py
            raise _damaged(where, f"values of variable length of the unknown kind {number}")
        _check_kind(kind.get_super(), where)


def _variable_fields(dtype: np.dtype, offset: int = 0) -> tuple[list[tuple[int, int]], int]:
    """Find the references in an element as it is stored.

    Returns
    -------
    list of (int, int)
        Offset of each reference, and the bytes that one unit of its length stands for.
    int
        How many of them are strings.
    """
    if dtype.fields is not None:
        found: list[tuple[int, int]] = []
        strings = 0
        for member, start, *_ in sorted(dtype.fields.values(), key=lambda field: field[1]):
            inner, more = _variable_fields(member, offset + start + strings * (_REFERENCE.itemsize - _POINTER))
            found, strings = found + inner, strings + more
        return found, strings
    if h5py.check_string_dtype(dtype) is not None:
        return ([(offset, 1)], 1) if dtype.kind == "O" else ([], 0)
    base = h5py.check_vlen_dtype(dtype)
    return ([], 0) if base is None else ([(offset, np.dtype(base).itemsize)], 0)


def _pieces(found: h5py.Dataset) -> list[tuple[int, int]]:
    """Return the places of the stored pieces of a dataset in the file, and their numbers of elements."""
    if found.chunks is None:
        offset = found.id.get_offset()
        return [] if offset is None else [(offset, int(np.prod(found.shape, dtype=np.int64)))]
    pieces: list[tuple[int, int]] = []
    whole = int(np.prod(found.chunks, dtype=np.int64))
    inside = found.ndim == 1  # a last chunk may reach beyond the end, where nothing was written

    def add(chunk: h5py.h5d.StoreInfo) -> None:
        count = min(whole, found.shape[0] - chunk.chunk_offset[0]) if inside else whole
        pieces.append((chunk.byte_offset, max(count, 0)))

    found.id.chunk_iter(add)
    return pieces


def _objects(stream: BinaryIO, address: int, size: int, where: str) -> dict[int, int]:
    """Return the sizes of the objects in the heap at an address, by their numbers."""
    head = _read(stream, address, _HEAD.size, size)
    signature, version, length = _HEAD.unpack(head) if head else (b"", 0, 0)
    if signature != b"GCOL" or version != 1 or not _HEAD.size <= length <= size - address:
        raise _damaged(where, f"there is no heap at {address}")
    objects: dict[int, int] = {}
    position, stop = address + _HEAD.size, address + length
    while position + _OBJECT.size <= stop:
        number, _, used = _OBJECT.unpack(_read(stream, position, _OBJECT.size, size))
        step = _OBJECT.size + (used + 7) // 8 * 8 if number else used  # free space counts its own header
        if not _OBJECT.size <= step <= stop - position or number in objects:
            raise _damaged(where, f"the heap at {address} contradicts itself")
        objects[number] = used
        position += step
    return objects


def _read(stream: BinaryIO, position: int, length: int, size: int) -> bytes:
    if position + length > size:
        return b""
    stream.seek(position)
    return stream.read(length)


def _damaged(where: str, what: str) -> InputError:
    return InputError(f"{where}: {what}; the file is damaged")
