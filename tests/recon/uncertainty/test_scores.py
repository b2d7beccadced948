"""Diagnostics of samples: against closed forms, and against samples that are wrong in a known way."""

import numpy as np
import pytest
import torch
from scipy import stats

from operators import CartesianMRI
from operators.base import LinearOperator, Space
from recon.errors import InputError, ShapeError
from recon.uncertainty import (
    coverage_curve,
    ence,
    fair_crps,
    r_hat,
    rank_histogram,
    row_null_split,
    row_part,
    sliced_wasserstein,
    spread_skill_bins,
    tarp,
)

PIXELS = 20_000


def gaussian(n, width=1.0, pixels=PIXELS, seed=0):
    """Samples of N(c, width^2 s^2) and a truth of N(c, s^2), with c and s of their own in each pixel."""
    rng = np.random.default_rng(seed)
    center, std = rng.normal(size=pixels) * 5, rng.uniform(0.2, 3.0, size=pixels)
    samples = center + width * std * rng.normal(size=(n, pixels))
    return samples, center + std * rng.normal(size=pixels)


class Dense(LinearOperator):
    """A matrix as an operator."""

    def __init__(self, matrix):
        super().__init__(Space((matrix.shape[1],), matrix.dtype, "x"), Space((matrix.shape[0],), matrix.dtype, "x"))
        self.matrix = matrix

    def _forward(self, x):
        return x @ self.matrix.T

    def _adjoint(self, y):
        return y @ self.matrix.conj()


@pytest.mark.parametrize("n", [2, 4, 16])
def test_coverage_of_calibrated_samples_is_the_level(n):
    curve = coverage_curve(*gaussian(n))
    np.testing.assert_allclose(curve.covered, curve.levels, atol=0.012)


def test_coverage_tells_under_from_over_dispersion():
    narrow, wide = (coverage_curve(*gaussian(50, width), levels=[0.5, 0.9]).covered for width in (0.6, 1.6))
    # For many samples the interval of width w holds the truth as often as N(0, 1) lies within w q.
    for width, found in ((0.6, narrow), (1.6, wide)):
        quantiles = stats.t(49).ppf([0.75, 0.95])
        scale = np.sqrt((1 + 1 / 50) / (1 + width**2 / 50)) * width
        np.testing.assert_allclose(found, 2 * stats.t(49).cdf(quantiles * scale) - 1, atol=0.015)


def test_support_selects_pixels():
    samples, truth = gaussian(8, pixels=4000)
    samples[:, 2000:] += 1000
    support = np.arange(4000) < 2000
    assert coverage_curve(samples, truth, [0.9], support).covered[0] > 0.85
    assert coverage_curve(samples, truth, [0.9], ~support).covered[0] == 0


def test_complex_samples_are_compared_by_magnitude():
    samples, truth = gaussian(6, pixels=500)
    turned = np.abs(samples) * np.exp(1j * np.linspace(0, 6, 500))
    for score in (fair_crps, ence):
        assert score(turned, np.abs(truth)) == pytest.approx(score(np.abs(samples), np.abs(truth)), rel=1e-9)


@pytest.mark.parametrize("width", [0.5, 1.0, 2.0])
def test_spread_and_error_of_each_bin(width):
    bins = spread_skill_bins(*gaussian(40, width), bins=5)
    assert bins.pixels.sum() == PIXELS
    assert (np.diff(bins.spread) > 0).all()
    np.testing.assert_allclose(bins.spread / bins.error, width * np.sqrt((1 + 1 / 40) / (1 + width**2 / 40)), rtol=0.06)


def test_ence_by_hand():
    # Two samples -a, a have variance 2 a^2, so the spread is sqrt(3) a; the mean is 0 and the error is |truth|.
    samples = np.array([[-1.0, -10.0], [1.0, 10.0]])
    truth = np.array([np.sqrt(3.0), 5 * np.sqrt(3.0)])
    assert ence(samples, truth, bins=2) == pytest.approx((0 + 0.5) / 2)
    assert ence(samples, truth, bins=1) == pytest.approx(1 - np.sqrt((3 + 75) / (3 * 101)))
    assert ence(np.zeros((2, 4)), np.zeros(4)) == 0
    assert ence(np.zeros((2, 4)), np.ones(4)) == np.inf


def test_fair_crps_against_its_definition_and_the_closed_form_of_a_gaussian():
    samples, truth = gaussian(5, pixels=300)
    pairs = np.abs(samples[:, None] - samples[None]).sum(axis=(0, 1)) / (2 * 5 * 4)
    assert fair_crps(samples, truth) == pytest.approx(np.mean(np.abs(samples - truth).mean(0) - pairs), rel=1e-12)
    y = 0.7
    closed = y * (2 * stats.norm.cdf(y) - 1) + 2 * stats.norm.pdf(y) - 1 / np.sqrt(np.pi)
    rng = np.random.default_rng(1)
    for n in (2, 3, 10):  # fair: the expectation does not depend on the number of samples
        assert fair_crps(rng.normal(size=(n, 40_000)), np.full(40_000, y)) == pytest.approx(closed, abs=0.012)


