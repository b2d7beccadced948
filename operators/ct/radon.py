"""`Radon` and `RadonFanbeam` with the interface of torch-radon, in pixel units and on any device."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from operators.base import LinearOperator
from operators.ct.fbp import FILTERS, _ramp
from operators.ct.geometry import Beam, FanBeam, Numbers, ParallelBeam
from operators.ct.projection import CT
from operators.errors import InputError

__all__ = ["Radon", "RadonFanbeam"]


class _Projector:
    """Forward and backprojection of square images; unlike torch-radon's, the two are exact adjoints."""

    def __init__(self, geometry: Beam, resolution: int, clip_to_circle: bool, engine: str) -> None:
        self.operator = CT(geometry, (resolution, resolution), 1.0, engine)
        self._copies: dict[torch.device, LinearOperator] = {torch.device("cpu"): self.operator}
        self.resolution, self.det_count, self.det_spacing = resolution, geometry.det_count, geometry.det_spacing
        self.angles = torch.tensor(geometry.angles)
        self.clip_to_circle = clip_to_circle
        index = torch.arange(resolution) - (resolution - 1) / 2
        self._circle = (index[:, None] ** 2 + index**2 <= (resolution / 2) ** 2) if clip_to_circle else None

    def forward(self, x: Tensor) -> Tensor:
        """Project images (..., resolution, resolution) to sinograms (..., angle, detector)."""
        return self._on(x.device)(self._clipped(x))

    def backward(self, sinogram: Tensor) -> Tensor:
        """Backproject sinograms: the adjoint of `forward`."""
        return self._clipped(self._on(sinogram.device).H(sinogram))

    backprojection = backward

    def filter_sinogram(self, sinogram: Tensor, filter_name: str = "ramp") -> Tensor:
        """Filter projections over 180 degrees, so that `backprojection` of the result is a reconstruction.

        `filter_name` is "ramp", "shepp-logan", "cosine", "hamming" or "hann". For parallel rays, as in torch-radon;
        `operators.ct.fbp` reconstructs fans.
        """
        name = {"ramp": "ram-lak"}.get(filter_name, filter_name)
        if name not in FILTERS:
            raise InputError(f"unknown filter {filter_name!r}; choose one of ramp, {', '.join(FILTERS[1:])}")
        return _ramp(sinogram, self.det_spacing, name, arc=False) * (math.pi * self.det_spacing / len(self.angles))

    def _on(self, device: torch.device) -> LinearOperator:
        if device not in self._copies:
            self._copies[device] = self.operator.to(device)
        return self._copies[device]

    def _clipped(self, image: Tensor) -> Tensor:
        return image if self._circle is None else image * self._circle.to(image.device)


class Radon(_Projector):
    """Parallel-beam projector in pixel units.

    Parameters
    ----------
    resolution : int
        Side of the square images in pixels.
    angles : sequence of float, array or tensor
        Projection angles in rad.
    det_count : int
        Number of detector elements; `resolution` if not positive.
    det_spacing : float
        Distance between elements in pixels.
    clip_to_circle : bool
        Treat pixels outside the inscribed circle as zero.
    engine : str
        As in `CT`.
    """

    def __init__(
        self,
        resolution: int,
        angles: Numbers,
        det_count: int = -1,
        det_spacing: float = 1.0,
        clip_to_circle: bool = False,
        engine: str = "auto",
    ) -> None:
        count = det_count if det_count > 0 else resolution
        super().__init__(ParallelBeam(angles, count, det_spacing), resolution, clip_to_circle, engine)


class RadonFanbeam(_Projector):
    """Projector of a flat fan in pixel units.

    Parameters
    ----------
    resolution, angles, det_count, clip_to_circle, engine
        As in `Radon`.
    source_distance : float
        Distance from the source to the middle of the image.
    det_distance : float
        Distance from the middle of the image to the detector; `source_distance` if negative.
    det_spacing : float
        Distance between elements at the detector; if negative, it corresponds to one pixel in the image.
    """

    def __init__(
        self,
        resolution: int,
        angles: Numbers,
        source_distance: float,
        det_distance: float = -1,
        det_count: int = -1,
        det_spacing: float = -1,
        clip_to_circle: bool = False,
        engine: str = "auto",
    ) -> None:
        count = det_count if det_count > 0 else resolution
        behind = source_distance if det_distance < 0 else det_distance
        whole = source_distance + behind
        spacing = det_spacing if det_spacing > 0 else whole / source_distance
        super().__init__(FanBeam(angles, count, spacing, source_distance, whole), resolution, clip_to_circle, engine)
