"""Reading untrusted MATLAB files of version 5 to 7: numbers, cell arrays and structs, nothing else.

Headers are read first; a compressed variable is unpacked only on request, into memory that was compared with the size
of the file before. scipy would unpack whatever the file contains. Format: MathWorks, "MAT-File Format", 2023.
"""

from __future__ import annotations

import math
import struct
import zlib
from pathlib import Path
from typing import BinaryIO, NamedTuple, TypeAlias

import numpy as np

from recon.errors import InputError

SIGNATURE = b"MATLAB 5.0 MAT-file"
#: An array of numbers, a cell array as a list in the order of MATLAB, a struct array as a list of its elements, or None
#: for what is neither (text, sparse matrices, objects).
Value: TypeAlias = "np.ndarray | list[Value] | list[dict[str, Value]] | None"

_HEADER, _TAG = 128, 8
_MATRIX, _COMPRESSED = 14, 15
_STORED = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_CELL, _STRUCT, _SINGLE = 1, 2, 7
_CLASSES = {
    **{_CELL: "cell", _STRUCT: "struct", 3: "object", 4: "char", 5: "sparse", 6: "double", _SINGLE: "single"},
    **{8: "int8", 9: "uint8", 10: "int16", 11: "uint16", 12: "int32", 13: "uint32", 14: "int64", 15: "uint64"},
    **{16: "function", 17: "opaque"},
}
NUMBERS = tuple(_CLASSES[k] for k in range(6, 16))
# Measured data hardly compress; a file that unpacks to more than this multiple of its size is a bomb or empty.
_EXPANSION, _ALWAYS_FINE = 100, 64 * 2**20
_MOST_VARIABLES, _MOST_NESTED, _DEEPEST, _MOST_AXES = 10_000, 20_000, 8, 32
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
                raise _damaged(path, "the header is not that of version 5 to 7")
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
            _check_nested(math.prod(variable.shape), where)
        with open(self.path, "rb") as stream:
            stream.seek(variable.offset)
            content = self._unpacked(stream, variable, where) if variable.packed else stream.read(variable.size)
        return _Parser(memoryview(content), self._order, where).matrix()

    def _listed(self, stream: BinaryIO) -> list[Variable]:
        """Read the headers of all variables."""
        found: list[Variable] = []
        position = _HEADER
        while position < self._size:
            stream.seek(position)
            tag = stream.read(_TAG)
            kind, size = struct.unpack(self._order + "II", tag) if len(tag) == _TAG else (0, 0)
            position += _TAG
            if kind not in (_MATRIX, _COMPRESSED) or size > self._size - position:
                raise _damaged(self.path, f"the element at byte {position - _TAG} is truncated or of unknown type")
            if len(found) == _MOST_VARIABLES:
                raise InputError(f"{self.path}: more than {_MOST_VARIABLES} variables; refused")
            start = stream.read(min(size, _START))
            if kind == _COMPRESSED:
                start = _inflated_start(start, self.path)[_TAG:]
            where = f"{self.path}: the variable at byte {position - _TAG}"
            head = _Parser(memoryview(start), self._order, where).head()
            found.append(Variable(*head, position, size, kind == _COMPRESSED))
            position += size
        return found

    def _unpacked(self, stream: BinaryIO, variable: Variable, where: str) -> bytearray:
        """Inflate exactly what the inner header declares, if that is plausible."""
        unpack = zlib.decompressobj()
        packed = stream.read(min(variable.size, _PIECE))
        unread = variable.size - len(packed)
        try:
            tag = unpack.decompress(packed, _TAG)
            kind, declared = struct.unpack(self._order + "II", tag) if len(tag) == _TAG else (0, 0)
            if kind != _MATRIX:
                raise _damaged(where, "the compressed element contains no array")
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
            raise _damaged(where, str(error)) from error
        if filled != declared or not unpack.eof:
            raise _damaged(
                where, f"declares {declared} bytes, but unpacks to {'more' if filled > declared else 'less'}"
            )
        return content


