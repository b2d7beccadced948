"""Data Exchange HDF5: parallel-beam projections of a synchrotron, one sinogram per detector row.

`exchange/data` (angle, row, column) are intensities, `exchange/data_white` and `exchange/data_dark` several images with
and without beam, `exchange/theta` the angles: degrees unless their attribute `units` says rad, or there is none and
only radians can be meant. With the mean white and dark images w and d the line integrals are
p = -log((data - d) / (w - d)).
Source: De Carlo et al., J. Synchrotron Rad. 21 (2014) 1224.
"""

from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np

from recon.errors import InputError
from recon.files import hdf5
from recon.modalities.ct.data import CTProjections, ScanGeometry

_DATA = "exchange/data"
_CENTRE_NAMES = ("rotation_centre", "rotation_center", "rotation_axis", "center", "axis_center")
_PIXEL_NAMES = ("measurement/instrument/detector/pixel_size_x", "measurement/instrumentation/detector/pixel_size_x")
_IN_MM = {"m": 1000.0, "mm": 1.0, "um": 1e-3, "micron": 1e-3, "microns": 1e-3, "\u00b5m": 1e-3, "nm": 1e-6}
# Less than this fraction of the beam is noise: p is at most -log of it.
_LEAST_TRANSMISSION = 1e-4
# The object is cut off if the line integrals at an edge are this fraction of the largest ones.
_CUT = 0.05
# Parts of projections with less than this fraction of their variance do not tell where the axis is.
_LEAST_SIGNAL = 0.1
# Angles without a unit that span less than this are not degrees; they are radians if they make half turns, up to a
# fraction of one.
_MOST_RADIANS, _WHOLE = 7.0, 0.05


def sniff(path: Path) -> bool:
    """Tell whether this is an HDF5 file with `exchange/data`."""
    if not hdf5.is_hdf5(path):
        return False
    with hdf5.open_hdf5(path) as file:
        return hdf5.has(file, _DATA)


