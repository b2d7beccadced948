"""Values of variable length in HDF5 files: references into heaps, which are checked, and text, which is read, here.

Strings and sequences of variable length are references (length, address, number) into global heaps. The HDF5 library
trusts the sizes inside a heap, and damage there ends the process; it never reads text from a heap for us. Format: HDF5
File Format Specification, III.E.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

import h5py
import numpy as np

from recon.errors import InputError

_REFERENCE = np.dtype([("length", "<u4"), ("address", "<u8"), ("number", "<u4")])
#: Bytes of a reference in the file.
REFERENCE_SIZE = _REFERENCE.itemsize
_POINTER = 8
_KIND = 3  # the byte of an encoded type of variable length that says what it is
_HEAD, _OBJECT = struct.Struct("<4sB3xQ"), struct.Struct("<HH4xQ")
_DEFLATE, _SHUFFLE = 1, 2
_MOST_REFERENCES = 2**24


class Heaps:
    """The global heaps of a file; each is checked when a reference first leads to it.

    Parameters
    ----------
    stream : binary file
        The file.
    base : int
        Position that the addresses in the file are counted from.
    where : str
        The item that refers to the heaps, for messages.
    """

    def __init__(self, stream: BinaryIO, base: int, where: str) -> None:
        self.stream, self.where = stream, where
        self.size = os.fstat(stream.fileno()).st_size
        self.base = base
        self._found: dict[int, dict[int, tuple[int, int]]] = {}

    def check(self, length: int, address: int, number: int) -> int:
        """Return the position of an object in the file, after checking that it has this many bytes.

        Raises
        ------
        InputError
            If the heap contradicts itself, or lacks the object.
        """
        if address not in self._found:
            self._found[address] = self._objects(address)
        position, held = self._found[address].get(number, (0, -1))
        if held < length:
            raise _damaged(self.where, f"object {number} of the heap at {address} is missing or too short")
        return position

    def text(self, reference: bytes, limit: int) -> str:
        """Return the string that a reference leads to.

        Raises
        ------
        InputError
            If its heap is damaged, or it has more than `limit` bytes.
        """
        length, address, number = np.frombuffer(reference, _REFERENCE)[0].tolist()
        if not length:
            return ""
        if length > limit:
            raise InputError(f"{self.where}: expected one string of at most {limit} bytes, got {length}")
        content = self.read(self.check(length, address, number), length)
        return content.split(b"\0", 1)[0].decode("utf-8", "replace")

    def read(self, position: int, length: int) -> bytes:
        """Return bytes of the file; none where it ends before."""
        if not 0 <= position <= self.size - length:
            return b""
        self.stream.seek(position)
        return self.stream.read(length)

    def _objects(self, address: int) -> dict[int, tuple[int, int]]:
        """Return positions and sizes of the objects in the heap at an address, by their numbers."""
        start = address + self.base
        head = self.read(start, _HEAD.size)
        signature, version, length = _HEAD.unpack(head) if head else (b"", 0, 0)
        if signature != b"GCOL" or version != 1 or not _HEAD.size <= length <= self.size - start:
            raise _damaged(self.where, f"there is no heap at {address}")
        objects: dict[int, tuple[int, int]] = {}
        position, stop = start + _HEAD.size, start + length
        while position + _OBJECT.size <= stop:
            number, _, used = _OBJECT.unpack(self.read(position, _OBJECT.size))
            step = _OBJECT.size + (used + 7) // 8 * 8 if number else used  # free space counts its own header
            if not _OBJECT.size <= step <= stop - position or number in objects:
                raise _damaged(self.where, f"the heap at {address} contradicts itself")
            objects[number] = (position + _OBJECT.size, used)
            position += step
        return objects


@contextmanager
def open_heaps(file: h5py.File, where: str) -> Iterator[Heaps]:
    """Open the heaps of a file beside the library."""
    if file.id.get_create_plist().get_sizes()[0] != _POINTER:
        raise InputError(f"{where}: values of variable length in a file whose addresses do not have 8 bytes; refused")
    with open(file.filename, "rb") as stream:
        yield Heaps(stream, int(file.userblock_size), where)


def check_heaps(found: h5py.Dataset) -> None:
    """Refuse a dataset whose references of variable length are of an unknown kind, or lead to a damaged heap.

    Raises
    ------
    InputError
        If a heap or one of its objects contradicts itself or the references, or references are compressed in a way
        that only the library can read.
    """
    where = f"{found.file.filename}: {found.name.strip('/')}"
    _check_kind(found.id.get_type(), where)
    fields, strings = _variable_fields(found.dtype)
    if not fields:
        return
    with open_heaps(found.file, where) as heaps:
        for raw in _stored(found, strings, heaps):
            for start, width in fields:
                references = raw[:, start : start + REFERENCE_SIZE].copy().view(_REFERENCE)[:, 0]
                for length, address, number in references[references["length"] > 0].tolist():
                    heaps.check(length * width, address, number)


def read_text(found: h5py.Dataset, limit: int) -> str:
    """Return the only string of variable length in a dataset that `check_heaps` has passed."""
    with open_heaps(found.file, f"{found.file.filename}: {found.name.strip('/')}") as heaps:
        references = [raw.tobytes()[:REFERENCE_SIZE] for raw in _stored(found, 1, heaps) if len(raw)]
        return heaps.text(references[0], limit) if references else ""


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
    elif isinstance(kind, h5py.h5t.TypeArrayID):
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
            inner, more = _variable_fields(member, offset + start + strings * (REFERENCE_SIZE - _POINTER))
            found, strings = found + inner, strings + more
        return found, strings
    if h5py.check_string_dtype(dtype) is not None:
        return ([(offset, 1)], 1) if dtype.kind == "O" else ([], 0)
    base = h5py.check_vlen_dtype(dtype)
    return ([], 0) if base is None else ([(offset, np.dtype(base).itemsize)], 0)


def _stored(found: h5py.Dataset, strings: int, heaps: Heaps) -> Iterator[np.ndarray]:
    """Yield the elements of a dataset as they are stored, a row of bytes for each."""
    # Strings of variable length are pointers in memory, and references in the file.
    stride = found.id.get_type().get_size() + strings * (REFERENCE_SIZE - _POINTER)
    plist = found.id.get_create_plist()
    if found.size > _MOST_REFERENCES or plist.get_layout() == h5py.h5d.COMPACT:
        raise InputError(f"{heaps.where}: {found.size} values of variable length, or within the header; refused")
    filters = [plist.get_filter(k)[0] for k in range(plist.get_nfilters())]
    for offset, count, chunk in _pieces(found):
        if filters:
            mask, content = found.id.read_direct_chunk(chunk)
            content = _unfiltered(content, filters, mask, count * stride, stride, heaps.where)
        else:
            content = heaps.read(offset, count * stride)
        yield np.frombuffer(content, np.uint8).reshape(-1, stride)


def _pieces(found: h5py.Dataset) -> list[tuple[int, int, tuple[int, ...]]]:
    """Return the places of the stored pieces of a dataset in the file, their numbers of elements, and first elements.

    A chunk that reaches beyond the end contains values that were never written, unless it was compressed as a whole.
    """
    if found.chunks is None:
        offset = found.id.get_offset()
        return [] if offset is None else [(offset, int(found.size), ())]
    pieces: list[tuple[int, int, tuple[int, ...]]] = []
    whole = int(np.prod(found.chunks, dtype=np.int64))
    partly = found.ndim == 1 and not found.id.get_create_plist().get_nfilters()

    def add(chunk: h5py.h5d.StoreInfo) -> None:
        count = min(whole, found.shape[0] - chunk.chunk_offset[0]) if partly else whole
        pieces.append((chunk.byte_offset, max(count, 0), tuple(chunk.chunk_offset)))

    found.id.chunk_iter(add)
    return pieces


def _unfiltered(content: bytes, filters: list[int], mask: int, size: int, stride: int, where: str) -> bytes:
    """Undo the filters of a chunk of references."""
    try:
        for k in reversed(range(len(filters))):
            if mask >> k & 1:
                continue
            if filters[k] == _DEFLATE:
                content = zlib.decompressobj().decompress(content, size + 1)
            elif filters[k] == _SHUFFLE:
                content = np.frombuffer(content, np.uint8).reshape(stride, -1).T.tobytes()
            else:
                raise InputError(f"{where}: values of variable length behind the HDF5 filter {filters[k]}; refused")
    except (zlib.error, ValueError) as error:
        raise _damaged(where, f"a chunk cannot be unpacked ({error})") from None
    if len(content) != size:
        raise _damaged(where, f"a chunk has {len(content)} bytes, not {size}")
    return content


def _damaged(where: str, what: str) -> InputError:
    return InputError(f"{where}: {what}; the file is damaged")
