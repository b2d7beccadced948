"""Pseudo-inverse guided diffusion (PiGDM): an isotropic covariance, one solve and one back-propagation per step."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from samplers.base import Run, Step
from samplers.jacobian import vjp
from samplers.proximal import proximal
from samplers.spread import clean_variance
from samplers.stepping import Estimate, PosteriorDenoising, advance
from samplers.validation import require


@dataclass(frozen=True)
class PiGDM(PosteriorDenoising):
    """Pseudo-inverse guided diffusion: the likelihood of the noisy state through an isotropic covariance.

    With ``r^2 = sigma^2 v / (sigma^2 + v)``, ``v = prior_std^2``, the likelihood is approximated as ``y | x_sigma ~
    N(A D, r^2 A A^H + noise_std^2)``, and its score is back-propagated through the denoiser (eq. 7)::

        E[x0 | x, y] = D + sigma^2 J^T A^H (r^2 A A^H + noise_std^2)^-1 (y - A D)

    As published (alg. 1) the score is not part of the estimate: it is added to the next state, weighted by ``r^2``::

        x_vp <- DDIM(x_vp, D) + alpha r^2 grad log p(y | x_vp),    x_vp = alpha x,    alpha^2 = 1 / (1 + sigma^2)

    Heuristic: the covariance is not the prior's. Std ratio on the known problems of ``benchmarks/posterior_truth.py``:
    by Bayes' rule .95 (Fourier lines) - 1.22 (random matrix); as published .88 - .95, and only .28 in measured
    directions. With a network Bayes' rule diverges: at large noise ``sigma^2`` multiplies the errors of the Jacobian,
    which is not symmetric. The published rule does not diverge.

    Parameters
    ----------
    steps, solver, spacing, sigma_max, sigma_min
        See `samplers.stepping.PosteriorDenoising`; the paper uses 100 steps of DDIM.
    prior_std : float, optional
        Square root of ``v``; 1 in the paper. None: r is the measured error of the denoiser.
    cg_iterations : int
        Conjugate-gradient iterations of the solve.
    weight : "bayes" or "published"
        How the likelihood's score enters; the published rule goes with the solvers "ddim" and "ancestral".
    chunk : int, optional
        Samples that are back-propagated together; all by default. It bounds the memory, and changes nothing else.

    References
    ----------
    Song, Vahdat, Mardani & Kautz, "Pseudoinverse-guided diffusion models for inverse problems", ICLR 2023.
    Deviation: "bayes", the default, has the posterior denoiser of Bayes' rule, and any solver.
    """

    citations: ClassVar[tuple[str, ...]] = ("song2023pigdm",)

    steps: int = 100
    solver: Any = "ancestral"
    prior_std: float | None = 1.0
    cg_iterations: int = 10
    weight: Literal["bayes", "published"] = "bayes"
    chunk: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, self.weight in ("bayes", "published"), "weight 'bayes' or 'published'", self.weight)
        fits = self.weight == "bayes" or self.solver in ("ddim", "ancestral")
        require(self, fits, "solver 'ddim' or 'ancestral' with weight 'published'", self.solver)
        require(self, self.prior_std is None or self.prior_std > 0, "prior_std > 0", self.prior_std)
        require(self, self.cg_iterations >= 1, "cg_iterations >= 1", self.cg_iterations)
        require(self, self.chunk is None or self.chunk >= 1, "chunk >= 1", self.chunk)

    def estimate(self, x: Tensor, sigma: float, run: Run, memory: Any) -> Estimate:
        """Denoise, solve, back-propagate: Bayes' rule."""
        denoised, variance, pull, residual = self._pull(x, sigma, run)
        return Estimate(denoised + sigma**2 / variance * pull, {"cg_residual": residual})

    def step(self, x: Tensor, sigma: float, sigma_next: float, run: Run, memory: Any) -> Step:
        """Estimate and advance, or advance and add the score (alg. 1, lines 9 and 10)."""
        if self.weight == "bayes":
            return super().step(x, sigma, sigma_next, run, memory)
        denoised, _, pull, residual = self._pull(x, sigma, run)
        moved = advance(self.solver, x, sigma, sigma_next, denoised, None, run.draw)
        # The derivative in x_vp is 1 / alpha times that in x, and x = x_vp sqrt(1 + sigma_next^2) after the step.
        moved = moved + math.sqrt(1 + sigma_next**2) * pull
        return Step(moved, denoised + pull, {"cg_residual": residual})

    def _pull(self, x: Tensor, sigma: float, run: Run) -> tuple[Tensor, float, Tensor, Tensor]:
        """Return ``D``, ``r^2``, ``r^2`` times the score of the likelihood, and the residual of the solve."""
        variance = clean_variance(sigma, self.prior_std, run.denoiser)
        parts = []
        for piece in x.split(self.chunk or len(x)):
            denoised, transpose = vjp(run.denoiser, piece, sigma)
            fitted, residual = proximal(run.problem, denoised, variance, self.cg_iterations)
            # The solve has moved the image by r^2 A^H (r^2 A A^H + noise_std^2)^-1 (y - A D).
            parts.append((denoised, transpose(fitted - denoised), residual))
        denoised, pull, residual = (torch.cat(part) for part in zip(*parts, strict=True))
        return denoised, variance, pull, residual
