"""Moment matching: condition on the data with the covariance of the clean image given the noisy one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor

from operators.errors import InputError
from samplers.base import Run
from samplers.covariance import CovarianceModel
from samplers.data_space import DataSpace
from samplers.data_terms import likelihood_score
from samplers.denoiser import Denoiser
from samplers.error_spectrum import DIFFERENCE_STEP, MeasuredError
from samplers.jacobian import JacobianKind, Product, differences, vjp
from samplers.knowledge import covariance_model, error_spectrum, error_std
from samplers.pilot import measured_error
from samplers.problem import Problem
from samplers.spread import clean_variance
from samplers.stepping import Estimate, PosteriorDenoising
from samplers.validation import require

#: Largest number of conjugate-gradient steps with a Jacobian that passed its test, and the relative residual at which
#: a sample stops.
ITERATIONS, TOLERANCE = 8, 0.02


@dataclass(frozen=True)
class MomentMatching(PosteriorDenoising):
    """Moment-matching posterior sampling, with a model covariance at large noise and the network's at small noise.

    The clean image given the noisy one is taken as ``N(D, V)``, so that the posterior denoiser is (eq. 9)::

        E[x0 | x, y] = D + V A^H (noise_std^2 + A V A^H)^-1 (y - A D)

    Above ``jacobian_below``, ``V = (C^-1 + sigma^-2)^-1`` with the prior's covariance model C: no further network call.
    Below it, ``V = sigma^2 J``, exact for an exact denoiser (Tweedie), solved by ``iterations`` conjugate-gradient
    steps in data space, preconditioned by the model and started at its answer. J is that of a network: not symmetric,
    and useless at large noise, where ``sigma^2`` multiplies its errors; hence the two ranges, and a solve that stops at
    the first direction whose curvature is impossible for a covariance (counted by ``negative_curvature``; a Jacobian
    that is not used since its trace is negative counts as one).

    For a denoiser that does not know its error, both are measured before the first step (`samplers.pilot`).

    Targets the posterior: std ratio 1.00 - 1.02 on the six known problems of ``benchmarks/posterior_truth.py``, with a
    denoiser error of 0, 3 or 10 %, in 64 denoiser calls. By default, with exact denoisers that do not know their error:
    .98 - 1.06 on 43 problems, error of the mean below .12 posterior std, in 90 - 250 calls and 60 for the measurement.

    Parameters
    ----------
    steps, solver, spacing, sigma_max, sigma_min
        See `samplers.stepping.PosteriorDenoising`. With an exact denoiser 20 steps of "2m" are enough; a network's
        errors need "sde-2m".
    covariance : CovarianceModel or float or "prior", optional
        C; a number is the standard deviation of independent pixels; "prior" is the ``covariance_model`` that the prior
        carries, resampled to the size of the images. None: the model that follows from ``prior_std``.
    prior_std : float, optional
        Standard deviation of independent pixels. None: at each noise level the model that explains the measured error
        of the denoiser, by frequency (``denoiser.error_spectrum``) or at least in total (``denoiser.error_std``); for a
        denoiser that does not know its error, the prior's ``covariance_model``, or else the error measured on images
        that it generates or on a pilot run.
    jacobian_below : float, optional
        Noise level below which the Jacobian is used; 0 for never. None: where the Jacobian of a denoiser without known
        error is symmetric and of the right trace, like that of an exact denoiser; never for other denoisers.
    iterations : int, optional
        Conjugate-gradient steps with the Jacobian, each one network call; one more call starts them. None: 1 below a
        given ``jacobian_below``, otherwise up to 8, until the residual is 2 %.
    jacobian : "finite-difference" or "vjp"
        How J is applied: by one more forward call per product, or by back-propagation.
    difference_step : float, optional
        Length of the difference, relative to the noise level. None: .1, which a network needs, or .02 for a Jacobian
        that was found to be symmetric.
    model_iterations : int
        Largest number of conjugate-gradient steps with the model.

    References
    ----------
    Rozet, Andry, Lanusse & Louppe, "Learning diffusion priors from observations by expectation maximization",
    NeurIPS 2024. Deviations: the covariance model above ``jacobian_below``, the preconditioner, finite differences.
    """

    citations: ClassVar[tuple[str, ...]] = ("rozet2024mmps",)

    covariance: CovarianceModel | float | Literal["prior"] | None = None
    prior_std: float | None = None
    jacobian_below: float | None = None
    iterations: int | None = None
    jacobian: JacobianKind = "finite-difference"
    difference_step: float | None = None
    model_iterations: int = 30

    def __post_init__(self) -> None:
        super().__post_init__()
        known = not isinstance(self.covariance, str) or self.covariance == "prior"
        require(self, known, "covariance to be a model, a number or 'prior'", self.covariance)
        require(self, self.prior_std is None or self.prior_std > 0, "prior_std > 0", self.prior_std)
        require(self, (self.jacobian_below or 0) >= 0, "jacobian_below >= 0", self.jacobian_below)
        require(self, self.iterations is None or self.iterations >= 1, "iterations >= 1", self.iterations)
        require(self, self.model_iterations >= 1, "model_iterations >= 1", self.model_iterations)
        kinds = ("finite-difference", "vjp")
        require(self, self.jacobian in kinds, "jacobian 'finite-difference' or 'vjp'", self.jacobian)

    def estimate(self, x: Tensor, sigma: float, run: Run, memory: Any) -> Estimate:
        """Denoise and condition."""
        problem, denoiser = run.problem, run.denoiser
        known, so_far = memory if memory is not None else self._start(problem, denoiser, x)
        local = known.model or self._local(known, sigma, denoiser, x)
        product: Product | None = None
        if sigma < known.jacobian_below and self.jacobian == "vjp":
            denoised, product = vjp(denoiser, x, sigma)
        else:
            denoised = denoiser.denoise(x, sigma)
            if sigma < known.jacobian_below:
                product = differences(denoiser, x, sigma, denoised, known.difference_step)
        solve = DataSpace(problem, local, sigma, self.model_iterations)
        moved, cg_residual = solve.model_answer(likelihood_score(problem, denoised))
        bad = torch.zeros_like(cg_residual)
        if product is not None:
            residual = (problem.y - problem.operator(denoised)) / problem.noise_std
            moved, bad = solve.truncated(residual, moved, product, known.iterations, known.tolerance)
        facts = {"cg_residual": cg_residual, "negative_curvature": so_far + bad}
        return Estimate(denoised + moved, facts, (known, so_far + bad))

    def _start(self, problem: Problem, denoiser: Denoiser, like: Tensor) -> tuple[_Knowledge, int]:
        """Return what is known before the first step, and 1 for a Jacobian of negative trace, which is not used."""
        known = self._knowledge(problem, denoiser, like)
        return known, int(known.measured is not None and known.measured.negative)

    def _model(self, denoiser: Denoiser, like: Tensor) -> CovarianceModel | None:
        """Return the covariance model in the precision and size of the state; None for one model per noise level."""
        model, carried = self.covariance, covariance_model(denoiser)
        if isinstance(model, str):
            if carried is None:
                raise InputError("MomentMatching: covariance='prior', but this prior carries no covariance model")
            model = carried
        elif model is None and self.prior_std is None and not _knows_its_error(denoiser):
            model = carried
        if model is None:
            return None
        if not isinstance(model, CovarianceModel):
            model = CovarianceModel.isotropic(float(model))
        return model.to(like).resized(tuple(like.shape[1:]))

    def _knowledge(self, problem: Problem, denoiser: Denoiser, like: Tensor) -> _Knowledge:
        """Return the known error of the prior before the first step, measured if the prior does not know it."""
        model, measured = self._model(denoiser, like), None
        if model is None and self.prior_std is None and not _knows_its_error(denoiser):
            measured = measured_error(denoiser, problem, like)
        if self.jacobian_below is not None:
            step = self.difference_step or 0.1
            return _Knowledge(model, measured, self.jacobian_below, self.iterations or 1, 0.0, step)
        below = measured.jacobian_below if measured is not None else 0.0
        step = self.difference_step or DIFFERENCE_STEP
        return _Knowledge(model, measured, below, self.iterations or ITERATIONS, TOLERANCE, step)

    def _local(self, known: _Knowledge, sigma: float, denoiser: Denoiser, like: Tensor) -> CovarianceModel:
        """Return C such that the variance given the noisy image, ``(C^-1 + sigma^-2)^-1``, is the denoiser's error."""
        if known.measured is not None:
            return known.measured.model(sigma)
        found = error_spectrum(denoiser, sigma, tuple(like.shape[1:])) if self.prior_std is None else None
        if found is None:
            flat = clean_variance(sigma, self.prior_std, denoiser)
            return CovarianceModel.isotropic((1 / flat - 1 / sigma**2) ** -0.5, like)
        # A denoiser's error cannot exceed sigma: the measured value is clipped, which keeps C positive.
        variance = found.to(like.device, like.real.dtype).clamp(max=(0.99 * sigma) ** 2)
        prior = variance / (1 - variance / sigma**2)
        return CovarianceModel(prior.mean().sqrt(), prior / prior.mean())


class _Knowledge(NamedTuple):
    """A model for all noise levels or the error at each level, and where and how the Jacobian is used."""

    model: CovarianceModel | None
    measured: MeasuredError | None
    jacobian_below: float
    iterations: int
    tolerance: float
    difference_step: float


def _knows_its_error(denoiser: Denoiser) -> bool:
    return error_std(denoiser, denoiser.sigma_min) is not None
