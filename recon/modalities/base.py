"""What every pipeline hands on: a slice that is ready to be sampled."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from samplers import Problem


class Prepared(Protocol):
    """A slice, ready to be sampled.

    Attributes
    ----------
    problem : Problem
        In the scale of the prior; ``problem.scale`` and ``problem.offset`` lead back to physical units.
    companions : mapping of Tensor
        Images that go with the result by name, in physical units: ``zero_filled``, ``mask``, ``fbp``, ...
    facts : mapping
        What was found: acceleration, noise level, scale, ...
    notes : list of str
        What the user should know.
    """

    @property
    def problem(self) -> Problem: ...  # noqa: D102

    @property
    def companions(self) -> Mapping[str, Tensor]: ...  # noqa: D102

    @property
    def facts(self) -> Mapping[str, Any]: ...  # noqa: D102

    @property
    def notes(self) -> list[str]: ...  # noqa: D102

    def combine(self, images: Tensor) -> Tensor:
        """Return images ``(..., y, x)`` of the result from those of the problem, in physical units."""


@runtime_checkable
class Refinable(Protocol):
    """A slice that can be prepared better once there is a first image of it."""

    @property
    def problem(self) -> Problem: ...  # noqa: D102

    def refined(self, image: Tensor) -> Prepared:
        """Return the slice, prepared with a first image in the scale of its problem."""


class RefinablePrepared(Prepared, Refinable, Protocol):
    """A prepared slice that can be refined."""
