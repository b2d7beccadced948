"""Decomposed diffusion sampling (DDS): denoise, a few conjugate-gradient steps on the data, re-noise."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from samplers.base import AnnealedSampler, Run, Step
from samplers.branching import Fork, forks_by_variance
from samplers.data_terms import WHITE, join, projection
from samplers.denoiser import Denoiser
from samplers.noise import Noise
from samplers.problem import Problem
from samplers.proximal import proximal, proximal_move
from samplers.schedule import Spacing
from samplers.spread import Spread, Support, Uniform, error_variance
from samplers.stepping import Past, advance
from samplers.validation import require

#: Iterations of a fit, relative to the square root of its condition number, and the most of them.
_PER_ROOT, _MOST_ITERATIONS = 2.0, 60
#: Steps where everything is measured, times the root of the part that is; the fewest and the most of them.
_STEPS, _FEWEST_STEPS, _MOST_STEPS = 12.0, 16, 30
#: With more noise than this, data say less about the image than their number suggests.
_QUIET = 0.045
#: Upper limit of the noise level of the mean, as a multiple of the noise of the data.
_MEAN_NOISE = 8.0
#: r^2 = sigma^2 / (sigma^2 + 1), as in the papers.
_AS_PUBLISHED = Uniform(1.0)


@dataclass(frozen=True)
class DDS(AnnealedSampler):
    """Decomposed diffusion sampling: a strong point estimate with samples that spread too little.

    Each step, with ``D = E[x0 | x]`` and ``eps = (x - D) / sigma``::

        D'     = CG_M on (I + gamma A^H A) x = D + gamma A^H y, started at D
        x_next = D' + sigma_next (sqrt(1 - eta^2) eps + eta z)

    Heuristic: constant ``eta`` shrinks the spread by construction. On the exact Gaussian problem of the test-suite its
    std is .75 - 1.0 times the true one (``tests/samplers/test_posterior.py``).

    Parameters
    ----------
    steps : int, optional
        Number of network evaluations. None: as many as the data ask for, 12 / sqrt(w) between 16 and 30, with w the
        part of the image that is measured (``Information.whiteness``), times ``(.045 / s)^2`` for undersampled data
        with noise s above .045. Where little is known more steps gain, where much is known they lose
        (docs/uncertainty.md).
    cg_iterations : int
        M; Hermitian conjugate gradients, per sample. With ``adapt_to_noise`` the least number, at each noise level.
    eta : float
        Fraction of fresh noise, 0 (deterministic) to 1. The paper uses .15 / .5 / .8 for 19 / 49 / 99 evaluations.
    gamma : float or "rule" or "noise-free"
        Weight of the data. A number: as published. ``"noise-free"``: A^H A x = A^H y. ``"rule"``: ``gamma = r^2 /
        noise_std^2``, with r from ``spread``; honours a noise level per datum.
    spread : Spread
        For the rule: how far a clean pixel may be from its denoised value. ``Uniform(1.0)`` as in the papers,
        ``Uniform()`` for the measured error of the denoiser, ``Support(level)`` with less freedom in the background,
        ``LocalEnergy(width)`` by the local brightness; see `samplers.spread`.
    noise : "published" or "ddim"
        How fresh noise enters: constant ``eta``, or the DDIM variance ``eta^2 sigma_next^2 (sigma^2 - sigma_next^2) /
        sigma^2`` (Song et al. 2021, eq. 16), which keeps the right spread for ``eta = 1`` and many steps.
    spacing : "vp", "karras" or "geometric"
        Noise levels: the linear VP chain of the paper, or levels between ``sigma_max`` and ``sigma_min``.
    sigma_max, sigma_min : float, optional
        Range of the noise levels; by default that of the prior.
    mean_sigma : float, optional
        Take the posterior mean from the fitted estimates around this noise level, not from the samples: less noise of
        the data in it, and none of the sampling below that level.
    adapt_to_noise : bool
        For the rule: adapt further steps to the noise of the data, which matters at low SNR and not at high SNR:

        - Where the data are an image in white noise (everything measured, denoising; ``Information.whiteness`` above
          .9) the network sees x and the data combined, at their joint noise level. That is exact, unlike fitting D to
          the data as if its errors were independent of them. Second-order steps ("sde-2m" of `samplers.stepping`) are
          then also exact and replace ``eta`` and ``noise``.
        - r follows the measured error by frequency (``denoiser.error_spectrum``) where the noise of the data is above
          r: at large noise the data determine only the low frequencies, which a model of independent pixels underrates.
        - The background (``Support``) is where the denoised image *and* a first step towards the data are small.
        - The noise direction is ``(x - D) / sigma`` for data without noise and ``(x - D') / sigma`` for noisy data,
          mixed by ``s^2 / (s^2 + r^2)``, s that noise. Where the data determine the image, D follows x, and x - D
          holds none of its noise: the samples would spread less than the noise of the data (.8 of their error at 2-fold
          undersampling). D' holds it, but at large sigma the errors of r as well.
        - The mean is taken around the noise of the data (twice that up to .25, ten times if the network sees the data)
          if that is above ``mean_sigma``, and the noise levels begin at ten times it if that is above ``sigma_max``: x
          holds nothing of the image at first, and D tends to zero with it.
    image_draws : bool
        For the rule: draw the clean image in each step from what is unknown of it, ``x0 = D' + f`` with f of covariance
        ``(P^-1 + A^H W A)^-1``, P that of the denoiser's error by frequency. The DDIM rule takes D' for the clean image
        and so loses ``(1 - sigma_next^2 / sigma^2)^2`` of that variance in each step, in all 15 to 33 % of it in 30
        steps and about half in 10. For a Gaussian prior the spread is then right for any number of steps. In the last
        step it is the spread of the posterior below the smallest noise level.
    branches : bool
        With ``image_draws``: samples share paths at high noise levels, and part by draws of the clean image
        (`samplers.branching`). A third to a half of the calls of the network are saved.

    References
    ----------
    Chung, Lee & Ye, "Decomposed diffusion sampler for accelerating large-scale inverse problems", ICLR 2024, alg. 1-3.
    Deviation: conjugate gradients are Hermitian and per sample (the published code omits the conjugation).
    """

    citations: ClassVar[tuple[str, ...]] = ("chung2024dds",)
    chooses_steps: ClassVar[bool] = True

    steps: int | None = 50
    cg_iterations: int = 5
    eta: float = 0.85
    gamma: float | Literal["rule", "noise-free"] = 1.0
    spread: Spread = _AS_PUBLISHED
    noise: Literal["published", "ddim"] = "published"
    spacing: Spacing = field(default="vp", kw_only=True)
    mean_sigma: float | None = None
    adapt_to_noise: bool = False
    image_draws: bool = False
    branches: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, self.cg_iterations >= 1, "cg_iterations >= 1", self.cg_iterations)
        require(self, 0 <= self.eta <= 1, "eta between 0 and 1", self.eta)
        gamma = self.gamma
        known = gamma in ("rule", "noise-free") if isinstance(gamma, str) else 0 <= gamma < math.inf
        require(self, known, "gamma to be a number >= 0, 'rule' or 'noise-free'", self.gamma)
        require(self, isinstance(self.spread, Spread), "spread to be Uniform, Support or LocalEnergy", self.spread)
        require(self, self.noise in ("published", "ddim"), "noise 'published' or 'ddim'", self.noise)
        if self.image_draws:
            require(self, self.gamma == "rule", "gamma='rule' with image_draws", self.gamma)
        if self.adapt_to_noise:
            require(self, self.gamma == "rule", "gamma='rule' with adapt_to_noise", self.gamma)
            even = isinstance(self.spread, Uniform | Support)
            require(self, even, "spread=Uniform(...) or Support(...) with adapt_to_noise", self.spread)

    def sigma_range(self, problem: Problem, denoiser: Denoiser) -> tuple[float, float]:
        """Return the range of the noise levels, starting at ten times the noise of the data if required."""
        sigma_max, sigma_min = super().sigma_range(problem, denoiser)
        if self.adapt_to_noise:
            noise = 10 * math.sqrt(problem.information.variance)
            sigma_max = max(sigma_max, min(noise, denoiser.sigma_max)) if math.isfinite(noise) else sigma_max
        return sigma_max, sigma_min

    def steps_for(self, problem: Problem) -> int:
        """Return the number of steps, for a problem by the part of the image that is measured."""
        if self.steps is not None:
            return self.steps
        known = problem.information.whiteness
        if known <= WHITE:  # beyond, each step is exact
            known *= min(1.0, _QUIET**2 / max(problem.information.variance, 1e-30))
        return min(max(round(_STEPS / math.sqrt(max(known, 1e-6))), _FEWEST_STEPS), _MOST_STEPS)

    def forks(self, problem: Problem, denoiser: Denoiser) -> Sequence[Fork]:
        """Return where samples part: the less is known of the image, the earlier."""
        if not (self.branches and self.image_draws) or problem.information.whiteness > WHITE:
            return ()
        sigma_max, sigma_min = self.sigma_range(problem, denoiser)
        nothing = torch.zeros_like(problem.weighted_data)[None]
        variance = self.spread.error(sigma_max, denoiser, nothing)
        rough = proximal(problem, nothing, variance, self.cg_iterations, preconditioned=True)[0]

        def unknown(sigma: float) -> float:
            run = Run(problem, denoiser, Noise(0, [0], problem.y))
            return float(self._unknown(rough, sigma, run).abs().square().mean())

        return forks_by_variance(unknown, sigma_max, sigma_min)

    def depart(self, denoised: Tensor, sigma: float, sigma_next: float, run: Run) -> Tensor:
        """Draw clean images around those of a shared path, and add the noise of the next level."""
        return denoised + self._unknown(denoised, sigma, run) + sigma_next * run.draw()

    def mean_level(self, problem: Problem) -> float | None:
        """Return ``mean_sigma``, or a higher level set by the noise of the data."""
        level = self.mean_sigma
        if level is not None and self.adapt_to_noise and math.isfinite(problem.information.variance):
            noise = math.sqrt(problem.information.variance)
            white = problem.information.whiteness > WHITE
            least = min(level, _MEAN_NOISE * noise)
            level = max(least, 10 * noise if white else max(noise, min(2 * noise, 0.25)))
        return level

    def iterations(self, problem: Problem, sigma: float, denoiser: Denoiser) -> int:
        """Return the number of iterations of the fit at a noise level: more where its equations are stiff.

        The condition number is ``1 + r^2 / s^2``, s the noise of the data. With too few iterations single samples may
        end far from the others, where the data hardly determine the image.
        """
        noise = problem.information.variance
        if not self.adapt_to_noise or not math.isfinite(noise):
            return self.cg_iterations
        root = math.sqrt(1 + self.spread.variance(sigma, denoiser) / max(noise, 1e-30))
        return max(self.cg_iterations, min(math.ceil(_PER_ROOT * root), _MOST_ITERATIONS))

    def step(self, x: Tensor, sigma: float, sigma_next: float, run: Run, memory: Any) -> Step:
        """Denoise, fit the data, re-noise (alg. 1, lines 3 - 6)."""
        exact = False
        if self.adapt_to_noise:
            fitted, eps, cg_residual, exact = self._adapted(x, sigma, run)
        else:
            denoised = run.denoiser.denoise(x, sigma)
            eps = (x - denoised) / sigma
            fitted, cg_residual, memory = self._fit(denoised, sigma, run, memory)
        facts = {"cg_residual": cg_residual}
        if exact and sigma_next > 0:
            moved = advance("sde-2m", x, sigma, sigma_next, fitted, memory, run.draw)
            return Step(moved, fitted, facts, Past(sigma, fitted))
        fresh = self._fresh_std(sigma, sigma_next)
        kept = math.sqrt(sigma_next**2 - fresh**2)
        moved = fitted + kept * eps
        if fresh > 0:
            moved = moved + fresh * run.draw()
        if self.image_draws:
            moved = moved + (1 - kept / sigma) * self._unknown(fitted, sigma, run)
        return Step(moved, fitted, facts, memory)

    def _adapted(self, x: Tensor, sigma: float, run: Run) -> tuple[Tensor, Tensor, Tensor, bool]:
        """Return the fitted image, the noise direction, the residual of the fit, and whether the network saw the data.

        The likelihood of x and data is ``|x0 - x|^2 / sigma^2 + |y - A x0|_W^2``. The network sees the image and
        level of a part of it that is white (`samplers.data_terms.join`), the fit takes what remains.
        """
        problem, denoiser = run.problem, run.denoiser
        shown, level, shared = join(problem, x, sigma, denoiser.sigma_min)
        denoised = denoiser.denoise(shown, level)
        pull = problem.weighted_data - problem.weighted_normal(denoised)
        if shared is not None:
            pull = (pull + (x - denoised) / sigma**2 - (shown - denoised) / level**2) * (shared > 0)
        assert isinstance(self.spread, Uniform | Support)  # as __post_init__ requires
        variance = error_variance(problem, level, self.spread.std, denoiser)
        weights = None
        if isinstance(self.spread, Support):
            rough = denoised + proximal_move(problem, pull, variance)
            weights = self.spread.weights(denoised, level).maximum(self.spread.weights(rough, level))
        fitted, residual = proximal(
            problem,
            denoised,
            variance,
            self.iterations(problem, level, denoiser),
            weights,
            pull=pull,
            without=shared,
            preconditioned=True,
        )
        clean = denoised + self._noise_of_data(problem, variance) * (fitted - denoised)
        return fitted, (x - clean) / sigma, residual, shared is not None

    def _unknown(self, fitted: Tensor, sigma: float, run: Run) -> Tensor:
        """Draw what is unknown of the clean image once it is fitted to the data."""
        variance, weights = self.spread.error(sigma, run.denoiser, fitted), self.spread.weights(fitted, sigma)
        nothing = torch.zeros_like(fitted)
        # An error of a draw is one of its size, not of the image: half of the iterations of the fit are as good.
        iterations = max(self.cg_iterations, self.iterations(run.problem, sigma, run.denoiser) // 2)
        return proximal(
            run.problem, nothing, variance, iterations, weights, pull=nothing, draw=run.noise, preconditioned=True
        )[0]

    def _noise_of_data(self, problem: Problem, variance: Tensor) -> float | Tensor:
        """Return how much of the noise direction is taken from the fitted image: ``s^2 / (s^2 + r^2)``."""
        noise = problem.mean_noise_variance
        return noise / (noise + variance.mean()) if math.isfinite(noise) else 0.0

    def _fit(self, denoised: Tensor, sigma: float, run: Run, memory: Any) -> tuple[Tensor, Tensor, Any]:
        """Fit the denoised image to the data; the third value is passed to the next step."""
        problem = run.problem
        if self.gamma == "noise-free":
            return *projection(problem, denoised, self.cg_iterations), None
        if self.gamma == "rule":
            variance, weights = self.spread.variance(sigma, run.denoiser), self.spread.weights(denoised, sigma)
            return *proximal(problem, denoised, variance, self.cg_iterations, weights), None
        return *proximal(problem.unweighted, denoised, float(self.gamma), self.cg_iterations), None

    def _fresh_std(self, sigma: float, sigma_next: float) -> float:
        """Return the standard deviation of the fresh noise."""
        if self.noise == "published":
            return self.eta * sigma_next
        return self.eta * sigma_next * math.sqrt(max(sigma**2 - sigma_next**2, 0.0)) / sigma
