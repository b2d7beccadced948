"""CT images as DICOM (extra `dicom`): a folder of one series, or one file: AAPM / Mayo `.IMA`, `.dcm` or others.

Slices are sorted by their position along the normal of the image plane, never by their names. HU = stored value x
RescaleSlope + RescaleIntercept; padding outside of the field of view (the header's padding value, or anything below)
becomes -1024. Nothing is assumed about matrix size, spacing, scanner or orientation.
"""

import re
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from recon.affines import stacked
from recon.errors import InputError
from recon.files import dicom
from recon.modalities.ct.data import CTImages

AIR_HU = -1024.0
# A padding value between these may be tissue and is kept: padding is meant to stand out.
_TISSUE_HU = (-1000.0, 3071.0)
_ENDINGS = (".dcm", ".ima")
# Header fields that are kept; none of them identifies the patient.
_FACTS = (
    *("Manufacturer", "ManufacturerModelName", "KVP", "XRayTubeCurrent", "Exposure", "ConvolutionKernel"),
    *("SliceThickness", "ReconstructionDiameter", "SpiralPitchFactor", "PatientPosition", "SeriesNumber"),
)
# (7029,10xx), (7031,10xx), (7033,10xx) in little-endian order
_PROJECTION_TAG = re.compile(rb"[\x29\x31\x33]\x70[\x00-\xff]\x10", re.DOTALL)


def sniff(path: Path) -> bool:
    """Tell whether this is a DICOM image file, or a folder with one."""
    first = first_file(path)
    return first is not None and not is_projection(first)


def first_file(path: Path) -> Path | None:
    """Return the file itself, or the first file of a folder, if it is DICOM by content; else None."""
    if path.is_dir():
        return next((file for file in sorted(path.iterdir()) if dicom.is_dicom(file)), None)
    return path if dicom.is_dicom(path) else None


def is_projection(path: Path) -> bool:
    """Tell whether a DICOM file holds the private groups of DICOM-CT-PD, by three of their tags."""
    with open(path, "rb") as stream:
        return len(set(_PROJECTION_TAG.findall(stream.read(2**16)))) >= 3


def list_files(folder: Path) -> list[Path]:
    """Return the DICOM files of a folder; a file named like DICOM that is not DICOM raises an error."""
    files = []
    for file in sorted(folder.iterdir()):
        if file.name.startswith(".") or not file.is_file():
            continue
        if dicom.is_dicom(file):
            files.append(file)
        elif file.suffix.lower() in _ENDINGS:
            raise InputError(f"{file}: not a DICOM file (no 'DICM' at byte 128); it is damaged: replace or remove it")
    return files


def read(path: Path, series: int | str | None = None) -> CTImages:
    """Read the headers of a series; pixels are read on demand.

    Parameters
    ----------
    path
        A folder, or one file.
    series
        SeriesNumber or SeriesInstanceUID, for folders that hold several.

    Raises
    ------
    InputError
        If there is no CT series, several without a choice, or a damaged or inconsistent file.
    """
    files = list_files(path) if path.is_dir() else [path]
    headers = [(file, dicom.read_header(file)) for file in files if path.is_file() or _has_pixels(file)]
    chosen = _choose([(file, header) for file, header in headers if _is_ct(header)], headers, path, series)
    for file, header in chosen:
        _check_scaling(file, header)
    ordered, positions = _sorted(chosen)
    first_path, first = ordered[0]
    _check_alike(ordered)
    paths = tuple(file for file, _ in ordered)
    spacing = dicom.numbers(first, "PixelSpacing", first_path)
    if spacing is not None and (spacing.shape != (2,) or not (spacing > 0).all()):
        raise InputError(f"{first_path}: PixelSpacing must be two positive lengths, got {spacing.tolist()}")
    return CTImages(
        path=path,
        format="dicom",
        length=len(paths),
        load=lambda i: hounsfield(paths[i]),
        image_shape=dicom.size(first),
        units="HU",
        pixel_spacing_mm=None if spacing is None else (float(spacing[0]), float(spacing[1])),
        positions_mm=positions,
        affine=None if positions is None or spacing is None else _affine(ordered, spacing),
        scanner=_scanner(first_path, first),
        files=paths,
        attributes=_facts(first),
    )


