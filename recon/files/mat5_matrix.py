"""The content of a variable in a MATLAB file: numbers, cell arrays and structs; see `recon.files.mat5`."""

from __future__ import annotations

import math
import struct
from pathlib import Path
from typing import TypeAlias

import numpy as np

from recon.errors import InputError

#: An array of numbers, a cell array as a list in the order of MATLAB, a struct array as a list of its elements, or None
#: for what is neither (text, sparse matrices, objects).
Value: TypeAlias = "np.ndarray | list[Value] | list[dict[str, Value]] | None"

MATRIX, TAG = 14, 8
_STORED = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_CELL, _STRUCT, _SINGLE = 1, 2, 7
CLASSES = {
    **{_CELL: "cell", _STRUCT: "struct", 3: "object", 4: "char", 5: "sparse", 6: "double", _SINGLE: "single"},
    **{8: "int8", 9: "uint8", 10: "int16", 11: "uint16", 12: "int32", 13: "uint32", 14: "int64", 15: "uint64"},
    **{16: "function", 17: "opaque"},
}
#: Classes of arrays of numbers.
NUMBERS = tuple(CLASSES[k] for k in range(6, 16))
_MOST_NESTED, _DEEPEST, _MOST_AXES = 20_000, 8, 32


class Parser:
    """Reads elements from the content of a matrix.

    Parameters
    ----------
    content : memoryview
        Behind the tag of the matrix.
    order : "<" or ">"
    where : str
        File and variable, for messages.
    limit : int
        Most bytes of complex numbers, which may be stored in smaller types.
    """

    def __init__(self, content: memoryview, order: str, where: str, limit: int = 0) -> None:
        self._order, self._where = order, where
        self._at, self._nested, self._left = content, 0, limit

    def head(self) -> tuple[str, tuple[int, ...], str, bool]:
        """Read name, shape, class, and whether the numbers are complex."""
        flags = self._numbers()
        word = int(flags[0]) if flags.size else 0
        kind = "logical" if word & 0x0200 else CLASSES.get(word & 0xFF, "unknown")
        if kind in ("unknown", "opaque"):
            return "", (), kind, False  # the rest of their header is of another form
        shape = tuple(int(length) for length in self._numbers())
        if not 2 <= len(shape) <= _MOST_AXES or min(shape) < 0:
            raise damaged(self._where, f"declares the shape {shape[:_MOST_AXES]}")
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
            check_nested(count, self._where)
            return [self._inner(depth) for _ in range(count)]
        if kind == "struct":
            return self._struct(count, depth)
        if kind not in NUMBERS and kind != "logical":
            return None
        parts = [self._numbers() for _ in range(1 + is_complex)]
        if any(part.size != count for part in parts):
            held = " and ".join(str(part.size) for part in parts)
            raise damaged(self._where, f"declares {count} numbers of shape {shape}, but contains {held}")
        return (parts[0] if len(parts) == 1 else self._complex(parts, kind)).reshape(shape, order="F")

    def _struct(self, count: int, depth: int) -> list[dict[str, Value]]:
        widths = self._numbers()
        width, text = int(widths[0]) if widths.size else 0, bytes(self._element()[1])
        if width < 1 or len(text) % width:
            raise damaged(self._where, "the names of the fields are damaged")
        names = [text[k : k + width].split(b"\0")[0].decode("ascii", "replace") for k in range(0, len(text), width)]
        check_nested(count * max(len(names), 1), self._where)
        return [{name: self._inner(depth) for name in names} for _ in range(count)]

    def _inner(self, depth: int) -> Value:
        kind, content = self._element()
        if kind != MATRIX:
            raise damaged(self._where, f"expected a nested array, got an element of type {kind}")
        behind, self._at = self._at, content
        value = self.matrix(depth + 1)
        self._at = behind
        return value

    def _numbers(self) -> np.ndarray:
        kind, content = self._element()
        dtype = np.dtype(self._order + _STORED[kind]) if kind in _STORED else None
        if dtype is None or len(content) % dtype.itemsize:
            raise damaged(self._where, f"expected numbers, got {len(content)} bytes of type {kind}")
        found = np.frombuffer(content, dtype)
        return found.astype(dtype.newbyteorder("="), copy=False)

    def _complex(self, parts: list[np.ndarray], kind: str) -> np.ndarray:
        dtype = np.dtype(np.complex64 if kind == "single" else np.complex128)
        self._left -= parts[0].size * dtype.itemsize
        if self._left < 0:
            raise InputError(f"{self._where}: {parts[0].size} complex numbers unpack to too many bytes; refused")
        joined = np.empty(parts[0].shape, dtype)
        joined.real, joined.imag = parts
        return joined

    def _element(self) -> tuple[int, memoryview]:
        """Read the next element; up to four bytes are stored within its tag."""
        if len(self._at) < TAG:
            raise damaged(self._where, "an element is missing or truncated")
        kind, size = struct.unpack(self._order + "II", self._at[:TAG])
        if kind >> 16:
            kind, size, start, step = kind & 0xFFFF, kind >> 16, 4, TAG
        else:
            start, step = TAG, TAG + (size + 7) // 8 * 8
        if start + size > (TAG if start == 4 else len(self._at)):
            raise damaged(self._where, f"an element of {size} bytes is truncated")
        content, self._at = self._at[start : start + size], self._at[step:]
        return kind, content


def check_nested(count: int, where: str) -> None:
    """Refuse cells and structs of too many elements."""
    if count > _MOST_NESTED:
        raise InputError(f"{where}: declares {count} nested arrays; refused")


def damaged(where: str | Path, reason: str) -> InputError:
    """Return the error of a damaged file."""
    return InputError(f"{where}: cannot be read as a MATLAB file, it is damaged or truncated ({reason[:120]})")
