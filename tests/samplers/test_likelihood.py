"""The door for other noise: a likelihood is a value of its own, and what needs Gaussian noise says so."""

import dataclasses
import math

import pytest
import torch

from operators import Diagonal, InputError, Space
from recon.priors import GaussianPrior
from samplers import (
    DDS,
    DPS,
    AnnealedSampler,
    ExactGaussian,
    Gaussian,
    Likelihood,
    MomentMatching,
    Problem,
    Step,
    sample,
)


@dataclasses.dataclass(frozen=True)
class Counts:
    """Poisson counts; what a package of another modality would bring along."""

    def fitted(self, y: torch.Tensor) -> "Counts":
        if bool((y < 0).any()):
            raise InputError("Counts: expected counts >= 0")
        return self

    def score(self, y: torch.Tensor, predicted: torch.Tensor) -> torch.Tensor:
        return y / predicted - 1

    def weight(self, y: torch.Tensor, predicted: torch.Tensor) -> torch.Tensor:
        return 1 / predicted

    def misfit(self, y: torch.Tensor, predicted: torch.Tensor) -> torch.Tensor:
        return (y - predicted).square() / predicted


@dataclasses.dataclass(frozen=True)
class Scoring(AnnealedSampler):
    """Denoise, then climb the likelihood, whichever it is; the image stays positive."""

    needs_gaussian = False

    def step(self, x, sigma, sigma_next, run, memory):
        problem, clean = run.problem, run.denoiser.denoise(x, sigma).clamp(min=0.1)
        for _ in range(50):
            predicted = problem.operator(clean)
            pull = problem.operator.H(problem.likelihood.score(problem.y, predicted))
            size = problem.operator.H(problem.likelihood.weight(problem.y, predicted) * predicted) / clean
            clean = (clean + 0.5 * pull / size).clamp(min=0.1)
        return Step(clean + sigma_next * run.draw(), clean)


@pytest.fixture
def counts() -> Problem:
    operator = Diagonal(torch.full((6, 6), 20.0), Space((6, 6), torch.float32))
    rates = operator(torch.linspace(0.5, 2.0, 36).reshape(6, 6))
    return Problem(torch.poisson(rates, generator=torch.Generator().manual_seed(0)), operator, likelihood=Counts())


@pytest.fixture
def positive() -> GaussianPrior:
    return GaussianPrior.power_law((6, 6), std=0.5, dtype=torch.float32)


@pytest.mark.parametrize("sampler", [DDS(steps=2), DPS(steps=2), MomentMatching(2), ExactGaussian()])
def test_a_sampler_that_needs_gaussian_noise_refuses_another_in_one_line(sampler, counts, positive) -> None:
    name = type(sampler).__name__
    with pytest.raises(
        InputError, match=rf"^{name} needs Gaussian noise, Problem\(y, operator, noise_std\); got Counts$"
    ):
        sample(sampler, counts, positive)


def test_another_likelihood_serves_a_sampler_that_asks_for_nothing_else(counts, positive) -> None:
    assert isinstance(counts.likelihood, Likelihood) and math.isnan(counts.noise_std)
    drawn = sample(Scoring(steps=3), counts, positive, 2, seed=0)
    assert (drawn.samples - counts.y / 20).abs().max() < 0.01
    assert float(drawn.residual.max()) < 0.01
    assert counts.to("cpu").likelihood == counts.likelihood
    with pytest.raises(InputError, match="counts >= 0"):
        dataclasses.replace(counts, y=-counts.y)


def test_both_forms_of_gaussian_noise_are_one(problem: Problem) -> None:
    long = Problem(problem.y, problem.operator, likelihood=Gaussian(problem.noise_std))
    assert long.noise_std == problem.noise_std == long.likelihood.noise_std
    x = torch.zeros(2, *problem.y.shape, dtype=problem.y.dtype)
    assert torch.equal(long.misfit(x), problem.misfit(x))
    louder = dataclasses.replace(long, noise_std=0.5)
    assert louder.noise_std == louder.likelihood.noise_std == 0.5
    predicted = problem.operator(x)
    score = problem.likelihood.score(problem.y, predicted)
    expected = problem.likelihood.weight(problem.y, predicted) * (problem.y - predicted)
    torch.testing.assert_close(score, expected)
    torch.testing.assert_close(problem.operator.H(score)[0], problem.weighted_data)


def test_a_problem_needs_noise_of_one_kind(problem: Problem) -> None:
    with pytest.raises(InputError, match="noise_std"):
        Problem(problem.y, problem.operator)
    with pytest.raises(InputError, match=r"expected noise_std or a likelihood, got noise_std=0.1 and Counts"):
        Problem(problem.y, problem.operator, 0.1, likelihood=Counts())
    with pytest.raises(InputError, match=r"expected a samplers\.Likelihood, got 'poisson'"):
        Problem(problem.y, problem.operator, likelihood="poisson")
