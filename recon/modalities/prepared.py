"""What the preparation of a slice hands on to the samplers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from torch import Tensor

from samplers import Denoiser, Problem


@dataclass(frozen=True, eq=False, kw_only=True)
class Prepared:
    """A slice, ready to be sampled.

    Attributes
    ----------
    problem : Problem
        In the scale of the prior; ``problem.scale`` and ``problem.offset`` lead back to physical units.
    images : mapping of Tensor
        Auxiliary images that go with the result by name, in physical units.
    diagnostics : mapping
        What was found: acceleration, noise level, scale, ...
    notes : list of str
        What the user should know.
    """

    #: Whether `refined` does anything.
    refinable: ClassVar[bool] = False

    problem: Problem
    images: Mapping[str, Tensor] = field(default_factory=dict)
    diagnostics: Mapping[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def combine(self, images: Tensor) -> Tensor:
        """Return images ``(..., y, x)`` of the result from those of the problem, in physical units."""
        return images

    def refined(self, image: Tensor) -> Prepared:
        """Return the slice, prepared better with a first image in the scale of its problem."""
        return self

    def stand_in(self) -> Denoiser | None:
        """Return the Gaussian prior of this slice, where it has one of its own, for ``prior="gaussian"``."""
        return None
