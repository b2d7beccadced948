"""Decoupled annealing posterior sampling (DAPS): a short ODE to a clean image, a data step, fresh noise."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from samplers import schedule
from samplers.base import AnnealedSampler, Run, Step
from samplers.data_terms import gaussian_step, likelihood_curvature, likelihood_score
from samplers.denoiser import Denoiser
from samplers.validation import require


@dataclass(frozen=True)
class DAPS(AnnealedSampler):
    """Decoupled noise annealing: consecutive states share a clean image, not a noise path.

    At each level (algorithm 1)::

        x0hat  = probability-flow ODE from (x, sigma) to 0 in `inner` steps
        x0     ~ N(x0; x0hat, r^2) N(y; A x0, noise_std^2)
        x_next = x0 + sigma_next z

    The middle line is done by ``langevin_steps`` Langevin steps from ``x0hat``, as published, or exactly by
    perturb-and-solve, since A is linear.

    Heuristic: ``x0hat`` already has the spread of the prior, and the width ``r`` adds to it. On the exact Gaussian
    problem of the test-suite the std ratio is 1.3 - 1.4 with the exact step and ``r = sigma``, 1.1 with the rule, and
    depends on the length of the chain with Langevin steps (.9 for 20).
    Honours a noise level for each datum. ``inner * steps`` evaluations.

    Parameters
    ----------
    steps, spacing, sigma_max, sigma_min
        See `samplers.base.AnnealedSampler`. The inner ODE ends at ``sigma_min``.
    inner : int
        Network evaluations of each ODE, as Euler steps, which are exact for a constant denoised image.
    likelihood : "langevin" or "exact"
    width : "sigma" or "rule"
        ``r = sigma`` as published, or ``r^2 = sigma^2 v / (sigma^2 + v)`` with ``v = prior_std^2``.
    prior_std : float
        Spread of the clean images, for the rule.
    langevin_steps : int
    step_size : float
        Size of the Langevin steps, in units of the inverse of the largest curvature ``1 / r^2 + |A^H W A|``; below 2.
    cg_iterations : int
        Conjugate-gradient iterations of the exact step.

    References
    ----------
    Zhang et al., "Improving diffusion inverse problem solving with decoupled noise annealing", CVPR 2025.
    Deviation: the Langevin step follows the curvature of the problem, in place of a tuned learning rate.
    """

    citations: ClassVar[tuple[str, ...]] = ("zhang2025daps",)

    inner: int = 5
    likelihood: Literal["langevin", "exact"] = "langevin"
    width: Literal["sigma", "rule"] = "sigma"
    prior_std: float = 1.0
    langevin_steps: int = 100
    step_size: float = 0.5
    cg_iterations: int = 10

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, self.inner >= 1, "inner >= 1", self.inner)
        known = self.likelihood in ("langevin", "exact")
        require(self, known, "likelihood 'langevin' or 'exact'", self.likelihood)
        require(self, self.width in ("sigma", "rule"), "width 'sigma' or 'rule'", self.width)
        require(self, self.prior_std > 0, "prior_std > 0", self.prior_std)
        require(self, self.langevin_steps >= 1, "langevin_steps >= 1", self.langevin_steps)
        require(self, 0 < self.step_size < 2, "step_size between 0 and 2", self.step_size)
        require(self, self.cg_iterations >= 1, "cg_iterations >= 1", self.cg_iterations)

    def step(self, x: Tensor, sigma: float, sigma_next: float, run: Run, memory: Any) -> Step:
        """Solve the ODE, fit the data, add noise."""
        problem = run.problem
        clean = self._flow(x, sigma, run.denoiser)
        variance = sigma**2
        if self.width == "rule":
            variance = sigma**2 * self.prior_std**2 / (sigma**2 + self.prior_std**2)
        facts = {}
        if self.likelihood == "exact":
            clean, facts["cg_residual"] = gaussian_step(problem, clean, variance, run.noise, self.cg_iterations)
        else:
            memory = likelihood_curvature(problem) if memory is None else memory
            clean = self._langevin(clean, variance, memory, run)
        x_next = clean
        if sigma_next > 0:
            x_next = clean + sigma_next * run.draw()
        return Step(x_next, clean, facts, memory)

    def _flow(self, x: Tensor, sigma: float, denoiser: Denoiser) -> Tensor:
        """Follow the probability flow to a clean image."""
        end = self.sigma_min or denoiser.sigma_min
        levels = schedule.karras(sigma, end, self.inner) if end < sigma and self.inner > 1 else [sigma, 0.0]
        for now, then in itertools.pairwise(levels):
            denoised = denoiser.denoise(x, now)
            x = denoised + then / now * (x - denoised)
        return x

    def _langevin(self, anchor: Tensor, variance: float, curvature: Tensor, run: Run) -> Tensor:
        """Walk on ``N(anchor, variance) x likelihood``, starting at the anchor."""
        h = self.step_size / (1 / variance + curvature)
        x = anchor
        for _ in range(self.langevin_steps):
            score = (anchor - x) / variance + likelihood_score(run.problem, x)
            x = x + h * score + torch.sqrt(2 * h) * run.draw()
        return x
