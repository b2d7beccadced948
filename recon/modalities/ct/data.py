"""CT recordings: stacks of images, and stacks of sinograms with their geometry, read slice by slice.

Directions are those of `operators.ct.geometry`. The image plane is seen as it is displayed: x points right (along
a row), y points *up*, both from the rotation centre, so that row r of an image with `n` rows of height h has
y = ((n - 1) / 2 - r) h. For an angle t

    u = (cos t, sin t)      towards larger detector indices
    d = (-sin t, cos t)     along the central ray, from the source to the detector

and element i lies at s_i = (i - (det_count - 1) / 2) det_spacing + det_offset:

    parallel     the line through s_i u along d
    fan-curved   from the source at -R d along d cos g + u sin g, with g = s_i / D (an arc around the source)
    fan-flat     the same with g = arctan(s_i / D)

with R = source_to_iso and D = source_to_detector. All lengths in mm, angles in rad; line integrals have no unit.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from recon.errors import InputError
from recon.modalities.recording import Recording, checked

if TYPE_CHECKING:
    from operators.ct.geometry import Beam

KINDS = ("parallel", "fan-curved", "fan-flat")


@dataclass(frozen=True, eq=False)
class ScanGeometry:
    """Geometry of the rays of one sinogram `(angle, detector)`; the directions are those of this module.

    Parameters
    ----------
    kind
        "parallel", "fan-curved" or "fan-flat".
    angles
        One angle per view, in rad.
    det_count
        The number of detector elements.
    det_spacing_mm
        Spacing of the elements: in the detector plane, or along the arc of a curved detector.
    det_offset_mm
        Position of the middle of the detector row; 0 if the central ray hits it.
    source_to_iso_mm, source_to_detector_mm
        For fans: source to rotation axis, source to detector.
    """

    kind: str
    angles: np.ndarray = field(repr=False)
    det_count: int
    det_spacing_mm: float
    det_offset_mm: float = 0.0
    source_to_iso_mm: float | None = None
    source_to_detector_mm: float | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise InputError(f"ScanGeometry: kind must be one of {', '.join(KINDS)}, got {self.kind!r}")
        fan = self.kind != "parallel"
        if fan and not (self.source_to_iso_mm and self.source_to_detector_mm):
            raise InputError("ScanGeometry: a fan needs source_to_iso_mm and source_to_detector_mm")

    @property
    def positions_mm(self) -> np.ndarray:
        """The coordinates s_i of the elements `(detector,)` in mm."""
        return (np.arange(self.det_count) - (self.det_count - 1) / 2) * self.det_spacing_mm + self.det_offset_mm

    @property
    def fan_angles(self) -> np.ndarray:
        """The angles between the rays and the central ray `(detector,)` in rad; zeros for parallel rays."""
        if self.source_to_detector_mm is None or self.kind == "parallel":
            return np.zeros(self.det_count)
        ratio = self.positions_mm / self.source_to_detector_mm
        return ratio if self.kind == "fan-curved" else np.arctan(ratio)

    def beam(self) -> "Beam":
        """Return the same geometry for `operators.CT`: a `ParallelBeam` or `FanBeam`."""
        from operators.ct.geometry import FanBeam, ParallelBeam

        common = (self.angles, self.det_count, self.det_spacing_mm)
        if self.source_to_iso_mm is None or self.source_to_detector_mm is None or self.kind == "parallel":
            return ParallelBeam(*common, detector_offset=self.det_offset_mm)
        distances = (self.source_to_iso_mm, self.source_to_detector_mm)
        return FanBeam(*common, *distances, curved=self.kind == "fan-curved", detector_offset=self.det_offset_mm)


@dataclass(frozen=True, eq=False)
class CTImages(Recording):
    """A stack of CT images; `images[i]` is float32 `(y, x)` as it is displayed: the first row is the upper one.

    Parameters
    ----------
    path
        The file or folder.
    format
        "dicom", "npy-folder" or "lodopab".
    length, load
        The number of slices, and a function that reads one of them.
    image_shape
        `(y, x)`.
    units
        "HU", or "relative" where the numbers are about [0, 1] without a known scale.
    pixel_spacing_mm
        `(y, x)`: spacing of the rows and of the columns, or None.
    positions_mm
        Position of each slice along the normal of the image plane, ascending, or None.
    affine
        `(4, 4)`: from the indices (column, row, slice) to mm to the right, to the front and to the head of the patient
        (the frame of NIfTI); `(slice, 4, 4)` where slices are not evenly spaced; or None.
    scanner
        `source_to_iso_mm`, `source_to_detector_mm`: the distances of the scanner, where the files state them.
    files
        The file of each slice; derived DICOM images copy its header.
    attributes
        What else the files say about the acquisition; never who the patient is.
    """

    image_shape: tuple[int, int]
    units: str
    pixel_spacing_mm: tuple[float, float] | None = None
    positions_mm: np.ndarray | None = field(default=None, repr=False)
    affine: np.ndarray | None = field(default=None, repr=False)
    scanner: Mapping[str, float] = field(default_factory=dict)
    files: tuple[Path, ...] = field(default=(), repr=False)
    attributes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def shape(self) -> tuple[int, int]:
        """`(y, x)` of one slice."""
        return self.image_shape

    def check(self, values: Any, where: str) -> np.ndarray:
        """Return an image, float32 `(y, x)`."""
        return checked(values, self.shape, where, complex_numbers=False, signal=False)


@dataclass(frozen=True, eq=False)
class CTProjections(Recording):
    """A stack of sinograms; `projections[i]` is float32 `(angle, detector)`, line integrals without a unit.

    Parameters
    ----------
    path
        The file or folder.
    format
        "dicom-ct-pd", "lodopab" or "data-exchange".
    length, load
        The number of slices, and a function that reads one of them.
    geometry
        Geometry of the rays; the same for all slices.
    load_photons
        `load_photons(i)`: the photons that would reach each element without an object, broadcastable to
        `(angle, detector)`; the variance of a line integral p is about exp(p) / photons. None where unknown.
    load_reference
        `load_reference(i)`: an image of the same slice in 1/mm, or None.
    image_shape, pixel_spacing_mm
        `(y, x)` of the image that belongs to the data, where the format defines one.
    positions_mm
        Position of each slice along the axis in mm, or None.
    water_attenuation_per_mm
        mu_water in HU = 1000 (mu - mu_water) / mu_water; None where unknown.
    attributes
        What else the files say about the acquisition; never who the patient is.
    """

    geometry: ScanGeometry
    load_photons: Callable[[int], np.ndarray] | None = field(default=None, repr=False)
    load_reference: Callable[[int], np.ndarray] | None = field(default=None, repr=False)
    image_shape: tuple[int, int] | None = None
    pixel_spacing_mm: tuple[float, float] | None = None
    positions_mm: np.ndarray | None = field(default=None, repr=False)
    water_attenuation_per_mm: float | None = None
    attributes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def shape(self) -> tuple[int, int]:
        """`(angle, detector)` of one slice."""
        return len(self.geometry.angles), self.geometry.det_count

    def check(self, values: Any, where: str) -> np.ndarray:
        """Return line integrals, float32 `(angle, detector)`."""
        return checked(values, self.shape, where, complex_numbers=False, signal=False)

    def photons(self, index: int) -> np.ndarray | None:
        """Return the incident photons of slice `index`, float32 broadcastable to `(angle, detector)`, or None."""
        if self.load_photons is None:
            return None
        i = self.position(index)
        photons = np.asarray(self.load_photons(i), np.float32)
        if not (np.isfinite(photons).all() and (photons > 0).all()):
            raise InputError(f"{self.path}: slice {i}: the photon statistics must be positive numbers")
        return photons

    def reference(self, index: int) -> np.ndarray | None:
        """Return the reference image of slice `index` stored with the data, float32 `(y, x)` in 1/mm, or None."""
        if self.load_reference is None:
            return None
        i = self.position(index)
        image = np.asarray(self.load_reference(i))
        where = f"{self.path}: reference image {i}"
        return checked(image, image.shape[-2:], where, complex_numbers=False, signal=False)
