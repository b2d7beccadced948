"""The covariance model, products with the Jacobian, time stepping and the flagship that is built of them."""

import dataclasses
import itertools

import pytest
import torch

from operators import CartesianMRI, Diagonal, Matrix, Space
from operators.errors import InputError, ShapeError
from recon.priors import ExactPosterior, GaussianPrior
from samplers import DDS, CovarianceModel, MomentMatching, Noise, PiGDM, Problem, Run, Uniform, sample
from samplers.covariance import condition
from samplers.jacobian import differences, vjp
from samplers.proximal import proximal
from samplers.spread import clean_variance, support_weights
from samplers.stepping import Past, advance, correct

SIZE = 8
RANGE = {"sigma_max": 20.0, "sigma_min": 0.003}


@pytest.fixture
def small() -> tuple[GaussianPrior, CovarianceModel, Problem]:
    prior = GaussianPrior.power_law((SIZE, SIZE), std=0.4, dtype=torch.complex128)
    rows = torch.randn(20, SIZE**2, dtype=torch.complex128, generator=torch.Generator().manual_seed(0))
    operator = Matrix(rows / SIZE, Space((SIZE, SIZE), torch.complex128), Space((20,), torch.complex128, axes="datum"))
    x0 = prior.draw(Noise(0, [0], prior.mean).normal(prior.space))[0]
    y = operator(x0) + 0.1 * Noise(0, [1], prior.mean).normal(operator.codomain)[0]
    spectrum = prior.variance / prior.variance.mean()
    return prior, CovarianceModel(prior.variance.mean().sqrt(), spectrum), Problem(y, operator, 0.1)


def _matrix(function, size: int = SIZE) -> torch.Tensor:
    basis = torch.eye(size**2, dtype=torch.complex128).reshape(-1, size, size)
    return function(basis).reshape(size**2, -1).T


def test_conditioning_solves_the_dense_system(small) -> None:
    prior, model, problem = small
    sigma = 0.3
    pull = Noise(3, range(2), prior.mean).normal(prior.space)
    moved, residual = condition(problem, model, sigma, pull, 60, 1e-12)
    covariance = _matrix(lambda v: model.root(model.root_adjoint(v)))
    normal = _matrix(problem.weighted_normal)
    total = torch.linalg.inv(covariance) + torch.eye(SIZE**2) / sigma**2 + normal
    expected = torch.linalg.solve(total, pull.reshape(2, -1).T).T.reshape(pull.shape)
    torch.testing.assert_close(moved, expected, rtol=1e-6, atol=1e-9)
    assert residual.max() < 1e-10


def test_conditioning_of_real_images_stays_real(small) -> None:
    _, model, _ = small
    generator = torch.Generator().manual_seed(1)
    rows = torch.randn(20, SIZE**2, dtype=torch.float64, generator=generator) / SIZE
    operator = Matrix(rows, Space((SIZE, SIZE), torch.float64), Space((20,), torch.float64, axes="datum"))
    problem = Problem(torch.randn(20, dtype=torch.float64, generator=generator), operator, 0.1)
    # A real image has a spectrum that is the same at opposite frequencies.
    power = torch.fft.ifftshift(model.spectrum)
    opposite = power.flip(0, 1).roll((1, 1), (0, 1))
    even = CovarianceModel(torch.linspace(0.5, 1.0, SIZE).expand(SIZE, SIZE), torch.fft.fftshift(power + opposite) / 2)
    pull = torch.randn(2, SIZE, SIZE, dtype=torch.float64, generator=generator)
    moved, _ = condition(problem, even, 0.3, pull, 60, 1e-12)
    basis = torch.eye(SIZE**2, dtype=torch.float64).reshape(-1, SIZE, SIZE)
    covariance = even.root(even.root_adjoint(basis)).real.reshape(SIZE**2, -1).T
    total = torch.linalg.inv(covariance) + torch.eye(SIZE**2) / 0.3**2 + rows.T @ rows / 0.1**2
    expected = torch.linalg.solve(total, pull.reshape(2, -1).T).T.reshape(pull.shape)
    torch.testing.assert_close(moved, expected, rtol=1e-6, atol=1e-9)


def test_covariance_of_the_model_is_that_of_the_prior(small) -> None:
    prior, model, _ = small
    torch.testing.assert_close(
        _matrix(lambda v: model.root(model.root_adjoint(v))), _matrix(prior.covariance), rtol=1e-9, atol=1e-12
    )


