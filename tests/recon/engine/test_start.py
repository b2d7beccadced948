"""Sampling that starts from an image: what it starts from, at which noise level, and what is said of it."""

from pathlib import Path

import numpy as np
import pytest
import torch

import recon
from operators import CartesianMRI, Identity, Space
from recon import cli
from recon.engine.start import Start
from recon.errors import ConfigError, InputError, ShapeError
from recon.posterior import Posterior
from recon.priors import GaussianPrior, exact_posterior
from recon.uncertainty.fingerprint import fingerprint, require_match
from samplers import DDS, Noise, Problem, Uniform, sample

#: Of the data two thirds are not sampled, and left by nothing.
pytestmark = pytest.mark.filterwarnings("ignore:the data residual is")

PRIOR = GaussianPrior.power_law((24, 24), std=0.5, exponent=3.0, corner=0.04)
SAMPLER = DDS(
    steps=20, gamma="rule", spread=Uniform(), noise="ddim", eta=1.0, spacing="karras", sigma_max=3.0, sigma_min=0.01
)


@pytest.fixture(scope="module")
def problem() -> Problem:
    columns = torch.zeros(1, 24, dtype=torch.bool)
    columns[:, ::3] = True
    operator = CartesianMRI(columns, shape=(24, 24))
    draws = Noise(7, [0], PRIOR.mean)
    image = PRIOR.draw(draws.normal(PRIOR.space))[0]
    y = operator(image) + 0.02 * draws.normal(PRIOR.space)[0] * columns
    return Problem(y, operator, 0.02, scale=50.0)


def drawn(problem: Problem, **options: object) -> Posterior:
    wanted = {"samples": 4, "progress": False, "holdout": False, **options}
    return recon.reconstruct(problem, PRIOR, SAMPLER, **wanted)  # type: ignore[arg-type]


def test_a_start_saves_the_steps_above_its_noise_level(problem: Problem):
    truth = exact_posterior(problem, PRIOR)
    whole, short = drawn(problem), drawn(problem, start="least-squares", start_sigma=0.5)
    assert short.provenance["network_calls"] < 0.7 * whole.provenance["network_calls"] == 0.7 * 20
    assert short.diagnostics["start_sigma"] == pytest.approx([0.5] * 4)
    assert short.provenance["config"]["start"] == "least-squares"
    assert short.provenance["config"]["start_sigma"] == 0.5 and "start" not in whole.provenance["config"]
    for result in (whole, short):
        error = np.abs(result.mean / problem.scale - truth.mean.numpy())
        assert np.sqrt((error**2).mean()) < 1.5 * float(truth.std.square().mean().sqrt())


def test_the_noise_level_follows_from_the_likely_error_of_the_start(problem: Problem):
    truth = exact_posterior(problem, PRIOR).mean
    _, near = Start(problem.scale * truth.numpy()).at(problem, 0, PRIOR)
    _, far = Start("zero-filled").at(problem, 0, PRIOR)
    _, wrong = Start(np.full((24, 24), 1e3)).at(problem, 0, PRIOR)
    spread = float(exact_posterior(problem, PRIOR).std.square().mean().sqrt())
    assert 1.5 * spread < near < 2.5 * spread and near < far < wrong == 1.5


@pytest.mark.parametrize("name", ["zero-filled", "least-squares", "tv"])
def test_named_starts_fit_the_data_at_their_scale(problem: Problem, name: str):
    image = Start(name).image_of(problem, 0)
    left = problem.y - problem.operator(image)
    assert image.shape == (24, 24) and left.norm() < 0.4 * problem.y.norm()


def test_an_array_is_in_physical_units_and_a_magnitude_gets_the_phase_of_the_data(problem: Problem, tmp_path: Path):
    image = 50.0 * np.abs(PRIOR.draw(Noise(3, [0], PRIOR.mean).normal(PRIOR.space))[0].numpy())
    start = Start.given(image, None)
    assert start is not None
    found = start.image_of(problem, 0)
    np.testing.assert_allclose(found.abs().numpy(), image / 50.0, rtol=1e-4)
    turned = found * problem.weighted_data.conj()
    assert turned.imag.abs().max() < 1e-3 * turned.abs().max()
    np.save(tmp_path / "start.npy", np.stack([image, 2 * image]))
    stored = Start.given(str(tmp_path / "start.npy"), None)
    assert stored is not None
    np.testing.assert_allclose(stored.image_of(problem, 1).abs().numpy(), image / 25.0, rtol=1e-4)
    with pytest.raises(ShapeError, match="no image of slice 2 among 2"):
        stored.image_of(problem, 2)
    real = Problem(torch.ones(24, 24), Identity(Space((24, 24), torch.float32, "y x")), 0.1)
    with pytest.raises(InputError, match="expected a real image"):
        Start(image.astype(complex)).image_of(real, 0)


@pytest.mark.parametrize(
    ("start", "sigma", "error", "message"),
    [
        (None, 0.3, InputError, "give start as well"),
        ("fbp", None, InputError, "expected one of zero-filled, least-squares, tv, or a .npy file"),
        (np.ones(3), None, InputError, r"expected one of .* got float64 of shape \(3,\)"),
        (np.array([["a", "b"]]), None, InputError, "expected an array of numbers"),
        ("tv", -1.0, InputError, "start_sigma: expected a finite number > 0"),
        (np.ones((5, 5)), None, ShapeError, r"expected images of \(24, 24\) pixels, got \(5, 5\)"),
        (np.full((24, 24), np.nan), None, InputError, "not finite"),
    ],
)
def test_a_start_that_does_not_fit_is_refused(problem: Problem, start, sigma, error, message):
    with pytest.raises((error, ConfigError), match=message):
        drawn(problem, start=start, start_sigma=sigma)


def test_a_level_of_the_schedule_is_never_passed_twice(problem: Problem):
    begin = torch.zeros(24, 24, dtype=torch.complex64)
    found = sample(SAMPLER, problem, PRIOR, 2, start=begin, start_sigma=1.0)
    assert found.sigmas[0] == 1.0 > found.sigmas[1] and found.steps == len(found.sigmas) - 1 < 20
    assert sample(SAMPLER, problem, PRIOR, 2, start=begin, start_sigma=9.0).sigmas[0] == pytest.approx(3.0)
    with pytest.raises(InputError, match="together with start"):
        sample(SAMPLER, problem, PRIOR, 2, start_sigma=1.0)


def test_a_calibration_knows_the_start(problem: Problem):
    plain, started = drawn(problem), drawn(problem, start="tv")
    with pytest.raises(InputError, match="start is tv here but was not recorded"):
        require_match(fingerprint(plain), fingerprint(started))


def test_from_the_command_line(tmp_path: Path):
    rng = np.random.default_rng(0)
    np.save(tmp_path / "scan.npy", rng.standard_normal((4, 32, 32)) + 1j * rng.standard_normal((4, 32, 32)))
    common = ["run", str(tmp_path / "scan.npy"), "--prior", "gaussian", "--samples", "2", "--steps", "6", "--quiet"]
    given = ["--start", "zero-filled", "--start-sigma", "0.4", "-o", str(tmp_path / "out"), "--no-holdout"]
    cli.main([*common, *given])
    result = Posterior.load(next((tmp_path / "out").glob("*.h5")))
    assert result.provenance["config"]["start"] == "zero-filled"
    assert result.diagnostics["start_sigma"] == pytest.approx([0.4, 0.4])
    assert cli.main([*common, "--start", "missing.npy", "-o", str(tmp_path / "other")]) == 2