def test_ranks_of_calibrated_samples_are_uniform_and_others_are_not():
    flat = rank_histogram(*gaussian(9))
    assert flat.counts.sum() == PIXELS
    assert flat.counts.shape == (10,)
    assert 0.001 < flat.p_value < 0.999
    narrow, wide = (rank_histogram(*gaussian(9, width)) for width in (0.7, 1.4))
    assert narrow.counts[[0, -1]].mean() > 1.4 * narrow.counts[4:6].mean()
    assert wide.counts[[0, -1]].mean() < 0.7 * wide.counts[4:6].mean()
    assert max(narrow.p_value, wide.p_value) < 1e-6
    samples, truth = gaussian(9)
    assert rank_histogram(samples, truth + 1).counts[-1] > 2 * flat.counts.mean()


def test_the_chi2_of_a_rank_histogram_by_hand():
    samples, truth = np.array([[0.0] * 10]).repeat(2, 0), np.array([1.0] * 8 + [-1.0, -1.0])
    found = rank_histogram(samples, truth)
    assert found.counts.tolist() == [2, 0, 8]
    assert found.chi2 == pytest.approx(((2 - 10 / 3) ** 2 + (10 / 3) ** 2 + (8 - 10 / 3) ** 2) / (10 / 3))
    assert found.p_value == pytest.approx(stats.chi2(2).sf(found.chi2))


def test_ties_are_broken_evenly_and_reproducibly():
    samples, truth = np.zeros((3, 40_000)), np.zeros(40_000)
    found = rank_histogram(samples, truth, seed=4)
    assert found.p_value > 0.001
    np.testing.assert_array_equal(found.counts, rank_histogram(samples, truth, seed=4).counts)


def test_expected_coverage_of_whole_images():
    rng = np.random.default_rng(2)
    measurements, n, dims = 3000, 40, 6
    center = rng.normal(size=(measurements, dims)) * 3
    truth = center + rng.normal(size=center.shape)
    for width, verdict in ((1.0, "right"), (0.5, "narrow"), (2.0, "wide")):
        samples = center + width * rng.normal(size=(n, *center.shape))
        found = tarp(samples, truth)
        gap = np.abs(found.covered - found.levels).max()
        assert gap < 0.03 if verdict == "right" else gap > 0.06, verdict
    np.testing.assert_array_equal(tarp(samples, truth, seed=1).covered, tarp(samples, truth, seed=1).covered)
    assert (tarp(samples, truth, seed=2).covered != tarp(samples, truth, seed=1).covered).any()


def test_expected_coverage_with_points_that_depend_on_the_measurement():
    rng = np.random.default_rng(3)
    center = rng.normal(size=(2000, 4))
    truth, samples = center + rng.normal(size=center.shape), center + 1 + rng.normal(size=(50, *center.shape))
    found = tarp(samples, truth, center - 1)
    assert found.covered[4] > 0.65  # biased away from the points: the truth is nearer to them than most samples


def test_sliced_wasserstein_of_known_sets():
    rng = np.random.default_rng(4)
    a = rng.normal(size=(64, 5))
    assert sliced_wasserstein(a, a[rng.permutation(64)]) == pytest.approx(0, abs=1e-12)
    assert sliced_wasserstein(a, np.repeat(a, 3, axis=0)) == pytest.approx(0, abs=1e-6)
    shift = np.array([3.0, 0, 0, 0, 4.0])
    # A shift by v moves each projection by <u, v>, whose mean square is |v|^2 / dimension.
    assert sliced_wasserstein(a, a + shift, projections=20_000) == pytest.approx(5 / np.sqrt(5), rel=0.03)
    assert sliced_wasserstein(a[:, :1], a[:, :1] + 2) == pytest.approx(2)
    scaled = sliced_wasserstein(a[:, :1], 3 * a[:, :1])
    assert scaled == pytest.approx(2 * np.sqrt(np.mean(a[:, 0] ** 2)))


def test_sliced_wasserstein_of_complex_sets_and_unequal_numbers():
    a = np.array([[0.0 + 0j], [1.0 + 1j]])
    assert sliced_wasserstein(a, 1j * a, projections=64) > 0.1
    # Quantile functions 0, 1 and 0, 1/2, 1: they differ by 1/2 on [1/3, 1/2) and [1/2, 2/3).
    one, two = np.array([[0.0], [1.0]]), np.array([[0.0], [0.5], [1.0]])
    assert sliced_wasserstein(one, two) == pytest.approx(np.sqrt(0.25 / 3))
    with pytest.raises(ShapeError, match="one shape and kind"):
        sliced_wasserstein(a, one)


