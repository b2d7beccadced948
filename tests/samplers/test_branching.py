"""Samples share paths at high noise levels: fewer calls of the network, the same posterior, the same images."""

import dataclasses

import pytest
import torch

from operators import DivergenceError, Identity
from recon.priors import ExactPosterior, GaussianPrior
from samplers import DDS, Problem, Progress, Uniform, sample
from samplers.branching import _SHARED, TREE, Fork, Stretch, forks_by_variance, stretches

ADAPTED = {"gamma": "rule", "spread": Uniform(), "noise": "ddim", "eta": 1.0, "adapt_to_noise": True}
LEVELS = {"spacing": "karras", "sigma_max": 3.0, "sigma_min": 0.01}
SAMPLER = DDS(steps=16, **ADAPTED, **LEVELS, image_draws=True, branches=True)
ALONE = dataclasses.replace(SAMPLER, branches=False)


class Counting:
    """A denoiser that counts its images by noise level, and spoils those of one place in the batch below a level."""

    space = None

    def __init__(self, prior: GaussianPrior, spoiled: int | None = None, below: float = 0.0) -> None:
        self.prior, self.spoiled, self.below = prior, spoiled, below
        self.sigma_min, self.sigma_max = prior.sigma_min, prior.sigma_max
        self.images: dict[float, int] = {}

    def denoise(self, x: torch.Tensor, sigma: float) -> torch.Tensor:
        self.images[sigma] = self.images.get(sigma, 0) + len(x)
        out = self.prior.denoise(x, sigma)
        if self.spoiled is not None and sigma < self.below and len(x) < TREE:
            out[self.spoiled] *= float("nan")
        return out


def test_a_schedule_is_divided_where_the_noise_falls_below_a_fork():
    sigmas = [3.0, 1.0, 0.5, 0.3, 0.1, 0.0]
    parts = stretches(sigmas, [Fork(0.6, 2), Fork(0.3, 4)])
    assert parts == [Stretch(0, 2, 2), Stretch(2, 4, 4), Stretch(4, 5)]
    # A fork that is passed at once, above all levels or below the last but one, divides nothing.
    assert stretches(sigmas, []) == [Stretch(0, 5)]
    assert stretches(sigmas, [Fork(9.0, 2), Fork(4.0, 4)]) == [Stretch(0, 5)]
    assert stretches(sigmas, [Fork(0.6, 2), Fork(0.6, 4)]) == [Stretch(0, 2, 2), Stretch(2, 5)]
    assert stretches(sigmas, [Fork(0.0, 2)])[-1] == Stretch(4, 5)


def test_neighbours_share_no_path_and_trees_share_nothing():
    two, four = (Stretch(0, 1, paths) for paths in (2, 4))
    assert [two.path_of(k) for k in range(10)] == [0, 1, 0, 1, 0, 1, 0, 1, 2, 3]
    assert [four.path_of(k) for k in range(10)] == [0, 1, 2, 3, 0, 1, 2, 3, 4, 5]


def test_eight_samples_need_fewer_images(problem: Problem, prior: GaussianPrior):
    counted = Counting(prior)
    sample(SAMPLER, problem, counted, 8, seed=0)
    images = [counted.images[sigma] for sigma in sorted(counted.images, reverse=True)]
    assert set(images) == {2, 4, 8} and images == sorted(images) and len(images) == 16
    assert sum(images) < 0.9 * 8 * 16


def test_an_image_does_not_depend_on_the_batch_or_the_number_of_samples(problem: Problem, prior: GaussianPrior):
    together = sample(SAMPLER, problem, prior, 10, seed=1).samples
    for size in (1, 3):
        apart = sample(SAMPLER, problem, prior, 10, seed=1, batch_size=size).samples
        assert (together - apart).abs().max() < 1e-5 * together.abs().max()
    later = sample(SAMPLER, problem, prior, 3, seed=1, first=7).samples
    assert (together[7:] - later).abs().max() < 1e-5 * together.abs().max()
    assert (together[0] - together[4]).abs().mean() > 0.01 * together.abs().mean()


