"""A small exact problem: 24 x 24 complex MRI, four-fold, with a Gaussian prior whose posterior is known."""

import pytest
import torch

from operators import CartesianMRI
from recon.priors import ExactPosterior, GaussianPrior, exact_posterior
from samplers import Noise, Problem

SIZE = 24
NOISE_STD = 0.02


@pytest.fixture(scope="session")
def prior() -> GaussianPrior:
    return GaussianPrior.power_law((SIZE, SIZE), std=0.5, exponent=3.0, corner=0.04)


@pytest.fixture(scope="session")
def mask() -> torch.Tensor:
    columns = torch.zeros(1, SIZE, dtype=torch.bool)
    columns[:, ::6] = True
    columns[:, 11:13] = True
    return columns


@pytest.fixture(scope="session")
def problem(prior: GaussianPrior, mask: torch.Tensor) -> Problem:
    operator = CartesianMRI(mask, shape=(SIZE, SIZE))
    draws = Noise(7, [0], prior.mean)
    x0 = prior.draw(draws.normal(prior.space))[0]
    y = operator(x0) + NOISE_STD * draws.normal(prior.space)[0] * mask
    return Problem(y, operator, NOISE_STD)


@pytest.fixture(scope="session")
def truth(problem: Problem, prior: GaussianPrior) -> ExactPosterior:
    return exact_posterior(problem, prior)