class _Parser:
    """Reads elements from the content of a matrix."""

    def __init__(self, content: memoryview, order: str, where: str) -> None:
        self._order, self._where = order, where
        self._at, self._nested = content, 0

    def head(self) -> tuple[str, tuple[int, ...], str, bool]:
        """Read name, shape, class, and whether the numbers are complex."""
        flags = self._numbers()
        word = int(flags[0]) if flags.size else 0
        kind = "logical" if word & 0x0200 else _CLASSES.get(word & 0xFF, "unknown")
        if kind in ("unknown", "opaque"):
            return "", (), kind, False  # the rest of their header is of another form
        shape = tuple(int(length) for length in self._numbers())
        if not 2 <= len(shape) <= _MOST_AXES or min(shape) < 0:
            raise _damaged(self._where, f"declares the shape {shape[:_MOST_AXES]}")
        name = bytes(self._element()[1]).decode("ascii", "replace").rstrip("\0")
        return name, shape, kind, bool(word & 0x0800)

    def matrix(self, depth: int = 0) -> Value:
        """Read the value of a matrix."""
        self._nested += 1
        if depth > _DEEPEST or self._nested > _MOST_NESTED:
            raise InputError(
                f"{self._where}: nested more than {_DEEPEST} deep, or of more than {_MOST_NESTED} arrays; refused"
            )
        if not len(self._at):
            return np.zeros((0, 0))
        _, shape, kind, is_complex = self.head()
        count = math.prod(shape)
        if kind == "cell":
            _check_nested(count, self._where)
            return [self._inner(depth) for _ in range(count)]
        if kind == "struct":
            return self._struct(count, depth)
        if kind not in NUMBERS and kind != "logical":
            return None
        parts = [self._numbers() for _ in range(1 + is_complex)]
        if any(part.size != count for part in parts):
            held = " and ".join(str(part.size) for part in parts)
            raise _damaged(self._where, f"declares {count} numbers of shape {shape}, but contains {held}")
        return _joined(parts, kind).reshape(shape, order="F")

    def _struct(self, count: int, depth: int) -> list[dict[str, Value]]:
        widths = self._numbers()
        width, text = int(widths[0]) if widths.size else 0, bytes(self._element()[1])
        if width < 1 or len(text) % width:
            raise _damaged(self._where, "the names of the fields are damaged")
        names = [text[k : k + width].split(b"\0")[0].decode("ascii", "replace") for k in range(0, len(text), width)]
        _check_nested(count * max(len(names), 1), self._where)
        return [{name: self._inner(depth) for name in names} for _ in range(count)]

    def _inner(self, depth: int) -> Value:
        kind, content = self._element()
        if kind != _MATRIX:
            raise _damaged(self._where, f"expected a nested array, got an element of type {kind}")
        behind, self._at = self._at, content
        value = self.matrix(depth + 1)
        self._at = behind
        return value

    def _numbers(self) -> np.ndarray:
        kind, content = self._element()
        dtype = np.dtype(self._order + _STORED[kind]) if kind in _STORED else None
        if dtype is None or len(content) % dtype.itemsize:
            raise _damaged(self._where, f"expected numbers, got {len(content)} bytes of type {kind}")
        return np.frombuffer(content, dtype)

    def _element(self) -> tuple[int, memoryview]:
        """Read the next element; up to four bytes are stored within its tag."""
        if len(self._at) < _TAG:
            raise _damaged(self._where, "an element is missing or truncated")
        kind, size = struct.unpack(self._order + "II", self._at[:_TAG])
        if kind >> 16:
            kind, size, start, step = kind & 0xFFFF, kind >> 16, 4, _TAG
        else:
            start, step = _TAG, _TAG + (size + 7) // 8 * 8
        if start + size > (_TAG if start == 4 else len(self._at)):
            raise _damaged(self._where, f"an element of {size} bytes is truncated")
        content, self._at = self._at[start : start + size], self._at[step:]
        return kind, content


def _joined(parts: list[np.ndarray], kind: str) -> np.ndarray:
    """Join real and imaginary part; numbers that MATLAB stored in a smaller type are kept in it."""
    native = [part.astype(part.dtype.newbyteorder("="), copy=False) for part in parts]
    if len(native) == 1:
        return native[0]
    joined = np.empty(native[0].shape, np.complex64 if kind == "single" else np.complex128)
    joined.real, joined.imag = native
    return joined


def _inflated_start(packed: bytes, path: Path) -> bytes:
    try:
        return zlib.decompressobj().decompress(packed, _START)
    except zlib.error as error:
        raise _damaged(path, str(error)) from error


def _check_nested(count: int, where: str) -> None:
    if count > _MOST_NESTED:
        raise InputError(f"{where}: declares {count} nested arrays; refused")


def _damaged(where: str | Path, reason: str) -> InputError:
    return InputError(f"{where}: cannot be read as a MATLAB file, it is damaged or truncated ({reason[:120]})")
