"""Moment matching: condition on the data with the covariance of the clean image given the noisy one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor

from operators.errors import InputError
from samplers.base import Run
from samplers.covariance import CovarianceModel, condition
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

#: Largest number of conjugate-gradient steps with a Jacobian that passed its test, and the relative residual that ends
#: them for a sample.
ITERATIONS, TOLERANCE = 8, 0.02


@dataclass(frozen=True)
class MomentMatching(PosteriorDenoising):
    """Moment-matching posterior sampling, with a model covariance at large noise and the network's own at small noise.

    The clean image given the noisy one is taken as ``N(D, V)``, so that the posterior denoiser is (eq. 9)::

        E[x0 | x, y] = D + V A^H (noise_std^2 + A V A^H)^-1 (y - A D)

    Above ``jacobian_below``, ``V = (C^-1 + sigma^-2)^-1`` with the prior's covariance model C: no further network call.
    Below it, ``V = sigma^2 J``, exact for an exact denoiser (Tweedie), solved by ``iterations`` conjugate-gradient
    steps in data space, preconditioned by the model and started at its answer. J is that of a network: not symmetric,
    and useless at large noise, where ``sigma^2`` multiplies its errors; hence the two ranges, and a solve that stops at
    the first direction whose curvature no covariance can have (the fact ``negative_curvature`` counts them).

    Of a denoiser that tells nothing of its error, both are found out before the first step (:mod:`samplers.pilot`).

    Targets the posterior: std ratio 1.00 - 1.02 on the six known problems of ``benchmarks/posterior_truth.py``, with a
    denoiser that errs by 0, 3 or 10 %, in 64 calls of it. By default, with exact denoisers that do not know their
    error: .98 - 1.06 on 43 problems, error of the mean below .12 posterior std, in 90 - 250 calls and 60 to measure.

    Parameters
    ----------
    steps, solver, spacing, sigma_max, sigma_min
        See :class:`~samplers.stepping.PosteriorDenoising`. With an exact denoiser 20 steps of "2m" do; a network's
        errors ask for "sde-2m".
    covariance : CovarianceModel or float or "prior", optional
        C; a number is the standard deviation of independent pixels; "prior" is the ``covariance_model`` that the prior
        carries, resampled to the size of the images. None: what follows from ``prior_std``.
    prior_std : float, optional
        Standard deviation of independent pixels. None: at each noise level the model that explains the error that the
        denoiser was measured to make there, by frequency (``denoiser.error_spectrum``) or at least in total
        (``denoiser.error_std``); for a denoiser that does not know its error, the prior's ``covariance_model``, or else
        the error that is measured on images of its own or on a pilot run.
    jacobian_below : float, optional
        Noise level below which the Jacobian is used; 0 for never. None: where a denoiser that tells nothing of itself
        has a symmetric one of the right trace, as an exact denoiser has; never for others.
    iterations : int, optional
        Conjugate-gradient steps with the Jacobian, each one network call; one more call starts them. None: 1 below a
        ``jacobian_below`` that was asked for, otherwise up to 8, until the residual is 2 %.
    jacobian : "finite-difference" or "vjp"
        How J is applied: one more forward call each, or back-propagation.
    difference_step : float, optional
        Length of the difference, of the noise level. None: .1, which a network needs, or .02 for a Jacobian that was
        found symmetric.
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
        known, so_far = memory if memory is not None else (self._knowledge(problem, denoiser, x), 0)
        local = known.model or self._local(known, sigma, denoiser, x)
        product: Product | None = None
        if sigma < known.jacobian_below and self.jacobian == "vjp":
            denoised, product = vjp(denoiser, x, sigma)
        else:
            denoised = denoiser.denoise(x, sigma)
            if sigma < known.jacobian_below:
                product = differences(denoiser, x, sigma, denoised, known.difference_step)
        solve = _DataSpace(problem, local, sigma, self.model_iterations)
        moved, cg_residual = solve.model_answer(likelihood_score(problem, denoised))
        bad = torch.zeros_like(cg_residual)
        if product is not None:
            residual = (problem.y - problem.operator(denoised)) / problem.noise_std
            moved, bad = solve.truncated(residual, moved, product, known.iterations, known.tolerance)
        facts = {"cg_residual": cg_residual, "negative_curvature": so_far + bad}
        return Estimate(denoised + moved, facts, (known, so_far + bad))

    def _model(self, denoiser: Denoiser, like: Tensor) -> CovarianceModel | None:
        """Return the covariance model in the precision and size of the state; None for one of each noise level."""
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
        """Return what is known of the prior before the first step; measured where it tells nothing of itself."""
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
            return CovarianceModel.isotropic((1 / flat - 1 / sigma**2) ** -0.5).to(like)
        # A denoiser's error cannot exceed sigma, whatever was measured; the limit keeps C positive.
        variance = found.to(like.device, like.real.dtype).clamp(max=(0.99 * sigma) ** 2)
        prior = variance / (1 - variance / sigma**2)
        return CovarianceModel(prior.mean().sqrt(), prior / prior.mean())


