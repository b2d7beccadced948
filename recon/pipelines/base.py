"""What every pipeline hands on: a slice that is ready to be sampled."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

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
    intensity : Tensor or None
        Factor of each pixel that the result is multiplied by.
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
    def intensity(self) -> Tensor | None: ...  # noqa: D102

    @property
    def facts(self) -> Mapping[str, Any]: ...  # noqa: D102

    @property
    def notes(self) -> list[str]: ...  # noqa: D102
