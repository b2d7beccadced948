"""DiffPIR: denoise, a proximal step on the data, re-noise with the effective noise."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from samplers.base import AnnealedSampler, Run, Step
from samplers.proximal import proximal
from samplers.validation import require


@dataclass(frozen=True)
class DiffPIR(AnnealedSampler):
    """Plug-and-play restoration along a reverse diffusion.

    Each step, with ``D = E[x0 | x]`` (eq. 12 - 14, algorithm 1)::

        D'     = argmin_u |y - A u|^2 / noise_std^2 + lambda |u - D|^2 / sigma^2      (conjugate gradients)
        eps'   = (x - D') / sigma
        x_next = D' + sigma_next (sqrt(1 - zeta) eps' + sqrt(zeta) z)

    Heuristic: the spread depends on ``zeta`` and on the number of steps. Std ratio .93 for
    ``zeta = .3`` and .68 for 1 on the exact Gaussian problem of the test-suite. Honours a noise level for each datum.

    Parameters
    ----------
    steps, spacing, sigma_max, sigma_min
        See `samplers.base.AnnealedSampler`.
    strength : float
        ``lambda``: trust in the denoiser. The image is assumed to lie within ``sigma / sqrt(lambda)`` of D.
    zeta : float
        Fraction of fresh noise, 0 to 1.
    cg_iterations : int
        Conjugate-gradient iterations of the proximal step.

    References
    ----------
    Zhu et al., "Denoising diffusion models for plug-and-play image restoration", CVPR Workshops 2023.
    """

    citations: ClassVar[tuple[str, ...]] = ("zhu2023diffpir",)

    strength: float = 1.0
    zeta: float = 0.3
    cg_iterations: int = 10

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, self.strength > 0, "strength > 0", self.strength)
        require(self, 0 <= self.zeta <= 1, "zeta between 0 and 1", self.zeta)
        require(self, self.cg_iterations >= 1, "cg_iterations >= 1", self.cg_iterations)

    def step(self, x: Tensor, sigma: float, sigma_next: float, run: Run, memory: Any) -> Step:
        """Denoise, fit the data, re-noise."""
        denoised = run.denoiser.denoise(x, sigma)
        fitted, residual = proximal(run.problem, denoised, sigma**2 / self.strength, self.cg_iterations)
        x_next = fitted
        if sigma_next > 0:
            kept = math.sqrt(1 - self.zeta) * (x - fitted) / sigma
            fresh = math.sqrt(self.zeta) * run.draw()
            x_next = fitted + sigma_next * (kept + fresh)
        return Step(x_next, fitted, {"cg_residual": residual})
