"""The oracle: exact posterior draws when the prior is Gaussian and the operator linear. Every test's truth."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol

from torch import Tensor

from operators.errors import InputError
from operators.solve import conjugate_gradient
from samplers.base import Denoiser, Problem, Sampler, Step
from samplers.noise import Noise


class GaussianDenoiser(Denoiser, Protocol):
    """A Gaussian prior that can also apply its covariance ``C`` and a square root of it."""

    mean: Tensor

    def covariance(self, x: Tensor) -> Tensor:
        """Return ``C x``."""

    def draw(self, white: Tensor) -> Tensor:
        """Return ``mean + C^(1/2) white``: a draw of the prior from white noise."""


@dataclass(frozen=True)
class ExactGaussian(Sampler):
    """Exact posterior sampling for a Gaussian prior and a linear operator, by perturb-and-solve.

    A prior draw ``x`` and a noisy measurement of it are moved onto the data (Matheron's rule)::

        x + C A^H (A C A^H + noise_std^2)^-1 (y + noise_std n - A x)

    Targets the posterior: std ratio 1 up to the residual of the conjugate gradients.

    Parameters
    ----------
    iterations : int
        Conjugate-gradient iterations at most.
    tolerance : float
        Relative residual at which a sample is left alone.

    References
    ----------
    Papandreou & Yuille, "Gaussian sampling by local perturbations", NeurIPS 2010.
    """

    citations: ClassVar[tuple[str, ...]] = ("papandreou2010gaussian",)

    iterations: int = 300
    tolerance: float = 1e-6

    def sigmas(self, problem: Problem, denoiser: Denoiser) -> list[float]:
        """Return one step, from anywhere to 0."""
        return [1.0, 0.0]

    def step(
        self, x: Tensor, sigma: float, sigma_next: float, problem: Problem, denoiser: Denoiser, noise: Noise
    ) -> Step:
        """Draw; ``x`` is used as the white noise of the prior draw."""
        prior = _gaussian(denoiser)
        operator = problem.operator
        x0 = prior.draw(x / sigma)
        data = problem.y + problem.noise_std * noise.normal(operator.codomain)
        return self._condition(problem, prior, x0, data - operator(x0))

    def posterior_mean(self, problem: Problem, denoiser: Denoiser) -> Tensor:
        """Return the exact posterior mean, shape ``domain``."""
        prior = _gaussian(denoiser)
        mean = prior.mean.expand(1, *problem.operator.domain.shape)
        return self._condition(problem, prior, mean, problem.y - problem.operator(mean)).x[0]

    def _condition(self, problem: Problem, prior: GaussianDenoiser, x0: Tensor, innovation: Tensor) -> Step:
        """Return ``x0 + C A^H (A C A^H + noise_std^2)^-1 innovation``; solved in units of the noise."""
        operator, noise_std = problem.operator, problem.noise_std

        def whitened(v: Tensor) -> Tensor:
            return v + operator(prior.covariance(operator.H(v / noise_std))) / noise_std

        weights, residual = conjugate_gradient(
            whitened,
            innovation / noise_std,
            iterations=self.iterations,
            tolerance=self.tolerance,
            item_ndim=operator.codomain.ndim,
            return_residual=True,
        )
        x = x0 + prior.covariance(operator.H(weights / noise_std))
        return Step(x, x, {"cg_residual": residual})


def _gaussian(denoiser: Denoiser) -> GaussianDenoiser:
    """Check that the prior is Gaussian."""
    missing = [name for name in ("mean", "covariance", "draw") if not callable(getattr(denoiser, name, None))]
    if "covariance" in missing or "draw" in missing:
        raise InputError(f"ExactGaussian needs a Gaussian prior (GaussianPrior), came {type(denoiser).__name__}")
    return denoiser  # type: ignore[return-value]
