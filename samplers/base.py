"""The contract of a sampler: its noise levels, one step, and what that step is given and gives.

Everything speaks sigma, see `samplers.denoiser`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple

from torch import Tensor

from samplers.denoiser import Denoiser
from samplers.noise import Noise
from samplers.problem import Problem
from samplers.schedule import SPACINGS, Spacing, levels
from samplers.validation import require

__all__ = ["AnnealedSampler", "Denoiser", "Run", "Sampler", "Step"]


@dataclass(frozen=True, eq=False)
class Run:
    """What all steps of a run share: the problem, the prior, and the random numbers of the samples."""

    problem: Problem
    denoiser: Denoiser
    noise: Noise

    def draw(self) -> Tensor:
        """Return standard normal images ``(batch, *domain)``, each from the stream of its own sample."""
        return self.noise.normal(self.problem.operator.domain)


class Step(NamedTuple):
    """What one step gives: the next state, the denoised estimate behind it, facts worth keeping ``(batch,)``.

    ``memory`` is handed to the next step as it is (an optimiser's moments, the previous estimate of a multistep
    solver); None where a step stands alone.
    """

    x: Tensor
    denoised: Tensor | None = None
    facts: Mapping[str, Tensor] = MappingProxyType({})
    memory: Any = None


class Sampler(ABC):
    """A strategy: frozen hyper-parameters, a noise schedule, and one step.

    To add one, write a frozen dataclass with ``sigmas`` and ``step``; the loop `samplers.sample` does the rest.
    """

    #: BibTeX keys of the papers that a user of this strategy should cite (see docs/references.bib).
    citations: ClassVar[tuple[str, ...]] = ()
    #: Whether the sampler needs Gaussian noise; one that works with any ``problem.likelihood`` says False.
    needs_gaussian: ClassVar[bool] = True
    #: Noise level around which ``E[x0 | x, y]`` is kept for `Samples.expectation`; None for not at all.
    mean_sigma: float | None = None

    @abstractmethod
    def sigmas(self, problem: Problem, denoiser: Denoiser) -> list[float]:
        """Return the noise levels, from large to small; the last one is 0."""

    def mean_level(self, problem: Problem) -> float | None:
        """Return the noise level around which the mean of this problem is taken; ``mean_sigma`` unless overridden."""
        return self.mean_sigma

    @abstractmethod
    def step(self, x: Tensor, sigma: float, sigma_next: float, run: Run, memory: Any) -> Step:
        """Go from noise level ``sigma`` to ``sigma_next``; ``x`` has shape ``(batch, *domain)``.

        ``memory`` is what the step before returned as `Step.memory`, None at the first.
        """


@dataclass(frozen=True)
class AnnealedSampler(Sampler):
    """Strategies that walk down a list of noise levels; subclasses write ``step`` and extend ``__post_init__``.

    Parameters
    ----------
    steps : int
        Noise levels.
    spacing : "geometric", "karras" or "vp"
        See `samplers.schedule`.
    sigma_max, sigma_min : float, optional
        Range of the noise levels; by default that of the prior.
    """

    steps: int = 100
    spacing: Spacing = field(default="geometric", kw_only=True)
    sigma_max: float | None = field(default=None, kw_only=True)
    sigma_min: float | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        require(self, self.steps >= 1, "steps >= 1", self.steps)
        require(self, self.spacing in SPACINGS, "spacing 'geometric', 'karras' or 'vp'", self.spacing)

    def sigma_range(self, problem: Problem, denoiser: Denoiser) -> tuple[float, float]:
        """Return the largest and the smallest noise level."""
        return self.sigma_max or denoiser.sigma_max, self.sigma_min or denoiser.sigma_min

    def sigmas(self, problem: Problem, denoiser: Denoiser) -> list[float]:
        """Return the noise levels of the chosen spacing."""
        return levels(self.spacing, *self.sigma_range(problem, denoiser), self.steps)