def hounsfield(path: Path) -> np.ndarray:
    """Return one slice in HU, float32 `(y, x)`, with padding as air."""
    header = dicom.read_header(path)
    stored = dicom.pixels(path, header).read()
    slope, intercept = _check_scaling(path, header)
    image = stored.astype(np.float32) * np.float32(slope) + np.float32(intercept)
    padding = dicom.number(header, "PixelPaddingValue", path)
    if padding is not None:
        bits = 8 * stored.dtype.itemsize
        # Signed data with an unsigned padding value, or vice versa: the same bits.
        wrapped = int(padding) % 2**bits
        if stored.dtype.kind == "i" and wrapped >= 2 ** (bits - 1):
            wrapped -= 2**bits
        if not _TISSUE_HU[0] < wrapped * slope + intercept < _TISSUE_HU[1]:
            image[stored == wrapped] = AIR_HU
    return np.maximum(image, np.float32(AIR_HU))


def pair_by_position(first: CTImages, second: CTImages, tolerance_mm: float = 0.1) -> list[tuple[int, int]]:
    """Return the pairs `(i, j)` of slices at the same position, such as in full- and quarter-dose images.

    Raises
    ------
    InputError
        If positions are unknown, the pixel grids differ, or no slice has a partner.
    """
    if first.positions_mm is None or second.positions_mm is None:
        raise InputError(f"{first.path} and {second.path}: slices cannot be paired without ImagePositionPatient")
    if first.image_shape != second.image_shape or first.pixel_spacing_mm != second.pixel_spacing_mm:
        raise InputError(
            f"{first.path} has {first.image_shape} pixels of {first.pixel_spacing_mm} mm, but {second.path} has "
            f"{second.image_shape} of {second.pixel_spacing_mm} mm; they cannot be paired"
        )
    distance = np.abs(np.subtract.outer(first.positions_mm, second.positions_mm))
    nearest = distance.argmin(axis=1)
    pairs = [(i, int(j)) for i, j in enumerate(nearest) if distance[i, j] <= tolerance_mm]
    if not pairs:
        raise InputError(f"{first.path} and {second.path} have no slice position in common (within {tolerance_mm} mm)")
    return pairs


def _has_pixels(file: Path) -> bool:
    """Drop non-image files that accompany a series: reports, a DICOMDIR, presentation states."""
    if file.suffix.lower() in _ENDINGS:
        return True
    with open(file, "rb") as stream:
        return b"\xe0\x7f\x10\x00" in stream.read()


def _is_ct(header: Any) -> bool:
    return dicom.text(header, "Modality") == "CT" or dicom.text(header, "SOPClassUID") == dicom.CT_IMAGE


def _choose(
    ct: list[tuple[Path, Any]], everything: list[tuple[Path, Any]], path: Path, series: int | str | None
) -> list[tuple[Path, Any]]:
    """Return the files of the requested series."""
    if not ct:
        found = sorted({dicom.text(header, "Modality")[:16] or "missing" for _, header in everything})
        raise InputError(f"{path}: contains no CT images (Modality: {', '.join(found) or 'no DICOM images'})")
    groups: dict[str, list[tuple[Path, Any]]] = defaultdict(list)
    numbers: dict[str, str] = {}
    for file, header in ct:
        uid = dicom.text(header, "SeriesInstanceUID")
        groups[uid].append((file, header))
        numbers[uid] = dicom.text(header, "SeriesNumber") or "?"
    if series is not None:
        wanted = [uid for uid in groups if str(series) in (uid, numbers[uid])]
        if len(wanted) == 1:
            return groups[wanted[0]]
    elif len(groups) == 1:
        return ct
    listed = "; ".join(f"{numbers[uid]}: {len(groups[uid])} files, {uid}" for uid in list(groups)[:8])
    asked = "contains several series" if series is None else f"series={series!r} does not match exactly one series"
    raise InputError(f"{path}: {asked}; choose with series=NUMBER or UID (--reader series=NUMBER) ({listed})")


