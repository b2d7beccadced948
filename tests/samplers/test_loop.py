"""The one loop: a sample never depends on its batch mates, and a failure is never hidden."""

import dataclasses

import numpy as np
import pytest
import torch

from operators import CartesianMRI, DivergenceError, Identity, InputError, ShapeError
from recon.priors import GaussianPrior
from samplers import DDS, Denoiser, Noise, Problem, Progress, Run, Sampler, Step, Uniform, sample

STRATEGY = DDS(steps=8, gamma="rule", spread=Uniform(0.5))


def test_a_batch_is_the_same_as_one_by_one(problem: Problem, prior: GaussianPrior) -> None:
    together = sample(STRATEGY, problem, prior, 8, seed=1).samples
    alone = sample(STRATEGY, problem, prior, 8, seed=1, batch_size=1).samples
    threes = sample(STRATEGY, problem, prior, 8, seed=1, batch_size=3).samples
    scale = together.abs().max()
    assert (together - alone).abs().max() < 1e-5 * scale
    assert (together - threes).abs().max() < 1e-5 * scale
    assert not torch.equal(together[0], together[1])


def test_resuming_goes_on_with_the_next_sample(problem: Problem, prior: GaussianPrior) -> None:
    straight = sample(STRATEGY, problem, prior, 5, seed=1).samples
    resumed = sample(STRATEGY, problem, prior, 3, seed=1, first=2).samples
    assert (straight[2:] - resumed).abs().max() < 1e-5 * straight.abs().max()


def test_the_same_seed_is_the_same_image_and_another_is_not(problem: Problem, prior: GaussianPrior) -> None:
    first, again, other = (sample(STRATEGY, problem, prior, 2, seed=seed).samples for seed in (4, 4, 5))
    assert torch.equal(first, again)
    assert (first - other).abs().max() > 1e-3


def test_the_global_generators_are_left_alone(problem: Problem, prior: GaussianPrior) -> None:
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()
    sample(STRATEGY, problem, prior, 2, seed=0)
    assert torch.equal(torch_state, torch.get_rng_state())
    assert np.array_equal(numpy_state[1], np.random.get_state()[1])


def test_complex_noise_has_unit_power(prior: GaussianPrior) -> None:
    draws = Noise(0, range(20), prior.mean).normal(prior.space)
    assert draws.dtype == torch.complex64
    assert abs(float(draws.abs().square().mean()) - 1) < 0.03
    assert abs(float(draws.real.square().mean()) - 0.5) < 0.03


def test_moments_are_those_of_the_samples(problem: Problem, prior: GaussianPrior) -> None:
    drawn = sample(STRATEGY, problem, prior, 6, seed=0)
    values = drawn.samples.numpy()
    np.testing.assert_allclose(drawn.mean.numpy(), values.mean(0), atol=1e-6)
    parts = values.real.var(0, ddof=1) + values.imag.var(0, ddof=1)
    np.testing.assert_allclose(drawn.std.numpy(), np.sqrt(parts), rtol=1e-4, atol=1e-7)


class _Failing:
    """A denoiser that returns NaN for some samples, or ``factor`` times too much, from one noise level on."""

    space = None

    def __init__(self, prior: GaussianPrior, bad: list[int], below: float, factor: float = float("nan")) -> None:
        self.prior, self.bad, self.below, self.factor = prior, bad, below, factor
        self.sigma_min, self.sigma_max = prior.sigma_min, prior.sigma_max
        self.calls: list[int] = []

    def denoise(self, x: torch.Tensor, sigma: float) -> torch.Tensor:
        out = self.prior.denoise(x, sigma)
        # One by one, the number of the sample is that of the times that the largest sigma was seen.
        self.calls += [0] if not self.calls or sigma > self.last else []
        self.last = sigma
        if sigma < self.below:
            bad = self.bad if len(x) > 1 else [0] if len(self.calls) - 1 in self.bad else []
            out[bad] *= self.factor
        return out