class _Knowledge(NamedTuple):
    """A model for all noise levels or the error at each; below which level the Jacobian is used, and how."""

    model: CovarianceModel | None
    measured: MeasuredError | None
    jacobian_below: float
    iterations: int
    tolerance: float
    difference_step: float


def _knows_its_error(denoiser: Denoiser) -> bool:
    return error_std(denoiser, denoiser.sigma_min) is not None


class _DataSpace:
    """The system ``(1 + N^-1 A V A^H N^-1) w = N^-1 (y - A D)``, N the noise std; the image moves by V A^H N^-1 w."""

    def __init__(self, problem: Problem, model: CovarianceModel, sigma: float, model_iterations: int) -> None:
        self.problem, self.model, self.sigma, self.model_iterations = problem, model, sigma, model_iterations

    def _pull(self, w: Tensor) -> Tensor:
        return self.problem.operator.H(w / self.problem.noise_std)

    def _push(self, x: Tensor) -> Tensor:
        return self.problem.operator(x) / self.problem.noise_std

    def model_answer(self, pull: Tensor) -> tuple[Tensor, Tensor]:
        """Return how the image moves with the model covariance, pulled by ``A^H W (y - A D)``."""
        return condition(self.problem, self.model, self.sigma, pull, self.model_iterations)

    def _precondition(self, w: Tensor) -> Tensor:
        """Apply the inverse of the system with the model covariance."""
        return w - self._push(self.model_answer(self._pull(w))[0])

    def truncated(
        self, residual: Tensor, start: Tensor, product: Product, iterations: int, tolerance: float
    ) -> tuple[Tensor, Tensor]:
        """Solve with ``V = sigma^2 J`` from the model's answer; return the move and the count of bad directions.

        A sample stops at a direction p with ``p^H K p <= |p|^2 / 2``: with a covariance it would be at least ``|p|^2``.
        A start that makes the objective ``w^H K w / 2 - Re w^H b`` positive is worse than none and is dropped.
        """
        dims = tuple(range(1, residual.ndim))

        def inner(a: Tensor, b: Tensor, like: Tensor = residual) -> Tensor:
            return (a.conj() * b).real.sum(dim=dims).reshape(-1, *[1] * (like.ndim - 1))

        def per_image(factor: Tensor) -> Tensor:
            return factor.reshape(-1, *[1] * (start.ndim - 1))

        def spread(w: Tensor) -> Tensor:
            return self.sigma**2 * product(self._pull(w))

        w = residual - self._push(start)
        moved = spread(w)
        image = w + self._push(moved)
        keep = (inner(w, image) / 2 <= inner(w, residual)) & (inner(w, image) > inner(w, w) / 2)
        moved = torch.where(per_image(keep), moved, 0)
        r = residual - torch.where(keep, image, 0)
        z = self._precondition(r)
        p, rz = z, inner(r, z)
        enough = tolerance**2 * inner(residual, residual)
        active, bad = (rz > 0) & (inner(r, r) > enough), torch.zeros_like(rz)
        for k in range(iterations):
            if tolerance and not bool(active.any()):
                break
            step = spread(p)
            q = p + self._push(step)
            curvature = inner(p, q)
            negative = active & (curvature <= inner(p, p) / 2)
            bad = bad + negative.to(bad.dtype)
            active = active & ~negative
            alpha = torch.where(active, rz / torch.where(active, curvature, 1), 0)
            moved = moved + per_image(alpha) * step
            if k + 1 < iterations:
                r = r - alpha * q
                z = self._precondition(r)
                rz_next = inner(r, z)
                p = z + torch.where(active, rz_next / torch.where(active, rz, 1), 0) * p
                active, rz = active & (rz_next > 0) & (inner(r, r) > enough), rz_next
        # Where neither the start nor a single direction could be used, the model's answer stands.
        used = keep | (bad < 1)
        return torch.where(per_image(used), moved, start), bad.reshape(-1) + (~keep).reshape(-1).to(bad.dtype)
