"""LoDoPaB-CT: low-dose parallel-beam sinograms with their ground truth.

`observation_{part}_{k:03d}.hdf5` and `ground_truth_{part}_{k:03d}.hdf5`, dataset `data`, 128 samples per file:
observations (n, 1000, 513) are line integrals divided by MU_MAX, ground truth (n, 362, 362) is the attenuation divided
by MU_MAX; MU_MAX = 81.35858 / m is 3071 HU. Images are 0.26 m wide, the detector 0.26 sqrt(2) m; 4,096 photons per
element.
In the stored images the first axis is the x of the format's angles, (k + 0.5) pi / 1000. The images are kept as
stored: with the directions of `recon.modalities.ct.data` (x along the second axis) the angles are smaller by pi/2.
Source: Leuschner et al., Scientific Data 8 (2021) 109.
"""

import math
import re
from pathlib import Path

import h5py
import numpy as np

from recon.errors import InputError
from recon.files import hdf5
from recon.modalities.ct.data import CTImages, CTProjections, ScanGeometry

MU_MAX_PER_M, MU_WATER_PER_M, MU_AIR_PER_M = 81.35858, 20.0, 0.02
ANGLES, DETECTORS, PIXELS = 1000, 513, 362
WIDTH_MM, PHOTONS = 260.0, 4096.0
_OBSERVATION, _IMAGE = (ANGLES, DETECTORS), (PIXELS, PIXELS)
_NAME = re.compile(r"observation_(?P<part>.+)_(?P<number>\d+)\.hdf5")


def sniff(path: Path) -> bool:
    """Tell whether this is a file of observations or ground truth, or a folder with observations."""
    if path.is_dir():
        return any(_NAME.fullmatch(entry.name) and hdf5.is_hdf5(entry) for entry in path.iterdir())
    if not hdf5.is_hdf5(path):
        return False
    with hdf5.open_hdf5(path) as file:
        if not isinstance(file.get("data", getlink=True), h5py.HardLink) or not isinstance(file["data"], h5py.Dataset):
            return False
        shape = file["data"].shape
        return shape is not None and len(shape) == 3 and shape[1:] in (_OBSERVATION, _IMAGE)


def read(path: Path, part: str | None = None) -> CTProjections | CTImages:
    """Read the headers of one file, or of all observations of one part ("train", "validation", "test") in a folder.

    Ground truth stored beside the observations becomes their reference; a file of ground truth is read as images in HU.

    Raises
    ------
    InputError
        If shapes or counts do not fit, or a folder holds several parts and ``part`` is not given.
    """
    files = _observations(path, part) if path.is_dir() else [path]
    if not path.is_dir() and _shape(path)[1:] == _IMAGE:
        return _images(path)
    counts = [_count(file, _OBSERVATION) for file in files]
    truths = [_truth(file, count) for file, count in zip(files, counts, strict=True)]
    starts = np.concatenate([[0], np.cumsum(counts)])

    def place(index: int) -> tuple[int, int]:
        k = int(np.searchsorted(starts, index, side="right")) - 1
        return k, index - int(starts[k])

    def load(index: int) -> np.ndarray:
        k, i = place(index)
        return _one(files[k], i) * np.float32(MU_MAX_PER_M)

    def load_reference(index: int) -> np.ndarray:
        k, i = place(index)
        truth = truths[k]
        assert truth is not None
        return _one(truth, i) * np.float32(MU_MAX_PER_M / 1000)

    return CTProjections(
        path=path,
        format="lodopab",
        length=int(starts[-1]),
        load=load,
        geometry=lodopab_geometry(),
        load_photons=lambda _: np.full((1, 1), PHOTONS, np.float32),
        load_reference=load_reference if all(truth is not None for truth in truths) else None,
        image_shape=_IMAGE,
        pixel_spacing_mm=(WIDTH_MM / PIXELS, WIDTH_MM / PIXELS),
        water_attenuation_per_mm=MU_WATER_PER_M / 1000,
        attributes={"photons": PHOTONS, "mu_max_per_m": MU_MAX_PER_M, "files": len(files)},
    )


def lodopab_geometry() -> ScanGeometry:
    """Return the geometry of all LoDoPaB observations."""
    angles = (np.arange(ANGLES) + 0.5) * np.pi / ANGLES - np.pi / 2
    return ScanGeometry("parallel", angles, DETECTORS, WIDTH_MM * math.sqrt(2) / DETECTORS)


def _images(path: Path) -> CTImages:
    per_hu = (MU_WATER_PER_M - MU_AIR_PER_M) / 1000

    def load(index: int) -> np.ndarray:
        return (_one(path, index) * MU_MAX_PER_M - MU_WATER_PER_M) / per_hu

    spacing = WIDTH_MM / PIXELS
    return CTImages(path, "lodopab", _count(path, _IMAGE), load, _IMAGE, "HU", (spacing, spacing))


def _observations(folder: Path, part: str | None) -> list[Path]:
    found: dict[str, list[tuple[int, Path]]] = {}
    for file in folder.iterdir():
        match = _NAME.fullmatch(file.name)
        if match:
            found.setdefault(match["part"], []).append((int(match["number"]), file))
    if part is None and len(found) == 1:
        part = next(iter(found))
    if part not in found:
        raise InputError(f"{folder}: choose part= one of {', '.join(sorted(found))}" + (f", not {part}" * bool(part)))
    return [file for _, file in sorted(found[part])]


def _truth(observation: Path, count: int) -> Path | None:
    """Return the file of ground truth that belongs to a file of observations, or None."""
    if not observation.name.startswith("observation"):
        return None
    file = observation.with_name(observation.name.replace("observation", "ground_truth", 1))
    if not file.is_file():
        return None
    if _count(file, _IMAGE) != count:
        raise InputError(f"{file}: holds {_count(file, _IMAGE)} images for {count} observations in {observation.name}")
    return file


def _shape(path: Path) -> tuple[int, ...]:
    with hdf5.open_hdf5(path) as file:
        found = hdf5.dataset(file, "data")
        if found.dtype.kind != "f":
            raise InputError(f"{path}: data: expected real numbers (float32), got {found.dtype}")
        return tuple(found.shape)


def _count(path: Path, expected: tuple[int, int]) -> int:
    shape = _shape(path)
    if len(shape) != 3 or shape[1:] != expected or shape[0] < 1:
        raise InputError(f"{path}: data: expected (n, {expected[0]}, {expected[1]}), got {shape}")
    return shape[0]


def _one(path: Path, index: int) -> np.ndarray:
    with hdf5.open_hdf5(path) as file:
        return np.asarray(hdf5.dataset(file, "data")[index], np.float32)