def test_one_bad_sample_is_flagged_and_left_out(problem: Problem, prior: GaussianPrior) -> None:
    good = sample(STRATEGY, problem, prior, 4, seed=0)
    drawn = sample(STRATEGY, problem, _Failing(prior, [1], 1.0), 4, seed=0)
    assert drawn.valid.tolist() == [True, False, True, True]
    assert not torch.isfinite(drawn.samples[1].abs()).all()
    expected = good.samples[[0, 2, 3]].mean(0)
    assert (drawn.mean - expected).abs().max() < 1e-5


def test_a_bad_sample_is_flagged_whatever_the_batch(problem: Problem, prior: GaussianPrior) -> None:
    for size in (1, 3):
        drawn = sample(STRATEGY, problem, _Failing(prior, [1], 1.0), 3, seed=0, batch_size=size)
        assert drawn.valid.tolist() == [True, False, True]


def test_growth_is_flagged_like_nan(problem: Problem, prior: GaussianPrior) -> None:
    drawn = sample(STRATEGY, problem, _Failing(prior, [2], 2.0, factor=1e4), 3, seed=0)
    assert torch.isfinite(drawn.samples.abs()).all()
    assert drawn.valid.tolist() == [True, True, False]
    with pytest.raises(DivergenceError, match="grew without bound"):
        sample(STRATEGY, problem, _Failing(prior, [0, 1, 2], 2.0, factor=1e4), 3, seed=0)


def test_a_solve_that_got_stuck_on_the_way_is_seen(problem: Problem, prior: GaussianPrior) -> None:
    # Data of unequal quality make a system that one iteration does not solve where the prior says little.
    noise_std = 0.02 * torch.logspace(0, 1, problem.y.shape[-1]).expand(problem.y.shape)
    # A product of operators has no Fourier gains, so that nothing is preconditioned.
    uneven = Problem(problem.y, problem.operator @ Identity(problem.operator.domain), noise_std)
    settings = {"steps": 12, "gamma": "rule", "spread": Uniform(0.5), "spacing": "karras", "sigma_min": 0.001}
    few, many = (sample(DDS(cg_iterations=m, **settings), uneven, prior, 2, seed=0).facts for m in (1, 20))
    assert float(many["cg_residual_worst"].max()) < 1e-3
    # The last steps, of small sigma, are solved by one iteration, the first ones are not.
    assert float(few["cg_residual"].max()) < 0.02 < 0.05 < float(few["cg_residual_worst"].min())


def test_only_bad_samples_raise_with_step_and_sigma(problem: Problem, prior: GaussianPrior) -> None:
    with pytest.raises(DivergenceError, match=r"step \d+ of \d+ .*sigma = .*likely causes"):
        sample(STRATEGY, problem, _Failing(prior, [0, 1], 1.0), 2, seed=0)


def test_progress_reports_and_can_stop(problem: Problem, prior: GaussianPrior) -> None:
    told: list[Progress] = []

    def watch(progress: Progress) -> bool:
        told.append(progress)
        return len(told) == 3

    drawn = sample(STRATEGY, problem, prior, 2, seed=0, progress=watch)
    assert [progress.step for progress in told] == [1, 2, 3]
    assert told[0].sigma > told[1].sigma > told[2].sigma
    assert torch.equal(drawn.samples, told[-1].denoised)


def test_start_begins_near_a_given_image(problem: Problem, prior: GaussianPrior) -> None:
    """CCDF: with a small first sigma the result stays close to where it started."""
    start = torch.ones(prior.space.shape, dtype=torch.complex64)
    strategy = DDS(steps=5, gamma=0.0, spacing="geometric", sigma_max=0.01, sigma_min=0.005)
    drawn = sample(strategy, problem, prior, 3, seed=0, start=start)
    assert (drawn.samples - start).abs().max() < 0.2
    each = torch.stack([start, 2 * start, 3 * start])
    drawn = sample(strategy, problem, prior, 3, seed=0, start=each, batch_size=2)
    assert (drawn.samples - each).abs().amax(dim=(1, 2)).max() < 0.4
    with pytest.raises(ShapeError, match="start"):
        sample(strategy, problem, prior, 3, start=each[:2])


