"""DICOM-CT-PD projections (extra `dicom`): a helical scan, one file per view, is rebinned to a fan sinogram per slice.

The pixel data are stored transposed (DICOM rows = detector columns); geometry is in private tags, typed, as raw bytes
or as text. The format's own frame is a left-handed one: seen from the foot of the table, angle 0 is at 12 o'clock and
grows counter-clockwise, z points into the gantry, row 1 is the farthest one and column 1 of a detector at 6 o'clock the
leftmost one. So x points to the right and y up as in `recon.modalities.ct.data`, and for a patient on the back,
head first, slices come out as displayed (the patient's left on the right); but the source stands at (-sin, cos) of the
angle, on the other side: angles are larger by pi here, and the detector's elements run in the opposite direction.
Source: Chen et al., Med. Phys. 42 (2015) 6964; DICOM-CT-PD User Manual, version 3 (2020).
"""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from recon.errors import InputError
from recon.files import dicom
from recon.modalities.ct.data import CTProjections, ScanGeometry
from recon.modalities.ct.files import dicom_images
from recon.modalities.ct.rebinning import Detector, Rebinner, Trajectory, View

_ROWS, _COLUMNS, _DISTANCE, _CENTRE = 0x70291010, 0x70291011, 0x70311031, 0x70311033
_TRANSVERSE, _AXIAL, _SHAPE = 0x70291002, 0x70291006, 0x7029100B
_PHI, _Z, _RHO = 0x70311001, 0x70311002, 0x70311003
_SHIFTS = (0x7033100B, 0x7033100C, 0x7033100D)  # phi, z, rho
_MODE, _STEPS, _PHOTONS, _SPECTRUM = 0x7033100E, 0x70331013, 0x70331065, 0x70331063
_TYPE, _LOG, _WATER = 0x70371009, 0x70391009, 0x70411001
_NAMES = {
    **{_ROWS: "NumberofDetectorRows", _COLUMNS: "NumberofDetectorColumns"},
    **{_TRANSVERSE: "DetectorElementTransverseSpacing", _AXIAL: "DetectorElementAxialSpacing"},
    **{_PHI: "DetectorFocalCenterAngularPosition", _Z: "DetectorFocalCenterAxialPosition"},
    **{_RHO: "DetectorFocalCenterRadialDistance", _DISTANCE: "ConstantRadialDistance"},
    **{_CENTRE: "DetectorCentralElement"},
}


def sniff(path: Path) -> bool:
    """Tell whether this is a folder of projections (or one of its files)."""
    first = dicom_images.first_file(path)
    return first is not None and dicom_images.is_projection(first)


def read(
    path: Path, positions_mm: Sequence[float] | None = None, slice_spacing_mm: float | None = None
) -> CTProjections:
    """Read the headers of all projections; each slice is rebinned on demand.

    Access in order reads every projection once and keeps those of about one rotation in memory.

    Parameters
    ----------
    path
        The folder.
    positions_mm
        Positions of the slices, in the scan's own z. Default: the covered range, `slice_spacing_mm` apart.
    slice_spacing_mm
        Default: the spacing of the detector rows, scaled to the axis.

    Raises
    ------
    InputError
        If tags are missing or contradict each other, views are missing, or the scan covers less than a fan needs.
    """
    if not path.is_dir():
        raise InputError(f"{path}: a single DICOM-CT-PD projection; give the folder with all of them")
    files = dicom_images.list_files(path)
    detector, common = _common(files[0])
    records = [_record(file, detector, common) for file in files]
    order, trajectory = _trajectory(path, files, records)
    rebinner = Rebinner(trajectory, detector, lambda k: records[order[k]].view())
    positions = _positions(path, trajectory, detector, positions_mm, slice_spacing_mm)
    geometry = ScanGeometry(
        kind="fan-curved" if detector.curved else "fan-flat",
        angles=rebinner.angles + np.pi,
        det_count=detector.columns,
        det_spacing_mm=detector.column_spacing,
        det_offset_mm=(detector.central_column - (detector.columns + 1) / 2) * detector.column_spacing,
        source_to_iso_mm=trajectory.radius,
        source_to_detector_mm=detector.distance,
    )
    has_photons = all(one.photons is not None for one in records)

    @lru_cache(maxsize=1)
    def one_slice(index: int) -> tuple[np.ndarray, np.ndarray]:
        sinogram, photons = rebinner.slice(float(positions[index]))
        return sinogram[:, ::-1], np.ones((1, 1)) if photons is None else photons[:, ::-1]

    return CTProjections(
        path=path,
        format="dicom-ct-pd",
        length=len(positions),
        load=lambda i: one_slice(i)[0],
        geometry=geometry,
        load_photons=(lambda i: one_slice(i)[1]) if has_photons else None,
        positions_mm=positions,
        water_attenuation_per_mm=common["water"],
        attributes=_attributes(trajectory, detector, common),
    )


