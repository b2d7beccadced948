"""k-space in MATLAB files: version 5 to 7, and version 7.3 (HDF5).

The variable is `kspace`, or the only complex array of two or more axes. Axes are in the order usual in MATLAB:
`(y, x)`, `(y, x, coil)` or `(y, x, coil, slice)`. The order of Python, `(coil, y, x)` or `(slice, coil, y, x)`, is
recognised where the sizes leave no other choice: in that order, but not in that of MATLAB, there are at most 64 coils
and fewer than half as many as rows and columns. `attributes["axes"]` says which order was found.

HDF5 lists the axes of MATLAB in reverse, and complex numbers are pairs `real`, `imag` there.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np

from recon.errors import InputError, ShapeError
from recon.files import hdf5, mat5
from recon.modalities.mri.data import KspaceScan
from recon.modalities.mri.files.arrays import check_complex, check_lengths

_SIGNATURES = (mat5.SIGNATURE, b"MATLAB 7.3 MAT-file")
_MATLAB, _PYTHON = "y x coil slice", "slice coil y x"
_MOST_COILS = 64
#: A part of an array, along the axes of MATLAB.
Selection = tuple[int | slice, ...]


def sniff(path: Path) -> bool:
    """Tell whether this is a MATLAB file, or an HDF5 file with complex numbers stored like those of MATLAB."""
    if not path.is_file():
        return False
    with open(path, "rb") as stream:
        if stream.read(len(_SIGNATURES[0])) in _SIGNATURES:
            return True
    if not hdf5.is_hdf5(path):
        return False
    with hdf5.open_hdf5(path) as file:
        return any(_is_pair(found.dtype) for found in _arrays(file).values())


def read(path: Path) -> KspaceScan:
    """Read the k-space of a MATLAB file; slices of version 7.3 are read on demand, older files with the first of them.

    Raises
    ------
    InputError
        If the file is damaged, contains no k-space, or several arrays could be the k-space.
    """
    return _read_hdf5(path) if hdf5.is_hdf5(path) else _read_old(path)


def _read_hdf5(path: Path) -> KspaceScan:
    with hdf5.open_hdf5(path) as file:
        arrays = _arrays(file)
        name = _chosen({key: _is_pair(found.dtype) for key, found in arrays.items()}, list(file), path)
        stored = hdf5.dataset(file, name)
        if not _is_pair(stored.dtype):
            check_complex(stored.dtype, f"{path}: {name}")
        shape = tuple(int(length) for length in stored.shape[::-1])

    def load(selection: Selection) -> np.ndarray:
        with hdf5.open_hdf5(path) as file:
            values = hdf5.dataset(file, name)[selection[::-1]]
        if values.dtype.names is not None:
            values = values["real"] + np.complex64(1j) * values["imag"]
        return values.T

    return _scan(path, name, shape, load)


def _read_old(path: Path) -> KspaceScan:
    file = mat5.MatFile(path)
    large = {name: one.is_complex for name, one in file.variables.items() if one.is_numeric and _axes(one.shape) > 1}
    name = _chosen(large, list(file.variables), path)
    found = file.variables[name]
    if not found.is_complex:
        check_complex(np.dtype(found.kind), f"{path}: {name}")
    array = np.asarray(file.read(name))
    return _scan(path, name, array.shape, lambda selection: array[selection])


def _arrays(file: h5py.File) -> dict[str, h5py.Dataset]:
    """Return the variables of an HDF5 file with two or more axes; those behind links are left out."""
    hard = [name for name in file if isinstance(file.get(name, getlink=True), h5py.HardLink)]
    found = {name: file[name] for name in hard if file.get(name, getclass=True) is h5py.Dataset}
    return {name: array for name, array in found.items() if array.shape is not None and _axes(array.shape) > 1}


def _is_pair(dtype: np.dtype) -> bool:
    return dtype.names is not None and set(dtype.names) == {"real", "imag"}


def _axes(shape: tuple[int, ...]) -> int:
    """Return the number of axes longer than 1; MATLAB stores numbers and vectors as matrices."""
    return sum(length > 1 for length in shape)


def _chosen(arrays: dict[str, bool], names: list[str], path: Path) -> str:
    """Return the name of the k-space among arrays that are complex or not."""
    if "kspace" in arrays:
        return "kspace"
    found = [name for name, is_complex in arrays.items() if is_complex]
    if len(found) > 1:
        raise InputError(
            f"{path}: {len(found)} complex arrays could be the k-space ({', '.join(sorted(found)[:10])}); name one of "
            "them 'kspace'"
        )
    if not found:
        raise InputError(
            f"{path}: expected a complex array 'kspace' of two or more axes (the file contains: "
            f"{', '.join(sorted(names)[:20]) or 'nothing'})"
        )
    return found[0]


def _scan(path: Path, name: str, shape: tuple[int, ...], load: Callable[[Selection], np.ndarray]) -> KspaceScan:
    where = f"{path}: {name}"
    if len(shape) not in (2, 3, 4):
        raise ShapeError(f"{where}: expected (y, x[, coil[, slice]]), got shape {shape}")
    axes = _order(shape)
    check_lengths(shape, " ".join(axes), where)
    length = dict(zip(axes, shape, strict=True))
    slice_shape = (length.get("coil", 1), length["y"], length["x"])

    def one(index: int) -> np.ndarray:
        values = load(tuple(index if axis == "slice" else slice(None) for axis in axes))
        if axes[0] == "y" and "coil" in axes:
            values = np.moveaxis(values, -1, 0)
        return values.reshape(slice_shape)

    return KspaceScan(
        path=path,
        format="matlab",
        dataset=name,
        slice_shape=slice_shape,
        length=length.get("slice", 1),
        load=one,
        attributes={"axes": f"({', '.join(axes)})"},
    )


def _order(shape: tuple[int, ...]) -> list[str]:
    """Return the names of the axes, in the order of MATLAB unless only that of Python gives fewer coils than pixels."""
    matlab, python = _MATLAB.split()[: len(shape)], _PYTHON.split()[-len(shape) :]
    if len(shape) == 2:
        return matlab

    def fits(axes: list[str]) -> bool:
        length = dict(zip(axes, shape, strict=True))
        return length["coil"] <= min(_MOST_COILS, (min(length["y"], length["x"]) - 1) // 2)

    return python if fits(python) and not fits(matlab) else matlab