def test_an_empty_mask_gives_prior_samples(prior: GaussianPrior) -> None:
    space = prior.space
    operator = CartesianMRI(torch.zeros(1, space.shape[1], dtype=torch.bool), shape=space.shape)
    problem = Problem(torch.zeros(space.shape, dtype=torch.complex64), operator, 0.1)
    strategy = DDS(steps=60, gamma="rule", noise="ddim", eta=1.0, spacing="karras")
    with_data = sample(strategy, problem, prior, 32, seed=0)
    assert with_data.valid.all()
    assert 0.8 < float(with_data.std.mean()) / 0.5 < 1.1


@pytest.mark.parametrize("noise_std", [-1.0, float("nan"), float("inf")])
def test_impossible_noise_levels_are_refused(problem: Problem, noise_std: float) -> None:
    with pytest.raises(InputError, match="noise_std"):
        Problem(problem.y, problem.operator, noise_std)
    with pytest.raises(InputError, match="noise_std"):
        dataclasses.replace(problem, noise_std=noise_std)


def test_noise_free_data_get_the_documented_floor(problem: Problem, prior: GaussianPrior) -> None:
    clean = Problem(problem.y, problem.operator, 0.0)
    rms = float(problem.y.abs().square().mean().sqrt())
    assert clean.noise_std == pytest.approx(1e-6 * rms)
    assert sample(DDS(steps=5, gamma="noise-free"), clean, prior, 2).valid.all()


def test_data_of_another_operator_are_refused(problem: Problem, prior: GaussianPrior) -> None:
    with pytest.raises(ShapeError, match="y of Problem"):
        Problem(problem.y[:, :-1], problem.operator, 0.1)
    with pytest.raises(ShapeError, match="one measurement"):
        Problem(problem.y[None], problem.operator, 0.1)
    with pytest.raises(InputError, match="NaN"):
        Problem(problem.y * float("nan"), problem.operator, 0.1)
    with pytest.raises(ShapeError, match="broadcast"):
        Problem(problem.y, problem.operator, torch.ones(5))
    with pytest.raises(ShapeError, match="prior is for"):
        sample(STRATEGY, problem, GaussianPrior.power_law((8, 8)), 1)
    with pytest.raises(InputError, match="n_samples"):
        sample(STRATEGY, problem, prior, 0)


@pytest.mark.parametrize(
    "settings",
    [
        {"steps": 0},
        {"cg_iterations": 0},
        {"eta": 1.5},
        {"gamma": -1.0},
        {"gamma": float("nan")},
        {"gamma": "best"},
        {"noise": "x"},
        {"spread": 0.5},
    ],
)
def test_impossible_settings_are_refused(settings: dict) -> None:
    with pytest.raises(InputError, match="DDS"):
        DDS(**settings)


def test_memory_is_handed_on(problem: Problem, prior: GaussianPrior) -> None:
    class Counting(Sampler):
        def sigmas(self, problem: Problem, denoiser: Denoiser) -> list[float]:
            return [1.0, 0.5, 0.2, 0.0]

        def step(self, x, sigma, sigma_next, run, memory):
            seen.append(memory)
            return Step(x, memory=(memory or 0) + 1)

    seen: list[int | None] = []
    sample(Counting(), problem, prior, 1)
    assert seen == [None, 1, 2]


def test_a_run_cannot_be_changed_and_draws_images_from_the_streams_of_its_samples(problem, prior) -> None:
    run = Run(problem, prior, Noise(3, [5], problem.y))
    assert torch.equal(run.draw(), Noise(3, [5], problem.y).normal(prior.space))
    with pytest.raises(dataclasses.FrozenInstanceError):
        run.noise = Noise(0, [0], problem.y)
