"""Reading untrusted MATLAB files of version 5 to 7: numbers, cell arrays and structs, nothing else.

Headers are read first; a compressed variable is unpacked only on request, into memory that was compared with the size
of the file before. scipy would unpack whatever the file contains. Format: MathWorks, "MAT-File Format", 2023.
"""

from __future__ import annotations

import math
import struct
import zlib
from pathlib import Path
from typing import BinaryIO, NamedTuple

from recon.errors import InputError
from recon.files.mat5_matrix import MATRIX, NUMBERS, TAG, Parser, Value, check_nested, damaged

SIGNATURE = b"MATLAB 5.0 MAT-file"
_HEADER, _COMPRESSED = 128, 15
# Measured data hardly compress; a file that unpacks to more than this multiple of its size is a bomb or empty.
_EXPANSION, _ALWAYS_FINE = 100, 64 * 2**20
_MOST_VARIABLES = 10_000
_PIECE, _START = 2**18, 2**12


class Variable(NamedTuple):
    """What the header of a variable says: shape, class and name; and where it is stored."""

    name: str
    shape: tuple[int, ...]
    kind: str
    is_complex: bool
    offset: int
    size: int
    packed: bool

    @property
    def is_numeric(self) -> bool:
        """Tell whether it is an array of numbers (not of truth values)."""
        return self.kind in NUMBERS


def is_mat5(path: Path) -> bool:
    """Tell by the first bytes whether this is a MATLAB file of version 5 to 7."""
    if not path.is_file():
        return False
    with open(path, "rb") as stream:
        return stream.read(len(SIGNATURE)) == SIGNATURE


class MatFile:
    """The variables of a file; `read` returns their values.

    All variables that are read from one file may together unpack to 100 times its size (or to 64 MiB).

    Parameters
    ----------
    path : Path
        The file.

    Raises
    ------
    InputError
        If it is not a MATLAB file of version 5 to 7, or is damaged or truncated.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._size = path.stat().st_size
        self._left = max(_ALWAYS_FINE, _EXPANSION * self._size)
        with open(path, "rb") as stream:
            start = stream.read(_HEADER)
            if start[: len(SIGNATURE)] != SIGNATURE or start[126:] not in (b"IM", b"MI"):
                raise damaged(path, "the header is not that of version 5 to 7")
            self._order = "<" if start[126:] == b"IM" else ">"
            self.variables = {found.name: found for found in self._listed(stream)}

    def read(self, name: str) -> Value:
        """Return the value of a variable.

        Raises
        ------
        InputError
            If it unpacks to far more than the file can plausibly contain, or is damaged.
        """
        variable = self.variables[name]
        where = f"{self.path}: {name}"
        if variable.kind in ("cell", "struct"):
            check_nested(math.prod(variable.shape), where)
        with open(self.path, "rb") as stream:
            stream.seek(variable.offset)
            content = self._unpacked(stream, variable, where) if variable.packed else stream.read(variable.size)
        return Parser(memoryview(content), self._order, where, self._left).matrix()

    def _listed(self, stream: BinaryIO) -> list[Variable]:
        """Read the headers of all variables."""
        found: list[Variable] = []
        position = _HEADER
        while position < self._size:
            stream.seek(position)
            tag = stream.read(TAG)
            kind, size = struct.unpack(self._order + "II", tag) if len(tag) == TAG else (0, 0)
            position += TAG
            if kind not in (MATRIX, _COMPRESSED) or size > self._size - position:
                raise damaged(self.path, f"the element at byte {position - TAG} is truncated or of unknown type")
            if len(found) == _MOST_VARIABLES:
                raise InputError(f"{self.path}: more than {_MOST_VARIABLES} variables; refused")
            start = stream.read(min(size, _START))
            if kind == _COMPRESSED:
                start = _inflated_start(start, self.path)[TAG:]
            where = f"{self.path}: the variable at byte {position - TAG}"
            head = Parser(memoryview(start), self._order, where).head()
            found.append(Variable(*head, position, size, kind == _COMPRESSED))
            position += size
        return found

    def _unpacked(self, stream: BinaryIO, variable: Variable, where: str) -> bytearray:
        """Inflate exactly what the inner header declares, if that is plausible."""
        unpack = zlib.decompressobj()
        packed = stream.read(min(variable.size, _PIECE))
        unread = variable.size - len(packed)
        try:
            tag = unpack.decompress(packed, TAG)
            kind, declared = struct.unpack(self._order + "II", tag) if len(tag) == TAG else (0, 0)
            if kind != MATRIX:
                raise damaged(where, "the compressed element contains no array")
            if declared > self._left:
                raise InputError(
                    f"{where}: unpacks from {variable.size} to {declared} bytes, in a file of {self._size}; refused as "
                    "a decompression bomb"
                )
            self._left -= declared
            content, filled, more = bytearray(declared), 0, True
            while more and not unpack.eof:
                packed = unpack.unconsumed_tail
                if not packed:
                    packed = stream.read(min(unread, _PIECE))
                    unread -= len(packed)
                # A byte more than fits would show that the header lies; the checksum follows the last one.
                piece = unpack.decompress(packed, min(_PIECE, declared - filled) or 1)
                content[filled : filled + len(piece)] = piece
                filled += len(piece)
                more = filled <= declared and bool(piece or packed)
        except zlib.error as error:
            raise damaged(where, str(error)) from error
        if filled != declared or not unpack.eof:
            raise damaged(where, f"declares {declared} bytes, but unpacks to {'more' if filled > declared else 'less'}")
        return content


def _inflated_start(packed: bytes, path: Path) -> bytes:
    try:
        return zlib.decompressobj().decompress(packed, _START)
    except zlib.error as error:
        raise damaged(path, str(error)) from error
