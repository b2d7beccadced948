"""Optional engine: torch-radon on a GPU (GPL-3), with the API of upstream and of the fork on conda-forge.

Its backprojection is not the adjoint of its projection, so ``exact_adjoint`` is False and solvers that need an exact
adjoint refuse it.
"""

from __future__ import annotations

import importlib
from typing import Any

import torch
from torch import Tensor

from operators.base import LinearOperator, Space
from operators.ct.geometry import Beam, FanBeam
from operators.ct.projectors.astra import require_simple
from operators.errors import InputError


class TorchRadonProjector(LinearOperator):
    """Line integrals by torch-radon; lengths are converted from mm to its pixel units.

    Raises
    ------
    InputError
        If the library is missing, the image is not square, the geometry is not supported, or a tensor is not on a GPU.
    """

    exact_adjoint = False

    def __init__(self, geometry: Beam, image_shape: tuple[int, int], pixel_size: float) -> None:
        super().__init__(
            Space(image_shape, torch.float32, "y x"), Space(geometry.shape, torch.float32, "angle detector")
        )
        require_simple(geometry, "torch_radon")
        if image_shape[0] != image_shape[1]:
            raise InputError(f"engine='torch_radon' needs a square image, got {image_shape}")
        self.pixel_size = pixel_size
        self.radon = make_radon(geometry, image_shape[0], pixel_size)

    def _forward(self, x: Tensor) -> Tensor:
        return self._apply(self.radon.forward, x)

    def _adjoint(self, y: Tensor) -> Tensor:
        return self._apply(self.radon.backward, y)

    def _apply(self, function: Any, x: Tensor) -> Tensor:
        if x.device.type != "cuda":
            raise InputError(f"engine='torch_radon' needs a tensor on a GPU, got one on {x.device}")
        return function(x.detach().to(torch.float32).contiguous()).to(x.dtype) * self.pixel_size


def make_radon(geometry: Beam, resolution: int, pixel_size: float) -> Any:
    """Build the projector with whichever API is installed."""
    try:
        library = importlib.import_module("torch_radon")
    except ImportError as error:
        raise InputError(
            f"engine='torch_radon' needs the package torch-radon ({error}); or use engine='auto'"
        ) from None
    angles = torch.tensor(geometry.angles, dtype=torch.float32)
    count, spacing = geometry.det_count, geometry.det_spacing / pixel_size
    fork = hasattr(library, "ParallelBeam")
    if not isinstance(geometry, FanBeam):
        if fork:
            volume = _volume(library, resolution)
            return library.ParallelBeam(det_count=count, angles=angles, det_spacing=spacing, volume=volume)
        return library.Radon(resolution, angles, det_count=count, det_spacing=spacing)
    source = geometry.source_to_iso / pixel_size
    behind = (geometry.source_to_detector - geometry.source_to_iso) / pixel_size
    if fork:
        return library.FanBeam(
            det_count=count,
            angles=angles,
            src_dist=source,
            det_dist=behind,
            det_spacing=spacing,
            volume=_volume(library, resolution),
        )
    return library.RadonFanbeam(resolution, angles, source, behind, det_count=count, det_spacing=spacing)


def _volume(library: Any, resolution: int) -> Any:
    """Return a volume of known size, so that backprojection can be called first."""
    volume = library.volumes.Volume2D()
    volume.set_size(resolution, resolution)
    return volume