def _required(header: Any, tag: int, file: Path, count: int = 1) -> np.ndarray:
    values = dicom.numbers(header, tag, file, count)
    name = f"{_NAMES[tag]} ({tag >> 16:04X},{tag & 0xFFFF:04X})"
    if values is None:
        raise InputError(f"{file}: {name} is missing; the projections cannot be placed without it")
    if values.shape != (count,) or not np.isfinite(values).all():
        raise InputError(f"{file}: {name} must be {count} finite number(s), got {values[:4].tolist()}")
    return values


def _common(file: Path) -> tuple[Detector, dict[str, Any]]:
    """Read the geometry common to all views."""
    header = dicom.read_header(file)
    rows, columns, across, along, distance = (
        float(_required(header, tag, file)[0]) for tag in (_ROWS, _COLUMNS, _TRANSVERSE, _AXIAL, _DISTANCE)
    )
    centre = _required(header, _CENTRE, file, 2)
    shape = dicom.word(header, _SHAPE, file) or "CYLINDRICAL"
    if shape not in ("CYLINDRICAL", "FLAT"):
        raise InputError(f"{file}: expected DetectorShape CYLINDRICAL or FLAT, got {shape[:16]}")
    radius = float(_required(header, _RHO, file)[0])
    if min(rows, columns, across, along) <= 0 or not 0 < radius < distance:
        raise InputError(
            f"{file}: expected positive detector sizes and distances, and the source inside the radius of the detector"
        )
    _check_state(header, file)
    middle = (float(centre[1]), float(centre[0]))
    detector = Detector(int(rows), int(columns), along, across, *middle, distance, shape == "CYLINDRICAL")
    common = {
        "water": dicom.number(header, _WATER, file),
        "focal_spot": dicom.word(header, _MODE, file) or "unknown",
        "type": dicom.word(header, _TYPE, file) or "unknown",
        "steps": dicom.number(header, _STEPS, file),
        "spectrum": dicom.number(header, _SPECTRUM, file),
    }
    return detector, common


def _check_state(header: Any, file: Path) -> None:
    if dicom.word(header, _LOG, file) == "NO":
        raise InputError(f"{file}: LogFlag is NO: intensities, not line integrals; take -log(I / I0) first")
    geometry = dicom.word(header, 0x7037100A, file)
    if geometry not in (None, "FANBEAM"):
        raise InputError(f"{file}: expected TypeofProjectionGeometry FANBEAM, got {geometry[:16]}")


class _Projection(NamedTuple):
    """One file: its position (phi, z, rho and the three shifts of the focal spot) and how to read it."""

    place: list[float]
    number: float
    pixels: dicom.Pixels
    transposed: bool
    slope: float
    intercept: float
    photons: np.ndarray | None

    def view(self) -> View:
        """Read the pixels, `(row, column)` of the detector."""
        stored = self.pixels.read()
        stored = np.ascontiguousarray(stored.T) if self.transposed else stored
        return View(stored, self.slope, self.intercept, self.photons)


def _record(file: Path, detector: Detector, common: dict[str, Any]) -> _Projection:
    """Read the header of one projection."""
    header = dicom.read_header(file)
    place = [float(_required(header, tag, file)[0]) for tag in (_PHI, _Z, _RHO)]
    place += [dicom.number(header, tag, file, 0.0) or 0.0 for tag in _SHIFTS]
    if not np.isfinite(place).all():
        raise InputError(f"{file}: the source position holds values that are not finite")
    if dicom.number(header, _SPECTRUM, file) != common["spectrum"]:
        raise InputError(f"{file}: SpectrumIndex differs; put the projections of each spectrum in a separate folder")
    slope, intercept = (dicom.number(header, name, file) for name in ("RescaleSlope", "RescaleIntercept"))
    if slope is None or intercept is None or not np.isfinite([slope, intercept]).all() or slope == 0:
        raise InputError(f"{file}: RescaleSlope or RescaleIntercept is missing or invalid; line integrals need both")
    photons = dicom.numbers(header, _PHOTONS, file)
    if photons is not None:
        if photons.shape not in ((1,), (detector.columns,)) or not (photons > 0).all():
            raise InputError(f"{file}: PhotonStatistics must be {detector.columns} positive numbers, one per column")
        photons = np.broadcast_to(photons, detector.columns).astype(np.float32)
    number = dicom.number(header, "InstanceNumber", file)
    transposed = _transposed(header, file, detector)
    return _Projection(
        place, np.nan if number is None else number, dicom.pixels(file, header), transposed, slope, intercept, photons
    )


def _transposed(header: Any, file: Path, detector: Detector) -> bool:
    """Tell whether the pixels are stored transposed, as the format demands."""
    stored = dicom.size(header)
    if stored == (detector.columns, detector.rows):
        return True
    if stored == (detector.rows, detector.columns):
        return False
    raise InputError(
        f"{file}: holds {stored[0]} x {stored[1]} pixels; expected {detector.columns} x {detector.rows} "
        "(detector columns x rows)"
    )


