"""Opening untrusted DICOM files (needs the extra `dicom`); the only module that reads with pydicom.

Everything is checked from the header before pixels are decoded. pydicom's messages may quote names of patients: its
warnings and log lines are suppressed here, and our messages contain file names, tags and numbers only.
"""

import io
import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from recon.errors import InputError, ReconError
from recon.files.dicom_deflated import check_deflated

CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2"
_DEFER, _AT_ONCE = 2**16, 2**22
_PIXEL_DATA = 0x7FE00010
# Compressed slices: anything larger than this many times the file is a bomb; no scanner makes larger images.
_EXPANSION, _ALWAYS_FINE, _MOST_PIXELS = 100, 64 * 2**20, 2**26


def is_dicom(path: Path) -> bool:
    """Tell whether a file is DICOM, by the four letters after the preamble."""
    if not path.is_file():
        return False
    with open(path, "rb") as stream:
        return stream.read(132)[128:] == b"DICM"


@contextmanager
def quiet() -> Iterator[None]:
    """Suppress pydicom's warnings and log lines, which may quote the header."""
    logger = logging.getLogger("pydicom")
    before = logger.disabled
    logger.disabled = True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.disabled = before


def pydicom_module() -> Any:
    """Import pydicom, or raise an error that says how to install it."""
    try:
        import pydicom
    except ImportError as error:
        raise ReconError("DICOM files need pydicom: pip install 'diffrecon[dicom]'") from error
    return pydicom


def read_header(path: Path) -> Any:
    """Read everything but large values, and check the header against the pixel data.

    Returns
    -------
    pydicom.Dataset
        The header without the pixels; `pixels` locates them.

    Raises
    ------
    InputError
        If it is not DICOM, damaged or truncated, has no pixels, or its sizes contradict each other.
    """
    pydicom = pydicom_module()
    try:
        with open(path, "rb") as stream, quiet():
            length = os.fstat(stream.fileno()).st_size
            start = stream.read(min(length, _AT_ONCE))
            if start[128:132] != b"DICM":
                raise InputError(
                    f"{path}: not a DICOM file (no 'DICM' at byte 128); remove it from the folder or pass another"
                )
            check_deflated(path, stream, pydicom)
            stream.seek(0)
            # pydicom reads a few bytes at a time, which is ten times as fast from memory.
            source = io.BytesIO(start) if length <= _AT_ONCE else stream
            header = pydicom.dcmread(source, defer_size=_DEFER)
    except (OSError, InputError):
        raise
    except Exception as error:  # pydicom raises many types; their messages may quote patient data
        raise InputError(f"{path}: the DICOM header is damaged or truncated ({type(error).__name__})") from None
    _check_syntax(header, path, pydicom)
    _check_pixels(header, path)
    return header


class Pixels(NamedTuple):
    """Location of the pixels in a file; `read()` returns the stored integers `(rows, columns)`, not rescaled."""

    path: Path
    shape: tuple[int, int]
    dtype: str
    unused: int
    offset: int | None

    def read(self) -> np.ndarray:
        """Read or decode the pixels."""
        if self.offset is None:
            array = _decoded(self.path, self.shape)
        else:
            array = np.fromfile(self.path, self.dtype, self.shape[0] * self.shape[1], offset=self.offset)
            if array.size != self.shape[0] * self.shape[1]:
                raise InputError(f"{self.path}: the pixels end too early; the file is truncated")
            array = array.reshape(self.shape)
            array = array.astype(array.dtype.newbyteorder("="), copy=False)
        if not self.unused:
            return array
        if array.dtype.kind == "i":  # the unused bits need not repeat the sign
            return (array << self.unused) >> self.unused
        if (array >> (8 * array.dtype.itemsize - self.unused)).any():
            raise InputError(f"{self.path}: pixels use more bits than BitsStored in the header; the file is damaged")
        return array


def pixels(path: Path, header: Any) -> Pixels:
    """Locate the pixels, given a header from `read_header`."""
    allocated, stored = (int(number(header, name, path, 0) or 0) for name in ("BitsAllocated", "BitsStored"))
    syntax = header.file_meta.TransferSyntaxUID
    kind = "i" if number(header, "PixelRepresentation", path, 0) else "u"
    dtype = f"{'<' if syntax.is_little_endian else '>'}{kind}{allocated // 8}"
    here = None
    if _PIXEL_DATA in header and not syntax.is_deflated:
        here = getattr(header.get_item(_PIXEL_DATA, keep_deferred=True), "value_tell", None)
    return Pixels(path, size(header), dtype, allocated - stored, here)


def read_all(path: Path) -> Any:
    """Read a file with a checked header, with every value in memory."""
    pydicom = pydicom_module()
    with quiet():
        return pydicom.dcmread(io.BytesIO(path.read_bytes()))


def _decoded(path: Path, shape: tuple[int, int]) -> np.ndarray:
    """Decompress the pixels."""
    pydicom = pydicom_module()
    try:
        with quiet():
            header = pydicom.dcmread(io.BytesIO(path.read_bytes()))
            array = header.pixel_array
    except OSError:
        raise
    except Exception as error:
        raise InputError(
            f"{path}: the pixels are compressed and cannot be decoded ({type(error).__name__}): damaged, or no decoder "
            "is installed (pip install 'diffrecon[dicom]')"
        ) from None
    if array.shape != shape:
        raise InputError(
            f"{path}: the pixels decode to shape {array.shape}, but the header says {shape} (rows, columns)"
        )
    return np.asarray(array)


def number(header: Any, name: str | int, path: Path, default: float | None = None) -> float | None:
    """Return a numeric value by keyword or tag, or `default` if it is missing."""
    values = numbers(header, name, path, count=1)
    return default if values is None else float(values[0])


