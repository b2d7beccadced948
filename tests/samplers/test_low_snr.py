"""DDS where noise decides: exact where the data are an image in noise, and never black."""

import dataclasses
import math
from types import SimpleNamespace

import pytest
import torch

from operators import CartesianMRI, Diagonal, Identity, fftc
from operators.errors import InputError
from recon.priors import GaussianPrior, exact_posterior
from samplers import DDS, PULA, DDSVolume, LocalEnergy, Noise, PartsAsBatch, Problem, Run, Support, Uniform, sample
from samplers.data_terms import join
from samplers.proximal import proximal
from samplers.spread import clean_variance, error_variance

#: The default of `recon run`, in fewer steps.
PLAIN = DDS(
    steps=12,
    gamma="rule",
    spread=Support(0.05),
    noise="ddim",
    eta=1.0,
    spacing="karras",
    sigma_max=3.0,
    sigma_min=0.015,
    mean_sigma=0.15,
)
ADAPTED = dataclasses.replace(PLAIN, adapt_to_noise=True)


def _scan(prior: GaussianPrior, mask: torch.Tensor, noise_std: float, scale: float = 1.0) -> Problem:
    operator = CartesianMRI(mask, shape=tuple(prior.space.shape))
    draws = Noise(3, [0], prior.mean)
    clean = scale * prior.draw(draws.normal(prior.space))[0]
    return Problem(operator(clean) + noise_std * draws.normal(prior.space)[0] * mask, operator, noise_std)


@pytest.fixture(scope="module")
def everything(mask: torch.Tensor) -> torch.Tensor:
    return torch.ones_like(mask)


def _held(problem: Problem, mean: torch.Tensor, truth: torch.Tensor) -> float:
    return float((mean.conj() * truth).real.sum() / truth.abs().square().sum())


@pytest.mark.parametrize("noise_std", [0.05, 0.5, 2.0])
def test_a_fully_sampled_scan_has_its_exact_mean_and_spread(prior, everything, noise_std):
    problem = _scan(prior, everything, noise_std)
    truth = exact_posterior(problem, prior)
    drawn = sample(dataclasses.replace(ADAPTED, steps=30), problem, prior, 24)
    error = (drawn.mean - truth.mean).abs().square().mean().sqrt()
    assert float(error / truth.std.square().mean().sqrt()) < 0.05
    ratio = drawn.std.square().mean().sqrt() / truth.std.square().mean().sqrt()
    assert 0.94 < float(ratio) < 1.07


def test_each_estimate_of_a_fully_sampled_scan_is_exact(prior, everything):
    """Given x of noise 1 and data of noise .4, by frequency: two measurements and a variance."""
    problem = _scan(prior, everything, 0.4)
    noise = Noise(5, range(2), prior.mean)
    x = noise.normal(prior.space)
    step = ADAPTED.step(x, 1.0, 0.5, Run(problem, prior, noise), None)
    pulls = fftc(x) / 1.0**2 + problem.y / 0.4**2
    expected = pulls / (1 / prior.variance + 1 / 1.0**2 + 1 / 0.4**2)
    torch.testing.assert_close(fftc(step.denoised), expected, rtol=1e-3, atol=1e-4)


def test_the_data_are_not_shown_to_the_network_where_they_are_no_image_in_white_noise(problem, prior, everything):
    x = Noise(5, range(1), prior.mean).normal(prior.space)
    assert join(problem, x, 1.0, prior.sigma_min)[0] is x
    shown, level, shared = join(_scan(prior, everything, 0.5), x, 1.0, prior.sigma_min)
    assert level == pytest.approx((1 + 4) ** -0.5, rel=1e-5)
    torch.testing.assert_close(shared, torch.full_like(shared, 4.0))
    assert shown.shape == x.shape
    # A network that knows no such little noise is told the least that it knows; the fit takes the rest.
    assert join(_scan(prior, everything, 0.1), x, 1.0, 0.3)[1] == pytest.approx(0.3, rel=1e-5)


def test_where_the_data_see_nothing_the_network_is_shown_the_noise_of_x_at_that_level():
    values = torch.ones(8, 8)
    values[:, 0] = 0
    problem = Problem(torch.zeros(8, 8, dtype=torch.complex64), Diagonal(values), 0.5)
    assert problem.information.whiteness == pytest.approx(1.0)
    shown, level, shared = join(problem, torch.ones(1, 8, 8, dtype=torch.complex64), 1.0, 0.01)
    assert shared[0, 0] == 0 and shared[0, 1] == pytest.approx(4.0, rel=1e-5)
    assert float(shown[0, 0, 0].real) == pytest.approx(level)
    assert float(shown[0, 0, 1].real) == pytest.approx(level**2)