def _trajectory(path: Path, files: list[Path], records: list[_Projection]) -> tuple[np.ndarray, Trajectory]:
    """Put the views into the order of the angle and check that none is missing."""
    places, numbers = np.array([one.place for one in records]), [one.number for one in records]
    if len(files) < 3:
        raise InputError(f"{path}: only {len(files)} projection(s); a slice needs more than half a rotation of them")
    known = np.isfinite(numbers).all() and len(set(numbers)) == len(numbers)
    order = np.argsort(numbers if known else places[:, 1], kind="stable")
    phi = np.unwrap(places[order, 0])
    if phi[-1] < phi[0]:
        order, phi = order[::-1], phi[::-1]
    steps = np.diff(phi)
    usual = float(np.median(steps))
    if usual <= 0 or steps.min() < -0.5 * usual:
        raise InputError(f"{path}: the source angles are not monotonic; InstanceNumber or the angles are damaged")
    # With a flying focal spot two views may share an angle, hence three steps.
    gap = int(np.argmax(steps))
    if steps[gap] > 3 * max(usual, float(steps.mean())):
        missing = round(steps[gap] / usual) - 1
        first, second = (files[order[gap + k]].name for k in (0, 1))
        raise InputError(f"{path}: about {missing} projections are missing between {first} and {second}")
    z = places[order, 1]
    straight = np.polyval(np.polyfit(phi - phi[0], z, 1), phi - phi[0])
    if np.abs(z - straight).max() > max(2.0, 0.02 * np.ptp(z)):
        raise InputError(
            f"{path}: the table does not move uniformly; only helical and single-rotation scans can be rebinned"
        )
    return order, Trajectory(phi, z, places[order, 2], *(places[order, 3 + k] for k in range(3)))


def _positions(
    path: Path, t: Trajectory, d: Detector, wanted: Sequence[float] | None, spacing: float | None
) -> np.ndarray:
    """Return the slice positions, within the range on which a full rotation of the source can be centred."""
    fan = _half_fan(d)
    covered = t.phi[-1] - t.phi[0] + t.step
    if covered < np.pi + 2 * fan - t.step:
        raise InputError(
            f"{path}: {len(t.phi)} projections cover {np.degrees(covered):.0f} degrees; a slice needs "
            f"{np.degrees(np.pi + 2 * fan):.0f} (half a rotation plus the fan angle)"
        )
    spacing = d.row_spacing * t.radius / d.distance if spacing is None else spacing
    if not spacing > 0:
        raise InputError(f"{path}: slice_spacing_mm must be positive, got {spacing}")
    half = _covered_half(t, d)
    if abs(t.feed) / 2 > 2 * half and t.full_turn:
        raise InputError(
            f"{path}: the table moves {abs(t.feed):.1f} mm per rotation, far more than the detector covers"
        )
    low, high = np.interp([t.phi[0] + np.pi, t.phi[-1] - np.pi], t.phi, t.z) if t.full_turn else [np.mean(t.z)] * 2
    low, high = min(low, high), max(low, high)
    if abs(t.feed) < 1e-3:
        low, high = np.mean(t.z) - half + spacing / 2, np.mean(t.z) + half - spacing / 2
    if t.full_turn and len(t.phi) - t.views_per_turn < 2 and abs(t.feed) >= 1e-3:
        low = high = float(np.mean(t.z))
    if wanted is None:
        count = max(int((high - low) / spacing + 1e-6), 0) + 1
        return (low + high) / 2 + (np.arange(count) - (count - 1) / 2) * spacing
    positions = np.asarray(wanted, float).reshape(-1)
    slack = max(spacing, abs(t.feed) / t.views_per_turn)
    if (
        not len(positions)
        or not np.isfinite(positions).all()
        or not ((positions > low - slack) & (positions < high + slack)).all()
    ):
        raise InputError(
            f"{path}: positions_mm must lie between {low:.2f} and {high:.2f} mm, where the rotation is complete"
        )
    return positions


def _half_fan(d: Detector) -> float:
    return float(np.abs(d.angle(np.array([0.0, d.columns - 1.0]))).max())


def _covered_half(t: Trajectory, d: Detector) -> float:
    """Return half the height in mm, near the axis, that the outermost rays of the fan see."""
    return d.rows / 2 * d.row_spacing * t.radius * np.cos(_half_fan(d)) / d.distance


def _attributes(t: Trajectory, d: Detector, common: dict[str, Any]) -> dict[str, Any]:
    attributes = {
        "type": common["type"],
        "flying_focal_spot": common["focal_spot"],
        "views": len(t.phi),
        "views_per_turn": t.views_per_turn,
        "turns": round(len(t.phi) / t.views_per_turn, 3),
        "feed_mm_per_turn": round(t.feed, 4),
        "detector_rows": d.rows,
        "row_spacing_at_axis_mm": round(d.row_spacing * t.radius / d.distance, 4),
        "rebinning": "single-slice (Noo 1999)",
        # Below 1 the outer rays of views half a rotation away miss the detector; the outermost row replaces them.
        "row_coverage": round(float(_covered_half(t, d) / (abs(t.feed) / 2)), 3) if abs(t.feed) > 1e-3 else 1.0,
    }
    if common["steps"] is not None:
        attributes["stated_views_per_turn"] = int(common["steps"])
    return attributes