def test_estimated_model_finds_map_and_spectrum() -> None:
    prior = GaussianPrior.power_law((16, 16), std=1.0)
    envelope = torch.linspace(0.5, 2.0, 16)[:, None].expand(16, 16)
    images = envelope * prior.draw(Noise(0, range(4000), prior.mean).normal(prior.space))
    model = CovarianceModel.estimate(images)
    torch.testing.assert_close(model.std_map, envelope.contiguous(), rtol=0.1, atol=0)
    torch.testing.assert_close(model.spectrum, prior.variance / prior.variance.mean(), rtol=0.15, atol=0)
    assert CovarianceModel.estimate(images, smooth=2).std_map.shape == (16, 16)
    assert model.resized((24, 20)).std_map.shape == (24, 20)
    assert float(model.resized((24, 20)).spectrum.mean()) == pytest.approx(1)


def test_model_refuses_what_it_cannot_use() -> None:
    with pytest.raises(InputError, match="std_map"):
        CovarianceModel(torch.tensor([[1.0, float("nan")]]))
    with pytest.raises(ShapeError, match="spectrum"):
        CovarianceModel(torch.ones(4, 4), torch.ones(4, 5))
    with pytest.raises(ShapeError, match="at least 2"):
        CovarianceModel.estimate(torch.ones(1, 4, 4))


@pytest.mark.parametrize("kind", ["differences", "vjp"])
def test_jacobian_of_a_gaussian_prior_is_its_gain(small, kind: str) -> None:
    prior, _, _ = small
    x, v = Noise(1, range(4), prior.mean).normal(prior.space).split(2)
    denoised, product = (
        vjp(prior, x, 0.5)
        if kind == "vjp"
        else (prior.denoise(x, 0.5), differences(prior, x, 0.5, prior.denoise(x, 0.5)))
    )
    torch.testing.assert_close(denoised, prior.denoise(x, 0.5))
    torch.testing.assert_close(product(v), prior.denoise(v, 0.5) - prior.denoise(torch.zeros_like(v), 0.5))


@pytest.mark.parametrize("solver", ["ddim", "2m", "heun"])
def test_solvers_follow_the_probability_flow_of_a_gaussian(solver: str) -> None:
    """For x0 ~ N(0, s^2) the flow is known: x(sigma) is proportional to sqrt(s^2 + sigma^2)."""

    def denoise(x: torch.Tensor, sigma: float) -> torch.Tensor:
        return x / (1 + sigma**2)

    errors = []
    for steps in (10, 20, 40):
        levels = [5 * (0.02 / 5) ** (k / steps) for k in range(steps + 1)]
        x, past = torch.tensor([26.0**0.5], dtype=torch.float64), None
        for sigma, following in itertools.pairwise(levels):
            denoised = denoise(x, sigma)
            moved = advance(solver, x, sigma, following, denoised, past, lambda: torch.zeros(1))
            if solver == "heun":
                moved = correct(x, sigma, following, denoised, moved, denoise(moved, following))
            x, past = moved, Past(sigma, denoised)
        errors.append(abs(float(x) - 1.0004**0.5 / 1.0))
    order = 1 if solver == "ddim" else 2
    assert errors[1] / errors[2] > 2**order * 0.8
    assert errors[2] < (0.05 if solver == "ddim" else 0.005)


