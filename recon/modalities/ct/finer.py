"""Images whose pixels are larger than the spacing of the rays: computed on smaller pixels, and averaged.

Each ray sees less than such a pixel, and what it sees differs from the pixel's mean. A model of large pixels takes
these differences for noise or, worse, for structure.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from torch import Tensor
from torch.nn import functional

from recon.modalities.ct.data import ScanGeometry
from recon.modalities.prepared import Prepared

#: Pixels may be larger than the spacing of the rays by this factor.
_LARGER = 1.15
#: A note tells of pixels that stay this many times as large.
_MUCH_LARGER = 1.5
#: Most pixels of a side of the image that is computed.
_MOST = 768


@dataclass(frozen=True, eq=False, kw_only=True)
class FinerSlice(Prepared):
    """A slice whose problem has ``parts`` x ``parts`` pixels for each pixel of the result."""

    parts: int

    def combine(self, images: Tensor) -> Tensor:
        """Return the means over the parts of each pixel."""
        return mean_of_parts(images, self.parts)


def ray_spacing(geometry: ScanGeometry) -> float:
    """Return the spacing of neighbouring rays at the axis in mm."""
    if geometry.source_to_iso_mm is None or geometry.source_to_detector_mm is None or geometry.kind == "parallel":
        return geometry.det_spacing_mm
    return geometry.det_spacing_mm * geometry.source_to_iso_mm / geometry.source_to_detector_mm


def parts_of(geometry: ScanGeometry, shape: tuple[int, int], pixel_size: float) -> int:
    """Return into how many parts the sides of a pixel are divided."""
    wanted = math.ceil(pixel_size / (_LARGER * ray_spacing(geometry)))
    return max(1, min(wanted, _MOST // max(shape)))


def notes_of(geometry: ScanGeometry, pixel_size: float, parts: int) -> list[str]:
    """Tell the user of parts, or of pixels that are too large."""
    spacing = ray_spacing(geometry)
    if pixel_size / parts > _MUCH_LARGER * spacing:
        return [
            f"the pixels of {pixel_size:.3g} mm are {pixel_size / spacing:.2g} times the spacing of the rays "
            f"({spacing:.3g} mm): what is smaller than a pixel is not modelled; a smaller --pixel-size is slower and "
            "better"
        ]
    if parts == 1:
        return []
    return [
        f"the pixels of {pixel_size:.3g} mm are larger than the spacing of the rays ({spacing:.3g} mm): images are "
        f"computed on pixels of {pixel_size / parts:.3g} mm and averaged"
    ]


def coarsened(ready: Prepared, parts: int) -> Prepared:
    """Return a slice on small pixels whose images have large ones."""
    if parts == 1:
        return ready
    known = {field.name: getattr(ready, field.name) for field in fields(Prepared)}
    known["images"] = {name: mean_of_parts(image, parts) for name, image in ready.images.items()}
    known["diagnostics"] = {
        **ready.diagnostics,
        "pixel_size_mm": parts * ready.diagnostics["pixel_size_mm"],
        "parts_of_pixels": parts,
    }
    return FinerSlice(**known, parts=parts)


def mean_of_parts(images: Tensor, parts: int) -> Tensor:
    """Return the means over blocks of ``parts`` x ``parts`` of the last two axes."""
    flat = images.reshape(-1, 1, *images.shape[-2:])
    small = functional.avg_pool2d(flat, parts)
    return small.reshape(*images.shape[:-2], *small.shape[-2:])
