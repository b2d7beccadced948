"""What strategies that walk down a list of noise levels share: the levels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from operators.errors import InputError
from samplers import schedule
from samplers.base import Sampler
from samplers.denoiser import Denoiser
from samplers.problem import Problem

Spacing = Literal["geometric", "karras"]


@dataclass(frozen=True)
class AnnealedSampler(Sampler):
    """Strategies on geometric or Karras noise levels; subclasses write ``step`` and extend ``__post_init__``.

    Parameters
    ----------
    steps : int
        Noise levels.
    spacing : "geometric" or "karras"
        See :mod:`samplers.schedule`.
    sigma_max, sigma_min : float, optional
        Range of the noise levels; by default that of the prior.
    """

    steps: int = 100
    spacing: Spacing = "geometric"
    sigma_max: float | None = None
    sigma_min: float | None = None

    def __post_init__(self) -> None:
        self._require(self.steps >= 1, f"steps >= 1, came {self.steps}")
        known = self.spacing in ("geometric", "karras")
        self._require(known, f"spacing 'geometric' or 'karras', came {self.spacing!r}")

    def _require(self, holds: bool, expected: str) -> None:
        """Raise InputError with what was expected of a setting, unless that holds."""
        if not holds:
            raise InputError(f"{type(self).__name__}: expected {expected}")

    def sigmas(self, problem: Problem, denoiser: Denoiser) -> list[float]:
        """Return the noise levels of the chosen spacing."""
        levels = schedule.geometric if self.spacing == "geometric" else schedule.karras
        return levels(self.sigma_max or denoiser.sigma_max, self.sigma_min or denoiser.sigma_min, self.steps)
