"""Score-MRI: predictor-corrector sampling of the reverse diffusion, with a projection onto the data after each step."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor

from operators.base import LinearOperator
from samplers.base import AnnealedSampler, Run, Step
from samplers.data_terms import likelihood_curvature, norms
from samplers.problem import Problem
from samplers.validation import require


class _Memory(NamedTuple):
    """Steps done, and the scaling of the projection (computed once)."""

    done: int
    scaling: Tensor | None


@dataclass(frozen=True)
class ScoreMRI(AnnealedSampler):
    """Predictor-corrector sampling with a projection onto the data (algorithms 1 - 5).

    With ``score(x, s) = (D(x, s) - x) / s^2``, from ``s`` to ``s'``; norms are those of one sample::

        predictor:  x <- x + (s^2 - s'^2) score(x, s) + sqrt(s^2 - s'^2) z
        projection: x <- x + lambda A^H (y - A x)
        corrector:  g = score(x, s'),  e = 2 (r |z| / |g|)^2,  x <- x + e g + sqrt(2 e) z;  projection again

    The last step adds no noise and has no corrector: ``2 steps - 1`` evaluations.

    Heuristic: the projection has no spread in measured directions and ignores the noise level; pixel-wise coverage can
    hide that (std ratio 1.0 overall, 0 in measured directions on the exact Gaussian problem of the test-suite).

    The five modes of the paper, and operators of a norm other than 1, are choices of operator and denoiser:

    - (a) real images: a real domain and a denoiser of real images.
    - (b) complex images through a network of magnitudes: ``PartsAsBatch(denoiser)``.
    - (c) every channel separately: an operator on the domain ``(channel, y, x)`` and ``PartsAsBatch``; combine the
      result by root-sum-of-squares.
    - (d) hybrid: as (c), with ``hybrid`` a second operator on the same domain that includes the channels' maps
      (mask, FFT, ``S S^H``).
    - (e) with maps: the operator includes them; one complex image.
    - Line integrals: ``scaling="sirt"``.

    Parameters
    ----------
    steps, spacing, sigma_max, sigma_min
        See `samplers.base.AnnealedSampler`. The paper uses 2000 levels from 378 to .01.
    snr : float
        ``r``.
    correctors : int
        Corrector steps at each level.
    weight : float
        ``lambda``, up to 1 where ``|A| = 1``.
    scaling : "none", "sirt" or "norm"
        For operators of a norm other than 1: ``"sirt"`` divides the projection by ``|A^H A 1|``, pixel by pixel
        (line integrals), ``"norm"`` by the largest eigenvalue of ``A^H A``.
    hybrid : LinearOperator, optional
        ``E`` on the same domain and codomain: every ``hybrid_every`` steps ``x <- x + l E^H (y - E x)`` with ``l``
        linear from 1 to .2.
    hybrid_every : int

    References
    ----------
    Chung & Ye, "Score-based diffusion models for accelerated MRI", Medical Image Analysis 2022.
    Deviations: norms of one sample, not of the batch; channels and parts are batch items, not loops.
    """

    citations: ClassVar[tuple[str, ...]] = ("chung2022scoremri",)

    steps: int = 2000
    snr: float = 0.16
    correctors: int = 1
    weight: float = 1.0
    scaling: Literal["none", "sirt", "norm"] = "none"
    hybrid: LinearOperator | None = None
    hybrid_every: int = 50

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, self.snr > 0, "snr > 0", self.snr)
        require(self, self.correctors >= 0, "correctors >= 0", self.correctors)
        require(self, 0 <= self.weight < 2, "weight between 0 and 2", self.weight)
        known = ("none", "sirt", "norm")
        require(self, self.scaling in known, "scaling 'none', 'sirt' or 'norm'", self.scaling)
        require(self, self.hybrid_every >= 1, "hybrid_every >= 1", self.hybrid_every)

    def step(self, x: Tensor, sigma: float, sigma_next: float, run: Run, memory: Any) -> Step:
        """Predict, project, correct, project."""
        problem = run.problem
        memory = memory or _Memory(0, self._scaling(problem))
        denoised = run.denoiser.denoise(x, sigma)
        gap = sigma**2 - sigma_next**2
        x = x + gap / sigma**2 * (denoised - x)
        if sigma_next > 0:
            x = x + math.sqrt(gap) * run.draw()
        x = self._project(x, problem, memory)
        for _ in range(self.correctors if sigma_next > 0 else 0):
            score = (run.denoiser.denoise(x, sigma_next) - x) / sigma_next**2
            fresh = run.draw()
            e = 2 * (self.snr * norms(fresh) / norms(score)).square()
            x = self._project(x + e * score + torch.sqrt(2 * e) * fresh, problem, memory)
        if self.hybrid is not None and (memory.done + 1) % self.hybrid_every == 0:
            weight = 1.0 - 0.8 * memory.done / max(self.steps - 1, 1)
            x = x + weight * self.hybrid.H(problem.y - self.hybrid(x))
        return Step(x, denoised, {}, memory._replace(done=memory.done + 1))

    def _project(self, x: Tensor, problem: Problem, memory: _Memory) -> Tensor:
        """Move towards the data."""
        move = problem.operator.H(problem.y - problem.operator(x))
        return x + self.weight * (move if memory.scaling is None else memory.scaling * move)

    def _scaling(self, problem: Problem) -> Tensor | None:
        """Return ``1 / |A^H A 1|``, 0 for unmeasured pixels, or the inverse of the norm of ``A^H A``."""
        if self.scaling == "none":
            return None
        if self.scaling == "norm":
            return 1 / likelihood_curvature(problem.unweighted)
        space = problem.operator.domain
        weights = problem.operator.normal(torch.ones(space.shape, dtype=space.dtype, device=problem.y.device)).abs()
        return torch.where(weights > 0, 1 / torch.where(weights > 0, weights, 1), 0)
