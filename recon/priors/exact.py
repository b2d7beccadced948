"""Exact posteriors of small problems by dense linear algebra, for Gaussian and mixture priors."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from operators.base import LinearOperator, Space
from operators.errors import InputError
from recon.priors.analytic import GaussianMixturePrior, GaussianPrior
from samplers.noise import Noise
from samplers.problem import Problem


@dataclass(frozen=True)
class ExactPosterior:
    """A posterior that is a Gaussian mixture with dense covariances (one component for a Gaussian prior).

    Attributes
    ----------
    weights : Tensor, shape ``(component,)``
        Posterior probabilities of the components.
    means : Tensor, shape ``(component, *domain)``
        Means of the components.
    covariances : Tensor, shape ``(component, n, n)`` with ``n`` the number of pixels
        Covariances of the components.
    space : Space
        Space of the images.
    """

    weights: Tensor
    means: Tensor
    covariances: Tensor
    space: Space

    @property
    def mean(self) -> Tensor:
        """Posterior mean, shape ``domain``."""
        return torch.einsum("k,k...->...", self.weights.to(self.means.dtype), self.means)

    @property
    def std(self) -> Tensor:
        """Posterior standard deviation of each pixel, shape ``domain``."""
        variances = torch.diagonal(self.covariances, dim1=-2, dim2=-1).real.reshape(self.means.shape)
        second = variances + (self.means - self.mean).abs().square()
        return torch.einsum("k,k...->...", self.weights, second).sqrt()

    def draw(self, n: int, seed: int = 0) -> Tensor:
        """Return ``n`` exact samples, shape ``(n, *domain)``."""
        white = Noise(seed, range(n), self.means).normal(self.space).flatten(1)
        generator = torch.Generator().manual_seed(seed)
        picks = torch.multinomial(self.weights, n, replacement=True, generator=generator)
        draws = torch.empty_like(white)
        for k, covariance in enumerate(self.covariances):
            chosen = picks == k
            draws[chosen] = white[chosen] @ torch.linalg.cholesky(covariance).T
        return self.means[picks] + draws.reshape(n, *self.space.shape)


def exact_posterior(problem: Problem, prior: GaussianPrior | GaussianMixturePrior) -> ExactPosterior:
    """Compute the exact posterior of a small linear problem in double precision.

    For each component ``N(m, C)``: mean ``m + C A^H S^-1 (y - A m)``, covariance ``C - C A^H S^-1 A C``, evidence
    ``N(y; A m, S)`` with ``S = A C A^H + noise_std^2``.

    Parameters
    ----------
    problem : Problem
        Problem with at most 4096 pixels: dense matrices are built.
    prior : GaussianPrior or GaussianMixturePrior
        Prior of the images.

    Raises
    ------
    InputError
        If the problem is too large for dense matrices.
    """
    size = math.prod(problem.operator.domain.shape)
    if size > 4096:
        raise InputError(f"exact_posterior: expected at most 4096 pixels, got {size}; use ExactGaussian instead")
    pairs = prior._pairs() if isinstance(prior, GaussianMixturePrior) else [(1.0, prior)]
    matrix = dense(problem.operator)
    results = [_condition(problem, matrix, component) for _, component in pairs]
    evidence = torch.stack([result[2] for result in results])
    log_weights = torch.tensor([math.log(max(weight, 1e-300)) for weight, _ in pairs], dtype=torch.float64)
    return ExactPosterior(
        weights=torch.softmax(log_weights + evidence, dim=0),
        means=torch.stack([result[0] for result in results]),
        covariances=torch.stack([result[1] for result in results]),
        space=problem.operator.domain,
    )


def dense(operator: LinearOperator) -> Tensor:
    """Return the matrix of an operator, double precision, shape ``(codomain size, domain size)``."""
    wide = torch.complex128 if operator.domain.dtype.is_complex else torch.float64
    size = math.prod(operator.domain.shape)
    basis = torch.eye(size, dtype=wide).reshape(size, *operator.domain.shape)
    return operator.to(wide)(basis).reshape(size, -1).T


def _condition(problem: Problem, matrix: Tensor, prior: GaussianPrior) -> tuple[Tensor, Tensor, Tensor]:
    """Return posterior mean, covariance and log evidence for one Gaussian component."""
    wide = torch.complex128 if prior.mean.is_complex() else torch.float64
    prior = prior.to(wide)
    size = prior.mean.numel()
    basis = torch.eye(size, dtype=wide).reshape(size, *prior.mean.shape)
    covariance = prior.covariance(basis).reshape(size, size).T
    noise = torch.as_tensor(problem.noise_std, dtype=torch.float64).expand(problem.y.shape).reshape(-1)
    measured = matrix.abs().sum(dim=1) > 0
    matrix, noise, y = matrix[measured], noise[measured], problem.y.reshape(-1)[measured].to(matrix.dtype)
    cross = covariance.to(matrix.dtype) @ matrix.mH
    total = matrix @ cross + torch.diag(noise.square()).to(matrix.dtype)
    innovation = y - matrix @ prior.mean.reshape(-1).to(matrix.dtype)
    root = torch.linalg.cholesky(total)
    gain = torch.cholesky_solve(cross.mH, root).mH
    mean = prior.mean.reshape(-1).to(matrix.dtype) + gain @ innovation
    posterior = covariance - gain @ cross.mH
    posterior = (posterior + posterior.mH) / 2
    white = torch.linalg.solve_triangular(root, innovation[:, None], upper=False).abs().square().sum()
    weight = 1.0 if matrix.is_complex() else 0.5
    evidence = -weight * white - 2 * weight * root.diagonal().real.log().sum()
    jitter = 1e-12 * float(posterior.diagonal().real.max()) * torch.eye(size, dtype=wide)
    if not prior.mean.is_complex():
        mean, posterior = mean.real, posterior.real
    return mean.reshape(prior.mean.shape), posterior + jitter, evidence
