"""Options of CT reconstruction: the projections that are simulated or used."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from recon.options import Options, option

if TYPE_CHECKING:
    import numpy as np

    from operators.ct.geometry import Beam

#: Distances of the scanner of the AAPM low-dose challenge in mm, used where a file states none.
SOURCE_TO_ISO, SOURCE_TO_DETECTOR = 595.0, 1085.6
GEOMETRIES = ("fan", "fan-flat", "parallel")


def reader_options(given: str | Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a reader from a mapping, or from ``"series=3"`` or ``"a=1,b=2.5"``.

    Raises
    ------
    InputError
        For text in another form.
    """
    from recon.errors import InputError

    if not isinstance(given, str):
        return dict(given)
    found: dict[str, Any] = {}
    for part in given.split(","):
        name, equals, value = (piece.strip() for piece in part.partition("="))
        if not name.isidentifier() or not equals or not value:
            raise InputError(f"reader: expected NAME=VALUE or NAME=VALUE,NAME=VALUE, got {given!r}")
        found[name] = value
        for kind in (float, int):  # the last one that parses
            with suppress(ValueError):
                found[name] = kind(value)
    return found


@dataclass(frozen=True)
class CT(Options):
    """How projections of images are simulated, or measured projections thinned out."""

    views: int | None = option(None, int, "images: number of simulated projections", "N", at_least=1)
    geometry: str = option(
        "fan", str, "images: ray geometry; fan has its detector on an arc, fan-flat on a line", choices=GEOMETRIES
    )
    arc: float | None = option(
        None,
        float,
        "angular range of the projections; for measured data from the first view on (default: all; simulated: 360, "
        "parallel 180)",
        "DEG",
        unit="degrees",
        above=0,
        at_most=360,
    )
    photons: float | None = option(None, float, "images: incident photons per ray I0 (default: no noise)", "N", above=0)
    electronic_noise: float = option(
        0.0, float, "images: electronic noise of the detector", "STD", unit="photons", at_least=0
    )
    views_every: int = option(1, int, "projections: keep every N-th view", "N", at_least=1)
    pixel_size: float | None = option(None, float, "pixel size (default: that of the file)", "MM", unit="mm", above=0)
    model_error: float | None = option(
        None,
        float,
        "relative model error, as a fraction of the rms line integral of each view (default: 0)",
        "FRACTION",
        at_least=0,
    )
    reader: Any = option(
        None,
        str,
        "options of the file reader, such as series=3 or rotation_centre=295.5",
        "NAME=VALUE",
        parse=reader_options,
    )

    def __post_init__(self) -> None:
        from recon.errors import InputError

        super().__post_init__()
        if self.electronic_noise and self.photons is None:
            raise InputError(
                "electronic_noise is in photons, so it needs the number of photons (photons, --photons 1e5)"
            )

    def measured(self, angles: np.ndarray) -> np.ndarray:
        """Return the indices of the measured projections that are used, from their angles in rad."""
        import numpy as np

        every = np.arange(0, len(angles), self.views_every)
        if self.arc is None:
            return every
        return every[np.abs(angles[every] - angles[0]) < math.radians(self.arc)]

    def beam(self, image_shape: tuple[int, int], pixel_size: float, scanner: Mapping[str, float]) -> Beam:
        """Return the geometry of simulated projections: one detector element per pixel, covering the whole image."""
        import numpy as np

        from operators.ct.geometry import FanBeam, ParallelBeam
        from recon.errors import InputError

        arc = math.radians(self.arc if self.arc is not None else 180.0 if self.geometry == "parallel" else 360.0)
        angles = np.arange(self.views or 1) * (arc / (self.views or 1))
        radius = math.hypot(*image_shape) * pixel_size / 2
        if self.geometry == "parallel":
            return ParallelBeam(angles, math.ceil(2 * radius / pixel_size) + 2, pixel_size)
        to_iso = scanner.get("source_to_iso_mm", SOURCE_TO_ISO)
        to_detector = scanner.get("source_to_detector_mm", SOURCE_TO_DETECTOR)
        if radius >= to_iso:
            raise InputError(
                f"the image is {2 * radius:.0f} mm along its diagonal, and the source is {to_iso:.0f} mm from its "
                "centre: is the pixel size in mm?"
            )
        curved, half = self.geometry == "fan", math.asin(radius / to_iso)
        spacing = pixel_size * to_detector / to_iso
        width = half * to_detector if curved else math.tan(half) * to_detector
        return FanBeam(angles, math.ceil(2 * width / spacing) + 2, spacing, to_iso, to_detector, curved=curved)


OPTIONS = CT
