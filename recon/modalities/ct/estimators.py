"""Reconstructions without a learned prior that are usual for projections."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from operators.ct.fbp import FILTERS, fbp
from operators.ct.projection import CT
from recon.errors import InputError
from recon.estimators import EarlyStopped, Estimator, LeastSquares
from samplers import Problem


@dataclass(frozen=True)
class FilteredBackprojection(Estimator):
    """Filtered backprojection, see `operators.ct.fbp`.

    Parameters
    ----------
    filter : str
        "ram-lak", "shepp-logan", "cosine", "hamming" or "hann".
    """

    citations: ClassVar[tuple[str, ...]] = ("kak1988principles",)
    fits_data: ClassVar[bool] = False

    filter: str = "hann"

    def __post_init__(self) -> None:
        if self.filter not in FILTERS:
            raise InputError(f"fbp: expected a filter of {', '.join(FILTERS)}, got {self.filter!r}")

    def estimate(self, problem: Problem) -> Tensor:
        """Return the image of the projections."""
        operator = problem.operator
        if not isinstance(operator, CT):
            raise InputError(f"fbp needs the operator CT, got {type(operator).__name__}")
        ny, nx = operator.domain.shape
        return fbp(problem.y, operator.geometry, (ny, nx), operator.pixel_size, self.filter)


class SIRT(EarlyStopped):
    """Simultaneous iterative reconstruction: ``x + C A^T R (y - A x)``, R and C one over the sums of rows and columns.

    References
    ----------
    Gilbert, "Iterative methods for the three-dimensional reconstruction of an object from projections", J. Theor. Biol.
    36 (1972).
    """

    citations: ClassVar[tuple[str, ...]] = ("gilbert1972iterative",)

    def solve(self, problem: Problem, iterations: int) -> Tensor:
        """Return the image after these iterations."""
        operator, y = problem.operator, problem.y
        columns = operator.H(torch.ones_like(y))
        rows = operator(torch.ones_like(columns))
        x = torch.zeros_like(columns)
        for _ in range(iterations):
            left = (y - operator(x)) / rows.clamp(min=1e-6 * float(rows.max()))
            x = x + operator.H(left) / columns.clamp(min=1e-6 * float(columns.max()))
        return x


ESTIMATORS: dict[str, Estimator] = {"fbp": FilteredBackprojection(), "sirt": SIRT(), "cgls": LeastSquares()}
