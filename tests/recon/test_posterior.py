"""Posterior: summaries against closed forms, files against plain h5py."""

import json
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from scipy import stats

from recon import Posterior
from recon.errors import InputError, ShapeError
from recon.modalities.mri.files.readers import open_kspace


def draws(n: int = 8, shape: tuple[int, ...] = (12, 10), seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (1 + rng.normal(size=(n, *shape)) + 1j * rng.normal(size=(n, *shape))).astype(np.complex64)


@pytest.fixture
def posterior() -> Posterior:
    return Posterior(
        draws(),
        geometry={"voxel_size_mm": (3.0, 0.5, 0.4), "recon_shape": (10, 8), "axes": "y x", "units": "a.u."},
        provenance={"seed": 3, "libraries": {"numpy": "2"}, "slices": range(2), "prior": None},
        diagnostics={
            "valid": np.ones(8, bool),
            "residual": np.linspace(0.9, 1.1, 8),
            "seconds": 1.5,
            "note": ["a", "b"],
        },
        images={
            "mask": np.ones((12, 10), bool),
            "zero_filled": draws(1)[0],
            "reference": np.ones((12, 10), np.float32),
        },
    )


def test_mean_and_total_complex_std() -> None:
    x = draws().astype(np.complex128)
    posterior = Posterior(draws())
    np.testing.assert_allclose(posterior.mean, x.mean(0), rtol=1e-6)
    np.testing.assert_allclose(posterior.std, np.sqrt(x.real.var(0, ddof=1) + x.imag.var(0, ddof=1)), rtol=1e-6)
    assert (posterior.mean.dtype, posterior.std.dtype) == (np.complex64, np.float32)


def test_magnitude_is_a_posterior_of_magnitudes() -> None:
    x = draws()
    magnitude = Posterior(x).magnitude
    np.testing.assert_allclose(magnitude.mean, np.abs(x).mean(0), rtol=1e-6)
    np.testing.assert_allclose(magnitude.std, np.abs(x).std(0, ddof=1), rtol=1e-5)
    assert magnitude.magnitude is magnitude


def test_large_offsets_do_not_cancel_in_the_std() -> None:
    x = (1e4 + np.random.default_rng(0).normal(size=(16, 5, 5))).astype(np.float32)
    np.testing.assert_allclose(Posterior(x).std, x.astype(np.float64).std(0, ddof=1), rtol=1e-5)


@pytest.mark.parametrize("level", [0.5, 0.9])
def test_student_interval_covers_a_gaussian_exactly(level: float) -> None:
    rng = np.random.default_rng(0)
    truth, samples = rng.normal(5, 1, (200, 200)), rng.normal(5, 1, (4, 200, 200))
    lower, upper = Posterior(samples).interval(level)
    coverage = np.mean((lower <= truth) & (truth <= upper))
    assert coverage == pytest.approx(level, abs=4 * np.sqrt(level * (1 - level) / truth.size))


def test_student_interval_formula() -> None:
    samples = np.random.default_rng(0).normal(size=(5, 3, 3))
    lower, upper = Posterior(samples).interval(0.8)
    half = stats.t.ppf(0.9, 4) * np.sqrt(1 + 1 / 5) * samples.std(0, ddof=1)
    np.testing.assert_allclose(lower, samples.mean(0) - half)
    np.testing.assert_allclose(upper, samples.mean(0) + half)


def test_quantile_interval() -> None:
    samples = np.random.default_rng(0).normal(size=(50, 3, 3))
    np.testing.assert_allclose(Posterior(samples).interval(0.9, "quantile"), np.quantile(samples, [0.05, 0.95], axis=0))


def test_intervals_of_complex_samples_are_those_of_magnitudes_and_not_negative() -> None:
    posterior = Posterior(draws(3))
    lower, upper = posterior.interval(0.99)
    assert lower.min() == 0
    np.testing.assert_array_equal((lower, upper), posterior.magnitude.interval(0.99))


@pytest.mark.parametrize("arguments", [{"level": 0}, {"level": 1.0}, {"level": np.nan}, {"method": "normal"}])
def test_interval_arguments(arguments: dict) -> None:
    with pytest.raises(InputError, match=r"Posterior\.interval"):
        Posterior(draws()).interval(**arguments)


def test_one_sample_has_no_interval_and_no_spread(tmp_path: Path) -> None:
    posterior = Posterior(draws(1))
    assert not posterior.std.any()
    with pytest.raises(InputError, match="at least 2 valid samples, got 1"):
        posterior.interval()
    posterior.save(tmp_path / "a.h5")
    with h5py.File(tmp_path / "a.h5") as file:
        assert "interval" not in file


def test_invalid_samples_are_left_out(tmp_path: Path) -> None:
    x = draws()
    x[2] = np.nan
    posterior = Posterior(x, diagnostics={"valid": np.arange(8) != 2})
    assert posterior.n_valid == 7
    expected = Posterior(np.delete(x, 2, axis=0))
    for got, want in ((posterior.mean, expected.mean), (posterior.std, expected.std)):
        np.testing.assert_array_equal(got, want)
    np.testing.assert_array_equal(posterior.interval(), expected.interval())
    assert posterior.magnitude.n_valid == 7
    posterior.save(tmp_path / "a.h5")
    assert Posterior.load(tmp_path / "a.h5").n_valid == 7


def test_nothing_valid_can_be_stored_but_not_summarised(tmp_path: Path) -> None:
    posterior = Posterior(draws(2), diagnostics={"valid": np.zeros(2, bool)})
    with pytest.raises(InputError, match="all samples are invalid"):
        _ = posterior.mean
    posterior.save(tmp_path / "a.h5")
    assert Posterior.load(tmp_path / "a.h5").n_valid == 0


@pytest.mark.parametrize("shape", [(4, 4), (1, 1, 1, 4, 4), (0, 4, 4)])
def test_ranks(shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match="samples must be"):
        Posterior(np.zeros(shape, np.complex64))


def test_integers_and_mismatched_flags_are_refused() -> None:
    with pytest.raises(InputError, match="floating point"):
        Posterior(np.zeros((2, 3, 3), int))
    with pytest.raises(ShapeError, match="diagnostics"):
        Posterior(draws(2), diagnostics={"valid": np.ones(3, bool)})


def test_round_trip(posterior: Posterior, tmp_path: Path) -> None:
    posterior.save(tmp_path / "a.h5")
    back = Posterior.load(tmp_path / "a.h5")
    np.testing.assert_array_equal(back.samples, posterior.samples)
    assert back.samples.dtype == np.complex64
    assert back.geometry == {"voxel_size_mm": [3.0, 0.5, 0.4], "recon_shape": [10, 8], "axes": "y x", "units": "a.u."}
    assert back.provenance == {"seed": 3, "libraries": {"numpy": "2"}, "slices": [0, 1], "prior": None}
    assert set(back.images) == {"mask", "zero_filled", "reference"}
    assert back.images["mask"].dtype == bool
    assert back.diagnostics["note"] == ["a", "b"]
    assert back.diagnostics["seconds"] == 1.5
    np.testing.assert_array_equal(back.diagnostics["residual"], posterior.diagnostics["residual"])
    assert [path.name for path in tmp_path.iterdir()] == ["a.h5"]


def test_file_explains_itself_to_plain_h5py(posterior: Posterior, tmp_path: Path) -> None:
    posterior.save(tmp_path / "a.h5")
    with h5py.File(tmp_path / "a.h5") as file:
        assert (file.attrs["format"], file.attrs["format_version"]) == (b"diffrecon-posterior", 1)
        np.testing.assert_array_equal(file["mean"][()], posterior.mean)
        np.testing.assert_array_equal(file["std"][()], posterior.std)
        np.testing.assert_array_equal(file["magnitude_std"][()], posterior.magnitude.std)
        np.testing.assert_array_equal(file["interval"][()], posterior.interval())
        assert (file["interval"].attrs["level"], file["interval"].attrs["method"]) == (0.9, "student")
        assert file["samples"].attrs["axes"] == "sample y x"
        assert file["mean"].attrs["units"] == "a.u."
        assert json.loads(file["provenance"][()])["seed"] == 3


def test_volumes_round_trip(tmp_path: Path) -> None:
    posterior = Posterior(draws(3, (2, 6, 4)))
    posterior.save(tmp_path / "a.h5")
    assert Posterior.load(tmp_path / "a.h5").mean.shape == (2, 6, 4)


def test_load_refuses_other_files(posterior: Posterior, tmp_path: Path, fastmri_file: Callable[..., Path]) -> None:
    with pytest.raises(InputError, match="no such file"):
        Posterior.load(tmp_path / "absent.h5")
    with pytest.raises(InputError, match="not a diffrecon result"):
        Posterior.load(fastmri_file())
    posterior.save(tmp_path / "a.h5")
    with pytest.raises(InputError, match="unknown layout"):
        open_kspace(tmp_path / "a.h5")


@pytest.mark.parametrize("name", ["samples", "geometry", "provenance"])
def test_load_names_what_is_missing(posterior: Posterior, tmp_path: Path, name: str) -> None:
    posterior.save(tmp_path / "a.h5")
    with h5py.File(tmp_path / "a.h5", "r+") as file:
        del file[name]
    with pytest.raises(InputError, match=f"a.h5: there is no dataset '{name}'"):
        Posterior.load(tmp_path / "a.h5")


def test_load_refuses_newer_versions_broken_json_and_links(posterior: Posterior, tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    posterior.save(path)
    with h5py.File(path, "r+") as file:
        file.attrs["format_version"] = 2
    with pytest.raises(InputError, match="format version 2, but this release reads version 1"):
        Posterior.load(path)
    posterior.save(path)
    with h5py.File(path, "r+") as file:
        del file["geometry"]
        file["geometry"] = "{"
    with pytest.raises(InputError, match="geometry: is not JSON"):
        Posterior.load(path)
    posterior.save(path)
    with h5py.File(path, "r+") as file:
        del file["samples"]
        file["samples"] = h5py.ExternalLink("/etc/hostname", "/samples")
    with pytest.raises(InputError, match="samples is a link"):
        Posterior.load(path)


@pytest.mark.parametrize("fraction", [0.1, 0.9])
def test_load_refuses_truncated_files(posterior: Posterior, tmp_path: Path, fraction: float) -> None:
    path = tmp_path / "a.h5"
    posterior.save(path)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * fraction)])
    with pytest.raises(InputError, match="truncated"):
        Posterior.load(path)