def _check_scaling(file: Path, header: Any) -> tuple[float, float]:
    slope, intercept = (dicom.number(header, name, file) for name in ("RescaleSlope", "RescaleIntercept"))
    if slope is None or intercept is None:
        raise InputError(f"{file}: RescaleSlope or RescaleIntercept is missing, so the values cannot be turned into HU")
    if not (np.isfinite(slope) and np.isfinite(intercept)) or slope == 0:
        raise InputError(f"{file}: RescaleSlope {slope} and RescaleIntercept {intercept} are invalid")
    return slope, intercept


def _sorted(slices: list[tuple[Path, Any]]) -> tuple[list[tuple[Path, Any]], np.ndarray | None]:
    """Sort by ImagePositionPatient . normal."""
    places = []
    for file, header in slices:
        position = dicom.numbers(header, "ImagePositionPatient", file)
        axes = dicom.numbers(header, "ImageOrientationPatient", file)
        if position is None or axes is None or position.shape != (3,) or axes.shape != (6,):
            if len(slices) == 1:
                return slices, None
            raise InputError(
                f"{file}: slices cannot be sorted without ImagePositionPatient and ImageOrientationPatient"
            )
        places.append(float(position @ np.cross(axes[:3], axes[3:])))
    order = np.argsort(places, kind="stable")
    positions = np.asarray(places)[order]
    same = np.flatnonzero(np.diff(positions) < 1e-3)
    if len(same):
        first, second = (slices[order[same[0] + k]][0].name for k in (0, 1))
        raise InputError(
            f"{slices[0][0].parent}: {first} and {second} show the same position ({positions[same[0]]:.3f} mm); the "
            "folder mixes several reconstructions or time points of one series; separate them"
        )
    return [slices[k] for k in order], positions


def _affine(slices: list[tuple[Path, Any]], spacing: np.ndarray) -> np.ndarray:
    """Return the affine of (column, row, slice) in the frame of NIfTI, of each slice if they are not evenly spaced.

    The x and y of NIfTI are opposite to those of DICOM. Source: DICOM PS3.3, C.7.6.2.1.1. A tilted gantry shifts its
    slices: the last column need not be their normal.
    """
    path, header = slices[0]
    axes = dicom.numbers(header, "ImageOrientationPatient", path)
    assert axes is not None  # sorted by it
    normal = np.cross(axes[:3], axes[3:]) * (dicom.number(header, "SliceThickness", path) or 1.0)
    each = np.tile(np.eye(4), (len(slices), 1, 1))
    each[:, :3, :3] = np.stack([axes[:3] * spacing[1], axes[3:] * spacing[0], normal], axis=1)
    each[:, :3, 3] = [dicom.numbers(header, "ImagePositionPatient", path) for path, header in slices]
    each = np.diag([-1.0, -1.0, 1.0, 1.0]) @ each
    affine, even = stacked(each)
    return affine if even else each


def _check_alike(slices: list[tuple[Path, Any]]) -> None:
    """Refuse series whose slices do not lie on a common grid."""
    first_path, first = slices[0]
    for file, header in slices[1:]:
        for name in ("Rows", "Columns", "PixelSpacing", "ImageOrientationPatient"):
            one, other = dicom.numbers(first, name, first_path), dicom.numbers(header, name, file)
            if (one is None) != (other is None) or (
                one is not None and other is not None and not np.allclose(one, other, rtol=0, atol=1e-3)
            ):
                raise InputError(f"{file}: {name} differs from {first_path.name}; the slices do not form one stack")


def _scanner(file: Path, header: Any) -> dict[str, float]:
    names = {"source_to_detector_mm": "DistanceSourceToDetector", "source_to_iso_mm": "DistanceSourceToPatient"}
    found = {ours: dicom.number(header, theirs, file) for ours, theirs in names.items()}
    return {name: value for name, value in found.items() if value is not None and np.isfinite(value) and value > 0}


def _facts(header: Any) -> dict[str, Any]:
    facts: dict[str, Any] = {}
    for name in _FACTS:
        value = dicom.text(header, name)[:64]
        if value:
            facts[name] = float(value) if value.replace(".", "", 1).isdecimal() else value
    return facts
