"""Exact posterior samples for a Gaussian prior and a linear operator; the ground truth of the tests."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, cast

import torch
from torch import Tensor

from operators.errors import InputError
from operators.solve import conjugate_gradient
from samplers.base import Run, Sampler, Step
from samplers.denoiser import Denoiser
from samplers.problem import Problem
from samplers.validation import require


class GaussianDenoiser(Denoiser, Protocol):
    """A Gaussian prior that can apply its covariance ``C`` and a square root of it."""

    @property
    def mean(self) -> Tensor:
        """The mean image."""

    def to(self, device: torch.dtype) -> GaussianDenoiser:
        """Return the prior in another precision."""

    def covariance(self, x: Tensor) -> Tensor:
        """Return ``C x``."""

    def draw(self, white: Tensor) -> Tensor:
        """Return ``mean + C^(1/2) white``: a draw of the prior from white noise."""


@dataclass(frozen=True)
class ExactGaussian(Sampler):
    """Exact posterior sampling for a Gaussian prior and a linear operator, by perturb-and-solve.

    A prior draw ``x`` and a noisy measurement of it are moved onto the data (Matheron's rule)::

        x + C A^H (A C A^H + noise_std^2)^-1 (y + noise_std n - A x)

    Targets the posterior: std ratio 1 up to the residual of the conjugate gradients, which is reported. Solved in
    double precision: image-like spectra and low noise make condition numbers of a million.

    Parameters
    ----------
    iterations : int
        Largest number of conjugate-gradient iterations.
    tolerance : float
        Relative residual at which a sample is frozen.

    References
    ----------
    Papandreou & Yuille, "Gaussian sampling by local perturbations", NeurIPS 2010.
    """

    citations: ClassVar[tuple[str, ...]] = ("papandreou2010gaussian",)

    iterations: int = 500
    tolerance: float = 1e-5

    def __post_init__(self) -> None:
        require(self, self.iterations >= 1, "iterations >= 1", self.iterations)
        require(self, self.tolerance >= 0, "tolerance >= 0", self.tolerance)

    def sigmas(self, problem: Problem, denoiser: Denoiser) -> list[float]:
        """Return one step, from any level to 0."""
        return [1.0, 0.0]

    def step(self, x: Tensor, sigma: float, sigma_next: float, run: Run, memory: Any) -> Step:
        """Draw; ``x`` is used as the white noise of the prior draw."""
        white = run.noise.normal(run.problem.operator.codomain)
        drawn, residual = self._condition(run.problem, _gaussian(run.denoiser), x / sigma, white)
        return Step(drawn, drawn, {"cg_residual": residual})

    def posterior_mean(self, problem: Problem, denoiser: Denoiser) -> Tensor:
        """Return the exact posterior mean, shape ``domain``."""
        operator = problem.operator
        zeros = problem.y.real.new_zeros
        white = zeros((1, *operator.domain.shape), dtype=operator.domain.to(problem.y.dtype).dtype)
        return self._condition(problem, _gaussian(denoiser), white, zeros(1).to(problem.y.dtype))[0][0]

    def _condition(
        self, problem: Problem, prior: GaussianDenoiser, white: Tensor, data_noise: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Condition the prior draw made of ``white`` on the perturbed data; solved in units of the noise."""
        operator = problem.operator.to(torch.float64)
        prior = prior.to(operator.domain.dtype)
        noise_std = problem.noise_std

        def whitened(v: Tensor) -> Tensor:
            return v + operator(prior.covariance(operator.H(v / noise_std))) / noise_std

        x0 = prior.draw(white.to(operator.domain.dtype))
        weights, residual = conjugate_gradient(
            whitened,
            (problem.y - operator(x0)) / noise_std + data_noise,
            iterations=self.iterations,
            tolerance=self.tolerance,
            item_ndim=operator.codomain.ndim,
        )
        x = x0 + prior.covariance(operator.H(weights / noise_std))
        return x.to(white.dtype), residual.to(white.real.dtype)


def _gaussian(denoiser: Denoiser) -> GaussianDenoiser:
    """Check that the prior is Gaussian, by names: from Python 3.12 isinstance does not see what a wrapper forwards."""
    if not all(hasattr(denoiser, name) for name in ("mean", "to", "covariance", "draw")):
        raise InputError(f"ExactGaussian needs a Gaussian prior (GaussianPrior), got {type(denoiser).__name__}")
    return cast(GaussianDenoiser, denoiser)