@pytest.mark.parametrize("solver", ["ancestral", "sde-2m"])
def test_renewed_noise_keeps_the_variance(solver: str) -> None:
    """From N(0, s^2 + sigma^2) one step must lead to N(0, s^2 + sigma_next^2), up to the order of the rule."""
    noise = torch.randn(2, 200_000, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x = (1 + 0.3**2) ** 0.5 * noise[0]
    denoised = x / (1 + 0.3**2)
    moved = advance(solver, x, 0.3, 0.28, denoised, None, lambda: noise[1])
    assert float(moved.var()) == pytest.approx(1 + 0.28**2, rel=0.01)


@pytest.mark.slow
def test_flagship_is_exact_with_the_right_model(problem: Problem, prior: GaussianPrior, truth: ExactPosterior) -> None:
    model = CovarianceModel(prior.variance.mean().sqrt(), prior.variance / prior.variance.mean())
    for sampler in (
        MomentMatching(20, "2m", covariance=model, **RANGE),
        MomentMatching(20, "2m", **RANGE),  # the prior knows the spectrum of its error
        MomentMatching(20, "2m", prior_std=0.5, jacobian_below=0.4, **RANGE),
        MomentMatching(20, "2m", covariance=model, jacobian_below=0.4, jacobian="vjp", **RANGE),
    ):
        drawn = sample(sampler, problem, prior, 64, seed=1)
        assert 0.95 <= float((drawn.std / truth.std).median()) <= 1.06
        assert float(((drawn.mean - truth.mean).abs() / truth.std).square().mean().sqrt()) < 0.2
        assert float(drawn.facts["negative_curvature"].sum()) == 0


def test_negative_curvature_is_met_with_the_models_answer(small) -> None:
    """A denoiser whose Jacobian is no covariance: the directions are refused, counted, and nothing explodes."""
    prior, model, problem = small

    class Wrong:
        sigma_min, sigma_max, space = 1e-3, 20.0, prior.space

        def denoise(self, x: torch.Tensor, sigma: float) -> torch.Tensor:
            return -3 * x

    x = Noise(2, range(3), prior.mean).normal(prior.space)
    sampler = MomentMatching(covariance=model, jacobian_below=10.0)
    run = Run(problem, Wrong(), Noise(0, range(3), problem.y))
    told = sampler.estimate(x, 0.5, run, None)
    expected = dataclasses.replace(sampler, jacobian_below=0.0).estimate(x, 0.5, run, None)
    assert bool((told.facts["negative_curvature"] > 0).all())
    torch.testing.assert_close(told.denoised, expected.denoised)


def test_a_negative_jacobian_that_is_not_used_is_told(small) -> None:
    _, _, problem = small

    class Half:
        sigma_min, sigma_max, space = 0.01, 3.0, None

        def denoise(self, x: torch.Tensor, sigma: float) -> torch.Tensor:
            return -x / 2

    drawn = sample(MomentMatching(3, sigma_max=3.0, sigma_min=0.02), problem, Half(), 2)
    assert drawn.facts["negative_curvature"].tolist() == [1, 1]


def test_flagship_depends_on_seed_and_number_only(problem: Problem, prior: GaussianPrior) -> None:
    for sampler in (
        MomentMatching(6, jacobian_below=0.5, **RANGE),
        MomentMatching(6, "heun", **RANGE),
        PiGDM(6, **RANGE),
    ):
        together = sample(sampler, problem, prior, 4, seed=5).samples
        alone = torch.cat([sample(sampler, problem, prior, 1, seed=5, first=k).samples for k in range(4)])
        torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


def test_real_images_and_noise_of_each_datum() -> None:
    prior = GaussianPrior.power_law((12, 12), std=0.5, dtype=torch.float32)
    operator = Diagonal(torch.ones(12, 12), prior.space)
    noise_std = torch.linspace(0.05, 1, 12)[:, None].expand(12, 12).contiguous()
    x0 = prior.draw(Noise(0, [0], prior.mean).normal(prior.space))
    problem = Problem(x0[0] + noise_std * Noise(0, [1], prior.mean).normal(prior.space)[0], operator, noise_std)
    drawn = sample(MomentMatching(20, jacobian_below=0.3, prior_std=0.5, **RANGE), problem, prior, 32)
    assert not drawn.samples.is_complex()
    assert 0.8 <= float(drawn.residual.mean()) <= 1.2
    assert float(drawn.std[-2:].mean()) > 1.5 * float(drawn.std[:2].mean())


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"solver": "euler"}, {"iterations": 0}, {"jacobian": "exact"}])
def test_bad_settings_are_refused(wrong: dict) -> None:
    with pytest.raises(InputError, match="MomentMatching"):
        MomentMatching(**wrong)


def test_variance_of_the_clean_image_is_the_measured_error_where_it_is_known(small) -> None:
    prior, _, _ = small
    x = prior.draw(Noise(4, range(400), prior.mean).normal(prior.space))
    noisy = x + 0.3 * Noise(5, range(400), prior.mean).normal(prior.space)
    measured = float((prior.denoise(noisy, 0.3) - x).abs().square().mean())
    assert clean_variance(0.3, None, prior) == pytest.approx(measured, rel=0.03)
    assert clean_variance(0.3, 0.4, prior) == pytest.approx(0.3**2 * 0.4**2 / (0.3**2 + 0.4**2))

    class Silent:
        sigma_min, sigma_max, space = 1e-3, 20.0, prior.space

        def denoise(self, x: torch.Tensor, sigma: float) -> torch.Tensor:
            return x

    assert clean_variance(0.3, None, Silent()) == pytest.approx(0.3**2 / (0.3**2 + 1))


