"""Line integrals in a NumPy array, with a TOML file that says how they were measured: from any other program.

    sinogram = "sinogram.npy"        # (view, detector) or (slice, view, detector); a path relative to this file
    photons = 1e5                    # optional: photons of an open ray, a number or a file (view, detector)
    water_per_mm = 0.02              # optional: attenuation of water, for Hounsfield units

    [geometry]
    kind = "fan-flat"                # "parallel", "fan-flat" or "fan-curved"
    angles_deg = [0.0, 1.0]          # or "angles.npy", or first_deg and step_deg
    clockwise = false                # the direction in which the angles are counted, as the image is displayed
    detector_spacing_mm = 1.2
    detector_offset_mm = 0.0         # position of the middle of the detector row along it
    source_to_iso_mm = 500.0         # fans
    source_to_detector_mm = 1000.0

Angles and directions are those of `recon.modalities.ct.data`: as in ASTRA, at 0 the detector runs to the right.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from recon.errors import InputError
from recon.files import npy
from recon.files.documents import read_toml
from recon.modalities.ct.data import KINDS, CTProjections, ScanGeometry

_TOP = {"sinogram", "photons", "water_per_mm", "geometry"}
_GEOMETRY = {
    *("kind", "angles_deg", "first_deg", "step_deg", "clockwise", "detector_spacing_mm", "detector_offset_mm"),
    *("source_to_iso_mm", "source_to_detector_mm"),
}


def sniff(path: Path) -> bool:
    """Tell whether this is a TOML file with a sinogram and a geometry."""
    if path.suffix.lower() != ".toml" or not path.is_file():
        return False
    try:
        content = read_toml(path)
    except Exception:  # another kind of file, of which other readers or commands know more
        return False
    return "sinogram" in content and isinstance(content.get("geometry"), dict)


def read(path: Path) -> CTProjections:
    """Read the description and the header of the array; each slice is read on demand.

    Raises
    ------
    InputError
        If an entry is missing, unknown or does not fit the array.
    """
    content = read_toml(path)
    _require_known(path, content, _TOP, "")
    geometry: dict[str, Any] = content["geometry"]
    _require_known(path, geometry, _GEOMETRY, "geometry.")
    file, stored = _array(path, content["sinogram"], "sinogram")
    if stored.ndim not in (2, 3) or 0 in stored.shape:
        raise InputError(f"{file}: expected (view, detector) or (slice, view, detector), got shape {stored.shape}")
    stack = stored if stored.ndim == 3 else stored[None]
    slices, views, detectors = stack.shape
    photons = _photons(path, content.get("photons"), (views, detectors))
    return CTProjections(
        path=path,
        format="geometry-toml",
        length=slices,
        load=lambda i: np.asarray(stack[i]),
        geometry=ScanGeometry(
            kind=_kind(path, geometry),
            angles=_angles(path, geometry, views),
            det_count=detectors,
            det_spacing_mm=_number(path, geometry, "detector_spacing_mm", positive=True),
            det_offset_mm=_number(path, geometry, "detector_offset_mm", 0.0),
            **{name: _distance(path, geometry, name) for name in ("source_to_iso_mm", "source_to_detector_mm")},
        ),
        load_photons=None if photons is None else lambda i: photons,
        water_attenuation_per_mm=(
            _number(path, content, "water_per_mm", positive=True) if "water_per_mm" in content else None
        ),
        attributes={"sinogram": file.name, "pixel_size_from": "file"},
    )


def _require_known(path: Path, table: dict[str, Any], known: set[str], where: str) -> None:
    unknown = sorted(set(table) - known)
    if unknown:
        raise InputError(f"{path}: unknown entry {where}{unknown[0]}; known are {', '.join(sorted(known))}")


def _array(path: Path, name: Any, entry: str) -> tuple[Path, np.ndarray]:
    """Map the array of a `.npy` file that an entry names."""
    if not isinstance(name, str):
        raise InputError(f"{path}: {entry}: expected the name of a .npy file, got {name!r}")
    file = path.parent / name
    if not npy.sniff(file) or npy.is_archive(file):
        raise InputError(f"{path}: {entry}: expected a NumPy .npy file, got {file}")
    header = npy.array_header(file)
    if header.dtype.kind not in "iuf":
        raise InputError(f"{file}: expected real numbers, got {header.dtype}")
    return file, npy.map_array(file, header)


def _photons(path: Path, given: Any, shape: tuple[int, int]) -> np.ndarray | None:
    if given is None:
        return None
    if isinstance(given, str):
        file, found = _array(path, given, "photons")
        if found.shape != shape:
            raise InputError(f"{file}: expected photons of shape {shape} (view, detector), got {found.shape}")
        return np.asarray(found, np.float32)
    return np.full((1, 1), _number(path, {"photons": given}, "photons", positive=True), np.float32)


def _kind(path: Path, geometry: dict[str, Any]) -> str:
    kind = geometry.get("kind")
    if kind not in KINDS:
        raise InputError(f"{path}: geometry.kind: expected one of {', '.join(KINDS)}, got {kind!r}")
    if kind != "parallel":
        for name in ("source_to_iso_mm", "source_to_detector_mm"):
            _number(path, geometry, name, positive=True)
    return str(kind)


def _angles(path: Path, geometry: dict[str, Any], views: int) -> np.ndarray:
    """Return the angles in rad, counted anticlockwise."""
    given = geometry.get("angles_deg")
    if given is None:
        step = _number(path, geometry, "step_deg")
        degrees = _number(path, geometry, "first_deg", 0.0) + step * np.arange(views)
    elif isinstance(given, str):
        degrees = np.asarray(_array(path, given, "geometry.angles_deg")[1], np.float64)
    else:
        try:
            degrees = np.asarray(given, np.float64)
        except (TypeError, ValueError):
            raise InputError(f"{path}: geometry.angles_deg: expected a list of numbers or a .npy file") from None
    if degrees.shape != (views,) or not np.isfinite(degrees).all():
        raise InputError(f"{path}: geometry.angles_deg: expected {views} finite angles, one for each view of the array")
    if views > 1 and 0 < np.ptp(degrees) < 10:
        raise InputError(
            f"{path}: geometry.angles_deg: all {views} angles lie within {np.ptp(degrees):.3g} degrees: are they in "
            "radians?"
        )
    clockwise = geometry.get("clockwise", False)
    if not isinstance(clockwise, bool):
        raise InputError(f"{path}: geometry.clockwise: expected true or false, got {clockwise!r}")
    return np.radians(-degrees if clockwise else degrees)


def _distance(path: Path, geometry: dict[str, Any], name: str) -> float | None:
    return _number(path, geometry, name, positive=True) if name in geometry else None


def _number(
    path: Path, table: dict[str, Any], name: str, default: float | None = None, positive: bool = False
) -> float:
    """Return a finite number of a table."""
    value = table.get(name, default)
    fits = isinstance(value, int | float) and not isinstance(value, bool) and bool(np.isfinite(value))
    if not isinstance(value, int | float) or not fits or (positive and not value > 0):
        what = "a number > 0" if positive else "a finite number"
        raise InputError(f"{path}: {name}: expected {what}, got {value!r}")
    return float(value)
