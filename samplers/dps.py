"""Diffusion posterior sampling (DPS): a reverse diffusion step, then a gradient step on the data residual."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from samplers.base import AnnealedSampler, Run, Step
from samplers.data_terms import likelihood_curvature, norms
from samplers.stepping import advance
from samplers.validation import require


@dataclass(frozen=True)
class DPS(AnnealedSampler):
    """Diffusion posterior sampling: data enter through the gradient of the un-squared residual norm.

    Each step, with ``D = E[x0 | x]`` (algorithm 1; ``zeta' / |y - A D|`` times the gradient of the square is ``zeta``
    times that of the norm)::

        x_next = reverse step from x and D, - zeta s grad_x |y - A D(x, sigma)|

    The norm is that of one sample. ``s`` is 1, or ``sqrt((1 + sigma^2) (1 + sigma_next^2))``, the equivalent of the
    same rule in the variance-preserving variables ``x / sqrt(1 + sigma^2)`` of the paper.

    Heuristic: the spread in measured directions is set by ``zeta``, not by the noise level, which is not used.
    Std ratio .95 overall, .65 in measured directions for ``zeta = .3`` and 1.05 for 1, on the exact Gaussian problem of
    the test-suite. Each step costs one denoiser evaluation and one
    back-propagation.

    Parameters
    ----------
    steps, spacing, sigma_max, sigma_min
        See `samplers.base.AnnealedSampler`; the paper takes 1000 steps.
    zeta : float
        Step size, .3 to 1 in the paper.
    variables : "ve" or "vp"
        The choice of ``s``; ``"vp"`` is the paper's.
    solver : "ancestral" or "ddim"
        The reverse step.
    scaling : "none" or "norm"
        ``"norm"`` divides the gradient by the norm of the operator, so that ``zeta`` has the same meaning as in the
        papers, whose operators have a norm of about 1.
    chunk : int, optional
        Samples that are back-propagated together; bounds the memory. All by default.

    References
    ----------
    Chung, Kim, Mccann, Klasky & Ye, "Diffusion posterior sampling for general noisy inverse problems", ICLR 2023.
    """

    citations: ClassVar[tuple[str, ...]] = ("chung2023dps",)

    steps: int = 1000
    zeta: float = 0.3
    variables: Literal["ve", "vp"] = "ve"
    solver: Literal["ancestral", "ddim"] = "ancestral"
    scaling: Literal["none", "norm"] = "none"
    chunk: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, self.zeta >= 0, "zeta >= 0", self.zeta)
        require(self, self.variables in ("ve", "vp"), "variables 've' or 'vp'", self.variables)
        require(self, self.solver in ("ancestral", "ddim"), "solver 'ancestral' or 'ddim'", self.solver)
        require(self, self.scaling in ("none", "norm"), "scaling 'none' or 'norm'", self.scaling)
        require(self, self.chunk is None or self.chunk >= 1, "chunk >= 1", self.chunk)

    def step(self, x: Tensor, sigma: float, sigma_next: float, run: Run, memory: Any) -> Step:
        """Denoise, step back, descend."""
        pieces = [self._gradient(piece, sigma, run) for piece in x.split(self.chunk or len(x))]
        denoised = torch.cat([piece[0] for piece in pieces])
        gradient = torch.cat([piece[1] for piece in pieces])
        moved = advance(self.solver, x, sigma, sigma_next, denoised, None, run.draw)
        scale = math.sqrt((1 + sigma**2) * (1 + sigma_next**2)) if self.variables == "vp" else 1.0
        if self.scaling == "norm":
            memory = likelihood_curvature(run.problem.unweighted).sqrt() if memory is None else memory
            gradient = gradient / memory
        return Step(moved - self.zeta * scale * gradient, denoised, memory=memory)

    @staticmethod
    def _gradient(x: Tensor, sigma: float, run: Run) -> tuple[Tensor, Tensor]:
        """Return ``D`` and the gradient of ``|y - A D|``; for complex x with respect to both parts."""
        with torch.enable_grad():
            tracked = x.detach().requires_grad_()
            denoised = run.denoiser.denoise(tracked, sigma)
            # The gradient of the sum is, for each sample, that of its own norm: samples do not mix.
            residual = norms(run.problem.y - run.problem.operator(denoised)).sum()
            gradient = torch.autograd.grad(residual, tracked)[0]
        return denoised.detach(), gradient
