"""Bounding what a deflated DICOM file unpacks to, before pydicom unpacks all of it (which it does first of all)."""

import io
import os
import struct
import zlib
from pathlib import Path
from typing import Any, BinaryIO

from recon.errors import InputError

_DEFLATED = b"1.2.840.10008.1.2.1.99"
_TRANSFER_SYNTAX = (2, 0x10)
_LONG = (b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV")
# No header takes more, and no image of one slice: 4096 x 4096 pixels of 32 bits.
_HEADER, _PIXELS = 4 * 2**20, 64 * 2**20
_SIZES = ("Rows", "Columns", "BitsAllocated")
_PIECE = 2**18


def check_deflated(path: Path, stream: BinaryIO, pydicom: Any) -> None:
    """Refuse a deflated file that unpacks to more than its header and its pixels need; other files are not looked at.

    Parameters
    ----------
    path : Path
        File name for messages.
    stream : binary file
        The file.
    pydicom : module

    Raises
    ------
    InputError
        If it unpacks to more, or cannot be unpacked.
    """
    stream.seek(0)
    start = stream.read(_HEADER)
    found = _first_element(start)
    if found is None:
        if _DEFLATED in start:
            raise InputError(f"{path}: TransferSyntaxUID: a deflated file whose meta information is damaged")
        return
    meta, is_deflated = found
    if not is_deflated:
        return
    stream.seek(meta)
    unpack = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        content, rest = _unpacked(stream, unpack, b"", _HEADER)
        if unpack.eof:
            return
        needed = _needed(path, start[:meta].replace(_DEFLATED, _DEFLATED[:-3] + bytes(3)) + content, pydicom)
        _unpacked(stream, unpack, rest, needed)
    except zlib.error as error:
        raise InputError(f"{path}: the deflated header and pixels are damaged ({error})") from None
    if not unpack.eof:
        raise InputError(
            f"{path}: PixelData: {os.path.getsize(path)} bytes unpack to more than the {needed + _HEADER} that the "
            "header and its pixels need; refused as a decompression bomb, or truncated"
        )


def _first_element(start: bytes) -> tuple[int, bool] | None:
    """Return where the data set begins, and whether it is deflated; None if the meta information is damaged."""
    position, is_deflated = 132, False
    while position + 8 <= len(start):
        group, element, kind, length = struct.unpack_from("<HH2sH", start, position)
        if group != 2:
            return position, is_deflated
        position += 8
        if kind in _LONG:
            if position + 4 > len(start):
                return None
            (length,) = struct.unpack_from("<I", start, position)
            position += 4
        if (group, element) == _TRANSFER_SYNTAX:
            is_deflated = start[position : position + length].strip(b" \0") == _DEFLATED
        position += length
    return (position, is_deflated) if position <= len(start) else None


def _unpacked(stream: BinaryIO, unpack: Any, packed: bytes, limit: int) -> tuple[bytes, bytes]:
    """Inflate at most `limit` bytes and return them, with the input that was read and not used."""
    pieces, count = [], 0
    while not unpack.eof and count < limit:
        packed = packed or stream.read(_PIECE)
        piece = unpack.decompress(packed, limit - count)
        if not piece and not packed:
            break
        packed = unpack.unconsumed_tail
        pieces.append(piece)
        count += len(piece)
    return b"".join(pieces), packed


def _needed(path: Path, start: bytes, pydicom: Any) -> int:
    """Return the bytes of the pixels, from a header that must end within the first bytes."""
    try:
        header = pydicom.dcmread(io.BytesIO(start), stop_before_pixels=True, specific_tags=list(_SIZES))
        rows, columns, bits = (int(header[name].value) for name in _SIZES)
    except Exception:  # pydicom raises many types; their messages may quote patient data
        raise InputError(
            f"{path}: Rows, Columns or BitsAllocated: not found in the first {_HEADER} bytes of a deflated file; "
            "refused as a decompression bomb"
        ) from None
    needed = rows * columns * bits // 8
    if not 0 < needed <= _PIXELS:
        raise InputError(f"{path}: Rows, Columns: declares {rows} x {columns} pixels of {bits} bits; refused as a bomb")
    return needed
