"""Reading untrusted NIfTI volumes (needs the extra `nifti`): the header first, then only what it declares.

nibabel interprets the header and turns the axes; the values are read here, because it would unpack a `.nii.gz` file
without comparing sizes, and accepts headers that contradict themselves.
"""

from __future__ import annotations

import gzip
import io
import math
import os
import struct
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from recon.errors import InputError, ReconError

_LONGEST = 540
_DTYPES = {2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 256: "i1", 512: "u2", 768: "u4", 1024: "i8", 1280: "u8"}
# Images compress by a factor of 2 to 10, empty space around them included.
_EXPANSION, _ALWAYS_FINE = 50, 64 * 2**20
_MOST_BEFORE = 2**24  # header extensions
_AFFINE = ("pixdim", "quatern", "qoffset", "srow")


class _Layout(NamedTuple):
    """Where a version of the format keeps its fields: (format, offset)."""

    size: int
    magic: tuple[bytes, int]
    dim: tuple[str, int]
    datatype: tuple[str, int]
    vox_offset: tuple[str, int]
    pixdim: tuple[str, int]
    codes: tuple[str, int]  # qform_code, sform_code
    quatern: tuple[str, int]
    qoffset: tuple[str, int]
    srow: tuple[str, int]


_LAYOUTS = (
    _Layout(
        348,
        (b"n+1\0", 344),
        *(("8h", 40), ("h", 70), ("f", 108), ("8f", 76)),
        *(("2h", 252), ("3f", 256), ("3f", 268), ("12f", 280)),
    ),
    _Layout(
        540,
        (b"n+2\0\r\n\x1a\n", 4),
        *(("8q", 16), ("h", 12), ("q", 168), ("8d", 104)),
        *(("2i", 344), ("3d", 352), ("3d", 376), ("12d", 400)),
    ),
)


class _Header(NamedTuple):
    """What the header of a file declares."""

    raw: bytes
    order: str
    shape: tuple[int, ...]
    dtype: np.dtype
    offset: int


def read_nifti(path: Path) -> tuple[np.ndarray, tuple[float, ...]]:
    """Return a volume ``(right, anterior, superior)`` float32 and its voxel size in mm.

    Raises
    ------
    InputError
        If it is not a NIfTI file, is damaged or truncated, is not a finite three-dimensional image, or unpacks to far
        more than such a file can contain; the field of the header is named.
    """
    try:
        import nibabel
    except ImportError as error:
        raise ReconError("NIfTI files need nibabel: pip install 'diffrecon[nifti]'") from error
    try:
        with _opened(path) as stream:
            header = _read_header(path, stream)
            stored = _values(path, stream, header)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(f"{path}: cannot be unpacked, it is damaged or truncated ({error})") from error
    image = _image(path, header, stored, nibabel)
    data = np.asarray(image.dataobj)
    if not np.isfinite(data).all():
        raise InputError(f"{path}: expected finite values, some voxels are NaN or infinite")
    return data, tuple(float(z) for z in image.header.get_zooms()[:3])


def _opened(path: Path) -> gzip.GzipFile | io.BufferedReader:
    return gzip.open(path, "rb") if path.name.lower().endswith(".gz") else open(path, "rb")


def _read_header(path: Path, stream: gzip.GzipFile | io.BufferedReader) -> _Header:
    """Read and check all fields that the size, the type and the position of the values depend on."""
    raw = stream.read(_LONGEST)
    for layout in _LAYOUTS:
        for order in "<>":
            magic, at = layout.magic
            if raw[:4] == struct.pack(order + "i", layout.size) and raw[at : at + len(magic)] == magic:
                return _checked(path, raw, layout, order)
    raise InputError(f"{path}: not a NIfTI file (sizeof_hdr and magic do not fit), or it is damaged")


def _checked(path: Path, raw: bytes, layout: _Layout, order: str) -> _Header:
    if len(raw) < layout.size:
        raise InputError(f"{path}: the header is truncated")

    def field(place: tuple[str, int]) -> tuple[Any, ...]:
        return struct.unpack_from(order + place[0], raw, place[1])

    ndim, *lengths = field(layout.dim)
    shape = tuple(lengths[:ndim]) if 0 < ndim < 8 else ()
    if ndim != 3 or min(shape) < 1:
        raise InputError(f"{path}: dim: expected three axes, none of them empty, got the lengths {list(shape)}")
    (code,), (offset,) = field(layout.datatype), field(layout.vox_offset)
    if code not in _DTYPES:
        raise InputError(f"{path}: datatype: expected real numbers, got code {code}")
    if not layout.size + 4 <= offset <= _MOST_BEFORE or offset != int(offset):
        raise InputError(f"{path}: vox_offset: the values cannot begin at byte {offset}")
    qform, sform = field(layout.codes)
    used = ("pixdim", "srow") if sform > 0 else _AFFINE[:3] if qform > 0 else ("pixdim",)
    for name in used:
        values = field(getattr(layout, name))[:4] if name == "pixdim" else field(getattr(layout, name))
        if not all(map(math.isfinite, values)):
            raise InputError(f"{path}: {name}: expected finite numbers, got {list(values)}")
    dtype = np.dtype(order + _DTYPES[code])
    return _Header(raw[: layout.size], order, tuple(map(int, shape)), dtype, int(offset))


def _values(path: Path, stream: gzip.GzipFile | io.BufferedReader, header: _Header) -> np.ndarray:
    """Read the stored values, after comparing their declared number with the size of the file."""
    count, on_disk = math.prod(header.shape), os.path.getsize(path)
    size = count * header.dtype.itemsize
    declares = f"{path}: dim: {' x '.join(map(str, header.shape))} values of {header.dtype.itemsize} byte(s)"
    if isinstance(stream, gzip.GzipFile):
        if max(size, 4 * count) > max(_ALWAYS_FINE, _EXPANSION * on_disk):
            raise InputError(f"{declares} in a file of {on_disk} bytes; refused as a decompression bomb")
    elif header.offset + size > on_disk:
        raise InputError(f"{declares} need {header.offset + size} bytes, but the file has {on_disk}; it is truncated")
    values = np.empty(size, np.uint8)
    stream.seek(header.offset)
    filled = 0
    while filled < size:
        read = stream.readinto(values.data[filled:])
        if not read:
            raise InputError(f"{declares}, but only {filled} bytes follow; the file is truncated")
        filled += read
    stream.read(1)  # the checksum of a compressed file follows its last byte
    return values.view(header.dtype).reshape(header.shape, order="F")


def _image(path: Path, header: _Header, stored: np.ndarray, nibabel: Any) -> Any:
    """Scale the values and turn the axes to (right, anterior, superior)."""
    kind = "Nifti1" if len(header.raw) == _LAYOUTS[0].size else "Nifti2"
    try:
        parsed = getattr(nibabel, f"{kind}Header")(header.raw, header.order)
        slope, intercept = parsed.get_slope_inter()
        values = stored.astype(np.float32)
        if slope is not None:
            values *= np.float32(slope)
            values += np.float32(intercept)
        affine = parsed.get_best_affine()
        parsed.set_data_dtype(np.float32)
        return nibabel.as_closest_canonical(getattr(nibabel, f"{kind}Image")(values, affine, parsed))
    except Exception as error:  # nibabel raises many types
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{path}: the header is damaged ({reason[:120]})") from error
