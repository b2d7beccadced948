"""From k-space to a Problem: maps that cannot delete the object, noise, scale, two maps, errors of the model."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from operators import fftc, ifftc, make_mask
from recon.errors import InputError, ShapeError
from recon.modalities.mri import coil_maps as mri_maps
from recon.modalities.mri.coil_maps import needs_second, object_of
from recon.modalities.mri.noise import CoilNoise
from recon.modalities.mri.prepare import prepare
from recon.modalities.mri.prepared_slice import PreparedSlice
from recon.modalities.mri.sampling import Sampling

SIZE, COILS, NOISE = 96, 6, 0.004


def _coils(size: int = SIZE) -> np.ndarray:
    """Sensitivities of unit norm, of coils around the field of view."""
    line = np.linspace(-1, 1, size, endpoint=False)
    y, x = line[:, None], line
    angles = 2 * np.pi * np.arange(COILS)[:, None, None] / COILS
    seen = np.exp(-((y - 1.1 * np.sin(angles)) ** 2 + (x - 1.1 * np.cos(angles)) ** 2) / 1.5 + 1j * (angles + y))
    return seen / np.sqrt((np.abs(seen) ** 2).sum(0))


def _object(size: int = SIZE) -> np.ndarray:
    line = np.linspace(-1, 1, size, endpoint=False)
    y, x = line[:, None], line
    body = 1 / (1 + np.exp((np.hypot(y / 0.8, x / 0.66) - 1) / 0.03))
    return body * (0.7 + 0.25 * np.sin(11 * x + 2) * np.cos(8 * y)) - 0.3 / (1 + np.exp((np.hypot(y, x) - 0.2) / 0.03))


def _scan(noise: float = NOISE, covariance: np.ndarray | None = None, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    white = (rng.standard_normal((COILS, SIZE, SIZE)) + 1j * rng.standard_normal((COILS, SIZE, SIZE))) / np.sqrt(2)
    if covariance is not None:
        white = np.einsum("ij,jyx->iyx", np.linalg.cholesky(covariance), white)
    return (fftc(torch.from_numpy(_coils() * _object())).numpy() + noise * white).astype(np.complex64)


def _lines(central: int, every: int = 3) -> np.ndarray:
    mask = np.zeros((1, SIZE), bool)
    mask[:, ::every] = True
    mask[:, SIZE // 2 - central // 2 : SIZE // 2 + (central + 1) // 2] = True
    return mask


def _truth() -> torch.Tensor:
    """The draw that a perfect prior would give: the image in the phase of the maps that were found."""
    return torch.from_numpy(np.abs(_object()))


def _explained(ready: PreparedSlice) -> float:
    """The share of the energy of the noise-free coil images that the maps explain, inside the object."""
    images = ready.whitening(torch.from_numpy(_coils() * _object()).to(torch.complex64))
    maps = ready.coil_maps / ready.coil_maps.abs().square().sum(0).sqrt().clamp(min=1e-6)
    left = images - maps * (maps.conj() * images).sum(0)
    return 1 - float(left.abs().square().sum() / images.abs().square().sum())


def _first_image(ready: PreparedSlice) -> torch.Tensor:
    """The noise-free image through the maps of a slice, in the scale of its problem."""
    images = ready.whitening(torch.from_numpy(_coils() * _object()).to(torch.complex64))
    return (ready.coil_maps.conj() * images).sum(0) / ready.problem.scale


@pytest.mark.parametrize("central", [4, 5, 6, 8, 10, 16])
def test_few_central_lines_keep_the_object(central: int) -> None:
    ready = prepare(_scan(), _lines(central))
    inside = torch.from_numpy(np.abs(_object()) > 0.1)
    assert float(ready.intensity[inside].min()) > 0.5
    assert _explained(ready) > {4: 0.9, 5: 0.95}.get(central, 0.98)


def test_a_first_image_completes_short_calibrations() -> None:
    ready = prepare(_scan(), _lines(6))
    better = ready.refined(_first_image(ready))
    assert 1 - _explained(better) < (1 - _explained(ready)) / 2
    assert "self-consistent" in better.diagnostics["maps_from"]
    assert better.diagnostics["calibration"] == ready.diagnostics["calibration"]


def test_too_few_lines_say_what_to_do() -> None:
    with pytest.raises(InputError, match="give coil_maps or a calibration scan, or sample a larger centre"):
        prepare(_scan(), _lines(2, every=4))


def test_maps_that_do_not_explain_the_centre_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    fit, tried = mri_maps._unexplained, []

    def poor(kspace: torch.Tensor, region: object, maps: torch.Tensor, noise_std: float) -> tuple[torch.Tensor, float]:
        tried.append(maps.ndim)
        return 10 * fit(kspace, region, maps, noise_std)[0] + 1, 0.8

    monkeypatch.setattr(mri_maps, "_unexplained", poor)
    with pytest.raises(InputError, match=r"explain only 80% of the energy of the centre .* give coil_maps"):
        prepare(_scan(), noise_std=NOISE)
    assert tried == [3, 4, 3]  # one map, two, and images of low resolution


@pytest.mark.parametrize("pattern", ["equispaced", "random", "poisson", "gaussian2d", "gaussian1d"])
@pytest.mark.parametrize("level", [0.004, 0.05])
def test_noise_and_scale_are_within_a_quarter(pattern: str, level: float) -> None:
    ready = prepare(_scan(level), sampling=Sampling(pattern, 3.0))
    found = ready.refined(_first_image(ready)).diagnostics
    assert found["noise_std"] == pytest.approx(level, rel=0.25)
    truth = np.quantile(np.sqrt((np.abs(_coils() * _object()) ** 2).sum(0)), 0.99)
    # The first estimate is made for brains, which are not as smooth as this object.
    assert found["scale"] == pytest.approx(truth, rel=0.1)


@pytest.mark.parametrize("pattern", ["equispaced", "poisson", "gaussian2d"])
@pytest.mark.parametrize("level", [0.004, 0.05])
def test_the_residual_of_a_fit_corrects_a_noise_level_that_holds_signal(pattern: str, level: float) -> None:
    """Half of the residual is absorbed by the fit, by pattern and radius more or less; noise alone shows how much."""
    ready = prepare(_scan(level), sampling=Sampling(pattern, 3.0))
    signal = torch.linspace(0.5, 4, COILS).diag().to(torch.complex64)
    high = CoilNoise(ready.measured.noise.covariance + level**2 / ready.measured.unit**2 * signal, "outer k-space")
    wrong = PreparedSlice.first(replace(ready.measured, noise=high))
    assert wrong.diagnostics["noise_std"] > 1.6 * level
    refined = wrong.refined(_first_image(wrong))
    assert refined.diagnostics["noise_std"] == pytest.approx(level, rel=0.1)
    assert refined.diagnostics["noise_from"] == "the residual of a fit"
    noise = torch.as_tensor(refined.problem.noise_std) * refined.problem.scale
    assert float(noise.square().mean().sqrt()) == pytest.approx(level, rel=0.15)


def test_a_given_noise_level_is_corrected_only_where_it_is_far_too_high() -> None:
    """And keeps the correlation of the coils. What remains is an upper limit: the first image may hold noise."""
    root = np.eye(COILS) + 0.2 * np.random.default_rng(3).standard_normal((COILS, COILS))
    covariance = 0.02**2 * (root @ root.T).astype(np.complex64)
    level = float(np.sqrt(np.trace(covariance).real / COILS))
    kspace = _scan(1.0, covariance)
    for factor, expected in ((1.2, 1.2), (3.0, 1.0)):
        ready = prepare(kspace, noise_covariance=factor**2 * covariance, sampling=Sampling("equispaced", 3.0))
        refined = ready.refined(_first_image(ready))
        assert refined.diagnostics["noise_std"] == pytest.approx(expected * level, rel=0.15)
        found = refined.measured.noise.covariance * refined.measured.unit**2
        torch.testing.assert_close(found, torch.from_numpy(covariance) * expected**2, rtol=0.3, atol=2e-5)
        assert ("times what the data show" in "".join(refined.notes)) == (factor == 3.0)


@pytest.mark.parametrize("pattern", [None, "equispaced", "random", "gaussian1d"])
def test_signal_at_the_edge_of_what_was_sampled_is_not_taken_for_noise(realdata: Path, pattern: str | None) -> None:
    kspace = np.load(realdata / "mri_kspace" / "brain_16ch_96.npy")
    facts = prepare(kspace, sampling=Sampling(pattern, 4.0)).diagnostics
    assert facts["noise_std"] == pytest.approx(6.5, rel=0.25)  # the air beside the head holds 6 to 7
    assert facts["noise_from"] == ("calibration region" if pattern else "outer k-space or air")
    assert facts["maps"] == 1


def test_scale_without_a_centre() -> None:
    mask = _lines(0)
    truth = np.quantile(np.abs(_object()), 0.99)
    ready = prepare(_scan(), mask, coil_maps=_coils().astype(np.complex64))
    assert ready.diagnostics["scale"] == pytest.approx(truth, rel=0.25) and ready.diagnostics["calibration"] == []


def test_a_noise_covariance_is_used_and_checked() -> None:
    root = np.eye(COILS) + 0.2 * np.random.default_rng(3).standard_normal((COILS, COILS))
    covariance = root @ root.T
    kspace = _scan(0.02, covariance)
    given = prepare(kspace, noise_covariance=(0.02**2 * covariance).astype(np.complex64))
    assert given.diagnostics["noise_from"] == "given"
    assert given.diagnostics["noise_std"] == pytest.approx(0.02 * np.sqrt(np.trace(covariance) / COILS), rel=1e-3)
    found = prepare(kspace)
    assert found.diagnostics["noise_std"] == pytest.approx(given.diagnostics["noise_std"], rel=0.25)
    with pytest.raises(ShapeError, match="noise_covariance: expected"):
        prepare(kspace, noise_covariance=np.eye(3))
    with pytest.raises(InputError, match="Hermitian positive definite"):
        prepare(kspace, noise_covariance=-np.eye(COILS))
    with pytest.raises(InputError, match="give one of them"):
        prepare(kspace, noise_covariance=np.eye(COILS), noise_std=1.0)


def test_whitening_costs_nothing_where_the_model_errs_more_than_the_noise() -> None:
    """One quiet coil, and an error of all coils that no maps explain."""
    quiet = np.diag([1e-4, 1, 1, 1, 1, 1.0])
    kspace = _scan(0.002, quiet)
    rng = np.random.default_rng(5)
    wrong = 0.03 * rng.standard_normal((COILS, SIZE, SIZE)) * np.abs(kspace)
    kspace = (kspace + wrong).astype(np.complex64)
    reference = ifftc(torch.from_numpy(kspace)).abs().square().sum(0).sqrt()
    inside = reference > 0.1 * reference.max()

    def error(ready: PreparedSlice) -> float:
        return float((ready.images["zero_filled"].abs() - reference)[inside].square().mean().sqrt())

    ready = prepare(kspace, noise_covariance=(0.002**2 * quiet).astype(np.complex64))
    refined = ready.refined(_first_image(ready))
    plain = prepare(kspace, noise_std=0.002)
    assert error(plain) < error(refined) < 0.002


def test_errors_of_the_model_are_noise_of_the_data() -> None:
    right, wrong = _coils().astype(np.complex64), np.roll(_coils(), 6, axis=-1).astype(np.complex64)
    shares = {}
    for name, maps in (("right", right), ("wrong", wrong)):
        ready = prepare(_scan(), coil_maps=maps, noise_std=NOISE)
        refined = ready.refined(_first_image(ready))
        shares[name] = refined.diagnostics["model_error"]
        level = torch.as_tensor(refined.problem.noise_std)
        assert level.shape == (1, SIZE, SIZE)
        if name == "wrong":  # by rings, the strongest where the signal is
            assert float(level[0, SIZE // 2, SIZE // 2]) > 5 * float(level[0, 10, 10])
    assert shares["right"] < 0.005 < 0.02 < shares["wrong"]
    off = prepare(_scan(), coil_maps=wrong, noise_std=NOISE, model_error=0.0)
    again = off.refined(_first_image(off)).problem
    assert again.noise_std * again.scale == pytest.approx(NOISE, rel=1e-3)
    told = prepare(_scan(), coil_maps=right, noise_std=NOISE, model_error=0.05)
    assert told.diagnostics["model_error"] == 0.05


def _folded() -> np.ndarray:
    """Every second column of k-space: a field of view of half the size, in which the object overlaps itself."""
    return np.ascontiguousarray(_scan()[:, :, ::2]) * np.sqrt(2)


def test_an_object_larger_than_the_field_of_view_gets_two_maps() -> None:
    folded = prepare(_folded(), sampling=Sampling("equispaced", 2.0))
    assert folded.diagnostics["maps"] == 2 and folded.problem.operator.domain.shape == (2, SIZE, SIZE // 2)
    assert prepare(_scan(), sampling=Sampling("equispaced", 2.0)).diagnostics["maps"] == 1
    complete = prepare(_folded())
    reference = ifftc(torch.from_numpy(_folded())).abs().square().sum(0).sqrt()
    images = complete.problem.operator.H(complete.problem.y) * complete.problem.scale
    combined = complete.combine(images)
    assert combined.shape == reference.shape and not combined.is_complex()
    refined = complete.refined(images / complete.problem.scale)
    assert refined.diagnostics["maps"] == 2
    from operators import conjugate_gradient

    operator, y = refined.problem.operator, refined.problem.y
    fit = conjugate_gradient(operator.normal, operator.H(y)[None], iterations=30, item_ndim=3).x[0]
    error = refined.combine(fit * refined.problem.scale) - reference
    assert float(error.square().mean().sqrt()) < 0.02 * float(reference.max())


def test_given_pairs_of_maps_are_accepted() -> None:
    maps = torch.from_numpy(np.stack([_coils(), np.roll(_coils(), SIZE // 2, axis=-1)]).astype(np.complex64))
    ready = prepare(_scan(), coil_maps=maps)
    assert ready.diagnostics["maps"] == 2 and ready.images["zero_filled"].shape == (SIZE, SIZE)
    with pytest.raises(ShapeError, match=r"or \(map, coil, y, x\), got"):
        prepare(_scan(), coil_maps=maps[:, :3])


def test_nothing_counts_as_air_where_noise_is_strong() -> None:
    image = torch.linspace(0, 1, 50).expand(50, 50)
    assert float(object_of(image, 0.001)[0, 10:].min()) == 1
    assert float(object_of(image, 10.0)[0, 3:].min()) == 1
    region = (slice(36, 60), slice(36, 60))
    assert not needs_second(torch.from_numpy(_scan()), region, torch.ones(SIZE, SIZE), 1e-3)


def test_a_scale_of_the_data_does_not_matter() -> None:
    mask = torch.as_tensor(make_mask((SIZE, SIZE), "random", 3))
    small, large = (prepare(_scan() * unit, mask) for unit in (1e-6, 1e6))
    torch.testing.assert_close(small.problem.y, large.problem.y, rtol=1e-4, atol=1e-5)
    assert replace(small).diagnostics["maps_from"] == large.diagnostics["maps_from"]
