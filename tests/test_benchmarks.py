"""The scans that benchmarks/robustness_mri.py simulates are what they say, and its figures are right."""

import numpy as np
import pytest

from recon.posterior import Posterior


@pytest.fixture
def benchmarks(benchmark_module):
    return benchmark_module("robustness_scans"), benchmark_module("robustness_mri")


def _noise(*shape):
    rng = np.random.default_rng(3)
    return (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)).astype(np.complex64)


@pytest.mark.parametrize("axis", [-2, -1])
def test_every_second_line_is_half_the_field_of_view(benchmarks, axis):
    scans, _ = benchmarks
    kspace = np.moveaxis(_noise(3, 22, 24), -1, axis) if axis == -2 else _noise(3, 24, 22)
    n = kspace.shape[axis]
    lines = np.arange(n)[(n // 2) % 2 :: 2]
    folded = scans.to_kspace(scans.fold(scans.to_images(kspace), n // 2, axis))
    np.testing.assert_allclose(folded, np.sqrt(2) * np.take(kspace, lines, axis), atol=1e-5)


def test_fold_counts_what_lands_on_a_pixel(benchmarks):
    scans, _ = benchmarks
    counts = scans.fold(np.ones((4, 10), bool), 7, -1)
    assert counts.shape == (4, 7) and counts.sum() == 40 and counts.max() == 2
    np.testing.assert_array_equal(scans.fold(np.eye(5), 5, -2), np.eye(5))


def test_phantom_with_few_lines(benchmarks):
    scans, _ = benchmarks
    given, found = scans.few_lines(0), scans.few_lines(6)
    assert (given.kspace[0, 0] != 0).sum() == 32 and "coil_maps" in given.options
    assert (found.kspace[0, 0] != 0)[45:51].all() and not found.options
    np.testing.assert_allclose(scans.rss(given.options["coil_maps"]), 1, atol=1e-5)


def test_noise_of_air(benchmarks):
    scans, _ = benchmarks
    image = scans.with_noise(np.zeros((200, 200)), 0.3)
    image[:, 50:150] += 5
    assert scans.air_noise(image) == pytest.approx(0.3, rel=0.05)


def test_a_refused_scan_is_a_row(benchmarks, tmp_path):
    scans, table = benchmarks
    row, posterior = table.measure(scans.Scan(np.zeros((2, 8, 8), np.complex64), np.ones((8, 8))), 2, "float32")
    assert posterior is None and row["refused"].startswith("InputError")
    assert "1 of 2 rows without an image" in table._summary([row, {"coverage": 0.9}])
    assert "coverage .85 to .95 in 1 of 1" in table._summary([row, {"coverage": 0.9}])
    assert "refused: InputError" in table._line("a scan", row)


def test_withheld_error_of_a_noisy_truth(benchmarks):
    scans, table = benchmarks
    truth, samples = np.full((40, 40), 10.0 + 0j), np.full((2, 40, 40), 10.5 + 0j)
    kspace = scans.with_noise(scans.to_kspace(truth[None]), 1.0)
    noisy = scans.Scan(kspace, scans.to_images(kspace)[0], noise=1.0, noisy_truth=True)
    mask = np.arange(40)[None].repeat(40, 0) != 20  # the middle column, which holds all of the signal, was not sampled
    found = {"measured": [{"noise_std": 1.0, "scale": 10.0}], "notes": [], "held_out": [None]}
    for images, wanted in (({"mask": mask}, 0.05), ({"mask": mask | True}, None)):
        posterior = Posterior(samples, provenance=found, images=images, diagnostics={"residual": np.ones(2)})
        row = table.scores(posterior, noisy)
        assert row.get("withheld") == (wanted if wanted is None else pytest.approx(wanted, rel=0.2))
        assert "coverage" not in row and ("psnr" in row) == (wanted is not None)


def test_decibels(benchmarks):
    _, table = benchmarks
    assert table.decibels(np.full(4, 0.1), np.array([0.5, 2.0])) == pytest.approx(20 * np.log10(20))


def test_unknown_rows_are_named(benchmarks, tmp_path):
    _, table = benchmarks
    assert set(table.chosen(tmp_path, ["phantom"])) == {n for n in table.scans(tmp_path) if "phantom" in n}
    with pytest.raises(SystemExit, match="sense96 full"):
        table.chosen(tmp_path, ["no such row"])
