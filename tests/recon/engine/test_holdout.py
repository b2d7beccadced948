"""The held-out test: what it withholds, that it is 1 for exact posteriors, and what it sees."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import recon
from operators import CartesianMRI, Diagonal
from recon.arguments import make_parser
from recon.engine.findings import judge_run
from recon.engine.holdout import HeldOut, choose, cross_validate, held_out
from recon.engine.judge import judge_slice
from recon.engine.part import Part
from recon.engine.samplers import resolve_sampler
from recon.modalities import modality
from recon.modalities.base import single_data
from recon.modalities.mri.points import points_outside_centre
from recon.priors import GaussianPrior
from recon.settings import Settings
from recon.verdict import Verdict
from samplers import DDS, PULA, DDSVolume, ExactGaussian, Problem, Samples

SHAPE = (32, 32)
PRIOR = GaussianPrior.power_law(SHAPE)
NOISE = 0.05


def image_of(generator: torch.Generator) -> torch.Tensor:
    """Return an image that the prior makes."""
    return PRIOR.draw(torch.randn((1, *SHAPE), dtype=torch.complex64, generator=generator))[0]


def draw(seed: int, operator: CartesianMRI, factor: float = 1.0) -> Problem:
    """Return data of an image that the prior makes, times a factor."""
    generator = torch.Generator().manual_seed(seed)
    image = factor * image_of(generator)
    noise = torch.randn(SHAPE, dtype=torch.complex64, generator=generator) * operator.mask
    return Problem(operator(image) + NOISE * noise, operator, NOISE)


def lines(every: int = 2, centre: int = 4) -> CartesianMRI:
    mask = torch.zeros((1, SHAPE[1]), dtype=torch.bool)
    mask[:, ::every] = True
    mask[:, SHAPE[1] // 2 - centre // 2 : SHAPE[1] // 2 + centre // 2] = True
    return CartesianMRI(mask, shape=SHAPE)


def pooled(factor: float, denoiser: GaussianPrior = PRIOR, count: int = 12) -> tuple[float, float]:
    """Return chi2 and excess over several images, as the means of numerators over those of denominators."""
    tests = []
    for seed in range(count):
        problem = draw(seed, lines(), factor)
        withheld = choose(lines_without_centre(problem), seed)
        assert withheld is not None
        tests.append(held_out(problem, withheld, ExactGaussian(iterations=200), denoiser, seed))
    total = [NOISE**2 / (1 - test.spread) for test in tests]
    chi2 = sum(test.chi2 * power for test, power in zip(tests, total, strict=True)) / sum(total)
    spread = [test.spread * power for test, power in zip(tests, total, strict=True)]
    return chi2, sum(test.excess * power for test, power in zip(tests, spread, strict=True)) / sum(spread)


def lines_without_centre(problem: Problem) -> torch.Tensor:
    """Every sampled line but the central four: the limit of a real scan is larger than this image."""
    columns = torch.where(problem.operator.mask[0].cpu(), torch.arange(SHAPE[1]), -1)
    columns[14:18] = -1
    return columns[None]


@pytest.mark.slow
def test_it_is_one_for_an_exact_posterior() -> None:
    chi2, excess = pooled(1.0)
    assert 0.8 < chi2 < 1.25
    assert 0.75 < excess < 1.3


@pytest.mark.slow
def test_it_sees_a_prior_that_is_too_narrow() -> None:
    chi2, excess = pooled(4.0)
    assert chi2 > 5
    assert excess > 8


def test_whole_groups_are_withheld_evenly() -> None:
    groups = torch.tensor([-1, -1, *range(100)])[None]
    chosen = choose(groups, 3)
    assert chosen is not None and chosen.shape == groups.shape
    assert not chosen[0, :2].any() and int(chosen.sum()) == 6
    # One in each sixth of the groups.
    assert (torch.nonzero(chosen[0, 2:])[:, 0] * 6 // 100).tolist() == list(range(6))
    assert torch.equal(chosen, choose(groups, 3)) and not torch.equal(chosen, choose(groups, 4))
    assert choose(groups[:, :9], 0) is None, "two of seven groups would be too many"


def _numbers(mask: torch.Tensor, *shape: int) -> torch.Tensor:
    return points_outside_centre(
        Problem(torch.zeros(shape, dtype=torch.complex64), CartesianMRI(mask, shape=shape), 1.0)
    )


def test_samples_of_kspace_are_withheld_one_by_one_outside_the_centre() -> None:
    wide = torch.zeros((1, 96), dtype=torch.bool)
    wide[:, ::4] = True
    wide[:, 36:60] = True
    numbers = _numbers(wide, 64, 96)
    assert torch.equal(numbers >= 0, wide.expand(64, 96) & ~_block((64, 96), (20, 44), (36, 60)))
    assert len(numbers[numbers >= 0].unique()) == int((numbers >= 0).sum())
    points = torch.rand((64, 96), generator=torch.Generator().manual_seed(0)) < 0.3
    points[20:44, 36:60] = True
    numbers = _numbers(points, 64, 96)
    assert torch.equal(numbers >= 0, points & ~_block((64, 96), (20, 44), (36, 60)))


def _block(shape: tuple[int, int], rows: tuple[int, int], columns: tuple[int, int]) -> torch.Tensor:
    inside = torch.zeros(shape, dtype=torch.bool)
    inside[slice(*rows), slice(*columns)] = True
    return inside


def test_samples_of_volumes_and_two_maps() -> None:
    mask = torch.rand((3, 8, 8), generator=torch.Generator().manual_seed(0)) < 0.5
    volume = points_outside_centre(Problem(torch.zeros(3, 8, 8, dtype=torch.complex64), CartesianMRI(mask), 1.0))
    assert torch.equal(volume >= 0, mask)
    assert len(volume[mask].unique()) == int(mask.sum())
    columns = torch.zeros((1, 96), dtype=torch.bool)
    columns[:, ::2] = True
    maps = torch.ones((2, 4, 64, 96), dtype=torch.complex64)
    two = Problem(torch.zeros(4, 64, 96, dtype=torch.complex64), CartesianMRI(columns, maps), 1.0)
    assert torch.equal(points_outside_centre(two)[0] >= 0, columns[0])


@pytest.mark.parametrize("name", ["ct", "ultrasound"])
def test_views_and_elements_are_withheld_as_a_whole(name: str) -> None:
    problem = Problem(torch.zeros(5, 7, dtype=torch.complex64), Diagonal(torch.ones(5, 7, dtype=torch.complex64)), 1.0)
    groups = modality(name).groups(problem)
    assert torch.equal(groups.expand(5, 7), torch.arange(5)[:, None].expand(5, 7))


def test_any_operator_can_be_tested_datum_by_datum() -> None:
    problem = Problem(torch.zeros(5, 7, dtype=torch.complex64), Diagonal(torch.ones(5, 7, dtype=torch.complex64)), 1.0)
    assert torch.equal(single_data(problem), torch.arange(35).reshape(5, 7))


@pytest.mark.parametrize(
    ("test", "level", "words"),
    [
        (HeldOut(1.1, 1.2, 0.1, 0.5, 0.02), "ok", ""),
        (HeldOut(3.0, 4.0, 0.1, 0.5, 0.02), "doubtful", "is 3 times what noise and spread explain"),
        (HeldOut(1.5, 20.0, 0.5, 0.1, 0.02), "doubtful", "is 20 times the spread of the samples"),
        (HeldOut(1.01, 20.0, 10.0, 0.001, 0.02), "ok", ""),
        (HeldOut(80.0, 90.0, 0.1, 0.9, 0.02), "failed", "is 80 times"),
        (None, "ok", ""),
    ],
    ids=["right", "missed", "too narrow", "only noise", "far off", "not tested"],
)
def test_the_verdict_follows(test: HeldOut | None, level: str, words: str) -> None:
    ones = torch.ones((8, 8), dtype=torch.complex64)
    problem = Problem(ones, Diagonal(ones), 0.01)
    drawn = Samples(
        samples=ones.expand(2, 8, 8).clone(),
        valid=torch.ones(2, dtype=torch.bool),
        residual=torch.ones(2),
        facts={},
        expectation=None,
    )
    found = judge_slice(Part(drawn, problem, steps=50, held_out=test), {}, None)
    verdict = Verdict.of(judge_run({0: found}, drawn.valid.numpy()))
    assert verdict.level == level
    assert words in str(verdict)


def test_a_run_records_it_and_its_samples_do_not_depend_on_it() -> None:
    blurred = Diagonal(torch.full(SHAPE, 0.5, dtype=torch.complex64))
    generator = torch.Generator().manual_seed(0)
    data = 0.5 * image_of(generator)
    problem = Problem(data + NOISE * torch.randn(SHAPE, dtype=torch.complex64, generator=generator), blurred, NOISE)
    sampler = ExactGaussian()
    with_test, without = (
        recon.reconstruct(problem, prior=PRIOR, sampler=sampler, samples=2, holdout=on) for on in (True, False)
    )
    assert np.array_equal(with_test.samples, without.samples)
    (test,) = with_test.provenance["held_out"]
    assert test["withheld"] == pytest.approx(0.06, abs=0.005)
    assert with_test.held_out_chi2 == test["chi2"] > 0
    assert without.provenance["held_out"] == [None] and without.held_out_chi2 is None
    assert with_test.provenance["config"]["holdout"] and not without.provenance["config"]["holdout"]


@pytest.mark.parametrize("sampler", [DDS(steps=10), DDSVolume(steps=30)], ids=["few steps", "coupled slices"])
def test_where_it_does_not_apply_there_is_none(sampler: DDS) -> None:
    assert cross_validate(draw(0, lines()), sampler, PRIOR, 0) is None


def test_another_sampler_is_tested_by_the_default_one() -> None:
    problem = draw(0, lines(1))
    tested, by_default = (cross_validate(problem, sampler, PRIOR, 0) for sampler in (PULA(), resolve_sampler("dds")))
    assert tested is not None
    assert tested == by_default


def test_complete_data_with_holes_are_not_an_image_in_white_noise() -> None:
    """DDS shows the network complete data as they are: the companion run must not show it what is withheld."""
    space = torch.ones(SHAPE, dtype=torch.complex64)
    pixels = GaussianPrior(torch.zeros(SHAPE, dtype=torch.complex64), std_map=torch.full(SHAPE, 0.5))
    generator = torch.Generator().manual_seed(1)
    image, noise = (torch.randn(SHAPE, dtype=torch.complex64, generator=generator) for _ in range(2))
    problem = Problem(0.5 * image + NOISE * noise, Diagonal(space), NOISE)
    test = cross_validate(problem, resolve_sampler("dds"), pixels, 0)
    assert test is not None
    # Nothing is known of a pixel that is withheld: its two samples are two of the prior, of variance .25.
    assert test.chi2 * NOISE**2 / (1 - test.spread) == pytest.approx(0.25 * (1 + 1 / 2) + NOISE**2, rel=0.25)
    assert test.spread > 0.95


def test_the_switch_must_be_true_or_false() -> None:
    with pytest.raises(recon.errors.InputError, match="holdout: expected true or false, got 3"):
        recon.reconstruct(draw(0, lines()), prior=PRIOR, holdout=3)


def test_the_switch_of_the_command_line_and_of_toml(tmp_path: Path) -> None:
    arguments = ["run", "scan.h5", "-o", "results"]
    assert make_parser().parse_args([*arguments, "--no-holdout"]).holdout is False
    assert not hasattr(make_parser().parse_args(arguments), "holdout")
    (tmp_path / "run.toml").write_text("holdout = false\n")
    assert Settings.from_toml(tmp_path / "run.toml").run.holdout is False
    assert Settings().run.holdout is True
    (tmp_path / "run.toml").write_text("holdout = 1\n")
    with pytest.raises(recon.errors.InputError, match="holdout: expected true or false, got 1"):
        Settings.from_toml(tmp_path / "run.toml")


def test_one_valid_sample_has_no_spread_to_compare_with(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recon.engine.holdout.SAMPLES", 1)
    assert cross_validate(draw(0, lines(1)), ExactGaussian(), PRIOR, 0) is None
