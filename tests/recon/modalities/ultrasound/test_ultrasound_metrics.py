"""Metrics of ultrasound images: closed forms on synthetic images, and the known figures of the real PICMUS images."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from recon.errors import InputError, ShapeError
from recon.modalities.ultrasound.files.picmus_files import read_picmus_image, read_picmus_phantom
from recon.modalities.ultrasound.image_metrics import (
    box_region,
    cnr,
    contrast,
    contrast_regions,
    decibels,
    fwhm,
    gcnr,
    geometric_error,
    picmus_scores,
    speckle_size,
    speckle_snr,
    speckle_test,
)

X, Z = np.linspace(-5e-3, 5e-3, 201), np.linspace(10e-3, 16e-3, 241)


def spot(x: float, z: float, wide: float, deep: float) -> np.ndarray:
    return np.exp(-((X[None] - x) ** 2) / (2 * wide**2) - (Z[:, None] - z) ** 2 / (2 * deep**2))


def speckle(shape: tuple[int, int], width: tuple[float, float] = (0.0, 0.0), seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    field = rng.normal(size=shape) + 1j * rng.normal(size=shape)
    return gaussian_filter(field.real, width) + 1j * gaussian_filter(field.imag, width)


def test_width_of_a_gaussian_spot() -> None:
    image = spot(1e-3, 13e-3, 0.4e-3, 0.25e-3) * np.exp(1j * np.arange(len(Z)))[:, None]
    found = fwhm(image, X, Z, (1e-3, 13e-3))
    half = np.sqrt(2 * 6 * np.log(10) / 20)  # 20 log10 falls by 6 dB
    # The rule of the challenge rounds down to its ten points a pixel, at both ends.
    assert found.lateral == pytest.approx(2 * half * 0.4e-3, abs=1.1e-5)
    assert found.axial == pytest.approx(2 * half * 0.25e-3, abs=6e-6)
    assert fwhm(7 * image, X, Z, (1e-3, 13e-3)) == found


def test_width_counts_a_second_peak_within_six_decibels() -> None:
    image = spot(0, 13e-3, 0.2e-3, 0.2e-3) + 0.7 * spot(1.2e-3, 13e-3, 0.2e-3, 0.2e-3)
    assert fwhm(image, X, Z, (0, 13e-3)).lateral > 1.2e-3


def test_geometric_error_is_the_offset_of_the_spot() -> None:
    image = spot(1.013e-3, 13.11e-3, 0.3e-3, 0.3e-3) + spot(-2e-3, 12e-3, 0.3e-3, 0.3e-3)
    errors = geometric_error(image, X, Z, [(1e-3, 13e-3), (-2e-3, 12e-3)])
    np.testing.assert_allclose(errors, [(0.013e-3, 0.11e-3), (0, 0)], atol=1e-6)


@pytest.mark.parametrize("levels", [(-30.0, 0.0), (0.0, -12.0)])
def test_contrast_of_two_gaussian_regions(levels: tuple[float, float]) -> None:
    rng = np.random.default_rng(1)
    level = rng.normal(size=(400, 400)) * np.where(np.arange(400) < 200, 3.0, 5.0) + np.repeat(levels, 200)
    inside = np.broadcast_to(np.arange(400) < 200, level.shape)
    image = 10 ** (level / 20)
    gap = abs(levels[0] - levels[1])
    assert cnr(image, inside, ~inside) == pytest.approx(20 * np.log10(gap / np.sqrt((9 + 25) / 2)), abs=0.05)
    assert cnr(5 * image, inside, ~inside) == pytest.approx(cnr(image, inside, ~inside))
    k = np.log(10) / 20  # mean of a log-normal envelope: exp(k m + k^2 s^2 / 2)
    expected = levels[0] - levels[1] + k * (9 - 25) / 2
    assert contrast(image, inside, ~inside) == pytest.approx(expected, abs=0.1)


def test_gcnr_of_known_overlaps() -> None:
    rng = np.random.default_rng(2)
    inside = np.broadcast_to(np.arange(1000) < 500, (500, 1000))
    uniform = rng.random((500, 1000))
    same = 10 ** (uniform / 20)
    half = 10 ** ((uniform + np.where(inside, 0, 0.5)) / 20)
    apart = 10 ** ((uniform + np.where(inside, 0, 3.0)) / 20)
    assert gcnr(same, inside, ~inside) < 0.03
    assert gcnr(half, inside, ~inside) == pytest.approx(0.5, abs=0.02)
    assert gcnr(apart, inside, ~inside) == 1.0


def test_regions_of_a_cyst() -> None:
    inside, outside = contrast_regions(X, Z, (0, 13e-3), 4e-3, 0.5e-3)
    distance = np.hypot(X[None], Z[:, None] - 13e-3)
    assert distance[inside].max() <= 1.5e-3
    assert distance[outside].min() >= 2.5e-3
    assert distance[outside].max() <= 1.2 * np.hypot(1.5e-3, 2.5e-3)
    assert inside.sum() * (X[1] - X[0]) * (Z[1] - Z[0]) == pytest.approx(np.pi * 1.5e-3**2, rel=0.02)


def test_developed_speckle_passes_and_other_statistics_fail() -> None:
    field = speckle((200, 200), (1.0, 1.0))
    region = np.ones(field.shape, bool)
    assert speckle_test(field, region).passes
    assert speckle_test(3e-6 * np.abs(field), region).p_value == pytest.approx(speckle_test(field, region).p_value)
    assert not speckle_test(np.abs(field) ** 2, region).passes
    assert not speckle_test(field.real, region).passes  # the trap: a real image has no Rayleigh envelope
    assert not speckle_test(np.abs(field) + 3 * np.abs(field).mean(), region).passes
    assert speckle_snr(field, region) == pytest.approx(np.sqrt(np.pi / (4 - np.pi)), abs=0.03)


def test_false_alarms_of_the_speckle_test_stay_below_the_level() -> None:
    region = np.ones((100, 100), bool)
    passed = [speckle_test(speckle(region.shape, seed=seed), region).passes for seed in range(100)]
    assert np.mean(passed) >= 0.95


def test_size_of_speckle_is_that_of_its_correlation() -> None:
    field = speckle((400, 400), (3.0, 5.0), seed=3)
    x, z = np.arange(400) * 0.1e-3, np.arange(400) * 0.05e-3
    found = speckle_size(field, x, z, np.ones(field.shape, bool))
    # A filter exp(-n^2 / 2 s^2) correlates the field as exp(-n^2 / 4 s^2), the intensity as exp(-n^2 / 2 s^2).
    assert found.axial == pytest.approx(2.3548 * 3 * 0.05e-3, rel=0.08)
    assert found.lateral == pytest.approx(2.3548 * 5 * 0.1e-3, rel=0.08)


def test_regions_restrict_the_metrics() -> None:
    field = speckle((241, 201), (1.0, 1.0), seed=4)
    field[:60] = 1.0
    region = box_region(X, Z, (0, 14e-3), (4e-3, 1.9e-3))
    assert region.sum() == 159 * 151
    assert speckle_test(field, region).passes
    assert not speckle_test(field, np.ones(field.shape, bool)).passes


INSIDE = np.zeros((241, 201), bool)
INSIDE[:50] = True
GOOD = spot(0, 13e-3, 1e-3, 1e-3)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: fwhm(GOOD[None], X, Z, (0, 13e-3)), r"expected \(z, x\)"),
        (lambda: fwhm(GOOD.T, X, Z, (0, 13e-3)), "does not fit the axes"),
        (lambda: fwhm(GOOD, X, Z, (0, 13.0)), "fewer than 3 pixels"),
        (lambda: fwhm(GOOD * np.nan, X, Z, (0, 13e-3)), "not finite"),
        (lambda: fwhm(GOOD, X[::-1], Z, (0, 13e-3)), "ascending"),
        (lambda: decibels(np.zeros((4, 4))), "zero everywhere"),
        (lambda: cnr(GOOD, INSIDE.astype(int), ~INSIDE), "expected bool"),
        (lambda: gcnr(GOOD, INSIDE, INSIDE & ~INSIDE), "at least two pixels"),
        (lambda: contrast_regions(X, Z, (0, 13e-3), 1e-3, 0.6e-3), "no pixels"),
        (lambda: contrast_regions(X, Z, (1, 1), 4e-3, 0.5e-3), "no pixels"),
        (lambda: speckle_test(GOOD, INSIDE, step=100), "independent pixels"),
        (lambda: speckle_size(np.ones_like(GOOD), X, Z, INSIDE), "constant"),
        (lambda: geometric_error(GOOD, X, Z, [0, 13e-3]), r"\(point, 2\)"),
    ],
)
def test_bad_input_is_refused_in_one_line(call: Callable[[], object], message: str) -> None:
    with pytest.raises((InputError, ShapeError), match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


# The real DAS images of the challenge

PUBLISHED = [
    ("picmus/DAS_2.hdf5", "picmus/picmus_phantom_2.hdf5", "cnr_db", (10.23, 12.68, 15.71), 0.05),
    ("picmus/DAS_2.hdf5", "picmus/picmus_phantom_2.hdf5", "gcnr", (0.901, 0.971, 0.995), 0.001),
    ("picmus/DAS_4.hdf5", "picmus/picmus_phantom_4.hdf5", "cnr_db", (8.16, 11.33, 12.05), 0.05),
    ("picmus/DAS_1.hdf5", "picmus/picmus_phantom_1.hdf5", "fwhm_lateral_mm", (0.813, 0.535, 0.558), 0.01),
    ("picmus/DAS_1.hdf5", "picmus/picmus_phantom_1.hdf5", "fwhm_axial_mm", (0.382, 0.384, 0.380), 0.01),
]


@pytest.mark.parametrize(("images", "phantom", "name", "expected", "tolerance"), PUBLISHED)
def test_figures_of_the_real_picmus_images(
    realdata: Path, images: str, phantom: str, name: str, expected: tuple[float, ...], tolerance: float
) -> None:
    folder = realdata / "ultrasound"
    file, truth = read_picmus_image(folder / images), read_picmus_phantom(folder / phantom)
    found = [picmus_scores(file.frame(waves), file.grid, truth)[name] for waves in (1, 11, 75)]
    assert found == pytest.approx(expected, abs=tolerance)


def test_real_speckle_and_geometry(realdata: Path) -> None:
    folder = realdata / "ultrasound" / "picmus"
    file, truth = read_picmus_image(folder / "DAS_4.hdf5"), read_picmus_phantom(folder / "picmus_phantom_4.hdf5")
    assert picmus_scores(file.frame(1), file.grid, truth)["speckle_passes"] == 1.0
    file, truth = read_picmus_image(folder / "DAS_1.hdf5"), read_picmus_phantom(folder / "picmus_phantom_1.hdf5")
    errors = geometric_error(file.frame(75), file.grid.x, file.grid.z, truth.points)
    assert np.median(errors[:, 1]) == pytest.approx(0.186e-3, abs=0.02e-3)  # the simulation lies deep
    assert np.abs(errors[:, 0]).max() < 0.05e-3
