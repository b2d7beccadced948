"""Which projections a CT reconstruction gets: simulated ones of an image, or a choice of measured ones."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from operators.ct.geometry import Beam, FanBeam, ParallelBeam
from recon.errors import InputError

#: Distances of the scanner of the AAPM low-dose challenge in mm, where a file names none.
SOURCE_TO_ISO, SOURCE_TO_DETECTOR = 595.0, 1085.6
GEOMETRIES = ("fan", "fan-flat", "parallel")


@dataclass(frozen=True)
class Scan:
    """How to simulate the projections of an image, or to thin out measured ones.

    Parameters
    ----------
    views : int, optional
        Number of projections to simulate.
    geometry : "fan" (on an arc), "fan-flat" or "parallel"
        Of simulated projections.
    arc : float, optional
        Degrees that they cover; 360 for fans and 180 for parallel rays. Less is limited-angle tomography. Of measured
        projections: those within so many degrees of the first one; all by default.
    photons : float, optional
        Photons of each ray without an object; noise-free by default.
    views_every : int
        Use every so many of the measured projections.
    seed : int
        Of the noise.
    electronic_noise : float
        Standard deviation of the noise of the detector, in photons, that is added to that of the photons.
    model_error : float
        What the model may miss of the line integrals, as a share of their rms in each view; it counts as noise.
    """

    views: int | None = None
    geometry: str = "fan"
    arc: float | None = None
    photons: float | None = None
    views_every: int = 1
    seed: int = 0
    electronic_noise: float = 0.0
    model_error: float = 0.0

    def __post_init__(self) -> None:
        if self.views is not None and self.views < 1:
            raise InputError(f"views: expected 1 or more projections, came {self.views}")
        if self.geometry not in GEOMETRIES:
            raise InputError(f"geometry: expected one of {', '.join(GEOMETRIES)}, came {self.geometry!r}")
        if self.arc is not None and not 0 < self.arc <= 360:
            raise InputError(f"arc: expected degrees above 0 and up to 360, came {self.arc}")
        if self.photons is not None and not (self.photons > 0 and math.isfinite(self.photons)):
            raise InputError(f"photons: expected a number above 0, came {self.photons}")
        if not 0 <= self.electronic_noise < math.inf:
            raise InputError(f"electronic_noise: expected photons, 0 or more, came {self.electronic_noise}")
        if self.electronic_noise and self.photons is None:
            raise InputError("electronic_noise: is in photons, so say how many there are (photons, --photons 1e5)")
        if self.views_every < 1:
            raise InputError(f"views_every: expected 1 or more, came {self.views_every}")

    def measured(self, angles: np.ndarray) -> np.ndarray:
        """Return the numbers of the measured projections, at these angles in rad, that are used."""
        every = np.arange(0, len(angles), self.views_every)
        if self.arc is None:
            return every
        return every[np.abs(angles[every] - angles[0]) < math.radians(self.arc)]

    def beam(self, image_shape: tuple[int, int], pixel_size: float, scanner: Mapping[str, float]) -> Beam:
        """Return the geometry of the simulated projections: one detector element a pixel, the whole image seen."""
        arc = math.radians(self.arc if self.arc is not None else 180.0 if self.geometry == "parallel" else 360.0)
        angles = np.arange(self.views or 1) * (arc / (self.views or 1))
        radius = math.hypot(*image_shape) * pixel_size / 2
        if self.geometry == "parallel":
            return ParallelBeam(angles, math.ceil(2 * radius / pixel_size) + 2, pixel_size)
        to_iso = scanner.get("source_to_iso_mm", SOURCE_TO_ISO)
        to_detector = scanner.get("source_to_detector_mm", SOURCE_TO_DETECTOR)
        if radius >= to_iso:
            raise InputError(
                f"the image is {2 * radius:.0f} mm across its corners, and the source is {to_iso:.0f} mm from its "
                "middle: is the pixel size in mm?"
            )
        curved, half = self.geometry == "fan", math.asin(radius / to_iso)
        spacing = pixel_size * to_detector / to_iso
        width = half * to_detector if curved else math.tan(half) * to_detector
        return FanBeam(angles, math.ceil(2 * width / spacing) + 2, spacing, to_iso, to_detector, curved=curved)
