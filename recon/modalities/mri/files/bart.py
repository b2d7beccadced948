"""BART files: `name.hdr` gives the dimensions, `name.cfl` holds complex64 in Fortran order.

Dimensions 0, 1, 2 are the readout and the two phase encodings, 3 the coils, 13 the slices; every other one must be 1.
One slice of 2D data `(x, y, 1, coil)` becomes `(coil, y = dimension 0, x = dimension 1)`: a mask of columns acts on
dimension 1. 3D data (dimension 2 > 1) are separated into slices along the readout, which is always fully sampled, by
a centred orthonormal inverse FFT; each slice is then `(coil, y = dimension 1, x = dimension 2)`, undersampled in both.
Some tools write 2D data as `(x, y, coil)`, so that the coils are in dimension 2 and dimension 3 is 1. A single-coil
volume differs in that its energy is concentrated in the central plane; `attributes["coil_dimension"]` records which.
Source: the BART toolbox (https://mrirecon.github.io/bart).
"""

from math import prod
from pathlib import Path

import numpy as np

from recon.errors import InputError
from recon.modalities.mri.data import KspaceScan

_COIL, _SLICE = 3, 13
_NAMES = (
    *("readout", "phase 1", "phase 2", "coil", "map", "echo time", "coefficient", "coefficient 2", "iteration"),
    *("cardiac shift", "time", "time 2", "level", "slice", "average", "batch"),
)
_MAX_HEADER = 2**16
_MAX_COILS = 128


def sniff(path: Path) -> bool:
    """Tell whether the file is one half of a BART pair (or their common name)."""
    header = _pair(path)[0]
    if not header.is_file():
        return path.suffix == ".cfl" and path.is_file()
    with open(header, "rb") as stream:
        return stream.read(_MAX_HEADER).lstrip().startswith(b"# Dimensions") or path.suffix in (".cfl", ".hdr")


def read(path: Path) -> KspaceScan:
    """Read the header of a BART pair and check it against the size of the data.

    Raises
    ------
    InputError
        If one half is missing, the sizes do not match, or there are dimensions beyond the k-space of one image.
    """
    header, data, dims = _checked_pair(path)
    for k, length in enumerate(dims):
        if length > 1 and k > _COIL and k != _SLICE:
            raise InputError(
                f"{header}: dimension {k} ({_NAMES[k]}) has length {length}; only readout, phase, coil and slice "
                "may be longer than 1: extract one image first (bart slice)"
            )
    coil_axis = 2 if dims[_COIL] == 1 and _holds_coils(data, dims) else _COIL
    if coil_axis == 2:
        dims = (*dims[:2], 1, dims[2], *dims[4:])  # the same bytes: two neighbouring axes, one of them of length 1
    volume = dims[2] > 1
    if volume and dims[_SLICE] > 1:
        raise InputError(f"{header}: both phase 2 ({dims[2]}) and slice ({dims[_SLICE]}) are longer than 1")
    y, x = (dims[1], dims[2]) if volume else (dims[0], dims[1])
    return KspaceScan(
        path=data,
        format="bart",
        dataset="data",
        slice_shape=(dims[_COIL], y, x),
        length=dims[0] if volume else dims[_SLICE],
        load=lambda i: _partition(data, dims, i) if volume else _plane(data, dims, i),
        readout_axis=None if volume else -2,
        attributes={"dimensions": list(_trim(dims)), "coil_dimension": coil_axis},
    )


def read_array(path: Path) -> np.ndarray:
    """Map any BART array with its 16 dimensions, without reading it.

    Raises
    ------
    InputError
        If one half of the pair is missing, or the sizes do not match.
    """
    _, data, dims = _checked_pair(path)
    return np.memmap(data, dtype="<c8", mode="r", shape=dims, order="F")


def _checked_pair(path: Path) -> tuple[Path, Path, tuple[int, ...]]:
    """Return header, data and dimensions of a pair whose sizes match."""
    header, data = _pair(path)
    for half in (header, data):
        if not half.is_file():
            raise InputError(f"{half}: no such file; a BART scan is a pair of .hdr and .cfl")
    dims = _dimensions(header)
    expected, found = 8 * prod(dims), data.stat().st_size
    if expected != found:
        raise InputError(
            f"{data}: has {found} bytes, but {header.name} declares {' x '.join(map(str, _trim(dims)))} complex64 = "
            f"{expected} bytes; the pair does not belong together or is truncated"
        )
    return header, data, dims


def _pair(path: Path) -> tuple[Path, Path]:
    base = path.with_suffix("") if path.suffix in (".cfl", ".hdr") else path
    return base.with_name(base.name + ".hdr"), base.with_name(base.name + ".cfl")


def _trim(dims: tuple[int, ...]) -> tuple[int, ...]:
    last = max((k for k, length in enumerate(dims) if length != 1), default=0)
    return dims[: max(last + 1, 4)]


def _dimensions(header: Path) -> tuple[int, ...]:
    """Return the 16 dimensions of a header."""
    with open(header, "rb") as stream:
        lines = stream.read(_MAX_HEADER).decode("utf-8", "replace").splitlines()
    wanted = [k for k, line in enumerate(lines) if line.strip() == "# Dimensions"]
    if not wanted or wanted[0] + 1 >= len(lines):
        raise InputError(f"{header}: expected a line '# Dimensions' followed by the dimensions")
    words = lines[wanted[0] + 1].split()
    if not 1 <= len(words) <= 16 or not all(_is_length(word) for word in words):
        raise InputError(f"{header}: expected 1 to 16 positive dimensions, got {' '.join(words)[:80]!r}")
    return tuple(int(word) for word in words) + (1,) * (16 - len(words))


def _is_length(word: str) -> bool:
    return word.isdecimal() and len(word) <= 10 and 0 < int(word) < 2**31


def _holds_coils(data: Path, dims: tuple[int, ...]) -> bool:
    """Tell coils in dimension 2 from phase encodings: a volume has most of its energy in the central plane."""
    planes = dims[2]
    if not 1 < planes <= _MAX_COILS:
        return False
    stored = _memory(data, dims)[..., 0, 0]
    with np.errstate(all="ignore"):  # infinite values are refused when the slice is read
        energy = np.array([np.sum(np.abs(stored[..., k]) ** 2, dtype=np.float64) for k in range(planes)])
    return not energy[planes // 2] > 0.5 * energy.sum()


def _memory(data: Path, dims: tuple[int, ...]) -> np.ndarray:
    """Map the file as (dimension 0, 1, 2, coil, slice) without reading it."""
    shape = (*dims[:4], dims[_SLICE])
    return np.memmap(data, dtype="<c8", mode="r", shape=shape, order="F")


def _plane(data: Path, dims: tuple[int, ...], index: int) -> np.ndarray:
    return np.moveaxis(_memory(data, dims)[:, :, 0, :, index], -1, 0)


def _partition(data: Path, dims: tuple[int, ...], index: int) -> np.ndarray:
    """Return row `index` of the centred orthonormal inverse FFT along the readout, one pass over the file."""
    n = dims[0]
    frequency = np.arange(n) - n // 2
    row = np.exp(2j * np.pi * frequency * (index - n // 2) / n) / np.sqrt(n)
    volume = _memory(data, dims)[..., 0]
    coils = [np.tensordot(row.astype(np.complex64), volume[..., c], axes=(0, 0)) for c in range(dims[_COIL])]
    return np.stack(coils)