def test_what_a_mask_lets_through(problem, mask):
    known = problem.information
    share = float(mask.float().mean())
    assert known.variance == pytest.approx(float(problem.noise_std) ** 2, rel=1e-4)
    assert known.whiteness == pytest.approx(share, rel=0.3)
    assert known.precision == pytest.approx(share / float(problem.noise_std) ** 2, rel=0.3)
    assert bool(known.seen.all())


@pytest.mark.parametrize("noise_std", [0.3, 1.0])
def test_an_undersampled_noisy_scan_does_not_go_black(prior, mask, noise_std):
    problem = _scan(prior, mask, noise_std)
    truth = exact_posterior(problem, prior).mean
    assert _held(problem, sample(ADAPTED, problem, prior, 8).mean, truth) > 0.9


def test_without_it_a_scan_goes_black(prior, mask):
    """What the above is there for; the error of this prior falls off by frequency, as that of a network does."""
    problem = _scan(prior, mask, 1.0)
    truth = exact_posterior(problem, prior).mean
    assert _held(problem, sample(PLAIN, problem, prior, 8).mean, truth) < 0.7


def test_the_error_is_flat_for_good_data_and_has_its_spectrum_for_noisy_ones(prior, mask):
    flat = clean_variance(0.5, None, prior)
    spectrum = torch.fft.ifftshift(prior.error_spectrum(0.5, (24, 24))).clamp(max=(0.99 * 0.5) ** 2)
    good, bad = (error_variance(_scan(prior, mask, std), 0.5, None, prior) for std in (1e-3, 1e3))
    torch.testing.assert_close(good, torch.full_like(good, flat), rtol=1e-3, atol=0)
    torch.testing.assert_close(bad, spectrum, rtol=1e-3, atol=1e-6)


def test_what_is_unknown_of_an_image_has_the_spectrum_of_the_error_unless_a_std_is_given(prior):
    spectrum = torch.fft.ifftshift(prior.error_spectrum(0.5, (24, 24))).clamp(max=(0.99 * 0.5) ** 2)
    image = prior.mean[None]
    for rule in (Uniform(), Support(0.5)):
        torch.testing.assert_close(rule.error(0.5, prior, image), spectrum.to(image.real))
    assert float(Uniform(0.5).error(0.5, prior, image)) == pytest.approx(0.125)
    # The map of local energy is a standard deviation already, and says the same of a denoiser that knows no spectrum.
    blind = SimpleNamespace(denoise=prior.denoise, sigma_min=0.01, sigma_max=50.0, space=prior.space)
    assert float(LocalEnergy(5).error(0.5, prior, image)) == float(LocalEnergy(5).error(0.5, blind, image)) == 1.0
    assert float(Uniform().error(0.5, blind, image)) == pytest.approx(0.25 / 1.25)


def test_the_dark_part_of_an_image_is_drawn_with_less_spread_and_the_bright_part_with_that_of_the_error(prior, mask):
    """The measured error of a network is one of pixels that show signal: a larger background must not change it."""
    nothing = _scan(prior, torch.zeros_like(mask), 0.1)
    image = torch.zeros(1, *prior.space.shape, dtype=prior.mean.dtype)
    image[..., 12:] = 1.0
    rule = dataclasses.replace(PLAIN, spread=Support(0.5), image_draws=True)
    drawn = torch.cat(
        [rule._unknown(image, 0.5, Run(nothing, prior, Noise(number, range(1), prior.mean))) for number in range(64)]
    )
    bright, dark = (float(drawn[..., part].abs().square().mean().sqrt()) for part in (slice(14, 22), slice(2, 10)))
    assert bright == pytest.approx(prior.error_std(0.5), rel=0.1)
    assert dark == pytest.approx(0.2 * prior.error_std(0.5), rel=0.2)


def test_a_denoiser_that_knows_nothing_of_its_error_has_independent_pixels(prior, mask):
    problem = _scan(prior, mask, 0.3)
    blind = SimpleNamespace(denoise=prior.denoise, sigma_min=0.01, sigma_max=50.0, space=prior.space)
    assert float(error_variance(problem, 0.5, None, blind)) == pytest.approx(0.25 / 1.25)
    assert float(error_variance(problem, 0.5, 0.5, prior)) == pytest.approx(0.125)
    assert bool(sample(ADAPTED, problem, blind, 2).valid.all())


