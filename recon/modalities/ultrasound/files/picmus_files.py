"""The other files of the PICMUS challenge: pixel grids, beamformed images, and phantoms."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from recon.errors import InputError, ShapeError
from recon.files import hdf5
from recon.modalities.ultrasound.files import hdf5 as us_hdf5
from recon.modalities.ultrasound.files.picmus import GROUP

if TYPE_CHECKING:
    from operators.ultrasound.geometry import Grid

_MARKS = {"scan": "x_axis", "image": "scan/x_axis", "phantom": "scatterers_positions"}


@dataclass(frozen=True, eq=False)
class PicmusImage:
    """Beamformed images `(frame, z, x)` with their grid and the number of plane waves of each image.

    Real files of the challenge hold envelopes: `images` is float32, or complex64 where the imaginary part is not zero.
    """

    images: np.ndarray = field(repr=False)
    grid: Grid
    plane_waves: np.ndarray

    def frame(self, plane_waves: int) -> np.ndarray:
        """Return the image `(z, x)` made from a number of plane waves."""
        found = np.flatnonzero(self.plane_waves == plane_waves)
        if not found.size:
            raise InputError(f"no image of {plane_waves} plane waves; choose one of {self.plane_waves.tolist()}")
        return self.images[found[0]]


@dataclass(frozen=True, eq=False)
class PicmusPhantom:
    """Contents of a phantom: scatterers, cysts, and regions of speckle; lengths in m.

    Parameters
    ----------
    positions, amplitudes
        `(scatterer, 3)` as (x, y, z), and `(scatterer,)`.
    points
        `(point, 2)`: wires as (x, z); empty if there are none.
    cysts
        `(cyst, 3)`: (x, z, diameter).
    speckle
        `(region, 4)`: (x, z, half width in x, half width in z).
    axial_resolution, lateral_resolution
        Resolutions of the challenge, used as margins of its measurements.
    """

    positions: np.ndarray = field(repr=False)
    amplitudes: np.ndarray = field(repr=False)
    points: np.ndarray = field(repr=False)
    cysts: np.ndarray = field(repr=False)
    speckle: np.ndarray = field(repr=False)
    axial_resolution: float
    lateral_resolution: float


def kind(path: Path) -> str | None:
    """Return "scan", "image" or "phantom" for a PICMUS file of that kind, None for any other."""
    if not hdf5.is_hdf5(path):
        return None
    with hdf5.open_hdf5(path) as file:
        return next((name for name, mark in _MARKS.items() if hdf5.has(file, f"{GROUP}/{mark}")), None)


def hint(path: Path) -> str | None:
    """Return how to read such a file, which holds no channel data; None for any other."""
    found = kind(path)
    return f"a PICMUS {found} file without channel data; read it with recon.io.read_picmus_{found}" if found else None


def read_picmus_scan(path: str | Path) -> Grid:
    """Read the pixel grid of a scan file."""
    with hdf5.open_hdf5(_existing(path)) as file:
        return _grid(path, *(us_hdf5.array(file, f"{GROUP}/{axis}_axis").reshape(-1) for axis in "xz"))


def read_picmus_image(path: str | Path) -> PicmusImage:
    """Read beamformed images; the file stores them as (frame, x, z).

    Raises
    ------
    InputError
        If something is missing, does not fit, or is not finite.
    """
    with hdf5.open_hdf5(_existing(path)) as file:
        grid = _grid(path, *(us_hdf5.array(file, f"{GROUP}/scan/{axis}_axis").reshape(-1) for axis in "xz"))
        waves = us_hdf5.array(file, f"{GROUP}/number_plane_waves").reshape(-1).astype(int)
        parts = [
            np.asarray(us_hdf5.samples(file, f"{GROUP}/data/{part}", (2, 3))[()], np.float32)
            for part in ("real", "imag")
            if part == "real" or hdf5.has(file, f"{GROUP}/data/{part}")
        ]
    parts = [part.reshape(-1, *part.shape[-2:]) for part in parts]
    expected = (len(waves), len(grid.x), len(grid.z))
    if any(part.shape != expected for part in parts):
        raise ShapeError(f"{path}: expected images {expected} (frame, x, z), got {[part.shape for part in parts]}")
    if not all(np.isfinite(part).all() for part in parts):
        raise InputError(f"{path}: the images hold values that are NaN or infinite")
    images = parts[0] + 1j * parts[1] if len(parts) == 2 and parts[1].any() else parts[0]
    return PicmusImage(images.swapaxes(1, 2), grid, waves)


def read_picmus_phantom(path: str | Path) -> PicmusPhantom:
    """Read a phantom. Points are the scatterers of phantoms with fewer than 30 of them (the challenge's own rule)."""
    with hdf5.open_hdf5(_existing(path)) as file:
        positions = us_hdf5.array(file, f"{GROUP}/scatterers_positions", 2)
        amplitudes = us_hdf5.array(file, f"{GROUP}/scatterers_amplitude").reshape(-1)
        if positions.shape != (3, len(amplitudes)):
            raise ShapeError(f"{path}: {positions.shape} scatterers_positions for {len(amplitudes)} amplitudes")

        def get(*names: str) -> np.ndarray:
            columns = [us_hdf5.array(file, f"{GROUP}/phantom_{name}").reshape(-1) for name in names]
            if len({len(column) for column in columns}) != 1:
                raise ShapeError(f"{path}: {', '.join(names)} have different lengths")
            return np.stack(columns, axis=1)

        axial, lateral = get("axialResolution", "lateralResolution")[0]
        cysts = get("occlusionCenterX", "occlusionCenterZ", "occlusionDiameter")
        speckle = get("RoiCenterX", "RoiCenterZ", "RoiPsfTimeX", "RoiPsfTimeZ") * [1, 1, lateral, axial]
    points = positions[[0, 2]].T if len(amplitudes) < 30 else np.empty((0, 2))
    return PicmusPhantom(
        positions=positions.T,
        amplitudes=amplitudes,
        points=points,
        cysts=cysts[cysts[:, 2] > 0],
        speckle=speckle[speckle[:, 2] > 0],
        axial_resolution=float(axial),
        lateral_resolution=float(lateral),
    )


def _existing(path: str | Path) -> Path:
    if not Path(path).is_file():
        raise InputError(f"{path}: no such file")
    return Path(path)


def _grid(path: str | Path, x: np.ndarray, z: np.ndarray) -> Grid:
    from operators.ultrasound.geometry import Grid

    try:
        return Grid(x, z)
    except InputError as error:
        raise type(error)(f"{path}: {error}") from None
