"""Every strategy against an exact posterior: the spread it must show, in measured and unmeasured directions."""

import itertools
from typing import Any

import pytest
import torch

from operators import Diagonal, fftc
from recon.priors import ExactPosterior, GaussianPrior, exact_posterior
from samplers import (
    DAPS,
    DDS,
    DPS,
    PULA,
    DiffPIR,
    ExactGaussian,
    Noise,
    PiGDM,
    PnPDM,
    Problem,
    REDDiff,
    Samples,
    ScoreALD,
    ScoreMRI,
    Uniform,
    sample,
)

DRAWS = 256
FEWER_DRAWS = 128  # where the bands are wide
ORACLE = ExactGaussian(iterations=120)

_ADAPTED: dict[str, Any] = {
    "gamma": "rule",
    "spread": Uniform(),
    "noise": "ddim",
    "eta": 1.0,
    "adapt_to_noise": True,
    "spacing": "karras",
    "sigma_max": 50.0,
}

# strategy, band of the median std ratio, band of the ratio in measured k-space, largest error of the mean (in std)
STRATEGIES = {
    "exact": (ORACLE, (0.97, 1.03), (0.97, 1.03), 0.10),
    "dds-published-noise-free": (DDS(gamma="noise-free"), (0.70, 0.95), (0.0, 0.02), 0.45),
    # A fixed gamma does not know the noise level: in measured directions the spread is whatever gamma makes it.
    "dds-published-gamma": (DDS(gamma=0.95), (0.70, 0.95), (1.2, 2.5), 0.45),
    "dds-rule": (DDS(gamma="rule", spread=Uniform(0.5)), (0.70, 0.95), (0.1, 1.0), 0.45),
    "dds-rule-ddim": (DDS(gamma="rule", spread=Uniform(0.5), noise="ddim", eta=1.0), (0.75, 1.0), (0.1, 1.0), 0.45),
    # Few steps. In measured directions the ratio is .51 with the noise direction of the denoised image alone.
    "dds-adapted": (DDS(steps=30, **_ADAPTED), (0.8, 0.9), (0.55, 0.65), 0.1),
    # The mean of 128 exact draws is .09 std from the true one.
    "dds": (DDS(steps=30, **_ADAPTED, image_draws=True), (0.97, 1.03), (0.8, 1.03), 0.12),
    "dds-few-steps": (DDS(steps=8, **_ADAPTED, image_draws=True), (0.97, 1.03), (0.95, 1.03), 0.12),
}


# Published strategies as they are: fewer draws and fewer steps than in use, so the mean's own error is .18 std.
FEW_DRAWS = 32
FEW = {"sigma_max": 50.0, "cg_iterations": 3}
BASELINES = {
    "diffpir": (DiffPIR(steps=50, **FEW), (0.85, 0.97), (0.80, 0.97), 0.22),
    "diffpir-noisy": (DiffPIR(steps=50, zeta=1.0, **FEW), (0.55, 0.72), (0.55, 0.80), 0.22),
    "pigdm": (PiGDM(steps=50, **FEW), (0.85, 0.98), (0.85, 1.00), 0.22),
    "pigdm-published": (PiGDM(steps=50, weight="published", **FEW), (0.85, 0.98), (0.28, 0.48), 0.22),
    "pula": (PULA(steps=30, **FEW), (1.02, 1.15), (0.95, 1.10), 0.27),
    "daps-langevin": (DAPS(steps=30, langevin_steps=20, sigma_max=50.0), (0.82, 0.97), (0.98, 1.14), 0.22),
    "daps-exact": (DAPS(steps=30, likelihood="exact", **FEW), (1.28, 1.50), (0.90, 1.08), 0.32),
    "daps-rule": (
        DAPS(steps=30, likelihood="exact", width="rule", prior_std=0.5, **FEW),
        (1.02, 1.17),
        (0.90, 1.08),
        0.27,
    ),
    "pnp-dm": (PnPDM(steps=40, **FEW), (0.88, 1.03), (0.92, 1.12), 0.25),
    "score-ald-paper": (ScoreALD(steps=60, sigma_max=50.0), (1.00, 1.18), (1.02, 1.22), 0.27),
    "score-ald-code": (ScoreALD(steps=60, sigma_max=50.0, rule="code"), (1.00, 1.18), (0.55, 0.80), 0.27),
    "dps": (DPS(steps=100, sigma_max=50.0), (0.84, 1.00), (0.55, 0.80), 0.27),
    "dps-strong": (DPS(steps=100, sigma_max=50.0, zeta=1.0), (0.84, 1.00), (1.05, 1.40), 0.27),
    "score-mri": (ScoreMRI(steps=80, sigma_max=50.0), (0.90, 1.08), (0.0, 0.02), 0.27),
    "red-diff": (REDDiff(steps=150, sigma_max=50.0), (0.55, 0.85), (0.10, 0.30), 0.25),
}