def test_the_fit_solves_its_equations(problem, prior):
    """With a spectrum, weights, and what the anchor knows already: against dense algebra."""
    operator, n = problem.operator, 24 * 24
    generator = torch.Generator().manual_seed(1)
    noisy = Problem(problem.y, operator, 0.5)
    weights = 0.5 + 0.5 * torch.rand(1, 24, 24, generator=generator)
    variance = torch.fft.ifftshift(prior.error_spectrum(0.5, (24, 24)))
    without = 0.3 * torch.rand(24, 24, generator=generator)
    anchor = Noise(2, range(1), prior.mean).normal(prior.space)
    found, _ = proximal(noisy, anchor, variance, 200, weights, without=without)
    unit = torch.eye(n, dtype=torch.complex64).reshape(n, 24, 24)
    normal = (noisy.weighted_normal(unit) - without * unit).reshape(n, n).T
    root = torch.fft.ifft2(variance.sqrt() * torch.fft.fft2(unit, norm="ortho"), norm="ortho").reshape(n, n).T
    spread = weights.reshape(n, 1) * root @ root.conj().T * weights.reshape(1, n)
    pull = (noisy.weighted_data - noisy.weighted_normal(anchor)).reshape(n, 1)
    move = torch.linalg.solve(torch.eye(n) + spread @ normal, spread @ pull).reshape(1, 24, 24)
    torch.testing.assert_close(found - anchor, move, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("level", [0.3, "each"])
def test_real_images_and_noise_for_each_datum(level):
    prior = GaussianPrior.power_law((16, 16), std=0.5, exponent=3.0, corner=0.04, dtype=torch.float32)
    draws = Noise(4, [0], prior.mean)
    clean = prior.draw(draws.normal(prior.space))[0]
    std = torch.full((16, 16), 0.3)
    std[:, ::2] = 0.4 if level == "each" else 0.3
    problem = Problem(clean + std * draws.normal(prior.space)[0], Identity(prior.space), std)
    assert problem.information.whiteness > 0.9
    truth = exact_posterior(problem, prior)
    drawn = sample(ADAPTED, problem, prior, 8)
    assert not drawn.samples.is_complex()
    assert float((drawn.mean - truth.mean).square().mean().sqrt() / truth.std.square().mean().sqrt()) < 0.3


def test_images_of_two_maps(prior):
    """Two images behind one measurement: the spectrum is that of each."""
    maps = torch.stack([torch.full((1, 24, 24), 0.8 + 0j), torch.full((1, 24, 24), 0.6j)])
    operator = CartesianMRI(torch.ones(24, 24, dtype=torch.bool), maps)
    assert tuple(operator.domain.shape) == (2, 24, 24)
    draws = Noise(3, [0], prior.mean)
    clean = torch.stack([prior.draw(draws.normal(prior.space))[0] for _ in range(2)])
    problem = Problem(operator(clean), operator, 0.5)
    denoiser = PartsAsBatch(prior, split_complex=False)
    assert error_variance(problem, 0.5, None, denoiser).shape == (24, 24)
    drawn = sample(ADAPTED, problem, denoiser, 2)
    assert drawn.samples.shape == (2, 2, 24, 24) and bool(drawn.valid.all())


def test_parts_hand_on_the_spectrum_of_their_error():
    real = GaussianPrior.power_law((16, 16), std=0.5, dtype=torch.float32)
    whole = GaussianPrior(torch.zeros(16, 16, dtype=torch.complex64), spectrum=2 * real.variance)
    parts = PartsAsBatch(real)
    torch.testing.assert_close(parts.error_spectrum(0.3, (16, 16)), whole.error_spectrum(0.3, (16, 16)))
    assert PartsAsBatch(SimpleNamespace(sigma_min=0.1, sigma_max=5.0)).error_spectrum(0.3, (16, 16)) is None


def test_levels_follow_the_noise_of_the_data(prior, mask, everything):
    quiet, noisy, full = _scan(prior, mask, 0.02), _scan(prior, mask, 0.5), _scan(prior, everything, 0.5)
    assert ADAPTED.mean_level(quiet) == 0.15 and ADAPTED.sigmas(quiet, prior)[0] == pytest.approx(3.0)
    assert ADAPTED.mean_level(noisy) == pytest.approx(0.5, rel=1e-3)
    assert ADAPTED.mean_level(full) == pytest.approx(5.0, rel=1e-3)
    assert ADAPTED.sigmas(noisy, prior)[0] == pytest.approx(5.0, rel=1e-3)
    assert PLAIN.mean_level(noisy) == 0.15 and PLAIN.sigmas(noisy, prior)[0] == pytest.approx(3.0)


def test_iterations_follow_the_stiffness_of_the_fit(prior, mask):
    """As the root of 1 + r^2 / s^2: many at large sigma and low noise, the given number where they are enough."""
    quiet, noisy = _scan(prior, mask, 0.002), _scan(prior, mask, 0.5)
    rule = dataclasses.replace(ADAPTED, spread=Uniform())
    few, some, many = (rule.iterations(quiet, sigma, prior) for sigma in (0.003, 0.03, 3.0))
    assert few == rule.cg_iterations == rule.iterations(noisy, 0.5, prior) == PLAIN.iterations(quiet, 3.0, prior)
    r2 = rule.spread.variance(0.03, prior)
    assert few < some == math.ceil(2 * math.sqrt(1 + r2 / quiet.information.variance)) < many == 60


def test_nothing_measured_is_no_error(prior):
    problem = _scan(prior, torch.zeros(1, 24, dtype=torch.bool), 0.1)
    assert math.isinf(problem.information.variance) and problem.information.whiteness == 0
    drawn = sample(ADAPTED, problem, prior, 4)
    assert bool(drawn.valid.all()) and float(drawn.std.mean()) > 0.2


def test_settings_that_do_not_go_together_are_refused():
    with pytest.raises(InputError, match="adapt_to_noise"):
        DDS(adapt_to_noise=True)
    with pytest.raises(InputError, match="adapt_to_noise"):
        DDS(gamma="rule", spread=LocalEnergy(5), adapt_to_noise=True)
    with pytest.raises(InputError, match="adapt_to_noise"):
        DDSVolume(adapt_to_noise=True)
    with pytest.raises(InputError, match="image_draws"):
        DDSVolume(image_draws=True)
    with pytest.raises(InputError, match="image_draws"):
        DDS(image_draws=True)


@pytest.mark.parametrize("level", [1.0, 1e-4])
def test_the_mean_noise_variance_counts_all_data_alike(level: float) -> None:
    operator = Identity((32, 32))
    noise = level * torch.where(torch.arange(32) < 16, 1.0, 3.0).expand(32, 32).contiguous()
    y = torch.ones(32, 32, dtype=torch.complex64)
    even, uneven = Problem(y, operator, level), Problem(y, operator, noise)
    assert even.mean_noise_variance == pytest.approx(level**2, rel=0.05)
    assert uneven.mean_noise_variance == pytest.approx(5 * level**2, rel=0.1)
    assert uneven.information.variance < 1.2 * level**2


def test_the_number_of_steps_follows_from_what_is_measured(prior, mask, everything):
    """More steps where less is measured, within limits; a number that is given stays."""
    free = dataclasses.replace(ADAPTED, steps=None)
    sparse = torch.zeros_like(mask)
    sparse[..., ::12] = True
    full, some, few = (_scan(prior, sampled, 0.02) for sampled in (everything, mask, sparse))
    measured = some.information.whiteness
    assert free.steps_for(full) == 16 < free.steps_for(some) < free.steps_for(few) == 30
    assert free.steps_for(some) == round(12 / math.sqrt(measured))
    assert len(free.sigmas(some, prior)) == free.steps_for(some) + 1
    assert dataclasses.replace(ADAPTED, steps=7).steps_for(few) == 7
    with pytest.raises(InputError, match="an integer number of steps"):
        PULA(steps=None)


def test_noisy_data_count_as_less(prior, mask, everything):
    free = dataclasses.replace(ADAPTED, steps=None)
    quiet, noisy = _scan(prior, mask, 0.03), _scan(prior, mask, 0.05)
    assert quiet.information.whiteness == pytest.approx(noisy.information.whiteness, rel=1e-4)
    assert free.steps_for(quiet) < free.steps_for(noisy) == pytest.approx(free.steps_for(quiet) * 0.05 / 0.045, abs=1)
    assert free.steps_for(_scan(prior, everything, 2.0)) == 16
