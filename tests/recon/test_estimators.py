"""Reconstructions without a learned prior: chosen by name, regularised to the noise, with the noise as their spread."""

import dataclasses
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

import recon
from operators import CT, CartesianMRI, FanBeam, Identity, Space
from recon import cli
from recon.engine.samplers import ESTIMATORS, resolve_sampler
from recon.errors import InputError
from recon.estimators import LeastSquares, TotalVariation
from recon.modalities import modality
from recon.modalities.ct.estimators import SIRT, FilteredBackprojection
from recon.modalities.mri.estimators import L1Wavelet
from recon.posterior import Posterior
from recon.report import figures_of_merit
from recon.report.layout import build_rows
from samplers import Noise, Problem, Samples, sample

SIZE = 48
ALL = {**ESTIMATORS, **modality("mri").estimators, **modality("ct").estimators}


class _Unused:
    """A prior that must not be asked."""

    space, sigma_min, sigma_max = None, 0.01, 1.0

    def denoise(self, x: torch.Tensor, sigma: float) -> torch.Tensor:
        raise AssertionError("an estimate has no prior")


def discs(size: int = SIZE) -> torch.Tensor:
    y, x = torch.meshgrid(*[torch.linspace(-1, 1, size)] * 2, indexing="ij")
    image = 1.0 * (y**2 + x**2 < 0.7) - 0.5 * ((y - 0.2) ** 2 + (x + 0.2) ** 2 < 0.08)
    return image + 0.4 * ((y + 0.3) ** 2 + (x - 0.3) ** 2 < 0.03)


@pytest.fixture(scope="module")
def mri() -> Problem:
    """Two of five columns of k-space, noise .03."""
    columns = torch.zeros(1, SIZE, dtype=torch.bool)
    columns[:, torch.randperm(SIZE, generator=torch.Generator().manual_seed(0))[: SIZE // 4]] = True
    columns[:, SIZE // 2 - 5 : SIZE // 2 + 5] = True
    y, x = torch.meshgrid(*[torch.linspace(-1, 1, SIZE)] * 2, indexing="ij")
    places = [(-1.0, -1.0), (-1.0, 0.0), (-1.0, 1.0), (1.0, -1.0), (1.0, 0.0), (1.0, 1.0)]
    maps = torch.stack([torch.exp(-2 * ((y - b) ** 2 + (x - a) ** 2) + 1j * a * x) for b, a in places])
    maps = maps / maps.abs().square().sum(0).sqrt()
    operator = CartesianMRI(columns, maps)
    noise = Noise(1, [0], operator(discs().to(torch.complex64))).normal(operator.codomain)[0]
    kept = operator(discs().to(torch.complex64)) + 0.03 * noise * columns
    # What was not sampled carries no noise; it must not count as explained.
    return Problem(kept, operator, torch.where(columns, 0.03, 1e-4).expand(kept.shape[-2:])[None])


@pytest.fixture(scope="module")
def ct() -> Problem:
    beam = FanBeam(np.arange(60) * 2 * np.pi / 60, 80, 1.2, 300.0, 500.0)
    operator = CT(beam, (SIZE, SIZE), 1.0)
    clean = operator(discs())
    return Problem(clean + 0.5 * torch.randn(clean.shape, generator=torch.Generator().manual_seed(2)), operator, 0.5)


def drawn(problem: Problem, name: str, n: int = 2) -> Samples:
    return sample(ALL[name], problem, _Unused(), n, seed=0)


def error(image: torch.Tensor) -> float:
    return float((image.real - discs()).square().mean().sqrt())


@pytest.mark.parametrize("name", ["cgls", "sirt", "tv"])
def test_iterative_estimates_of_projections_are_fitted_to_the_noise(ct: Problem, name: str):
    found = drawn(ct, name)
    assert 0.8 < float(ct.misfit(found.mean[None])) < 1.25
    assert error(found.mean) < {"cgls": 0.15, "sirt": 0.15, "tv": 0.09}[name]


def test_filtered_backprojection_is_that_of_the_operators(ct: Problem):
    found = drawn(ct, "fbp")
    assert error(found.mean) < 0.2
    sharp = FilteredBackprojection("ram-lak").estimate(ct)
    assert (sharp - found.mean).abs().max() > 0.05
    with pytest.raises(InputError, match="fbp needs the operator CT, got Identity"):
        FilteredBackprojection().estimate(Problem(torch.ones(4, 4), Identity(Space((4, 4), torch.float32)), 0.1))


@pytest.mark.parametrize("name", ["sense", "l1-wavelet", "tv"])
def test_estimates_of_undersampled_data_are_fitted_to_the_noise(mri: Problem, name: str):
    sampled = mri.noise_std[0, 0] > 0.01
    found = drawn(mri, name)
    left = (mri.y - mri.operator(found.mean))[..., sampled] / 0.03
    assert 0.7 < float(left.abs().square().mean()) < 1.3
    zero_filled = error(mri.operator.H(mri.y))
    assert error(found.mean) < {"sense": 0.95, "l1-wavelet": 0.85, "tv": 0.3}[name] * zero_filled


def test_the_spread_of_a_linear_estimate_is_its_noise(ct: Problem):
    few = LeastSquares(iterations=6)
    spread = sample(few, ct, _Unused(), 60, seed=1).std
    clean = torch.stack(
        [
            LeastSquares(iterations=6).estimate(
                dataclasses.replace(ct, y=ct.operator(discs()) + 0.5 * torch.randn(ct.y.shape, generator=generator))
            )
            for generator in [torch.Generator().manual_seed(5)]
            for _ in range(60)
        ]
    )
    assert float(spread.mean() / clean.std(dim=0).mean()) == pytest.approx(1, abs=0.1)


def test_the_mean_is_the_estimate_whatever_the_number_of_samples(ct: Problem):
    one, three = drawn(ct, "cgls", 1), drawn(ct, "cgls", 3)
    torch.testing.assert_close(one.mean, three.mean)
    assert torch.equal(one.samples[0], three.samples[0])
    assert (three.samples.mean(0) - three.mean).abs().max() > 0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TotalVariation(weight=-1), "weight > 0 or None"),
        (lambda: TotalVariation(iterations=0), "iterations >= 1"),
        (lambda: LeastSquares(iterations=0), "iterations >= 1 or None"),
        (lambda: SIRT(iterations=0), "iterations >= 1 or None"),
        (lambda: L1Wavelet(weight=0), "weight > 0 or None"),
        (lambda: FilteredBackprojection("sharp"), "expected a filter of ram-lak"),
        (lambda: resolve_sampler("fbp", None, modality("mri")), "fbp is for .*, not for"),
        (lambda: resolve_sampler("sense", None, modality("ct")), "sense is for .*, not for"),
        (lambda: resolve_sampler("tv", 5), "unknown option 'steps'"),
    ],
)
def test_settings_that_do_not_fit_are_refused(make, message):
    with pytest.raises(InputError, match=message):
        make()


