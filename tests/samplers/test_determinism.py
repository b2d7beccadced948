"""What samples depend on: their seed and number, and not batch, threads or device beyond the last digits."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from operators import CartesianMRI
from recon.priors import GaussianPrior
from samplers import DDS, Noise, Problem, Samples, Uniform, sample

STRATEGY = DDS(steps=6, gamma="rule", spread=Uniform(0.5))
#: Of the largest value: what another order of sums may change in single precision.
TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def scan() -> tuple[Problem, GaussianPrior]:
    """Four coils and large enough that several threads share the work."""
    prior = GaussianPrior.power_law((96, 80), std=0.5, exponent=3.0, corner=0.04)
    mask = torch.zeros(1, 80, dtype=torch.bool)
    mask[:, ::3] = mask[:, 36:44] = True
    y, x = torch.meshgrid(torch.linspace(-1, 1, 96), torch.linspace(-1, 1, 80), indexing="ij")
    maps = torch.stack([torch.exp(-((y - a) ** 2) - (x - b) ** 2 + 1j * a * x) for a in (-1, 1) for b in (-1, 1)])
    operator = CartesianMRI(mask, maps)
    draws = Noise(7, [0], prior.mean)
    image = prior.draw(draws.normal(prior.space))[0]
    data = operator(image)
    return Problem(data + 0.02 * draws.normal(operator.codomain)[0] * mask, operator, 0.02), prior


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def assert_near(found: Samples, expected: Samples) -> None:
    scale = float(expected.samples.abs().max())
    assert float((found.samples.cpu() - expected.samples).abs().max()) < TOLERANCE * scale
    assert torch.equal(found.valid.cpu(), expected.valid)


@pytest.mark.slow
def test_samples_do_not_depend_on_the_batch_size(scan: tuple[Problem, GaussianPrior]) -> None:
    together, fours, alone = (sample(STRATEGY, *scan, 16, seed=1, batch_size=size) for size in (16, 4, 1))
    assert_near(fours, together)
    assert_near(alone, together)
    assert torch.equal(sample(STRATEGY, *scan, 16, seed=1, batch_size=4).samples, fours.samples)


def test_samples_do_not_depend_on_the_number_of_threads(scan: tuple[Problem, GaussianPrior], threads: None) -> None:
    drawn = []
    for count in (1, 2, 2):
        torch.set_num_threads(count)
        drawn.append(sample(STRATEGY, *scan, 4, seed=1))
    assert_near(drawn[1], drawn[0])
    assert torch.equal(drawn[1].samples, drawn[2].samples)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_samples_of_a_gpu_are_those_of_the_cpu(scan: tuple[Problem, GaussianPrior]) -> None:
    problem, prior = scan
    there = Problem(problem.y.cuda(), problem.operator.to("cuda"), 0.02)
    assert_near(sample(STRATEGY, there, prior, 4, seed=1), sample(STRATEGY, problem, prior, 4, seed=1))
