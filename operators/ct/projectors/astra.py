"""Optional engine: the ASTRA toolbox on the CPU, for comparison (GPL-3, not installed with diffrecon)."""

from __future__ import annotations

import importlib
from typing import Any

import torch
from torch import Tensor

from operators.base import LinearOperator, Space
from operators.ct.geometry import Beam, FanBeam, ParallelBeam
from operators.errors import InputError


class AstraProjector(LinearOperator):
    """Line integrals by ASTRA's CPU projectors ("linear" for parallel rays, "line_fanflat" for a fan).

    The library does not promise an exact adjoint (its GPU pair is not adjoint), so solvers that need one refuse this
    engine, although its CPU pair passes `check_operator`. "linear" is Joseph's method, as in this package;
    "line_fanflat" has different weights.

    Raises
    ------
    InputError
        If the library is missing, or the geometry is one it does not support: curved detectors, flying focal spots, and
        detector or centre shifts.
    """

    exact_adjoint = False

    def __init__(self, geometry: Beam, image_shape: tuple[int, int], pixel_size: float) -> None:
        super().__init__(
            Space(image_shape, torch.float32, "y x"), Space(geometry.shape, torch.float32, "angle detector")
        )
        import_astra()
        self.geometry = geometry
        self.pixel_size = pixel_size
        require_simple(geometry, "astra")

    def _forward(self, x: Tensor) -> Tensor:
        return self._each(x, self.domain, self.codomain, forward=True)

    def _adjoint(self, y: Tensor) -> Tensor:
        return self._each(y, self.codomain, self.domain, forward=False)

    def _each(self, x: Tensor, source: Space, target: Space, forward: bool) -> Tensor:
        astra = import_astra()
        projector = self._projector(astra)
        tool = astra.OpTomo(projector)
        apply = tool.FP if forward else tool.BP
        items = x.detach().reshape(-1, *source.shape).to("cpu", torch.float32).contiguous()
        try:
            values = [torch.from_numpy(apply(item.numpy()).copy()) for item in items]
        finally:
            astra.projector.delete(projector)
        # ASTRA's pixels have side 1
        scaled = torch.stack(values).mul_(self.pixel_size) if values else items.new_empty(0, *target.shape)
        return scaled.to(x).reshape(*source.batch_shape(x), *target.shape)

    def _projector(self, astra: Any) -> int:
        beam, unit = self.geometry, self.pixel_size
        volume = astra.create_vol_geom(*self.domain.shape)
        if isinstance(beam, FanBeam):
            distances = (beam.source_to_iso / unit, (beam.source_to_detector - beam.source_to_iso) / unit)
            rays = astra.create_proj_geom("fanflat", beam.det_spacing / unit, beam.det_count, beam.angles, *distances)
            return astra.create_projector("line_fanflat", rays, volume)
        rays = astra.create_proj_geom("parallel", beam.det_spacing / unit, beam.det_count, beam.angles)
        return astra.create_projector("linear", rays, volume)


def import_astra() -> Any:
    """Import the library, or raise InputError that says how to install it."""
    try:
        return importlib.import_module("astra")
    except ImportError as error:
        raise InputError(f"engine='astra' needs the package astra-toolbox ({error}); or use engine='auto'") from None


def require_simple(geometry: Beam, engine: str) -> None:
    """Refuse geometries that the wrapped libraries do not support."""
    shifted = getattr(geometry, "detector_offset", 0.0) or any(geometry.image_shift)
    bent = isinstance(geometry, FanBeam) and (
        geometry.curved
        or bool(torch.tensor(geometry.source_angle_offset).any())
        or bool(torch.tensor(geometry.source_radius_offset).any())
    )
    if not isinstance(geometry, ParallelBeam | FanBeam) or shifted or bent:
        raise InputError(
            f"engine={engine!r} supports only parallel and flat fan beams without shifts or flying focal spot; "
            "use engine='auto'"
        )
