"""Metrics against scikit-image, against numbers worked out by hand, and on input they must refuse."""

import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from recon.errors import InputError, ShapeError
from recon.metrics import brightness, coverage, foreground, lowest_level, nmse, noise_level, psnr, spread_skill, ssim


@pytest.fixture
def pair():
    rng = np.random.default_rng(0)
    reference = rng.gamma(2.0, 30.0, size=(3, 24, 31))
    return reference + rng.normal(0, 8.0, reference.shape).clip(-5, None), reference


def test_psnr_and_ssim_agree_with_scikit_image(pair):
    image, reference = np.abs(pair[0]), pair[1]
    peak = reference.max()
    assert psnr(image, reference) == pytest.approx(peak_signal_noise_ratio(reference, image, data_range=peak), abs=1e-9)
    slices = [structural_similarity(r, i, data_range=peak) for r, i in zip(reference, image, strict=True)]
    assert ssim(image, reference) == pytest.approx(np.mean(slices), abs=1e-6)


def test_values_by_hand():
    reference = np.array([[4.0, 0.0], [2.0, 2.0]])
    image = np.array([[4.0, 1.0], [2.0, 1.0]])
    assert nmse(image, reference) == pytest.approx(2 / 24)
    assert psnr(image, reference) == pytest.approx(20 * np.log10(4 / np.sqrt(0.5)))
    support = np.array([[True, False], [True, True]])
    assert nmse(image, reference, support) == pytest.approx(1 / 24)
    assert psnr(image, reference, support) == pytest.approx(20 * np.log10(4 / np.sqrt(1 / 3)))
    assert psnr(reference, reference) == np.inf


def test_complex_images_are_compared_by_magnitude(pair):
    image, reference = np.abs(pair[0]), pair[1]
    turned = image * np.exp(1j * np.linspace(0, 5, image.size).reshape(image.shape))
    for metric in (psnr, ssim, nmse):
        assert metric(turned, -1j * reference) == pytest.approx(metric(image, reference), rel=1e-9)


def test_no_metric_forgives_a_wrong_scale_or_offset(pair):
    _, reference = pair
    assert nmse(1.1 * reference, reference) == pytest.approx(0.01)
    assert psnr(reference + 0.1 * reference.max(), reference) == pytest.approx(20.0)
    assert ssim(0.5 * reference, reference) < 0.9


def test_metrics_do_not_depend_on_common_units(pair):
    image, reference = pair
    for metric in (psnr, ssim, nmse):
        assert metric(1e-9 * image, 1e-9 * reference) == pytest.approx(metric(image, reference), rel=1e-9)


def test_ssim_support_selects_window_centres(pair):
    image, reference = np.abs(pair[0]), pair[1]
    half = np.zeros(reference.shape, dtype=bool)
    half[..., :15] = True
    broken = np.where(np.arange(31) < 18, reference, image)  # windows centred below column 15 end at column 17
    assert ssim(broken, reference, half) == pytest.approx(1.0)
    assert ssim(broken, reference, ~half) < 0.999


def test_coverage_counts_reference_magnitudes_inside():
    reference = np.array([1.0, 2.0, 3.0, -4.0j])
    lower, upper = np.array([0.0, 2.5, 3.0, 3.0]), np.array([1.0, 4.0, 3.0, 5.0])
    assert coverage(lower, upper, reference) == 0.75
    assert coverage(lower, upper, reference, np.array([True, True, False, False])) == 0.5
    with pytest.raises(InputError, match="swapped"):
        coverage(upper, lower, reference)


@pytest.mark.parametrize("is_complex", [False, True])
def test_spread_skill_is_one_for_draws_from_the_truth(is_complex):
    rng = np.random.default_rng(1)
    n, pixels = 4, 200_000

    def draw(count):
        parts = rng.normal(size=(2, count, pixels)) * 3
        return (parts[0] + 1j * parts[1]) / np.sqrt(2) if is_complex else parts[0]

    samples, truth, noise = draw(n), draw(1)[0], 0.5 * draw(1)[0]
    mean = samples.mean(0)
    std = np.sqrt(np.sum(np.abs(samples - mean) ** 2, axis=0) / (n - 1))
    assert spread_skill(mean, std, truth, n_samples=n) == pytest.approx(1, abs=0.01)
    assert spread_skill(mean, std, truth) == pytest.approx(np.sqrt(n / (n + 1)), abs=0.01)
    assert spread_skill(mean, std / 2, truth, n_samples=n) == pytest.approx(0.5, abs=0.01)
    assert spread_skill(mean, std, truth + noise, n_samples=n, reference_std=1.5) == pytest.approx(1, abs=0.01)
    assert spread_skill(mean, std, truth, reference_std=100.0) == np.inf


