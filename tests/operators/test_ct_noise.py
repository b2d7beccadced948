"""Dose: statistics of counts and of their logarithm, starved rays, Hounsfield units."""

import math

import pytest
import torch

from operators import InputError, ShapeError, hu_to_mu, log_counts, mu_to_hu, simulate_counts


def test_counts_have_mean_and_variance() -> None:
    line = torch.full((400, 500), 2.0)
    counts, sinogram, noise_std = simulate_counts(line, 1e4, 10.0, seed=3)
    mean = 1e4 * math.exp(-2)
    assert float(counts.mean()) == pytest.approx(mean, rel=1e-3)
    assert float(counts.var()) == pytest.approx(mean + 100, rel=0.02)
    assert float(sinogram.mean()) == pytest.approx(2.0, abs=1e-3)
    assert float(sinogram.std()) == pytest.approx(math.sqrt(mean + 100) / mean, rel=0.02)
    assert float(((sinogram - 2) / noise_std).std()) == pytest.approx(1.0, abs=0.01)


def test_the_seed_decides_and_the_global_state_does_not() -> None:
    line, state = torch.rand(5, 6), torch.get_rng_state()
    first, again, other = (simulate_counts(line, 100.0, 3.0, seed=s).counts for s in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), state)


def test_photons_per_element() -> None:
    photons = torch.tensor([1e3, 1e5])
    result = simulate_counts(torch.zeros(4000, 2), photons, seed=0)
    torch.testing.assert_close(result.counts.mean(0), photons, rtol=5e-3, atol=0)
    assert float(result.sinogram.mean(0).abs().max()) < 2e-3


def test_starved_rays_are_finite_and_weigh_nothing() -> None:
    counts = torch.tensor([-30.0, 0.0, 0.5, 1.0, 100.0])
    _, sinogram, noise_std = log_counts(counts, 1e4, 5.0)
    torch.testing.assert_close(sinogram[:4], torch.full((4,), math.log(1e4)))
    torch.testing.assert_close(noise_std[:4], torch.full((4,), math.sqrt(26.0)))
    assert float(noise_std[4]) == pytest.approx(math.sqrt(125.0) / 100)
    everything = simulate_counts(torch.full((50, 50), 40.0), 1e3, 4.0)
    assert bool(torch.isfinite(everything.sinogram).all()) and bool((everything.noise_std > 0.3).all())


def test_standard_deviation_is_the_inverse_root_of_the_weight() -> None:
    counts = torch.tensor([10.0, 1e3, 1e5])
    weight = counts**2 / (counts + 49.0)
    torch.testing.assert_close(log_counts(counts, 1e6, 7.0).noise_std, weight**-0.5)


def test_hounsfield_units() -> None:
    hu = torch.tensor([-1000.0, 0.0, 1000.0])
    torch.testing.assert_close(hu_to_mu(hu), torch.tensor([0.0, 0.0192, 0.0384]))
    torch.testing.assert_close(mu_to_hu(hu_to_mu(hu, 0.02, 2e-5), 0.02, 2e-5), hu)
    assert float(mu_to_hu(torch.tensor(0.03), 0.02, 0.01)) == pytest.approx(1000.0)


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda: simulate_counts(torch.ones(2, 2), 0.0), InputError),
        (lambda: simulate_counts(torch.ones(2, 2), math.nan), InputError),
        (lambda: simulate_counts(torch.ones(2, 2), 10.0, -1.0), InputError),
        (lambda: simulate_counts(torch.ones(2, 2), torch.ones(3)), ShapeError),
        (lambda: simulate_counts(torch.ones(2, 2, dtype=torch.int64), 10.0), ShapeError),
        (lambda: simulate_counts(torch.full((2, 2), math.nan), 10.0), InputError),
        (lambda: log_counts(torch.ones(2, 2), 10.0, min_counts=0.0), InputError),
        (lambda: log_counts(torch.full((2, 2), math.inf), 10.0), InputError),
        (lambda: hu_to_mu(torch.zeros(1), 0.01, 0.02), InputError),
    ],
)
def test_bad_input_is_named(call, error) -> None:
    with pytest.raises(error):
        call()
