"""Text attributes of variable length in HDF5 files, read without the HDF5 library (see `recon.files.hdf5_heap`).

The references are in the object header, which is parsed here. Format: HDF5 File Format Specification, IV.A.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

import h5py

from recon.errors import InputError
from recon.files.hdf5_heap import REFERENCE_SIZE, Heaps, open_heaps

_ATTRIBUTE, _CONTINUATION, _SHARED = 0x0C, 0x10, 0x02
_MOST_BLOCKS, _MOST_BYTES = 64, 2**20


def text_attribute(item: h5py.HLObject, name: str, count: int, limit: int) -> list[str] | None:
    """Return the strings of an attribute; None if it is not in the header of the object, where small ones are.

    Parameters
    ----------
    item : h5py object
    name : str
    count : int
        Number of strings.
    limit : int
        Most bytes of one.

    Raises
    ------
    InputError
        If the header or a heap is damaged, or a string is longer.
    """
    where = f"{item.file.filename}: the attribute {name!r} of {item.name}"
    with open_heaps(item.file, where) as heaps:
        address = int(h5py.h5o.get_info(item.id).addr) + heaps.base
        for message in _messages(heaps, address):
            found = _attribute(message)
            if found is not None and found[0] == name:
                data = found[1][: count * REFERENCE_SIZE]
                if len(data) < count * REFERENCE_SIZE:
                    raise InputError(f"{where}: is truncated; the file is damaged")
                return [heaps.text(data[k : k + REFERENCE_SIZE], limit) for k in range(0, len(data), REFERENCE_SIZE)]
    return None


def _messages(heaps: Heaps, address: int) -> Iterator[bytes]:
    """Yield the attribute messages in the header of an object."""
    start = heaps.read(address, 16)
    if start[:4] == b"OHDR":
        flags, position = start[5], address + 6
        position += 16 * bool(flags & 0x20) + 4 * bool(flags & 0x10)
        width = 1 << (flags & 3)
        length = int.from_bytes(heaps.read(position, width), "little")
        head, blocks, new = struct.Struct("<BHB" + "2x" * bool(flags & 4)), [(position + width, length)], True
    elif start[:1] == b"\x01":
        head, new = struct.Struct("<HHB3x"), False
        blocks = [(address + 16, int.from_bytes(start[8:12], "little"))]
    else:
        return
    for position, length in blocks:  # continuations are appended on the way
        content = heaps.read(position, min(length, _MOST_BYTES))
        at = 0
        while at + head.size <= len(content):
            kind, size, flags = head.unpack_from(content, at)
            message = content[at + head.size : at + head.size + size]
            at += head.size + size
            if kind == _ATTRIBUTE and not flags & _SHARED:
                yield message
            elif kind == _CONTINUATION and len(message) >= 16 and len(blocks) < _MOST_BLOCKS:
                offset, extent = struct.unpack_from("<QQ", message)
                # New blocks have a signature in front and a checksum behind.
                blocks.append((offset + heaps.base + 4 * new, max(extent - 8 * new, 0)))


def _attribute(message: bytes) -> tuple[str, bytes] | None:
    """Split an attribute message into name and data."""
    if len(message) < 9 or message[0] not in (1, 2, 3):
        return None
    sizes = struct.unpack_from("<3H", message, 2)
    start = 9 if message[0] == 3 else 8
    padded = [(size + 7) // 8 * 8 if message[0] == 1 else size for size in sizes]
    name = message[start : start + sizes[0]].split(b"\0", 1)[0].decode("utf-8", "replace")
    return name, message[start + sum(padded) :]