def test_spread_skill_refuses_a_mixture_of_complex_and_magnitude():
    ones = np.ones((8, 8))
    with pytest.raises(InputError, match="both be complex"):
        spread_skill(ones * 1j, ones, ones)
    with pytest.raises(InputError, match="negative"):
        spread_skill(ones, -ones, ones)
    with pytest.raises(InputError, match="n_samples >= 2"):
        spread_skill(ones, ones, ones, n_samples=1)


@pytest.mark.parametrize("metric", [psnr, ssim, nmse])
def test_bad_input_is_named(metric):
    good = np.ones((9, 9))
    with pytest.raises(ShapeError, match=r"\(9, 9\) and \(9, 8\)"):
        metric(good, good[:, :8])
    with pytest.raises(InputError, match="not finite"):
        metric(good * np.nan, good)
    with pytest.raises(InputError, match="zero everywhere"):
        metric(good, 0 * good)
    with pytest.raises(InputError, match="support is empty"):
        metric(good, good, np.zeros((9, 9), bool))
    with pytest.raises(InputError, match="array of bool"):
        metric(good, good, good)
    with pytest.raises(ShapeError, match="broadcast"):
        metric(good, good, np.ones((3, 9), bool))
    with pytest.raises(InputError, match="numeric"):
        metric(good, np.array([]))


def test_ssim_needs_room_for_its_window():
    small = np.ones((6, 9))
    with pytest.raises(ShapeError, match="at least 7 x 7"):
        ssim(small, small)
    edge = np.zeros((9, 9), bool)
    edge[0] = True
    with pytest.raises(InputError, match="no window centre"):
        ssim(np.ones((9, 9)), np.ones((9, 9)), edge)


def test_hounsfield_units_are_compared_with_their_sign():
    rng = np.random.default_rng(0)
    reference = np.full((40, 40), -1000.0)
    reference[8:32, 8:32] = 50.0
    reference[20, 20] = 1000.0
    image = reference + rng.normal(0, 10, reference.shape)
    expected = 20 * np.log10(2000) - 10 * np.log10(np.mean((image - reference) ** 2))
    assert psnr(image, reference) == pytest.approx(expected)
    assert psnr(-reference, reference) < 10  # a sign is an error
    np.testing.assert_array_equal(foreground(reference), reference > -1000)
    assert brightness(reference) == pytest.approx(1050) and lowest_level(reference) == -1000
    assert brightness(np.abs(reference)) == pytest.approx(1000) and lowest_level(np.abs(reference)) == 0
    assert 0.9 < ssim(image, reference) < 1


def test_the_noise_level_is_that_of_the_noise_not_of_edges():
    rng = np.random.default_rng(0)
    clean = np.zeros((2, 96, 80))
    clean[:, 24:70, 20:60] = 1.0
    clean[:, 30:40:2, 30:50] = 0.5
    assert noise_level(clean) == 0
    noise = rng.standard_normal((2, 2, 96, 80))
    assert noise_level(clean + 0.05 * noise[0]) == pytest.approx(0.05, rel=0.15)
    # In the air the magnitude of complex noise has two thirds of its standard deviation.
    rayleigh = np.sqrt(2 - np.pi / 2) * 0.05
    assert noise_level(np.abs(clean + 0.05 * (noise[0] + 1j * noise[1]))) == pytest.approx(rayleigh, rel=0.2)
    assert noise_level(np.ones((1, 1))) == 0


@pytest.mark.parametrize("noise", [0.0, 0.01, 0.05, 0.1])
def test_the_foreground_is_the_object_at_any_noise(noise):
    rng = np.random.default_rng(0)
    clean = np.zeros((96, 80), complex)
    clean[24:70, 20:60] = 1.0
    found = foreground(
        np.abs(clean + noise * (rng.standard_normal(clean.shape) + 1j * rng.standard_normal(clean.shape)))
    )
    assert (found == (clean != 0)).mean() > 0.96


def test_an_image_of_noise_alone_has_a_foreground():
    assert foreground(np.random.default_rng(0).standard_normal((32, 32))).any()