def test_a_weight_that_is_given_is_kept(ct: Problem):
    weak, strong = (TotalVariation(weight=weight).estimate(ct) for weight in (0.02, 20.0))
    assert weak.diff(dim=0).abs().mean() > 3 * strong.diff(dim=0).abs().mean()


def test_from_the_command_line_and_said_in_the_result(tmp_path: Path):
    rng = np.random.default_rng(0)
    image = discs(32).numpy()
    maps = np.stack([np.exp(1j * k * np.linspace(-1, 1, 32))[None] * np.ones((32, 1)) for k in range(4)]) / 2
    kspace = np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(maps * image, axes=(1, 2)), norm="ortho"), axes=(1, 2))
    kspace = kspace + 0.02 * (rng.standard_normal(kspace.shape) + 1j * rng.standard_normal(kspace.shape))
    np.save(tmp_path / "scan.npy", kspace.astype(np.complex64))
    for name in ("sense", "tv"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            given = ["--sampler", name, "--acceleration", "2", "--samples", "2", "--quiet", "-o", str(tmp_path / name)]
            assert cli.main(["run", str(tmp_path / "scan.npy"), *given]) == 0
        result = Posterior.load(next((tmp_path / name).glob("*.h5")))
        assert result.provenance["prior"]["name"] == "none" and result.provenance["held_out"] == [None]
        assert "holds neither what was not measured" in result.provenance["notes"][0]
        assert np.abs(np.abs(result.mean) - image).mean() < 0.1
        rows = build_rows(result, {})
        assert "Estimate" in [panel.title for panel in rows[0].panels] and "Estimates from" in rows[1].label
    assert cli.main(["run", str(tmp_path / "scan.npy"), "--sampler", "fbp", "-o", str(tmp_path / "no")]) == 2


def test_named_estimates_stand_beside_the_result_and_in_its_report(ct: Problem):
    problem = dataclasses.replace(ct, scale=1000.0, offset=-1000.0)
    options = {"prior": "gaussian", "sampler": "exact", "samples": 2, "progress": False, "holdout": False}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = recon.reconstruct(problem, **options, compare="tv, cgls")
    for name in ("tv", "cgls"):
        expected = 1000 * ALL[name].estimate(problem).numpy() - 1000
        np.testing.assert_allclose(result.images[name], expected, atol=1.0)
    result.images["reference"] = 1000 * discs().numpy() - 1000
    merit = figures_of_merit(result)
    assert merit["tv_psnr"] > merit["cgls_psnr"] > 10
    titles = [panel.title for row in build_rows(result, merit) for panel in row.panels]
    assert {"tv", "cgls"} <= set(titles)
    for wrong, message in (("dds", "compare: expected some of tv, fbp"), ("tv,sense", "sense is for")):
        with pytest.raises(InputError, match=message):
            recon.reconstruct(problem, **options, compare=wrong)
