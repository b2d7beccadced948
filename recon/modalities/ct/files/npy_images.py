"""Folders of numbered `.npy` slices, as DiffusionMBIR and DDS use them: `L067/<n>.npy`, 2D, about [0, 1].

Slices are sorted by the numbers in their names, not alphabetically.
"""

from itertools import pairwise
from pathlib import Path

import numpy as np

from recon.errors import InputError
from recon.files import npy
from recon.modalities.ct.data import CTImages


def sniff(path: Path) -> bool:
    """Tell whether this is a folder of NumPy files of real numbers; complex arrays are not CT."""
    if not path.is_dir():
        return False
    first = next((entry for entry in sorted(path.iterdir()) if entry.suffix == ".npy" and npy.sniff(entry)), None)
    return first is not None and npy.array_header(first)[1].kind != "c"


def read(path: Path) -> CTImages:
    """Read the headers of all slices.

    Raises
    ------
    InputError
        If a name is not a number, two are the same number, or shapes differ.
    """
    numbered = sorted((_number(entry), entry) for entry in path.iterdir() if entry.suffix == ".npy")
    for (one, first), (other, second) in pairwise(numbered):
        if one == other:
            raise InputError(f"{path}: {first.name} and {second.name} are the same number")
    files = [file for _, file in numbered]
    shapes = [_shape(file) for file in files]
    for file, shape in zip(files, shapes, strict=True):
        if shape != shapes[0]:
            raise InputError(
                f"{file}: has {shape} pixels, {files[0].name} has {shapes[0]}; the slices do not form one stack"
            )
    return CTImages(
        path=path,
        format="npy-folder",
        length=len(files),
        load=lambda i: np.load(files[i], allow_pickle=False),
        image_shape=shapes[0],
        units="relative",
        files=tuple(files),
        attributes={"first": files[0].name, "last": files[-1].name},
    )


def _number(file: Path) -> float:
    try:
        value = float(file.stem)
    except ValueError:
        value = np.nan
    if not np.isfinite(value):
        raise InputError(f"{file}: expected slices named by their numbers (<n>.npy)")
    return value


def _shape(file: Path) -> tuple[int, int]:
    shape, dtype, _, _ = npy.array_header(file)
    if len(shape) != 2 or min(shape) < 1 or dtype.kind not in "biuf":
        raise InputError(f"{file}: expected one real image (y, x), got {dtype} {shape}")
    return shape[0], shape[1]