def test_the_weighted_proximal_step_solves_its_system(small) -> None:
    prior, _, problem = small
    anchor = prior.draw(Noise(8, range(2), prior.mean).normal(prior.space))
    weights = support_weights(anchor, 0.5)
    assert 0.2 <= float(weights.min()) < float(weights.max()) == 1
    moved, residual = proximal(problem, anchor, 0.3**2, 80, weights)
    spread = (0.3 * weights).square()
    pull = problem.weighted_data - problem.weighted_normal(moved)
    torch.testing.assert_close(moved - anchor, spread * pull, rtol=1e-5, atol=1e-8)
    assert residual.max() < 1e-8


def test_expectations_estimate_the_mean_with_less_noise(
    problem: Problem, prior: GaussianPrior, truth: ExactPosterior
) -> None:
    strategy = DDS(
        30, gamma="rule", spread=Uniform(), noise="ddim", eta=1.0, mean_sigma=0.15, spacing="karras", **RANGE
    )
    drawn = sample(strategy, problem, prior, 16, seed=4)
    plain = sample(dataclasses.replace(strategy, mean_sigma=None), problem, prior, 16, seed=4)
    assert plain.expectation is None and torch.equal(plain.samples, drawn.samples)

    def error(mean: torch.Tensor) -> float:
        return float((mean - truth.mean).abs().square().mean().sqrt())

    assert torch.equal(drawn.mean, drawn.expectation.mean(dim=0))
    assert error(drawn.mean) < error(plain.mean)


@pytest.mark.parametrize("weights", [None, 0.5])
def test_a_preconditioned_fit_is_the_same_and_nearer_in_as_many_iterations(weights: float | None) -> None:
    generator = torch.Generator().manual_seed(0)
    line, angles = torch.linspace(-1, 1, 16, dtype=torch.float64), torch.arange(3)[:, None, None] * 2.1
    maps = torch.exp(-((line[:, None] - angles.sin()) ** 2 + (line - angles.cos()) ** 2) / 2 + 1j * angles)
    operator = CartesianMRI(torch.rand(16, 16, generator=generator) > 0.4, maps / maps.abs().square().sum(0).sqrt())
    noise_std = 0.01 * (1 + 20 * torch.rand(1, 16, 16, dtype=torch.float64, generator=generator))
    y = operator(torch.randn(16, 16, dtype=torch.complex128, generator=generator))
    problem, anchor = Problem(y, operator, noise_std), torch.zeros(1, 16, 16, dtype=torch.complex128)
    local = None if weights is None else torch.full((1, 16, 16), weights, dtype=torch.float64)
    variance = 0.3 * (1.0 if weights is None else weights**2)
    system = torch.eye(256) / variance + _matrix(problem.weighted_normal, 16)
    exact = torch.linalg.solve(system, problem.weighted_data.flatten()).reshape(anchor.shape)
    few = {flag: proximal(problem, anchor, 0.3, 8, local, preconditioned=flag)[0] for flag in (False, True)}
    errors = {flag: float((found - exact).abs().square().mean().sqrt()) for flag, found in few.items()}
    assert errors[True] < errors[False]
    many, _ = proximal(problem, anchor, 0.3, 500, local, preconditioned=True)
    torch.testing.assert_close(many, exact, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_draws_of_a_fit_have_its_covariance() -> None:
    generator = torch.Generator().manual_seed(0)
    maps = torch.randn(2, 4, 4, dtype=torch.complex128, generator=generator)
    operator = CartesianMRI(torch.rand(4, 4, generator=generator) > 0.3, maps)
    problem = Problem(operator(torch.ones(4, 4, dtype=torch.complex128)), operator, 0.4)
    count = 6000
    anchor = torch.zeros(count, 4, 4, dtype=torch.complex128)
    drawn, _ = proximal(problem, anchor, 0.2, 40, draw=Noise(0, range(count), problem.y))
    dense = _matrix(problem.weighted_normal, 4)
    expected = torch.linalg.inv(torch.eye(16) / 0.2 + dense)
    flat = (drawn - drawn.mean(0)).reshape(count, -1)
    found = flat.T @ flat.conj() / (count - 1)
    torch.testing.assert_close(found, expected, rtol=0.0, atol=0.06 * float(expected.abs().max()))