def test_a_failed_save_leaves_the_old_file(posterior: Posterior, tmp_path: Path) -> None:
    posterior.save(tmp_path / "a.h5")
    before = (tmp_path / "a.h5").read_bytes()
    broken = Posterior(draws(), images={"bad": np.array([object()])})
    with pytest.raises(TypeError):
        broken.save(tmp_path / "a.h5")
    assert (tmp_path / "a.h5").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["a.h5"]


def test_fastmri_submission(posterior: Posterior, tmp_path: Path) -> None:
    posterior.to_fastmri(tmp_path / "a.h5")
    with h5py.File(tmp_path / "a.h5") as file:
        np.testing.assert_array_equal(file["reconstruction"], np.abs(posterior.mean)[None, 1:11, 1:9])


def test_nifti(posterior: Posterior, tmp_path: Path) -> None:
    nibabel = pytest.importorskip("nibabel")
    paths = posterior.to_nifti(tmp_path / "brain.nii.gz")
    assert [path.name for path in paths] == [f"brain_{kind}.nii.gz" for kind in ("mean", "std", "lower", "upper")]
    image = nibabel.load(paths[0])
    np.testing.assert_allclose(image.header.get_zooms(), (0.4, 0.5, 3.0))
    np.testing.assert_array_equal(image.get_fdata()[:, :, 0].T.astype(np.float32), posterior.magnitude.mean)


def test_load_refuses_damaged_samples(posterior: Posterior, tmp_path: Path) -> None:
    posterior.save(tmp_path / "a.h5")
    with h5py.File(tmp_path / "a.h5", "r+") as file:
        file["samples"][3, 2, 1] = np.nan
    with pytest.raises(InputError, match="number 3 is marked as valid but is not finite"):
        Posterior.load(tmp_path / "a.h5")


def test_load_refuses_images_without_rows(posterior: Posterior, tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    posterior.save(path)
    with h5py.File(path, "a") as file:
        del file["images/mask"], file["images/zero_filled"]
        file["images/mask"] = np.ones(10, bool)  # a list of the columns
        file["images/zero_filled"] = np.ones(10, np.complex64)
    with pytest.raises(InputError, match=r"images/zero_filled: shape \(10,\) does not match samples"):
        Posterior.load(path)
    with h5py.File(path, "a") as file:
        del file["images/zero_filled"]
    assert Posterior.load(path).images["mask"].shape == (10,)
