"""Time stepping with a denoiser, shared by the samplers: from noise level sigma to the next.

With ``D`` the denoised estimate at ``x`` and ``sigma`` (of the prior alone, or conditioned on data: the *posterior
denoiser*), the probability-flow equation in ``x = x0 + sigma n`` is ``dx / d(log sigma) = x - D``. Every rule below is
exact for constant ``D``; they differ in how they follow its change and how much of the noise they renew. With
``h = log(sigma / sigma_next)``:

- ``ddim``: first order, no noise renewed (Song et al. 2021; the exponential Euler step).
- ``ancestral``: first order, the posterior of the forward chain (Ho et al. 2020); shrinks the spread in few steps.
- ``2m``: second-order multistep, no noise renewed (DPM-Solver++(2M), Lu et al. 2022).
- ``sde-2m``: second-order multistep of the reverse diffusion (SDE-DPM-Solver++(2M)); renewing noise corrects the errors
  of an imperfect network.
- ``heun``: second order with a second evaluation at the next level (Karras et al. 2022, algorithm 1).
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

from torch import Tensor

from samplers.base import AnnealedSampler, Run, Step
from samplers.validation import require

Solver = Literal["ddim", "ancestral", "2m", "sde-2m", "heun"]
SOLVERS = ("ddim", "ancestral", "2m", "sde-2m", "heun")
Draw = Callable[[], Tensor]


class Past(NamedTuple):
    """The previous step: its noise level and its denoised estimate."""

    sigma: float
    denoised: Tensor


def advance(
    solver: Solver, x: Tensor, sigma: float, sigma_next: float, denoised: Tensor, past: Past | None, draw: Draw
) -> Tensor:
    """Return the state at ``sigma_next``; at 0 that is the denoised estimate itself.

    ``heun`` gives the first of its two stages, the one of ``ddim``; `correct` is the second.

    Parameters
    ----------
    solver : Solver
    x, denoised : Tensor, shape ``(batch, *domain)``
        State and denoised estimate at ``sigma``.
    past : Past, optional
        The estimate of the previous step, for the multistep rules; without it they take a first-order step.
    draw : callable
        Returns standard normal noise like ``x``; called only by the rules that renew noise.
    """
    if sigma_next == 0:
        return denoised
    ratio = sigma_next / sigma
    if solver in ("ddim", "heun"):
        return denoised + ratio * (x - denoised)
    if solver == "ancestral":
        return denoised + ratio**2 * (x - denoised) + sigma_next * math.sqrt(1 - ratio**2) * draw()
    ahead = _extrapolate(sigma, sigma_next, denoised, past)
    if solver == "2m":
        return ahead + ratio * (x - ahead)
    return ahead + ratio**2 * (x - ahead) + sigma_next * math.sqrt(1 - ratio**2) * draw()


def _extrapolate(sigma: float, sigma_next: float, denoised: Tensor, past: Past | None) -> Tensor:
    """Extrapolate the estimate, linearly in log sigma, to the middle of the step."""
    if past is None:
        return denoised
    step, before = math.log(sigma / sigma_next), math.log(past.sigma / sigma)
    return denoised + step / (2 * before) * (denoised - past.denoised)


def correct(x: Tensor, sigma: float, sigma_next: float, denoised: Tensor, moved: Tensor, ahead: Tensor) -> Tensor:
    """Return Heun's second stage: the mean of the slopes at both ends, ``ahead`` being the estimate at ``moved``."""
    slope = ((x - denoised) / sigma + (moved - ahead) / sigma_next) / 2
    return x + (sigma_next - sigma) * slope


class Estimate(NamedTuple):
    """The output of a posterior denoiser: ``E[x0 | x, y]``, diagnostics ``(batch,)``, and memory for the next call."""

    denoised: Tensor
    facts: Mapping[str, Tensor] = MappingProxyType({})
    memory: Any = None


@dataclass(frozen=True)
class PosteriorDenoising(AnnealedSampler):
    """Base of samplers that estimate ``E[x0 | x, y]`` and use common time stepping; subclasses define ``estimate``.

    Parameters
    ----------
    steps : int
        Number of noise levels.
    solver : "2m", "sde-2m", "ddim", "ancestral" or "heun"
        See `samplers.stepping`.
    spacing : "geometric", "karras" or "vp"
        Geometric (log-uniform) levels suit the multistep rules.
    sigma_max, sigma_min : float, optional
        Range of the noise levels; by default that of the prior. The smallest should be at most a quarter of the
        smallest posterior std that matters.
    mean_sigma : float, optional
        Take the posterior mean from the estimates around this noise level, not from the samples.
    """

    steps: int = 30
    solver: Solver = "sde-2m"
    mean_sigma: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, self.solver in SOLVERS, f"solver {', '.join(map(repr, SOLVERS[:-1]))} or 'heun'", self.solver)

    @abstractmethod
    def estimate(self, x: Tensor, sigma: float, run: Run, memory: Any) -> Estimate:
        """Return ``E[x0 | x, y]`` for ``x`` of shape ``(batch, *domain)``.

        ``memory`` is the previous call's `Estimate.memory`, None at the first call.
        """

    def step(self, x: Tensor, sigma: float, sigma_next: float, run: Run, memory: Any) -> Step:
        """Estimate, then advance."""
        past, carried = memory or (None, None)
        now = self.estimate(x, sigma, run, carried)
        moved = advance(self.solver, x, sigma, sigma_next, now.denoised, past, run.draw)
        if self.solver == "heun" and sigma_next > 0:
            ahead = self.estimate(moved, sigma_next, run, now.memory)
            moved = correct(x, sigma, sigma_next, now.denoised, moved, ahead.denoised)
        return Step(moved, now.denoised, now.facts, (Past(sigma, now.denoised), now.memory))