def test_r_hat_by_hand_and_for_samplers_that_differ():
    a, b = np.array([[0.0], [2.0]]), np.array([[4.0], [6.0]])
    assert r_hat(a, b)[0] == pytest.approx(np.sqrt((0.5 * 2 + 8) / 2))
    rng = np.random.default_rng(5)
    first, second = rng.normal(size=(2, 400, 50)) + 1j * rng.normal(size=(2, 400, 50))
    assert np.abs(r_hat(first, second) - 1).max() < 0.02
    assert r_hat(first, second + 2).min() > 1.2
    zeros = np.zeros((3, 2))
    np.testing.assert_array_equal(r_hat(zeros, zeros + [0, 1]), [1, np.inf])


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
def test_row_and_null_space_against_the_svd(dtype):
    generator = torch.Generator().manual_seed(0)
    matrix = torch.randn(4, 9, dtype=dtype, generator=generator)
    matrix[3] = matrix[0] + matrix[1]  # rank 3
    samples = torch.randn(6, 9, dtype=dtype, generator=generator)
    rows = torch.linalg.svd(matrix)[2][:3]
    deviations = samples - samples.mean(0)
    seen = deviations @ rows.mT @ rows.conj()
    found = row_null_split(samples, Dense(matrix), tolerance=1e-12)
    for map_, expected in ((found.row, seen), (found.null, deviations - seen)):
        np.testing.assert_allclose(map_, (expected.abs().square().sum(0) / 5).sqrt().numpy(), atol=1e-8)
    total = (deviations.abs().square().sum(0) / 5).numpy()
    assert np.sum(found.row**2 + found.null**2) == pytest.approx(total.sum(), rel=1e-10)
    assert found.ratio == pytest.approx(float(seen.norm() / (deviations - seen).norm()), rel=1e-8)
    assert found.residual < 1e-6


def test_a_sampler_that_projects_onto_its_data_has_no_measured_spread():
    mask = torch.arange(16)[None] % 4 == 0
    operator = CartesianMRI(mask, torch.ones(1, 12, 16, dtype=torch.complex64))
    samples = torch.randn(5, 12, 16, dtype=torch.complex64, generator=torch.Generator().manual_seed(1))
    projected = samples - row_part(samples, operator) + row_part(samples[:1], operator)
    assert row_null_split(projected, operator).ratio < 1e-5
    assert row_null_split(samples, operator).ratio == pytest.approx(np.sqrt(4 / 12), rel=0.2)
    everything = CartesianMRI(torch.ones(1, 16, dtype=torch.bool), torch.ones(1, 12, 16, dtype=torch.complex64))
    assert row_null_split(samples, everything).ratio > 1e4


@pytest.mark.parametrize("score", [coverage_curve, ence, fair_crps, rank_histogram, spread_skill_bins])
def test_bad_input_is_named(score):
    good = np.ones((3, 8))
    with pytest.raises(ShapeError, match=r"\(n, \.\.\.\) and a truth"):
        score(good, np.ones(7))
    with pytest.raises(InputError, match="at least 2 samples"):
        score(good[:1], np.ones(8))
    with pytest.raises(InputError, match="not finite"):
        score(good * np.nan, np.ones(8))
    with pytest.raises(InputError, match="support is empty"):
        score(good, np.ones(8), support=np.zeros(8, bool))


def test_arguments_out_of_range():
    samples, truth = gaussian(3, pixels=10)
    for call, words in (
        (lambda: coverage_curve(samples, truth, [1.5]), "levels"),
        (lambda: spread_skill_bins(samples, truth, bins=0), "bins >= 1"),
        (lambda: sliced_wasserstein(samples, samples, projections=0), "projections >= 1"),
        (lambda: tarp(samples, truth), "axis of measurements"),
        (lambda: tarp(samples[:, None], truth[None], np.ones(3)), "same shape"),
        (lambda: r_hat(samples), "two or more sets"),
        (lambda: r_hat(samples[:1], samples[:1]), "at least 2 samples"),
        (lambda: row_null_split(samples, Dense(torch.ones(2, 5))), "samples of row_null_split"),
        (lambda: row_null_split(torch.ones(1, 5), Dense(torch.ones(2, 5))), "n >= 2"),
    ):
        with pytest.raises(InputError, match=words):
            call()


def test_a_mean_that_is_known_better_moves_the_intervals():
    samples, truth = gaussian(6, pixels=4000)
    average, off = samples.mean(axis=0), samples.mean(axis=0) + 100
    for score in (coverage_curve, spread_skill_bins):
        for own, given in zip(score(samples, truth), score(samples, truth, mean=average), strict=True):
            np.testing.assert_allclose(own, given, rtol=1e-12)
    assert (coverage_curve(samples, truth, mean=off).covered == 0).all()
    np.testing.assert_allclose(spread_skill_bins(samples, truth, mean=off).error, 100, rtol=0.1)
    assert ence(samples, truth, mean=off) > 10
    chosen = np.arange(4000) < 3000
    assert (
        coverage_curve(samples, truth, [0.9], chosen, average).covered
        == coverage_curve(samples, truth, [0.9], chosen).covered
    )
    with pytest.raises(ShapeError, match="mean"):
        coverage_curve(samples, truth, mean=average[:10])