def test_many_samples_have_the_mean_and_the_spread_of_the_posterior(
    problem: Problem, prior: GaussianPrior, truth: ExactPosterior
):
    drawn = sample(SAMPLER, problem, prior, 128, seed=3)
    assert 0.95 < float((drawn.std / truth.std).median()) < 1.03
    error = (drawn.samples.mean(0) - truth.mean).abs().square().mean().sqrt() / truth.std.square().mean().sqrt()
    assert error < 0.15


def test_eight_samples_spread_nearly_as_much_as_without_forks(
    problem: Problem, prior: GaussianPrior, truth: ExactPosterior
):
    def spread(sampler: DDS) -> float:
        variances = [sample(sampler, problem, prior, 8, seed=seed).std.square() for seed in range(8)]
        return float((torch.stack(variances).mean(0).mean() / truth.std.square().mean()).sqrt())

    assert 0.95 < spread(SAMPLER) / spread(ALONE) < 1.03


def test_a_failed_path_fails_all_samples_that_follow_it(problem: Problem, prior: GaussianPrior):
    shared = Counting(prior, spoiled=1, below=2.5)
    drawn = sample(SAMPLER, problem, shared, 8, seed=0)
    assert drawn.valid.tolist() == [True, False] * 4
    with pytest.raises(DivergenceError, match=r"first at step \d+ of 16"):
        sample(SAMPLER, problem, Counting(prior, spoiled=slice(None), below=2.5), 8, seed=0)


def test_a_stop_on_a_shared_path_returns_its_denoised_image(problem: Problem, prior: GaussianPrior):
    seen: list[Progress] = []

    def stop(step: Progress) -> bool:
        seen.append(step)
        return step.step == 2

    drawn = sample(SAMPLER, problem, prior, 8, seed=0, progress=stop)
    assert [step.step for step in seen] == [1, 2] and bool(drawn.valid.all())
    assert torch.equal(drawn.samples[2], seen[-1].denoised[0]) and torch.equal(drawn.samples[3], seen[-1].denoised[1])


def test_steps_are_reported_once_for_each_level(problem: Problem, prior: GaussianPrior):
    seen: list[Progress] = []
    sample(SAMPLER, problem, prior, 8, seed=0, progress=seen.append)
    assert [(step.step, step.total) for step in seen] == [(k + 1, 16) for k in range(16)]


def test_nothing_is_shared_where_samples_have_starts_of_their_own_or_data_are_white(
    problem: Problem, prior: GaussianPrior
):
    counted = Counting(prior)
    start = sample(ALONE, problem, prior, 8, seed=5).samples
    sample(SAMPLER, problem, counted, 8, seed=0, start=start)
    assert set(counted.images.values()) == {8}
    white = Problem(start[0], Identity(problem.operator.domain), 0.1)
    assert SAMPLER.forks(white, prior) == () and len(SAMPLER.forks(problem, prior)) == 2
    assert (
        ALONE.forks(problem, prior) == ()
        and dataclasses.replace(SAMPLER, image_draws=False).forks(problem, prior) == ()
    )


def test_paths_part_where_the_variance_around_them_falls():
    # A clean image of variance 1 in noise of sigma is known up to sigma^2 / (1 + sigma^2).
    two, four = forks_by_variance(lambda sigma: 4 * sigma**2 / (1 + sigma**2), 10.0, 0.1)
    assert (two.paths, four.paths) == (2, 4)
    assert 1 / (1 + two.sigma**2) == pytest.approx(_SHARED[2], rel=0.25)
    assert 1 / (1 + four.sigma**2) == pytest.approx(_SHARED[4], rel=0.25)
    # Where data and prior leave the same unknown at all levels, paths are shared to the end.
    assert forks_by_variance(lambda sigma: 0.3, 3.0, 0.01)[0].sigma == pytest.approx(0.01)


def test_the_wider_the_prior_the_earlier_paths_part(problem: Problem):
    narrow, wide = (GaussianPrior.power_law((24, 24), std=std, exponent=3.0, corner=0.04) for std in (0.1, 0.5))
    assert SAMPLER.forks(problem, wide)[0].sigma > 2 * SAMPLER.forks(problem, narrow)[0].sigma
