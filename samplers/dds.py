"""Decomposed diffusion sampling (DDS): denoise, a few conjugate-gradient steps on the data, re-noise."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from torch import Tensor

from operators.errors import InputError
from samplers import schedule
from samplers.base import Run, Sampler, Step
from samplers.data_terms import (
    WHITE,
    clean_variance,
    error_variance,
    join,
    projection,
    speckle_spread,
    support_weights,
)
from samplers.denoiser import Denoiser
from samplers.noise import Noise
from samplers.problem import Problem
from samplers.proximal import proximal, proximal_move
from samplers.stepping import Past, advance

#: Data of so much noise need no more than the given iterations; at most so many times as many are taken.
_EASY_NOISE, _MOST_TIMES = 0.02, 4.0
#: The mean is taken no higher than at so many times the noise of the data.
_MEAN_NOISE = 8.0


@dataclass(frozen=True)
class DDS(Sampler):
    """Decomposed diffusion sampling: a strong point estimate with samples that spread too little.

    Each step, with ``D = E[x0 | x]`` and ``eps = (x - D) / sigma``::

        D'     = CG_M on (I + gamma A^H A) x = D + gamma A^H y, started at D
        x_next = D' + sigma_next (sqrt(1 - eta^2) eps + eta z)

    Heuristic: constant ``eta`` shrinks the spread by construction. On the exact Gaussian problem of the test-suite its
    std is .75 - 1.0 times the true one (``tests/samplers/test_posterior.py``).

    Parameters
    ----------
    steps : int
        Network evaluations.
    cg_iterations : int
        M; Hermitian conjugate gradients, per sample.
    eta : float
        Share of fresh noise, 0 (deterministic) to 1. The paper uses .15 / .5 / .8 for 19 / 49 / 99 evaluations.
    gamma : float or "rule" or "noise-free"
        Weight of the data. A number: as published. ``"noise-free"``: A^H A x = A^H y. ``"rule"``: ``gamma = r^2 /
        noise_std^2`` with ``r^2 = sigma^2 v / (sigma^2 + v)``, ``v = prior_std^2``; honours a noise level per datum.
    prior_std : float, optional
        Spread of the clean images around their denoised estimate at large sigma, for the rule (1 in the papers). None:
        r is the error that the denoiser was measured to make at each noise level, where it knows it.
    noise : "published" or "ddim"
        How fresh noise enters: constant ``eta``, or the DDIM variance ``eta^2 sigma_next^2 (sigma^2 - sigma_next^2) /
        sigma^2`` (Song et al. 2021, eq. 16), which keeps the right spread for ``eta = 1`` and many steps.
    spacing : "vp", "karras" or "geometric"
        Noise levels: the linear VP chain of the paper, or levels between ``sigma_max`` and ``sigma_min``.
    sigma_max, sigma_min : float, optional
        Range of the noise levels; by default that of the prior.

    support_level : float, optional
        With the rule: magnitude below which a pixel of the denoised image counts as air, where r is up to five times
        smaller. It keeps the noise of the data out of the background. None: r is the same everywhere.
    speckle_width : int, optional
        With the rule, for images of speckle: r of each pixel follows from the energy of the denoised image in this many
        pixels around it (an odd number), as for speckle of locally constant strength. A dark region is then as well
        known as a bright one, relative to its brightness. None: as above.
    mean_sigma : float, optional
        Take the posterior mean from the fitted estimates around this noise level, not from the samples: less noise of
        the data in it, and none of the sampling below that level.
    adapt_to_noise : bool
        With the rule: let the noise of the data decide more, as low SNR needs and high SNR does not notice.

        - Where the data are an image in white noise (a fully sampled scan, denoising; ``Information.whiteness`` above
          .9) the network is shown x and the data together, at the noise level that the two have together. That is
          exact, where fitting D to the data as if its errors were independent of them is not, and so are then the
          steps of second order ("sde-2m" of :mod:`samplers.stepping`), in the place of ``eta`` and ``noise``.
        - r follows the measured error by frequency (``denoiser.error_spectrum``) where the noise of the data is above
          r: at large noise the data know the low frequencies alone, which independent pixels would not believe them.
        - Air is where the denoised image *and* a first step towards the data are small.
        - The last step draws the image from what the denoised one and the data leave open: with data of less noise than
          the smallest noise level that is the spread of the posterior.
        - The mean is taken around the noise of the data (twice that up to .25, ten times where the network is shown
          them) where that is above ``mean_sigma``, and the noise levels begin at ten times it where that is above
          ``sigma_max``: x holds nothing of the image at first, and D tends to zero with it.
    mean_steps : int
        With fewer steps than this, too few of them are near ``mean_sigma``, and the mean is that of the samples.

    References
    ----------
    Chung, Lee & Ye, "Decomposed diffusion sampler for accelerating large-scale inverse problems", ICLR 2024, alg. 1-3.
    Deviation: conjugate gradients are Hermitian and per sample (the published code omits the conjugation).
    """

    citations: ClassVar[tuple[str, ...]] = ("chung2024dds",)

    steps: int = 50
    cg_iterations: int = 5
    eta: float = 0.85
    gamma: float | Literal["rule", "noise-free"] = 1.0
    prior_std: float | None = 1.0
    noise: Literal["published", "ddim"] = "published"
    spacing: Literal["vp", "karras", "geometric"] = "vp"
    sigma_max: float | None = None
    sigma_min: float | None = None
    support_level: float | None = None
    speckle_width: int | None = None
    mean_sigma: float | None = None
    adapt_to_noise: bool = False
    mean_steps: int = 1

    def __post_init__(self) -> None:
        if self.adapt_to_noise and (self.gamma != "rule" or self.speckle_width is not None):
            raise InputError("DDS: adapt_to_noise needs gamma='rule' and no speckle_width")
        if self.steps < 1 or self.cg_iterations < 1:
            raise InputError(
                f"DDS: expected steps >= 1 and cg_iterations >= 1, came {self.steps}, {self.cg_iterations}"
            )
        if not 0 <= self.eta <= 1:
            raise InputError(f"DDS: expected eta between 0 and 1, came {self.eta}")
        if isinstance(self.gamma, str) and self.gamma not in ("rule", "noise-free"):
            raise InputError(f"DDS: expected gamma to be a number, 'rule' or 'noise-free', came {self.gamma!r}")
        if not isinstance(self.gamma, str) and not (math.isfinite(self.gamma) and self.gamma >= 0):
            raise InputError(f"DDS: expected gamma >= 0, came {self.gamma}")
        if self.prior_std is not None and not self.prior_std > 0:
            raise InputError(f"DDS: expected prior_std > 0, came {self.prior_std}")
        if self.support_level is not None and not self.support_level > 0:
            raise InputError(f"DDS: expected support_level > 0, came {self.support_level}")
        if self.speckle_width is not None and (self.speckle_width < 1 or self.speckle_width % 2 == 0):
            raise InputError(f"DDS: expected an odd speckle_width, came {self.speckle_width}")
        if self.noise not in ("published", "ddim") or self.spacing not in ("vp", "karras", "geometric"):
            raise InputError(f"DDS: unknown noise {self.noise!r} or spacing {self.spacing!r}")

    def sigmas(self, problem: Problem, denoiser: Denoiser) -> list[float]:
        """Return the noise levels of the chosen spacing, inside the range of the prior."""
        sigma_max = self.sigma_max or denoiser.sigma_max
        sigma_min = self.sigma_min or denoiser.sigma_min
        if self.adapt_to_noise:
            noise = 10 * math.sqrt(problem.information.variance)
            sigma_max = max(sigma_max, min(noise, denoiser.sigma_max)) if math.isfinite(noise) else sigma_max
        if self.spacing == "vp":
            return schedule.clip(schedule.vp_linear(self.steps), sigma_max, sigma_min)
        return getattr(schedule, self.spacing)(sigma_max, sigma_min, self.steps)

    def mean_level(self, problem: Problem) -> float | None:
        """Return ``mean_sigma``, or what the noise of the data puts above it; None where few steps are near it."""
        level = self.mean_sigma
        if level is not None and self.adapt_to_noise and math.isfinite(problem.information.variance):
            noise = math.sqrt(problem.information.variance)
            white = problem.information.whiteness > WHITE
            least = min(level, _MEAN_NOISE * noise)
            level = max(least, 10 * noise if white else max(noise, min(2 * noise, 0.25)))
        return None if level == self.mean_sigma and self.steps < self.mean_steps else level

    def iterations(self, problem: Problem) -> int:
        """Return the iterations of the fit: more where little noise makes its equations stiff."""
        noise = math.sqrt(problem.information.variance) if self.adapt_to_noise else math.inf
        stiff = _EASY_NOISE / noise if noise > 0 else math.inf
        return round(self.cg_iterations * min(max(1.0, stiff), _MOST_TIMES))

    def step(self, x: Tensor, sigma: float, sigma_next: float, run: Run, memory: Any) -> Step:
        """Denoise, fit the data, re-noise (alg. 1, lines 3 - 6)."""
        if self.adapt_to_noise:
            draw = run.noise if sigma_next == 0 else None
            fitted, eps, cg_residual, exact = self._adapted(x, sigma, run, draw)
            if exact:
                moved = advance("sde-2m", x, sigma, sigma_next, fitted, memory, run.draw)
                return Step(moved, fitted, {"cg_residual": cg_residual}, Past(sigma, fitted))
        else:
            denoised = run.denoiser.denoise(x, sigma)
            eps = (x - denoised) / sigma
            fitted, cg_residual, memory = self._fit(denoised, sigma, run, memory)
        if sigma_next > 0:
            fresh = self._fresh_std(sigma, sigma_next)
            kept = math.sqrt(sigma_next**2 - fresh**2)
            x = fitted + kept * eps + fresh * run.draw()
        else:
            x = fitted
        return Step(x, fitted, {"cg_residual": cg_residual}, memory)

    def _adapted(self, x: Tensor, sigma: float, run: Run, draw: Noise | None) -> tuple[Tensor, Tensor, Tensor, bool]:
        """Return the fitted image, the noise direction, the residual of the fit, and whether the network saw the data.

        The likelihood of x and data is ``|x0 - x|^2 / sigma^2 + |y - A x0|_W^2``. The network is shown the image and
        level of a part of it that is white (:func:`samplers.data_terms.join`), the fit takes what remains.
        """
        problem, denoiser = run.problem, run.denoiser
        shown, level, shared = join(problem, x, sigma, denoiser.sigma_min)
        denoised = denoiser.denoise(shown, level)
        pull = problem.weighted_data - problem.weighted_normal(denoised)
        if shared is not None:
            pull = (pull + (x - denoised) / sigma**2 - (shown - denoised) / level**2) * (shared > 0)
        variance = error_variance(problem, level, self.prior_std, denoiser)
        weights = None
        if self.support_level is not None:
            rough = denoised + proximal_move(problem, pull, variance)
            weights = support_weights(denoised, self.support_level)
            weights = weights.maximum(support_weights(rough, self.support_level))
        fitted, residual = proximal(
            problem,
            denoised,
            variance,
            self.iterations(problem),
            weights,
            pull=pull,
            without=shared,
            draw=draw,
            preconditioned=True,
        )
        return fitted, (x - denoised) / sigma, residual, shared is not None

    def _fit(self, denoised: Tensor, sigma: float, run: Run, memory: Any) -> tuple[Tensor, Tensor, Any]:
        """Fit the denoised image to the data; what comes third is handed to the next step."""
        problem = run.problem
        if self.gamma == "noise-free":
            return *projection(problem, denoised, self.cg_iterations), None
        if self.gamma == "rule" and self.speckle_width is not None:
            spread = speckle_spread(denoised, sigma, self.speckle_width)
            return *proximal(problem, denoised, 1.0, self.cg_iterations, spread), None
        if self.gamma == "rule":
            variance = clean_variance(sigma, self.prior_std, run.denoiser)
            weights = None if self.support_level is None else support_weights(denoised, self.support_level)
            return *proximal(problem, denoised, variance, self.cg_iterations, weights), None
        return *proximal(problem.unweighted, denoised, float(self.gamma), self.cg_iterations), None

    def _fresh_std(self, sigma: float, sigma_next: float) -> float:
        """Return the standard deviation of the fresh noise."""
        if self.noise == "published":
            return self.eta * sigma_next
        return self.eta * sigma_next * math.sqrt(max(sigma**2 - sigma_next**2, 0.0)) / sigma