def numbers(header: Any, name: str | int, path: Path, count: int | None = None) -> np.ndarray | None:
    """Return numeric values by keyword or tag, float64, or None if the tag is missing or empty.

    Private tags occur in three forms: typed (explicit VR), as raw bytes (VR UN: binary32; uint16 if there are two
    bytes; binary64 if there are eight for each of `count` numbers), and as text, "369.625 backslash 32.5".
    """
    value = _value(header, name, path)
    if value is None or (hasattr(value, "__len__") and len(value) == 0):
        return None
    try:
        if isinstance(value, bytes):
            return _from_bytes(value, count)
        if isinstance(value, str):
            return np.array([float(part) for part in value.split("\\")])
        return np.atleast_1d(np.asarray([float(one) for one in np.atleast_1d(np.asarray(value, dtype=object))]))
    except (ValueError, TypeError):
        raise InputError(f"{path}: expected numbers in {_label(name)}") from None


def word(header: Any, name: str | int, path: Path) -> str | None:
    """Return a short code word by keyword or tag in upper case, or None if it is missing."""
    value = _value(header, name, path)
    if value is None:
        return None
    text = value.decode("ascii", "replace") if isinstance(value, bytes) else str(value)
    return text.strip(" \0").upper() or None


def text(header: Any, name: str) -> str:
    """Return a value by keyword as text; empty if it is missing or damaged."""
    try:
        value = _value(header, name, Path())
    except InputError:
        return ""
    return "" if value is None else str(value).strip()


def size(header: Any) -> tuple[int, int]:
    """Return (rows, columns) of a header that `read_header` has checked."""
    with quiet():
        return int(header.Rows), int(header.Columns)


def _value(header: Any, name: str | int, path: Path) -> Any:
    try:
        with quiet():
            if isinstance(name, str):
                return header.get(name)
            return header[name].value if name in header else None
    except Exception as error:
        raise InputError(f"{path}: {_label(name)} cannot be read ({type(error).__name__})") from None


def _from_bytes(value: bytes, count: int | None) -> np.ndarray:
    # Text may be padded with a space or a zero; but a zero after one digit is a binary uint16.
    text = value.rstrip(b" \0") if len(value) != 2 or value[1] else b""
    if text and all(byte in b"0123456789+-.eE\\ " for byte in text):
        try:
            return np.array([float(part) for part in text.split(b"\\")])
        except ValueError:
            pass  # a binary number whose bytes all happen to be digits
    if len(value) == 2:
        return np.frombuffer(value, "<u2").astype(float)
    return np.frombuffer(value, "<f8" if count is not None and len(value) == 8 * count else "<f4").astype(float)


def _label(name: str | int) -> str:
    return name if isinstance(name, str) else f"({name >> 16:04X},{name & 0xFFFF:04X})"


def _check_syntax(header: Any, path: Path, pydicom: Any) -> None:
    syntax = header.file_meta.get("TransferSyntaxUID")
    if syntax is None:
        raise InputError(f"{path}: the transfer syntax is missing; the DICOM file is damaged")
    if syntax not in pydicom.uid.AllTransferSyntaxes:
        raise InputError(f"{path}: {str(syntax)[:64]} is not a DICOM transfer syntax; the file is damaged")


def _check_pixels(header: Any, path: Path) -> None:
    """Compare sizes, bits and bytes before decoding anything."""
    sizes = []
    for name in ("Rows", "Columns", "BitsAllocated", "BitsStored"):
        value = number(header, name, path)
        if value is None or value < 1 or value != int(value):
            raise InputError(f"{path}: {name} is missing or not a positive number; this is not an image")
        sizes.append(int(value))
    rows, columns, allocated, stored = sizes
    if allocated not in (8, 16, 32) or stored > allocated:
        raise InputError(f"{path}: BitsStored {stored} and BitsAllocated {allocated} contradict each other")
    if number(header, "HighBit", path, stored - 1) != stored - 1:
        raise InputError(f"{path}: expected HighBit = BitsStored - 1 = {stored - 1}; the header is damaged")
    if number(header, "SamplesPerPixel", path, 1) != 1:
        raise InputError(f"{path}: a colour image; expected one grey value per pixel")
    if number(header, "NumberOfFrames", path, 1) != 1:
        raise InputError(f"{path}: a multi-frame file; convert it to one file per slice first")
    if _PIXEL_DATA not in header:
        raise InputError(f"{path}: contains no pixels (PixelData is missing)")
    element = header.get_item(_PIXEL_DATA, keep_deferred=True)
    expected, on_disk = rows * columns * allocated // 8, os.path.getsize(path)
    if header.file_meta.TransferSyntaxUID.is_compressed or header.file_meta.TransferSyntaxUID.is_deflated:
        if rows * columns > _MOST_PIXELS or expected > max(_ALWAYS_FINE, _EXPANSION * on_disk):
            raise InputError(f"{path}: declares {rows} x {columns} pixels in {on_disk} bytes; refused as a bomb")
        del header[_PIXEL_DATA]  # compressed pixels are decoded from the file, not kept in memory
        return
    if expected > on_disk:
        raise InputError(
            f"{path}: {rows} x {columns} pixels of {allocated} bits are {expected} bytes, but the file has {on_disk}; "
            "it is truncated"
        )
    held = int(getattr(element, "length", None) or len(element.value or b""))
    if held not in (expected, expected + expected % 2):
        raise InputError(
            f"{path}: PixelData has {held} bytes, but {rows} x {columns} pixels of {allocated} bits are {expected}"
        )
    if getattr(element, "value", None) is None and getattr(element, "value_tell", 0) + held > on_disk:
        raise InputError(f"{path}: the pixels end before {rows} x {columns} are complete; the file is truncated")
