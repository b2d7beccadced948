"""Computed tomography: the line integrals of an image along the rays of a scanner."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from operators.base import LinearOperator, Space
from operators.ct.geometry import Beam, FanBeam
from operators.ct.projectors import astra, onthefly, sparse, torch_radon, triton
from operators.errors import InputError, ShapeError

Engine = Callable[[Beam, tuple[int, int], float], LinearOperator]

ENGINES: dict[str, Engine] = {
    "sparse": sparse.SparseProjector,
    "onthefly": onthefly.OnTheFlyProjector,
    "triton": triton.TritonProjector,
    "astra": astra.AstraProjector,
    "torch_radon": torch_radon.TorchRadonProjector,
}


class CT(LinearOperator):
    """Line integrals of an attenuation image, (A x)_ray = integral of x along the ray.

    Images are (..., y, x) in 1/mm, real; sinograms are (..., angle, detector), dimensionless. The image is interpolated
    by Joseph's method (`operators.ct.projectors.joseph`), and the adjoint is exact, except for engines with
    ``exact_adjoint = False``.

    Parameters
    ----------
    geometry : ParallelBeam or FanBeam
        Scanner geometry.
    image_shape : (int, int)
        (y, x). The isocentre is at index ((y - 1) / 2, (x - 1) / 2), plus the geometry's `center_shift`.
    pixel_size : float
        Side of the square pixels in mm.
    engine : str or callable
        "sparse" (stored matrix; fastest on a CPU), "onthefly" (no stored matrix), "triton" (GPU), "astra" or
        "torch_radon" (optional libraries), or "auto", which follows the device: "triton" on a GPU in single precision
        where Triton is installed; otherwise "sparse" if the matrix takes at most `max_bytes`, else "onthefly". A
        callable gets geometry, image shape and pixel size, and returns a LinearOperator.
    max_bytes : int
        Largest matrix that "auto" stores; its transpose takes the same amount again.

    Raises
    ------
    InputError, ShapeError
        If the engine is unknown, the shape or pixel size cannot be used, or the source is inside the image.
    """

    def __init__(
        self,
        geometry: Beam,
        image_shape: tuple[int, int],
        pixel_size: float,
        engine: str | Engine = "auto",
        max_bytes: int = sparse.MAX_BYTES,
    ) -> None:
        shape, size = check_grid(geometry, image_shape, pixel_size, "CT")
        if isinstance(engine, str) and engine not in ("auto", *ENGINES):
            raise InputError(f"CT: unknown engine {engine!r}; choose one of auto, {', '.join(ENGINES)}")
        super().__init__(Space(shape, torch.float32, "y x"), Space(geometry.shape, torch.float32, "angle detector"))
        self.geometry, self.pixel_size = geometry, size
        self._engine, self._max_bytes, self._device = engine, max_bytes, torch.device("cpu")
        self._projector = (
            None if engine == "auto" else self._built(ENGINES[engine] if isinstance(engine, str) else engine)
        )
        self.exact_adjoint = self._projector is None or self._projector.exact_adjoint

    @property
    def projector(self) -> LinearOperator:
        """The engine; "auto" is built at its first use, when the device is known."""
        if self._projector is None:
            self._projector = self._built(ENGINES[self._automatic()])
        return self._projector

    def to(self, target: torch.device | str | torch.dtype) -> LinearOperator:
        """Return a copy on another device or in another precision, where "auto" may choose another engine."""
        if self._engine != "auto":
            return super().to(target)
        moved = copy.copy(self)
        if isinstance(target, torch.dtype):
            moved.domain, moved.codomain = self.domain.to(target), self.codomain.to(target)
        else:
            moved._device = torch.device(target)
        if self._projector is None and moved._device.type == "cpu" and moved.domain == self.domain:
            return moved
        build = ENGINES[moved._automatic()]
        if self._projector is not None and type(self._projector) is build:
            moved._projector = self._projector.to(target)
        else:
            moved._projector = self._built(build).to(moved._device).to(moved.domain.dtype)
        return moved

    def _automatic(self) -> str:
        """Return the name of the engine for the device and the precision."""
        if self._device.type == "cuda" and self.domain.dtype == torch.float32 and triton.available():
            return "triton"
        return "sparse" if self._small else "onthefly"

    @cached_property
    def _small(self) -> bool:
        return sparse.fits(
            self.geometry, (self.domain.shape[0], self.domain.shape[1]), self.pixel_size, self._max_bytes
        )

    def _built(self, build: Engine) -> LinearOperator:
        shape = (self.domain.shape[0], self.domain.shape[1])
        projector = build(self.geometry, shape, self.pixel_size)
        if projector.domain.shape != shape or projector.codomain.shape != self.geometry.shape:
            raise ShapeError(f"CT expected an engine {shape} -> {self.geometry.shape}, got {projector!r}")
        return projector

    def _forward(self, x: Tensor) -> Tensor:
        return self.projector._forward(x)

    def _adjoint(self, y: Tensor) -> Tensor:
        return self.projector._adjoint(y)


def check_grid(
    geometry: Beam, image_shape: tuple[int, int], pixel_size: float, owner: str
) -> tuple[tuple[int, int], float]:
    """Return the checked image shape and pixel size."""
    if not isinstance(geometry, Beam):
        raise InputError(f"{owner} expected a ParallelBeam or FanBeam, got {type(geometry).__name__}")
    shape = tuple(int(n) for n in np.atleast_1d(np.asarray(image_shape)))
    if len(shape) != 2 or min(shape) < 1:
        raise ShapeError(f"{owner} expected image_shape (y, x) of positive lengths, got {image_shape}")
    size = float(pixel_size)
    if not (size > 0 and math.isfinite(size)):
        raise InputError(f"{owner} needs pixel_size > 0 mm, got {pixel_size}")
    if isinstance(geometry, FanBeam):
        shift = max(abs(s) for s in geometry.image_shift) * math.sqrt(2)
        reach = (math.hypot(shape[0], shape[1]) / 2 + shift) * size
        nearest = float(torch.linalg.vector_norm(geometry.sources(), dim=-1).min())
        if reach >= nearest:
            raise InputError(
                f"{owner}: the source at {nearest:.4g} mm is inside the image, whose corners are {reach:.4g} mm from "
                "the isocentre; are pixel_size and source_to_iso in mm?"
            )
    return (shape[0], shape[1]), size
