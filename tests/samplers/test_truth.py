"""The small version of the table of exact posteriors: who claims the posterior keeps the gate, on every problem."""

import dataclasses

import pytest
import torch

from recon.errors import ConfigError
from recon.uncertainty.known_posteriors import (
    OPERATORS,
    PRIORS,
    Counted,
    Flawed,
    prior_draws,
    truth_problem,
    truth_scores,
)
from samplers import CovarianceModel, MomentMatching, sample

#: Large enough that the data say which kind of image it is: no chain weighs kinds that are far apart (see the docs).
LARGE = 24
SIZE, DRAWS = 12, 192
FLAGSHIP = MomentMatching(30, "sde-2m", jacobian_below=0.4, sigma_max=20.0, sigma_min=0.003)


@pytest.mark.parametrize("prior", PRIORS)
@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.slow
def test_the_flagship_keeps_the_gate(operator: str, prior: str) -> None:
    case = truth_problem(operator, prior, LARGE)
    model = CovarianceModel.estimate(prior_draws(case.prior, 64), smooth=2)
    denoiser = Counted(case.prior)
    drawn = sample(dataclasses.replace(FLAGSHIP, covariance=model), case.problem, denoiser, DRAWS, seed=3)
    reference = case.draws(1024, seed=1)
    scores = truth_scores(drawn, case, reference)
    floor = truth_scores(case.draws(DRAWS, seed=2), case, reference)
    assert 0.9 <= scores["ratio"] <= 1.1
    assert 0.88 <= scores["cov90"] <= 0.92
    assert 0.9 <= scores["row"] <= 1.1 and 0.9 <= scores["null"] <= 1.1
    assert scores["sw"] <= 1.3 * floor["sw"]
    assert denoiser.calls <= 100


@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.slow
def test_errors_of_a_network_do_not_make_it_diverge(operator: str) -> None:
    case = truth_problem(operator, "gaussian", SIZE)
    model = CovarianceModel.estimate(prior_draws(case.prior, 64), smooth=2)
    strategy = dataclasses.replace(FLAGSHIP, covariance=model)
    drawn = sample(strategy, case.problem, Flawed(case.prior, 0.1), 128, seed=3)
    assert bool(drawn.valid.all())
    assert 0.9 <= truth_scores(drawn, case, case.draws(512, seed=1))["ratio"] <= 1.1


def test_the_scores_see_what_is_wrong() -> None:
    """Exact draws score well; shrunk, shifted and row-blind ones are told from them."""
    case = truth_problem("inpainting", "gaussian", SIZE)
    exact = case.draws(DRAWS, seed=2)
    fine = truth_scores(exact, case)
    mean = case.truth.mean
    assert 0.97 <= fine["ratio"] <= 1.03 and 0.88 <= fine["cov90"] <= 0.91
    shrunk = truth_scores(mean + 0.7 * (exact - mean), case)
    assert shrunk["ratio"] == pytest.approx(0.7 * fine["ratio"]) and shrunk["cov90"] < 0.8
    assert truth_scores(exact + case.truth.std, case)["zerr"] > 0.9
    row, _ = case.rows
    flat = (exact - mean).flatten(1)
    blind = flat - (flat @ row.mH) @ row
    scores = truth_scores(mean + blind.reshape(exact.shape), case)
    assert scores["row"] < 0.01 and 0.95 <= scores["null"] <= 1.05


def test_the_flaw_has_the_announced_size_and_is_not_symmetric() -> None:
    case = truth_problem("fourier", "gaussian", SIZE)
    flawed = Flawed(case.prior, 0.1)
    x = prior_draws(case.prior, 8)
    added = flawed.denoise(x, 0.3) - case.prior.denoise(x, 0.3)
    assert float(added.abs().square().mean().sqrt()) == pytest.approx(0.1 * 0.3 / 2**0.5, rel=1e-3)
    assert torch.equal(flawed.denoise(x, 0.3), flawed.denoise(x, 0.3))


def test_unknown_problems_are_refused() -> None:
    with pytest.raises(ConfigError, match="expected one of"):
        truth_problem("ct", "gaussian")