@pytest.mark.parametrize("name", STRATEGIES)
def test_spread_and_mean(
    name: str,
    problem: Problem,
    prior: GaussianPrior,
    truth: ExactPosterior,
    true_spread: torch.Tensor,
    mask: torch.Tensor,
) -> None:
    strategy, ratio_band, measured_band, largest_error = STRATEGIES[name]
    drawn = sample(strategy, problem, prior, DRAWS if strategy is ORACLE else FEWER_DRAWS, seed=3)
    ratio = (drawn.std / truth.std).median()
    error = ((drawn.mean - truth.mean).abs() / truth.std).square().mean().sqrt()
    measured = _measured_ratio(drawn, true_spread, mask)
    assert ratio_band[0] <= ratio <= ratio_band[1], f"std ratio {ratio:.3f}"
    assert measured_band[0] <= measured <= measured_band[1], f"measured std ratio {measured:.3f}"
    assert error <= largest_error, f"mean error {error:.3f} posterior std"


@pytest.mark.parametrize("name", BASELINES)
def test_published_strategies_keep_their_band(
    name: str,
    problem: Problem,
    prior: GaussianPrior,
    truth: ExactPosterior,
    true_spread: torch.Tensor,
    mask: torch.Tensor,
) -> None:
    strategy, ratio_band, measured_band, largest_error = BASELINES[name]
    drawn = sample(strategy, problem, prior, FEW_DRAWS, seed=3)
    ratio = (drawn.std / truth.std).median()
    error = ((drawn.mean - truth.mean).abs() / truth.std).square().mean().sqrt()
    measured = _measured_ratio(drawn, true_spread, mask)
    found = f"std ratio {ratio:.3f}, measured {measured:.3f}, mean error {error:.3f} posterior std"
    assert ratio_band[0] <= ratio <= ratio_band[1], found
    assert measured_band[0] <= measured <= measured_band[1], found
    assert error <= largest_error, found


def _spread(images: torch.Tensor) -> torch.Tensor:
    """Return the standard deviation of each point of k-space."""
    return fftc(images - images.mean(dim=0)).abs().square().mean(dim=0).sqrt()


@pytest.fixture(scope="module")
def true_spread(truth: ExactPosterior) -> torch.Tensor:
    return _spread(truth.draw(2048, seed=11))


def _measured_ratio(drawn: Samples, true_spread: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Return the std ratio on the sampled columns of k-space."""
    return (_spread(drawn.samples) / true_spread)[:, mask[0]].median()


@pytest.mark.slow
def test_exact_samples_cover_and_fit(problem: Problem, prior: GaussianPrior, truth: ExactPosterior) -> None:
    drawn = sample(ORACLE, problem, prior, DRAWS, seed=5)
    inside = ((drawn.samples - truth.mean).real.abs() <= 1.645 * truth.std / 2**0.5).double().mean()
    assert 0.89 <= inside <= 0.91
    assert 0.9 <= drawn.residual.mean() <= 1.1
    assert drawn.facts["cg_residual"].max() < 1e-4


def test_exact_mean_equals_the_dense_one(problem: Problem, prior: GaussianPrior, truth: ExactPosterior) -> None:
    mean = ORACLE.posterior_mean(problem, prior)
    assert (mean - truth.mean).abs().max() < 1e-4 * truth.mean.abs().max()


@pytest.mark.slow
def test_exact_with_noise_for_each_datum(prior: GaussianPrior) -> None:
    space = prior.space
    noise_std = torch.linspace(0.05, 2.0, space.shape[0])[:, None].expand(space.shape)
    operator = Diagonal(torch.full(space.shape, 0.5 + 0.5j))
    y = Noise(1, [0], prior.mean).normal(space)[0]
    problem = Problem(y, operator, noise_std)
    truth = exact_posterior(problem, prior)
    drawn = sample(ORACLE, problem, prior, DRAWS, seed=2)
    ratio = drawn.std / truth.std
    assert (ORACLE.posterior_mean(problem, prior) - truth.mean).abs().max() < 1e-4
    assert 0.97 <= ratio.median() <= 1.03
    assert 0.9 <= drawn.residual.mean() / problem.misfit(truth.draw(256, seed=1)).mean() <= 1.1


def test_dds_follows_its_published_equations(problem: Problem, prior: GaussianPrior) -> None:
    """A transcription of the paper on the same noise stream, with a dense solve in place of conjugate gradients."""
    strategy = DDS(steps=10, cg_iterations=60, gamma=2.0, eta=0.5)
    drawn = sample(strategy, problem, prior, 1, seed=9)
    noise = Noise(9, [0], prior.mean)
    sigmas = strategy.sigmas(problem, prior)
    x = sigmas[0] * noise.normal(prior.space)
    columns = problem.operator.mask.float()
    for sigma, sigma_next in itertools.pairwise(sigmas):
        denoised = prior.denoise(x, sigma)
        eps = (x - denoised) / sigma
        # A^H A is diagonal in k-space, so (I + gamma A^H A)^-1 is a division there.
        kspace = (fftc(denoised) + 2.0 * problem.y) / (1 + 2.0 * columns)
        fitted = torch.fft.fftshift(
            torch.fft.ifft2(torch.fft.ifftshift(kspace, dim=(-2, -1)), norm="ortho"), dim=(-2, -1)
        )
        x = fitted
        if sigma_next > 0:
            x = x + sigma_next * (0.75**0.5 * eps + 0.5 * noise.normal(prior.space))
    assert (drawn.samples - x).abs().max() < 1e-4 * x.abs().max()
