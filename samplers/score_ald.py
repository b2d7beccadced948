"""Annealed Langevin dynamics with the score of a prior (Score-ALD)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from samplers.base import AnnealedSampler, Run, Step
from samplers.data_terms import likelihood_curvature, norms
from samplers.problem import Problem
from samplers.validation import require


@dataclass(frozen=True)
class ScoreALD(AnnealedSampler):
    """Annealed Langevin dynamics on prior and data.

    At each level ``inner`` times, with ``score = (D - x) / sigma^2`` and ``alpha = step_size sigma^2``::

        x <- x + alpha (score - m) + sqrt(2 alpha) z

    ``rule="paper"`` (eq. 4): ``m = A^H (A x - y) / (noise_std^2 + gamma^2)``, ``gamma = |A| sigma`` (``|A| = 1`` in the
    paper); honours a noise level for each datum. ``rule="code"`` (the published programs): ``m = A^H (A x - y)``,
    rescaled to ``weight`` times the norm of the score; ignores the noise level. After the last level the image is
    denoised once.

    Heuristic: ``paper`` reaches the posterior at the end of the annealing, up to the step size and the lag of the
    annealing: std ratio 1.01 - 1.12 on the known problems of ``benchmarks/posterior_truth.py``, nearly exact for
    Fourier lines, not for a random matrix. ``code``: the spread in measured directions (ratio .7) does not depend on
    the noise level. ``inner * steps + 1`` evaluations.

    Parameters
    ----------
    steps, spacing, sigma_max, sigma_min
        See `samplers.base.AnnealedSampler`. The paper uses 1155 geometric levels from 1.24 to .0066 (the
        lower half of 2311 from 232), with small steps.
    inner : int
        Langevin steps at each level.
    step_size : float
        ``alpha / sigma^2``, below 1 (prior and data together contract by at most twice that). The published settings
        for 2311 levels are 9e-7 / .0066^2 = .02; fewer levels need larger steps.
    rule : "paper" or "code"
    weight : float
        Weight of the data term in the rule ``code``.

    References
    ----------
    Jalal et al., "Robust compressed sensing MRI with deep generative priors", NeurIPS 2021.
    Deviation: norms are those of one sample, not of the batch.
    """

    citations: ClassVar[tuple[str, ...]] = ("jalal2021robust",)

    steps: int = 300
    inner: int = 3
    step_size: float = 0.3
    rule: Literal["paper", "code"] = "paper"
    weight: float = 5.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, self.inner >= 1, "inner >= 1", self.inner)
        require(self, 0 < self.step_size < 1, "step_size between 0 and 1", self.step_size)
        require(self, self.rule in ("paper", "code"), "rule 'paper' or 'code'", self.rule)
        require(self, self.weight >= 0, "weight >= 0", self.weight)

    def step(self, x: Tensor, sigma: float, sigma_next: float, run: Run, memory: Any) -> Step:
        """Take the Langevin steps of one level; denoise after the last level."""
        # The largest eigenvalue of A^H A, once for the run.
        norm2 = likelihood_curvature(run.problem.unweighted) if memory is None else memory
        alpha = self.step_size * sigma**2
        for _ in range(self.inner):
            score = (run.denoiser.denoise(x, sigma) - x) / sigma**2
            fresh = run.draw()
            x = x + alpha * (score - self._misfit(x, sigma, score, norm2, run.problem)) + math.sqrt(2 * alpha) * fresh
        if sigma_next == 0:
            x = run.denoiser.denoise(x, sigma)
        return Step(x, None, {}, norm2)

    def _misfit(self, x: Tensor, sigma: float, score: Tensor, norm2: Tensor, problem: Problem) -> Tensor:
        """Return ``m``: the data term by the chosen rule."""
        residual = problem.operator(x) - problem.y
        if self.rule == "paper":
            return problem.operator.H(residual / (problem.noise_std**2 + norm2 * sigma**2))
        pull = problem.operator.H(residual)
        size = norms(pull)
        return pull * (self.weight * norms(score) / torch.where(size > 0, size, 1))
