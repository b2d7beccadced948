"""The result of a run: samples, their mean and spread."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor


@dataclass
class Samples:
    """Samples of `samplers.sample`, in the scale of the prior.

    Attributes
    ----------
    samples : Tensor, shape ``(n, *domain)``
    valid : Tensor, bool, shape ``(n,)``
        False for samples that became non-finite or grew without bound; they are excluded from ``mean`` and ``std`` but
        never replaced.
    residual : Tensor, shape ``(n,)``
        `Problem.misfit` of each sample.
    facts : dict of Tensor, each ``(n,)``
        Diagnostics of the last step, such as ``cg_residual``; ``cg_residual_worst`` is the largest of all steps.
    expectation : Tensor, shape ``(n, *domain)``, optional
        ``E[x0 | x, y]`` of each sample's path around ``Sampler.mean_sigma``. Averages of it have the same expectation
        as averages of the samples, ``E[x0 | y] = E[E[x0 | x, y]]``, and a smaller variance (Rao-Blackwell).
    sigmas : list of float
        Noise levels of the schedule, the last one 0.
    """

    samples: Tensor
    valid: Tensor
    residual: Tensor
    facts: dict[str, Tensor] = field(default_factory=dict)
    expectation: Tensor | None = None
    sigmas: list[float] = field(default_factory=list)

    @property
    def steps(self) -> int:
        """Number of steps."""
        return max(len(self.sigmas) - 1, 0)

    @property
    def mean(self) -> Tensor:
        """Posterior mean from the valid samples, shape ``domain``; from their expectations if these were kept."""
        return (self.samples if self.expectation is None else self.expectation)[self.valid].mean(dim=0)

    @property
    def std(self) -> Tensor:
        """Unbiased standard deviation over the valid samples (complex: of the whole complex number)."""
        valid = self.samples[self.valid]
        deviation = (valid - valid.mean(dim=0)).abs().square().sum(dim=0)
        return (deviation / max(len(valid) - 1, 1)).sqrt()


class PathMean:
    """The mean along a path of the denoised estimates from twice a noise level down to two thirds of it.

    Each of them is ``E[x0 | x, y]`` for another x, so that their mean varies less than each of them. A path without a
    level in that band gives its last estimate above it.
    """

    def __init__(self, level: float | None) -> None:
        self.level = level
        self.value: Tensor | None = None
        self.count = 0  # number of estimates in the band

    def add(self, sigma: float, denoised: Tensor | None) -> None:
        """Add the estimate of the next level."""
        if self.level is None or denoised is None or (sigma < self.level / 1.5 and self.value is not None):
            return
        self.count += sigma <= 2 * self.level
        if self.value is None or self.count <= 1:
            self.value = denoised
        else:
            self.value = self.value + (denoised - self.value) / self.count
