"""DDS for volumes: slices on their own without total variation, and the right minimum with it."""

import pytest
import torch

from operators import Diagonal, Identity, InputError, Slices, Space
from recon.priors import GaussianPrior
from samplers import DDS, DDSVolume, Noise, PartsAsBatch, Problem, Run, Uniform, sample

DEPTH, SIDE = 5, 8
RANGE = {"sigma_max": 5.0, "sigma_min": 0.02}


@pytest.fixture
def volume_problem():
    prior = GaussianPrior.power_law((SIDE, SIDE), std=0.4, dtype=torch.float32)
    generator = torch.Generator().manual_seed(0)
    truth = prior.draw(torch.randn(SIDE, SIDE, generator=generator)).expand(DEPTH, SIDE, SIDE)
    mask = (torch.rand(SIDE, SIDE, generator=generator) < 0.6).float()
    operator = Slices(Diagonal(mask, Space((SIDE, SIDE), torch.float32)), DEPTH)
    y = operator(truth) + 0.1 * mask * torch.randn(DEPTH, SIDE, SIDE, generator=generator)
    return PartsAsBatch(prior, split_complex=False), Problem(y, operator, 0.1), truth


def test_without_total_variation_it_is_dds(volume_problem):
    prior, problem, _ = volume_problem
    settings = {"steps": 8, "gamma": "rule", "spread": Uniform(0.4), "spacing": "karras", "cg_iterations": 12, **RANGE}
    ours = sample(DDSVolume(tv_weight=0.0, **settings), problem, prior, 2)
    plain = sample(DDS(**settings), problem, prior, 2)
    torch.testing.assert_close(ours.samples, plain.samples, rtol=1e-4, atol=1e-4)


def test_it_draws_slices_together(volume_problem):
    prior, problem, truth = volume_problem
    settings = {"steps": 20, "spread": Uniform(0.4), "spacing": "karras", **RANGE}
    errors = {
        weight: float(
            problem.operator(sample(DDSVolume(tv_weight=weight, **settings), problem, prior, 4).mean - truth).norm()
        )
        for weight in (0.0, 10.0)
    }
    assert errors[10.0] < 0.75 * errors[0.0]  # where something was measured: five noisy looks at the same thing


@pytest.mark.parametrize("circular", [False, True])
def test_iterations_at_one_level_reach_the_minimum(circular):
    """Each step of the diffusion is one iteration; repeated at one level they minimise the stated objective."""
    generator = torch.Generator().manual_seed(1)
    shape = (DEPTH, 3, 3)
    anchor = torch.randn(1, *shape, dtype=torch.float64, generator=generator)
    y = torch.randn(shape, dtype=torch.float64, generator=generator)
    problem = Problem(y, Slices(Identity(Space(shape[1:], torch.float64)), DEPTH), 0.5)
    sampler = DDSVolume(tv_weight=2.0, edge=0.2, spread=Uniform(1.0), cg_iterations=8, circular=circular)
    sigma, memory, fitted = 1.0, None, anchor
    run = Run(problem, GaussianPrior.power_law(shape, dtype=torch.float64), Noise(0, [0], y))
    for _ in range(150):
        fitted, _, memory = sampler._fit(anchor, sigma, run, memory)

    def objective(x: torch.Tensor) -> float:
        steps = x.roll(-1, dims=-3) - x
        steps = steps if circular else steps[..., :-1, :, :]
        variance = 0.5  # sigma^2 v / (sigma^2 + v)
        return float(
            (x - anchor).square().sum() / (2 * variance) + (x - y).square().sum() / (2 * 0.25) + 2.0 * steps.abs().sum()
        )

    best = objective(fitted)
    for _ in range(50):
        assert objective(fitted + 1e-3 * torch.randn(shape, dtype=torch.float64, generator=generator)) > best
    assert best < objective(sampler._fit(anchor, sigma, run, None)[0])


def test_what_it_cannot_do(volume_problem):
    prior, problem, _ = volume_problem
    with pytest.raises(InputError, match="noise-free"):
        DDSVolume(gamma="noise-free")
    with pytest.raises(InputError, match="tv_weight"):
        DDSVolume(tv_weight=-1.0)
    flat = Problem(problem.y[0], problem.operator.operator, 0.1)
    with pytest.raises(InputError, match="volumes"):
        sample(DDSVolume(), flat, prior, 1)
