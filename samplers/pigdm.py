"""Pseudo-inverse guided diffusion (PiGDM): an isotropic covariance, one solve and one back-propagation a step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from operators.errors import InputError
from samplers.base import Denoiser
from samplers.data import clean_variance, proximal
from samplers.jacobian import vjp
from samplers.problem import Problem
from samplers.stepping import Estimate, PosteriorDenoising


@dataclass(frozen=True)
class PiGDM(PosteriorDenoising):
    """Pseudo-inverse guided diffusion: the likelihood of the noisy state through an isotropic covariance.

    With ``r^2 = sigma^2 v / (sigma^2 + v)``, ``v = prior_std^2``, the likelihood is approximated as ``y | x_sigma ~
    N(A D, r^2 A A^H + noise_std^2)``, and its score is back-propagated through the denoiser (eq. 7)::

        E[x0 | x, y] = D + sigma^2 J^T A^H (r^2 A A^H + noise_std^2)^-1 (y - A D)

    Heuristic: the covariance is not the prior's. Std ratio .95 (MRI) - 1.22 (random matrix) on the known problems of
    ``benchmarks/posterior_truth.py``. Diverges with the shipped network, whose Jacobian is not symmetric.

    Parameters
    ----------
    steps, solver, spacing, sigma_max, sigma_min
        See :class:`~samplers.stepping.PosteriorDenoising`; the paper uses 100 steps of DDIM.
    prior_std : float, optional
        Square root of ``v``; 1 in the paper. None: r is the measured error of the denoiser.
    cg_iterations : int
        Conjugate-gradient iterations of the solve.

    References
    ----------
    Song, Vahdat, Mardani & Kautz, "Pseudoinverse-guided diffusion models for inverse problems", ICLR 2023.
    Deviation: the likelihood's score enters the posterior denoiser with weight 1, not ``r^2`` (alg. 1, line 10), as
    Bayes' rule has it.
    """

    citations: ClassVar[tuple[str, ...]] = ("song2023pigdm",)

    steps: int = 100
    solver: Any = "ancestral"
    prior_std: float | None = 1.0
    cg_iterations: int = 10

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (self.prior_std is None or self.prior_std > 0) or self.cg_iterations < 1:
            raise InputError(
                f"PiGDM: expected prior_std > 0 and cg_iterations >= 1, came {self.prior_std}, {self.cg_iterations}"
            )

    def estimate(self, x: Tensor, sigma: float, problem: Problem, denoiser: Denoiser, memory: Any) -> Estimate:
        """Denoise, solve, back-propagate."""
        denoised, transpose = vjp(denoiser, x, sigma)
        variance = clean_variance(sigma, self.prior_std, denoiser)
        fitted, residual = proximal(problem, denoised, variance, self.cg_iterations)
        # r^2 A^H (r^2 A A^H + noise_std^2)^-1 (y - A D) is what the solve has moved.
        pull = transpose((fitted - denoised) / variance)
        return Estimate(denoised + sigma**2 * pull, {"cg_residual": residual})
