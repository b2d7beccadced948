"""Annealed preconditioned unadjusted Langevin (pULA): the exact likelihood at every noise level."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from operators.solve import conjugate_gradient
from samplers.base import AnnealedSampler, Run, Step
from samplers.data_terms import likelihood_score
from samplers.validation import require


@dataclass(frozen=True)
class PULA(AnnealedSampler):
    """Preconditioned Langevin steps on ``p_sigma(x) N(y; A x, noise_std^2)`` while sigma goes down.

    At each level ``inner`` times, with the score ``g = (D - x) / sigma^2 + A^H W (y - A x)``, ``W = 1 / noise_std^2``::

        x <- x + h M g + sqrt(2 h) M^(1/2) z,    M = (A^H W A + I / sigma^2)^-1

    ``M`` is the posterior covariance for a flat prior, so that ``h`` needs no tuning; ``M^(1/2) z`` is ``M`` applied to
    a draw of ``N(0, M^-1)``, so one solve by conjugate gradients does both. After the last level the image is denoised
    once.

    Heuristic at a finite step: without a Metropolis test the variance of a fully preconditioned direction is
    ``1 / (1 - h / 2)`` times too large as long as ``sigma > noise_std``, and the annealing lags where the prior is
    narrow. Std ratio 1.05 - 1.11 on the six known problems of ``benchmarks/posterior_truth.py``; it passes the test of
    an exact sampler on three of them. Honours a noise level for each datum. ``inner * steps + 1`` denoiser evaluations.

    Parameters
    ----------
    steps, spacing, sigma_max, sigma_min
        See `samplers.base.AnnealedSampler`. End well below ``noise_std``.
    inner : int
        Langevin steps at each level.
    step_size : float
        ``h``, below 2.
    cg_iterations : int
        Conjugate-gradient iterations of each Langevin step.

    References
    ----------
    Blumenthal, Holliber, Tamir & Uecker, "Fast and robust diffusion posterior sampling for MR image reconstruction
    using the preconditioned unadjusted Langevin algorithm", 2025.
    """

    citations: ClassVar[tuple[str, ...]] = ("blumenthal2025pula",)

    steps: int = 60
    inner: int = 3
    step_size: float = 0.7
    cg_iterations: int = 10

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, self.inner >= 1, "inner >= 1", self.inner)
        require(self, 0 < self.step_size < 2, "step_size between 0 and 2", self.step_size)
        require(self, self.cg_iterations >= 1, "cg_iterations >= 1", self.cg_iterations)

    def step(self, x: Tensor, sigma: float, sigma_next: float, run: Run, memory: Any) -> Step:
        """Take the Langevin steps of one level; denoise after the last level."""
        residual = x.real.new_zeros(len(x))
        for _ in range(self.inner):
            x, residual = self._langevin(x, sigma, run)
        if sigma_next == 0:
            x = run.denoiser.denoise(x, sigma)
        return Step(x, None, {"cg_residual": residual})

    def _langevin(self, x: Tensor, sigma: float, run: Run) -> tuple[Tensor, Tensor]:
        """Take one preconditioned step. The system is multiplied by sigma^2, which keeps it in range."""
        problem, operator = run.problem, run.problem.operator
        prior = run.denoiser.denoise(x, sigma) - x
        white = sigma * run.draw()
        data_noise = operator.H(run.noise.normal(operator.codomain) / problem.noise_std)
        # Exact for the unmeasured part, which converges last: the iterations only fit the data.
        start = self.step_size * prior + math.sqrt(2 * self.step_size) * white
        pull = self.step_size * likelihood_score(problem, x) + math.sqrt(2 * self.step_size) * data_noise
        move, residual = conjugate_gradient(
            lambda v: v + sigma**2 * problem.weighted_normal(v),
            start + sigma**2 * pull,  # white noise and data_noise make sigma^2 times a draw of N(0, M^-1)
            start,
            iterations=self.cg_iterations,
            item_ndim=operator.domain.ndim,
        )
        return x + move, residual
