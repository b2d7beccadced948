"""Reconstructions without a learned prior, used like samplers: `--sampler tv`.

The mean is the estimate. The samples scatter around it as the noise of the data makes it scatter (parametric
bootstrap); that says nothing of what was not measured, nor of the bias of the estimate.
"""

from __future__ import annotations

import dataclasses
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from recon import baselines
from samplers import Denoiser, Problem, Run, Sampler, Step
from samplers.validation import require

#: Said of every result.
NOTE = (
    "the std is that of the estimate by the noise of the data: it holds neither what was not measured nor the error "
    "that the estimate makes without noise"
)
#: Weights that are tried where none is given, over one by the noise level: the least, the largest, and how many times
#: the range is halved.
_WEIGHTS, _HALVINGS = (0.01, 100.0), 6
#: Largest number of iterations of methods that stop at the noise.
_MOST_ITERATIONS = 100


class NoPrior:
    """Stands in for the prior where none is used: it returns what it gets."""

    space = None
    sigma_min, sigma_max = 1e-3, 1.0

    def denoise(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        """Return ``x``."""
        return x


class Estimator(Sampler):
    """An estimate of the image, with samples that show its noise.

    ``x_k = E(y) + E(A E(y) + n_k) - E(A E(y))``: the estimate from data simulated from itself, with noise (Efron &
    Tibshirani, "An introduction to the bootstrap", 1993, section 6.5). For an estimate that is linear in the data this
    is its noise exactly.
    """

    uses_prior: ClassVar[bool] = False
    #: Whether the estimate should explain the data up to their noise.
    fits_data: ClassVar[bool] = True
    mean_sigma: float | None = 1.0

    @abstractmethod
    def estimate(self, problem: Problem) -> Tensor:
        """Return the estimate from the data of a problem, shape ``domain``."""

    def fixed(self, problem: Problem) -> Estimator:
        """Return this estimator with every setting that it would take from the data of this problem."""
        return self

    def sigmas(self, problem: Problem, denoiser: Denoiser) -> list[float]:
        """Return one step, from any level to 0."""
        return [1.0, 0.0]

    def step(self, x: Tensor, sigma: float, sigma_next: float, run: Run, memory: Any) -> Step:
        """Estimate, and estimate again from simulated data."""
        problem = run.problem
        chosen = self.fixed(problem)
        best = chosen.estimate(problem)
        clean = problem.operator(best)
        centre = chosen.estimate(dataclasses.replace(problem, y=clean))
        noise = run.noise.normal(problem.operator.codomain) * problem.noise_std
        drawn = [best + chosen.estimate(dataclasses.replace(problem, y=clean + each)) - centre for each in noise]
        return Step(torch.stack(drawn), best.expand(len(x), *best.shape))


@dataclass(frozen=True)
class Regularised(Estimator):
    """An estimate of least cost, ``|(A x - y) / noise_std|^2 / 2 + weight R(x)``.

    Parameters
    ----------
    weight : float, optional
        In units of one over the noise level in the scale of the problem. None: the discrepancy principle, the weight at
        which the data residual is 1 (Morozov 1966); it is larger than the weight of the least error.
    iterations : int
    """

    weight: float | None = None
    iterations: int = 30

    def __post_init__(self) -> None:
        require(self, self.weight is None or self.weight > 0, "weight > 0 or None", self.weight)
        require(self, self.iterations >= 1, "iterations >= 1", self.iterations)

    @abstractmethod
    def solve(self, problem: Problem, weight: float) -> Tensor:
        """Return the image of least cost for a weight in the scale of the problem."""

    def fixed(self, problem: Problem) -> Regularised:
        """Choose the weight, with half of the iterations."""
        if self.weight is not None:
            return self
        tried = dataclasses.replace(self, iterations=max(self.iterations // 2, 1))
        weight = by_discrepancy(problem, lambda weight: dataclasses.replace(tried, weight=weight).estimate(problem))
        return dataclasses.replace(self, weight=weight)

    def estimate(self, problem: Problem) -> Tensor:
        """Return the image of least cost."""
        weight = self.fixed(problem).weight
        assert weight is not None
        return self.solve(problem, weight / noise_level(problem))


@dataclass(frozen=True)
class EarlyStopped(Estimator):
    """An estimate by iterations that regularise by stopping early.

    Parameters
    ----------
    iterations : int, optional
        None: as many as make the data residual 1, at most 100.
    """

    iterations: int | None = None

    def __post_init__(self) -> None:
        require(self, self.iterations is None or self.iterations >= 1, "iterations >= 1 or None", self.iterations)

    @abstractmethod
    def solve(self, problem: Problem, iterations: int) -> Tensor:
        """Return the image after these iterations."""

    def fixed(self, problem: Problem) -> EarlyStopped:
        """Choose the number of iterations."""
        if self.iterations is not None:
            return self
        return dataclasses.replace(self, iterations=stopped_at_noise(problem, lambda n: self.solve(problem, n)))

    def estimate(self, problem: Problem) -> Tensor:
        """Return the image after the chosen iterations."""
        iterations = self.fixed(problem).iterations
        assert iterations is not None
        return self.solve(problem, iterations)


class TotalVariation(Regularised):
    """Total variation: ``argmin_x |(A x - y) / noise_std|^2 / 2 + weight TV(x)``, see `recon.baselines`.

    References
    ----------
    Rudin, Osher & Fatemi, "Nonlinear total variation based noise removal algorithms", Physica D 60 (1992).
    """

    citations: ClassVar[tuple[str, ...]] = ("rudin1992nonlinear",)

    def solve(self, problem: Problem, weight: float) -> Tensor:
        """Return the image by the alternating direction method of multipliers."""
        return baselines.total_variation(problem, weight, self.iterations, cg_iterations=5)


class LeastSquares(EarlyStopped):
    """Weighted least squares by conjugate gradients, which regularise by stopping early.

    References
    ----------
    Hestenes & Stiefel, "Methods of conjugate gradients for solving linear systems", J. Res. Natl. Bur. Stand. 49
    (1952).
    """

    citations: ClassVar[tuple[str, ...]] = ("hestenes1952methods",)

    def solve(self, problem: Problem, iterations: int) -> Tensor:
        """Return the image after these iterations."""
        return baselines.least_squares(problem, iterations)


def noise_level(problem: Problem) -> float:
    """Return the noise of the data in the measured directions, in the scale of the image."""
    return float(problem.information.variance) ** 0.5


def by_discrepancy(problem: Problem, solve: Callable[[float], Tensor]) -> float:
    """Return the weight at which the data residual of a regularised solution is 1, by bisection of its logarithm."""
    low, high = _WEIGHTS
    for _ in range(_HALVINGS):
        middle = (low * high) ** 0.5
        if float(problem.misfit(solve(middle)[None])) < 1:
            low = middle
        else:
            high = middle
    return (low * high) ** 0.5


def stopped_at_noise(problem: Problem, solve: Callable[[int], Tensor]) -> int:
    """Return the number of iterations after which the data residual is 1, to a quarter of it."""
    iterations = 1
    while iterations < _MOST_ITERATIONS and float(problem.misfit(solve(iterations)[None])) > 1:
        iterations = min(max(iterations + 1, round(1.25 * iterations)), _MOST_ITERATIONS)
    return iterations
