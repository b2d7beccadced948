"""The prepared slice, which is passed on to the samplers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from torch import Tensor

from recon.verdict import Finding
from samplers import Denoiser, Problem


@dataclass(frozen=True, eq=False, kw_only=True)
class Prepared:
    """A slice, ready to be sampled.

    Attributes
    ----------
    problem : Problem
        The problem in the scale of the prior; ``problem.scale`` and ``problem.offset`` convert to physical units.
    images : mapping of Tensor
        Auxiliary images of the result by name, in physical units.
    diagnostics : mapping
        Diagnostics: acceleration, noise level, scale, ...
    notes : list of str
        Notes to the user.
    doubts : list of str or Finding
        Reasons to doubt the result, found in the data; they enter its verdict, as "doubtful" unless they say more.
    data_std : Tensor, broadcastable to ``problem.y``, optional
        Standard deviation of a datum around what the others say of it, where it is not ``problem.noise_std``: errors
        of the model that data have in common are predictable.
    """

    #: Whether `refined` has an effect.
    refinable: ClassVar[bool] = False

    problem: Problem
    images: Mapping[str, Tensor] = field(default_factory=dict)
    diagnostics: Mapping[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    doubts: Sequence[str | Finding] = field(default_factory=list)
    data_std: Tensor | None = None

    def combine(self, images: Tensor) -> Tensor:
        """Convert images of the problem to images ``(..., y, x)`` of the result, in physical units."""
        return images

    def refined(self, image: Tensor) -> Prepared:
        """Return the slice prepared again with a first image in the scale of its problem."""
        return self

    def stand_in(self) -> Denoiser | None:
        """Return a Gaussian prior specific to this slice for ``prior="gaussian"``, or None."""
        return None
