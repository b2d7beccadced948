"""The contract of a sampler: its noise levels, one step, and the step's inputs and outputs.

Noise levels are always sigma, see `samplers.denoiser`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Integral
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple

from torch import Tensor

from samplers.branching import Fork
from samplers.denoiser import Denoiser
from samplers.noise import Noise
from samplers.problem import Problem
from samplers.schedule import SPACINGS, Spacing, levels
from samplers.validation import is_positive, require

__all__ = ["AnnealedSampler", "Denoiser", "Run", "Sampler", "Step"]

#: Number of steps that is expected of a sampler that chooses it by the data.
_TYPICAL_STEPS = 24


@dataclass(frozen=True, eq=False)
class Run:
    """The state shared by all steps of a run: the problem, the prior, and the random numbers of the samples."""

    problem: Problem
    denoiser: Denoiser
    noise: Noise

    def draw(self) -> Tensor:
        """Return standard normal images ``(batch, *domain)``, each from the random stream of its sample."""
        return self.noise.normal(self.problem.operator.domain)


class Step(NamedTuple):
    """The result of one step: the next state, the denoised estimate behind it, and diagnostics ``(batch,)``.

    ``memory`` is passed unchanged to the next step (an optimiser's moments, the previous estimate of a multistep
    solver); None for steps without memory.
    """

    x: Tensor
    denoised: Tensor | None = None
    facts: Mapping[str, Tensor] = MappingProxyType({})
    memory: Any = None


class Sampler(ABC):
    """A sampler: frozen hyper-parameters, a noise schedule, and one step.

    A new sampler is a frozen dataclass with ``sigmas`` and ``step``; the loop `samplers.sample` does the rest.
    """

    #: BibTeX keys of the papers to cite for this sampler (see docs/references.bib).
    citations: ClassVar[tuple[str, ...]] = ()
    #: Whether the sampler needs Gaussian noise; False if it works with any ``problem.likelihood``.
    needs_gaussian: ClassVar[bool] = True
    #: Whether the sampler calls the denoiser.
    uses_prior: ClassVar[bool] = True
    #: Noise level around which ``E[x0 | x, y]`` is kept for `Samples.expectation`; None to keep nothing.
    mean_sigma: float | None = None

    @property
    def usual_steps(self) -> int:
        """Number of steps as far as it is known without data: what progress bars expect."""
        return 1

    @abstractmethod
    def sigmas(self, problem: Problem, denoiser: Denoiser) -> list[float]:
        """Return the noise levels in decreasing order; the last one is 0."""

    def mean_level(self, problem: Problem) -> float | None:
        """Return the noise level around which the mean of this problem is taken; ``mean_sigma`` unless overridden."""
        return self.mean_sigma

    def forks(self, problem: Problem, denoiser: Denoiser) -> Sequence[Fork]:
        """Return where samples part that share a path at high noise levels (`samplers.branching`); nowhere by default.

        A sampler with forks has no memory from step to step.
        """
        return ()

    def depart(self, denoised: Tensor, sigma: float, sigma_next: float, run: Run) -> Tensor:
        """Go from denoised images ``(batch, *domain)`` of shared paths at ``sigma`` to states at ``sigma_next``.

        By default the noise alone is drawn; a sampler that knows the error of its denoised images draws that, too.
        """
        return denoised + sigma_next * run.draw()

    @abstractmethod
    def step(self, x: Tensor, sigma: float, sigma_next: float, run: Run, memory: Any) -> Step:
        """Go from noise level ``sigma`` to ``sigma_next``; ``x`` has shape ``(batch, *domain)``.

        ``memory`` is the previous step's `Step.memory`, None at the first step.
        """


@dataclass(frozen=True)
class AnnealedSampler(Sampler):
    """Base of samplers with a decreasing list of noise levels; subclasses define ``step``, extend ``__post_init__``.

    Parameters
    ----------
    steps : int
        Number of noise levels; None, where the sampler has a rule for it, for a number that follows from the data.
    spacing : "geometric", "karras" or "vp"
        See `samplers.schedule`.
    sigma_max, sigma_min : float, optional
        Range of the noise levels; by default that of the prior.
    """

    #: Whether ``steps`` may be None.
    chooses_steps: ClassVar[bool] = False

    steps: int | None = 100
    spacing: Spacing = field(default="geometric", kw_only=True)
    sigma_max: float | None = field(default=None, kw_only=True)
    sigma_min: float | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        if self.steps is not None or not self.chooses_steps:
            require(self, isinstance(self.steps, Integral), "an integer number of steps", self.steps)
            require(self, (self.steps or 0) >= 1, "steps >= 1", self.steps)
        for name in ("sigma_max", "sigma_min"):
            level = getattr(self, name)
            require(self, level is None or is_positive(level), f"{name} to be a number > 0", level)
        require(self, self.spacing in SPACINGS, "spacing 'geometric', 'karras' or 'vp'", self.spacing)

    def sigma_range(self, problem: Problem, denoiser: Denoiser) -> tuple[float, float]:
        """Return the largest and the smallest noise level."""
        return self.sigma_max or denoiser.sigma_max, self.sigma_min or denoiser.sigma_min

    @property
    def usual_steps(self) -> int:
        """The number of steps, or a typical one where it follows from the data."""
        return self.steps or _TYPICAL_STEPS

    def steps_for(self, problem: Problem) -> int:
        """Return the number of steps for a problem."""
        return self.usual_steps

    def sigmas(self, problem: Problem, denoiser: Denoiser) -> list[float]:
        """Return the noise levels of the chosen spacing."""
        return levels(self.spacing, *self.sigma_range(problem, denoiser), self.steps_for(problem))