def read(
    path: Path,
    rotation_centre: float | None = None,
    pixel_size_mm: float | None = None,
    angles: Sequence[float] | np.ndarray | None = None,
) -> CTProjections:
    """Read the headers; each row is read and corrected on demand.

    Parameters
    ----------
    path
        The file.
    rotation_centre
        Column of the rotation axis, 0-based and fractional. Default: the file's, or an estimate from the middle row:
        the centre of mass of the projections circles around it, and opposite projections mirror each other about it.
    pixel_size_mm
        Default: the file's, or 1 (then lengths are in pixels, and attenuation in 1/pixel).
    angles
        In rad; default: the file's `theta`.

    Raises
    ------
    InputError
        If a dataset is missing, shapes contradict each other, or white and dark images leave no signal.
    """
    with hdf5.open_hdf5(path) as file:
        data = hdf5.dataset(file, _DATA)
        shape = tuple(int(n) for n in data.shape)
        if len(shape) != 3 or min(shape) < 1 or data.dtype.kind not in "iuf":
            raise InputError(f"{path}: {_DATA}: expected real numbers (angle, row, column), got {data.dtype} {shape}")
        frames = {name: _frames(file, f"{_DATA}_{name}", shape) for name in ("white", "dark")}
        theta, unit = _angles(file, shape[0]) if angles is None else (np.asarray(angles, float), "radians (given)")
        stored_centre, stored_pixel = _centre(file), _pixel(file)
    white, dark = (frames[name] for name in ("white", "dark"))
    if white is None:
        raise InputError(f"{path}: {_DATA}_white is missing; line integrals need the images of the open beam")
    beam = white - (0 if dark is None else dark)
    alive = beam > 0.01 * np.median(beam)
    if not (np.median(beam) > 0 and alive.any(axis=1).all()):
        raise InputError(f"{path}: {_DATA}_white is not brighter than {_DATA}_dark; they may be exchanged")
    if theta.shape != shape[:1] or not np.isfinite(theta).all():
        raise InputError(f"{path}: expected {shape[0]} finite angles, one per projection, got {theta.shape}")

    def load(row: int) -> np.ndarray:
        with hdf5.open_hdf5(path) as file:
            counts = np.asarray(hdf5.dataset(file, _DATA)[:, row], np.float32)
        if not np.isfinite(counts).all():
            raise InputError(f"{path}: {_DATA}, row {row}: holds NaN or infinite values; the file is damaged")
        return _line_integrals(counts, beam[row], 0 if dark is None else dark[row], alive[row])

    centre, origin = (rotation_centre, "option") if rotation_centre is not None else (stored_centre, "file")
    if centre is None:
        centre, origin = _estimated_centre(load(shape[1] // 2), theta)
    if not 0 <= centre <= shape[2] - 1:
        raise InputError(f"{path}: the rotation centre {centre} is outside the {shape[2]} columns")
    pixel = pixel_size_mm if pixel_size_mm is not None else stored_pixel
    if pixel is not None and not 0 < pixel < np.inf:
        raise InputError(f"{path}: the pixel size must be a positive length in mm, got {pixel}")
    spacing = 1.0 if pixel is None else float(pixel)
    known_from = "option" if pixel_size_mm is not None else "unknown" if pixel is None else "file"
    return CTProjections(
        path=path,
        format="data-exchange",
        length=shape[1],
        load=load,
        geometry=ScanGeometry("parallel", theta, shape[2], spacing, ((shape[2] - 1) / 2 - centre) * spacing),
        positions_mm=None if pixel is None else np.arange(shape[1]) * spacing,
        attributes={
            **{"rotation_centre": float(centre), "rotation_centre_from": origin, "pixel_size_from": known_from},
            **{"angles": unit, "white_images": white is not None, "dark_images": dark is not None},
            "dead_elements": int((~alive).sum()),
        },
    )


def centre_of_mass(sinogram: np.ndarray, angles: np.ndarray) -> float:
    """Estimate the column of the rotation axis: the centres of mass are c + a cos(theta) + b sin(theta).

    Valid for parallel beams that see the whole object from a range of angles.
    """
    weight = np.where(sinogram > 0.05 * sinogram.max(), sinogram, 0).astype(float)  # without the noise of the air
    total = weight.sum(axis=1)
    total[total == 0] = 1
    mass = weight @ np.arange(sinogram.shape[1]) / total
    basis = np.stack([np.ones_like(angles), np.cos(angles), np.sin(angles)], axis=1)
    centre = float(np.linalg.lstsq(basis, mass, rcond=None)[0][0])
    return float(np.clip(centre, 0, sinogram.shape[1] - 1))


def centre_of_opposites(sinogram: np.ndarray, angles: np.ndarray) -> float | None:
    """Estimate the column of the rotation axis from opposite projections, which mirror each other about it.

    Valid for parallel beams also where the object is wider than the detector, as in a half acquisition. None if there
    are no opposite projections.
    """
    offset = np.abs((angles[None] - angles[:, None]) % (2 * np.pi) - np.pi)
    partner = offset.argmin(axis=1)
    found = np.flatnonzero(offset[np.arange(len(angles)), partner] < np.pi / len(angles))
    columns = sinogram.shape[1]
    overlap = max(8, columns // 10)
    if len(found) < 2 or columns <= overlap:
        return None
    first, mirrored = sinogram[found].astype(float), sinogram[partner[found], ::-1].astype(float)
    sums = np.arange(overlap - 1, 2 * columns - overlap)  # of the columns of a ray in both, twice that of the axis
    errors, least = [], _LEAST_SIGNAL * sinogram.var()  # air mirrors air anywhere
    for both in sums:
        x = slice(max(0, both - columns + 1), min(columns - 1, both) + 1)
        a, b = first[:, x], mirrored[:, columns - 1 - both + x.start : columns - 1 - both + x.stop]
        errors.append((np.square(a - b).mean() + 1e-6 * least) / (a.var() + b.var() + least + 1e-30))
    return _lowest(sums, np.array(errors)) / 2


def _lowest(places: np.ndarray, values: np.ndarray) -> float:
    """Return the place of the lowest value, by a parabola through its neighbours."""
    k = int(values.argmin())
    if not 0 < k < len(values) - 1:
        return float(places[k])
    before, middle, after = values[k - 1 : k + 2]
    return float(places[k] + 0.5 * (before - after) / max(before - 2 * middle + after, 1e-30))


def _estimated_centre(sinogram: np.ndarray, angles: np.ndarray) -> tuple[float, str]:
    """Return the column of the rotation axis and how it was found: the centre of mass needs the whole object."""
    if np.abs(sinogram[:, [0, -1]]).mean(axis=0).max() > _CUT * np.quantile(sinogram, 0.99):
        centre = centre_of_opposites(sinogram, angles)
        if centre is not None:
            return centre, "estimate (opposite projections)"
    return centre_of_mass(sinogram, angles), "estimate (centre of mass)"


def _line_integrals(counts: np.ndarray, beam: np.ndarray, dark: np.ndarray | int, alive: np.ndarray) -> np.ndarray:
    """Return p = -log(transmission) `(angle, column)`; dead columns take their neighbours' values."""
    transmission = (counts - dark) / np.where(alive, beam, 1)
    integrals = -np.log(np.clip(transmission, _LEAST_TRANSMISSION, None))
    columns = np.arange(counts.shape[1])
    if not alive.all():
        for line in integrals:
            line[~alive] = np.interp(columns[~alive], columns[alive], line[alive])
    return integrals.astype(np.float32)


def _frames(file: h5py.File, name: str, shape: tuple[int, ...]) -> np.ndarray | None:
    """Return the mean of white or dark images `(row, column)`, or None."""
    if not hdf5.has(file, name):
        return None
    found = hdf5.dataset(file, name)
    if found.dtype.kind not in "iuf" or found.shape[-2:] != shape[1:] or found.ndim not in (2, 3) or 0 in found.shape:
        raise InputError(
            f"{file.filename}: {name}: expected images of {shape[1:]} (row, column), got {found.dtype} {found.shape}"
        )
    mean = np.asarray(found[()], np.float64).reshape(-1, *shape[1:]).mean(axis=0)
    if not np.isfinite(mean).all():
        raise InputError(f"{file.filename}: {name}: holds NaN or infinite values; the file is damaged")
    return mean


def _angles(file: h5py.File, count: int) -> tuple[np.ndarray, str]:
    """Return the angles in rad, and the unit that they are stored in."""
    name = "exchange/theta"
    if not hdf5.has(file, name):
        raise InputError(f"{file.filename}: {name} is missing; give angles= in rad")
    found = hdf5.dataset(file, name)
    if found.dtype.kind not in "iuf" or found.shape != (count,):
        raise InputError(f"{file.filename}: {name}: expected {count} angles, got {found.dtype} {found.shape}")
    theta = np.asarray(found[()], float)
    units = hdf5.attributes(found, ("units",)).get("units")
    if units is None and np.isfinite(theta).all() and 0 < np.ptp(theta) < _MOST_RADIANS:
        # Half turns in radians, with or without the last angle.
        turns = np.ptp(theta) / np.pi * np.array([1, count / (count - 1)])
        if not (np.abs(turns[:, None] - [1, 2]) < _WHOLE).any():
            raise InputError(
                f"{file.filename}: {name}: angles from {theta.min():g} to {theta.max():g} have no unit, and in degrees "
                "they are no tomography; set the attribute units of the dataset to rad or deg, or give angles= in rad"
            )
        return theta, "radians (no unit, but a half or whole turn)"
    radians = str(units).lower().startswith("rad")
    return (theta, "radians") if radians else (np.radians(theta), "degrees" + (" (no unit)" if units is None else ""))


def _centre(file: h5py.File) -> float | None:
    """Return the rotation centre stored in the file: an attribute of the data, or a dataset beside them."""
    given = hdf5.attributes(file[_DATA], _CENTRE_NAMES)
    for name in _CENTRE_NAMES:
        if isinstance(given.get(name), int | float):
            return float(given[name])
        if hdf5.has(file, f"exchange/{name}"):
            return _scalar(hdf5.dataset(file, f"exchange/{name}"))
    return None


def _pixel(file: h5py.File) -> float | None:
    for name in _PIXEL_NAMES:
        if hdf5.has(file, name):
            found = hdf5.dataset(file, name)
            units = str(hdf5.attributes(found, ("units",)).get("units", "m")).strip()
            size = _scalar(found)
            return None if size is None or units not in _IN_MM else size * _IN_MM[units]
    return None


def _scalar(found: h5py.Dataset) -> float | None:
    if found.dtype.kind not in "iuf" or found.shape not in ((), (1,)):
        return None
    return float(np.asarray(found[()]).reshape(()))
