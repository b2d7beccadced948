"""Beamformers, used like samplers: `--sampler mv`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from operators.ultrasound.beamform import METHODS, beamform
from operators.ultrasound.plane_wave import PlaneWaveUltrasound
from recon.errors import InputError
from recon.estimators import Estimator
from recon.modalities.ultrasound.independent_pixels import row_gain
from samplers import Problem
from samplers.validation import require


@dataclass(frozen=True)
class Beamformer(Estimator):
    """A beamformed image, compounded over the waves, at the scale at which its echoes fit the data best.

    Parameters
    ----------
    method : str
        "das", "cf", "gcf", "dmas", "mv" or "esbmv", see `operators.beamform`.
    f_number : float
        Depth over the width of the active aperture; 0 for all elements at every depth.
    """

    fits_data: ClassVar[bool] = False

    method: str = "das"
    f_number: float = 1.75

    def __post_init__(self) -> None:
        require(self, self.method in METHODS, f"method to be one of {', '.join(METHODS)}", self.method)
        require(self, self.f_number >= 0, "f_number >= 0", self.f_number)

    def estimate(self, problem: Problem) -> Tensor:
        """Return the image of the channel data."""
        operator: Any = problem.operator
        if not isinstance(operator, PlaneWaveUltrasound):
            raise InputError(f"{self.method} needs the operator PlaneWaveUltrasound, got {type(operator).__name__}")
        geometry, grid = operator.geometry, operator.grid
        image = beamform(problem.y, grid, self.method, geometry=geometry, f_number=self.f_number)
        image = image * row_gain(geometry, grid).to(image.device)
        echoes = operator(image) / problem.noise_std
        fit = torch.vdot(echoes.flatten(), (problem.y / problem.noise_std).flatten())
        return image * (fit / echoes.abs().square().sum().clamp(min=1e-30))


ESTIMATORS: dict[str, Estimator] = {method: Beamformer(method) for method in METHODS}
