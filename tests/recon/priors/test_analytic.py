"""Analytic priors: denoisers and densities against dense formulas."""

import math

import pytest
import torch

from operators import InputError, Matrix, ShapeError
from recon.priors import GaussianMixturePrior, GaussianPrior, exact_posterior, load_prior
from samplers import Noise, Problem

SHAPE = (5, 6)
SIZE = 30


def _covariance(prior: GaussianPrior) -> torch.Tensor:
    basis = torch.eye(SIZE, dtype=prior.mean.dtype).reshape(SIZE, *SHAPE)
    return prior.covariance(basis).reshape(SIZE, SIZE).T


def _priors() -> dict[str, GaussianPrior]:
    mean = torch.linspace(-1, 1, SIZE, dtype=torch.float64).reshape(SHAPE)
    return {
        "stationary complex": GaussianPrior(
            mean * (1 + 2j), spectrum=GaussianPrior.power_law(SHAPE, dtype=torch.complex128).variance
        ),
        "stationary real": GaussianPrior(mean, spectrum=GaussianPrior.power_law(SHAPE, dtype=torch.float64).variance),
        "envelope complex": GaussianPrior(mean * 1j, std_map=mean.abs() + 0.1),
        "envelope real": GaussianPrior(mean, std_map=mean.abs() + 0.1),
    }


@pytest.mark.parametrize("name", ["stationary complex", "envelope complex", "envelope real"])
@pytest.mark.parametrize("sigma", [0.01, 0.3, 5.0])
def test_denoiser_is_the_conditional_mean(name: str, sigma: float) -> None:
    prior = _priors()[name]
    covariance = _covariance(prior)
    x = Noise(0, range(3), prior.mean).normal(prior.space)
    identity = torch.eye(SIZE, dtype=covariance.dtype)
    gain = covariance @ torch.linalg.inv(covariance + sigma**2 * identity)
    expected = prior.mean.flatten() + (x - prior.mean).flatten(1) @ gain.T
    torch.testing.assert_close(prior.denoise(x, sigma).flatten(1), expected)
    each = prior.denoise(x, torch.tensor([sigma, 1.0, sigma], dtype=torch.float64))
    torch.testing.assert_close(each[[0, 2]], prior.denoise(x, sigma)[[0, 2]])


@pytest.mark.parametrize("name", list(_priors()))
def test_draws_have_the_covariance(name: str) -> None:
    """The map from white noise to a draw is linear, so its matrix is checked, not its statistics."""
    prior = _priors()[name]
    basis = torch.eye(SIZE, dtype=prior.mean.dtype).reshape(SIZE, *SHAPE)
    root = (prior.draw(basis) - prior.mean).reshape(SIZE, SIZE).T
    torch.testing.assert_close(root @ root.mH, _covariance(prior))


@pytest.mark.parametrize("name", list(_priors()))
def test_log_density_is_that_of_a_gaussian(name: str) -> None:
    prior = _priors()[name]
    sigma = 0.4
    total = _covariance(prior) + sigma**2 * torch.eye(SIZE, dtype=prior.mean.dtype)
    x = Noise(1, range(2), prior.mean).normal(prior.space)
    z = (x - prior.mean).flatten(1)
    quadratic = (z.conj() * torch.linalg.solve(total, z.T).T).sum(1).real
    if prior.mean.is_complex():
        expected = -quadratic - torch.linalg.slogdet(total)[1].real - SIZE * math.log(math.pi)
    else:
        expected = -0.5 * (quadratic + torch.linalg.slogdet(total)[1] + SIZE * math.log(2 * math.pi))
    torch.testing.assert_close(prior.log_density(x, sigma), expected)


def test_mixture_denoiser_is_the_gradient_of_its_density() -> None:
    """Tweedie: D(x) = x + sigma^2 grad log p_sigma(x), for a real mixture."""
    priors = _priors()
    mixture = GaussianMixturePrior([priors["stationary real"], priors["envelope real"]], [0.3, 0.7])
    sigma = 0.7
    x = Noise(2, range(4), priors["envelope real"].mean).normal(mixture.space).requires_grad_()
    densities = torch.stack(
        [math.log(weight) + c.log_density(x, sigma) for weight, c in zip([0.3, 0.7], mixture.components, strict=True)]
    )
    (gradient,) = torch.autograd.grad(torch.logsumexp(densities, 0).sum(), x)
    expected = (x + sigma**2 * gradient).detach()
    torch.testing.assert_close(mixture.denoise(x, sigma).detach(), expected)


def test_exact_posterior_of_one_pixel_by_hand() -> None:
    """Two real modes at -1 and +1 with std .5, one measurement y = x + .5 n at .6."""
    one = torch.ones(1, 1, dtype=torch.float64)
    mixture = GaussianMixturePrior([GaussianPrior(-one, std_map=one / 2), GaussianPrior(one, std_map=one / 2)])
    operator = Matrix(torch.ones(1, 1, dtype=torch.float64), mixture.space, mixture.space)
    truth = exact_posterior(Problem(0.6 * one, operator, 0.5), mixture)
    odds = math.exp(-(0.4**2 - 1.6**2) / (2 * 0.5))
    torch.testing.assert_close(truth.weights[1], torch.tensor(odds / (1 + odds), dtype=torch.float64))
    torch.testing.assert_close(truth.means.flatten(), torch.tensor([-0.2, 0.8], dtype=torch.float64))
    variance = 0.125 + odds / (1 + odds) ** 2
    assert float(truth.std) == pytest.approx(math.sqrt(variance), rel=1e-6)
    draws = truth.draw(20000, seed=0).flatten()
    assert float(draws.mean()) == pytest.approx(float(truth.mean), abs=0.02)
    assert float(draws.std()) == pytest.approx(float(truth.std), rel=0.02)


def test_bad_priors_are_refused() -> None:
    mean = torch.zeros(SHAPE)
    with pytest.raises(InputError, match="exactly one"):
        GaussianPrior(mean)
    with pytest.raises(ShapeError, match="variance of shape"):
        GaussianPrior(mean, std_map=torch.ones(3, 3))
    with pytest.raises(InputError, match=">= 0"):
        GaussianPrior(mean, spectrum=-torch.ones(SHAPE))
    with pytest.raises(InputError, match="at least one"):
        GaussianMixturePrior([])
    with pytest.raises(InputError, match="weights"):
        GaussianMixturePrior([GaussianPrior(mean, std_map=mean + 1)], [-1.0])
    with pytest.raises(InputError, match="unknown prior 'nothing'"):
        load_prior("nothing")
    with pytest.raises(InputError, match="shape"):
        load_prior("gaussian")
    with pytest.raises(InputError, match="lacks denoise"):
        load_prior(3)  # type: ignore[arg-type]
    assert load_prior("gaussian", shape=SHAPE).space.shape == SHAPE
