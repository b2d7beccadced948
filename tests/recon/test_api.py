"""The one call, and the way from k-space to a problem: what is estimated, what is refused."""

import dataclasses
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

import recon
from operators import fftc, make_mask
from recon.demo import loop_sensitivities, simulate
from recon.engine.judge import held_signal
from recon.engine.part import Part
from recon.engine.slices import choose_slices
from recon.errors import DivergenceError, InputError, ShapeError
from recon.metrics import psnr
from recon.modalities.mri.prepare import crop_oversampling, prepare
from recon.modalities.mri.sampling import Sampling, infer_mask
from samplers import DDS, ExactGaussian, Problem, Step, Uniform, sample

SHAPE = (64, 56)
NOISE_STD = 0.05
QUICK = DDS(
    steps=8, cg_iterations=10, gamma="rule", spread=Uniform(0.35), spacing="karras", sigma_max=3.0, sigma_min=0.01
)


@pytest.fixture(scope="module")
def full() -> np.ndarray:
    """Fully sampled 8-coil k-space with noise."""
    return simulate(1.0, noise_std=NOISE_STD, shape=SHAPE).kspace


@pytest.fixture(scope="module")
def truth() -> np.ndarray:
    return simulate(1.0, shape=SHAPE).reference


def _quick(source: object, **options: object) -> recon.Posterior:
    settings = {"prior": "gaussian", "sampler": QUICK, "samples": 3, "progress": False, **options}
    if "acceleration" in options:
        settings = {"center_fraction": 0.2, **settings}
    return recon.reconstruct(source, **settings)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def threefold(full: np.ndarray) -> recon.Posterior:
    """The result of three-fold undersampling, with which several tests compare theirs."""
    posterior = _quick(full, acceleration=3)
    for array in (posterior.samples, *posterior.images.values()):
        array.flags.writeable = False
    return posterior


def test_undersampled_kspace_gives_a_better_image_than_zero_filling(
    threefold: recon.Posterior, truth: np.ndarray
) -> None:
    posterior = threefold
    assert posterior.samples.shape == (3, *SHAPE)
    assert psnr(np.abs(posterior.mean), truth) > psnr(np.abs(posterior.images["zero_filled"]), truth) + 1
    assert posterior.std.shape == SHAPE
    assert (posterior.std > 0).any()
    assert posterior.images["reference"].shape == SHAPE
    measured = posterior.provenance["measured"][0]
    assert measured["acceleration"] == pytest.approx(3, rel=0.05)
    assert measured["noise_std"] == pytest.approx(NOISE_STD, rel=0.15)
    assert posterior.provenance["citations"] == ["chung2024dds", "uecker2014espirit"]


@pytest.mark.slow
def test_a_file_and_its_array_give_the_same_image(full: np.ndarray, threefold: recon.Posterior, tmp_path: Path) -> None:
    path = tmp_path / "scan.h5"
    with h5py.File(path, "w") as file:
        file["kspace"] = np.stack([full, 2 * full])
    volume = _quick(path, acceleration=3, slices="0:2")
    assert volume.samples.shape == (3, 2, *SHAPE)
    scale = np.abs(threefold.samples).max()
    assert np.abs(volume.samples[:, 0] - threefold.samples).max() < 1e-5 * scale
    # Slices have streams of their own, so the second one is not just twice the first.
    assert np.abs(volume.samples[:, 1] - 2 * threefold.samples).max() > 1e-3 * scale
    one = _quick(path, acceleration=3, slices=1)
    assert np.abs(one.samples - volume.samples[:, 1]).max() < 1e-5 * scale
    assert one.provenance["source"]["name"] == "scan.h5"
    assert (one.geometry["axes"], volume.geometry["axes"]) == ("y x", "slice y x")


@pytest.mark.parametrize("factor", [1e-12, 1e12, 3.0])
def test_any_scale_gives_the_same_image(full: np.ndarray, threefold: recon.Posterior, factor: float) -> None:
    expected = threefold.mean
    scaled = _quick(full.astype(np.complex128) * factor, acceleration=3).mean / factor
    assert np.linalg.norm(scaled - expected) < 1e-5 * np.linalg.norm(expected)


@pytest.mark.slow
def test_a_mask_or_zeros_say_the_same(full: np.ndarray) -> None:
    mask = make_mask(SHAPE, "random", 3.0, 0.2, seed=1)
    by_zeros = _quick(np.where(mask, full, 0))
    by_mask = _quick(full, mask=mask)
    assert np.array_equal(by_zeros.samples, by_mask.samples)
    assert "reference" not in by_zeros.images


def test_non_contiguous_double_precision_input(full: np.ndarray, threefold: recon.Posterior) -> None:
    turned = np.asfortranarray(full.astype(np.complex128))
    expected = threefold.mean
    assert np.abs(_quick(turned, acceleration=3).mean - expected).max() < 1e-5 * np.abs(expected).max()


@pytest.mark.parametrize("shape", [(63, 56), (64, 55), (63, 55)])
def test_odd_sizes(shape: tuple[int, int]) -> None:
    scan = simulate(1.0, noise_std=NOISE_STD, shape=shape)
    posterior = _quick(scan.kspace, acceleration=2)
    assert posterior.mean.shape == shape
    zero_filled = psnr(np.abs(posterior.images["zero_filled"]), scan.reference)
    assert psnr(np.abs(posterior.mean), scan.reference) > zero_filled + 1


def test_single_coil_and_given_maps(full: np.ndarray, truth: np.ndarray) -> None:
    maps = loop_sensitivities(SHAPE, 8)
    given = _quick(full, acceleration=3, coil_maps=maps, noise_std=NOISE_STD)
    assert given.provenance["config"]["coil_maps"] == "given"
    assert given.provenance["citations"] == ["chung2024dds"]
    assert psnr(np.abs(given.mean), truth) > psnr(np.abs(given.images["zero_filled"]), truth) + 1
    exact = ExactGaussian(iterations=150)
    single = _quick(full[0], acceleration=2, noise_std=NOISE_STD, sampler=exact)
    assert single.samples.shape == (3, *SHAPE)
    assert single.provenance["measured"][0]["coils"] == 1


@pytest.mark.slow
def test_coil_compression_keeps_the_image(full: np.ndarray) -> None:
    expected = np.abs(_quick(full, acceleration=2).mean)
    compressed = _quick(full, acceleration=2, coils=6)
    assert compressed.provenance["measured"][0]["coils"] == 6
    assert psnr(np.abs(compressed.mean), expected) > 24


def test_coloured_coil_noise_is_prewhitened(full: np.ndarray) -> None:
    """With one noisy coil, whitening must give lower residuals between coils than pretending they are equal."""
    rng = np.random.default_rng(3)
    noise = rng.standard_normal(full[0].shape) + 1j * rng.standard_normal(full[0].shape)
    spoiled = full.copy()
    spoiled[2] += (0.2 * noise).astype(np.complex64)
    prepared = prepare(spoiled, sampling=Sampling("random", 2.0))
    clean = prepare(full, sampling=Sampling("random", 2.0))
    share = prepared.coil_maps[2].abs().square().sum() / prepared.coil_maps.abs().square().sum()
    usual = clean.coil_maps[2].abs().square().sum() / clean.coil_maps.abs().square().sum()
    assert share < 0.3 * usual


@pytest.mark.slow
def test_a_problem_is_sampled_as_it_is(full: np.ndarray) -> None:
    prepared = prepare(full, sampling=Sampling("random", 2.0, 0.2))
    posterior = _quick(prepared.problem, samples=2, sampler=ExactGaussian(iterations=200))
    assert posterior.samples.shape == (2, *SHAPE)
    assert 0.6 < np.median(posterior.diagnostics["residual"]) < 1.9
    assert posterior.diagnostics["cg_residual"].max() < 0.1


@pytest.mark.slow
def test_the_exact_sampler_and_steps(full: np.ndarray) -> None:
    with pytest.warns(UserWarning, match="3 steps: the spread of the samples is smaller"):
        posterior = _quick(full, acceleration=2, sampler="dds", steps=3)
    assert posterior.provenance["sampler"]["steps"] == 3
    assert any("3 steps" in note for note in posterior.provenance["notes"])
    enough = _quick(full, acceleration=2, sampler="dds", steps=5)
    assert not any("steps" in note for note in enough.provenance["notes"])
    with pytest.raises(InputError, match="unknown option 'steps'"):
        _quick(full, sampler=ExactGaussian(), steps=4)


class _Black(DDS):
    """Whose images are empty."""

    def step(self, *args: object, **kwargs: object) -> Step:
        return Step(0 * super().step(*args, **kwargs).x)  # type: ignore[arg-type]


@pytest.mark.filterwarnings("ignore:the data residual")
def test_a_note_says_when_what_was_measured_is_missing(full: np.ndarray) -> None:
    prepared = prepare(full, sampling=Sampling("random", 2.0, 0.2))
    black = _Black(**{field.name: getattr(QUICK, field.name) for field in dataclasses.fields(DDS)})
    with pytest.warns(UserWarning, match=r"reproduces only 0\.00 of the signal of the strongest data"):
        posterior = _quick(prepared.problem, sampler=black)
    assert any("strongest data" in note for note in posterior.provenance["notes"])
    # Noise alone has no strong data: an empty image says nothing wrong.
    problem = dataclasses.replace(prepared.problem, noise_std=1e3)
    assert held_signal(Part(sample(black, problem, recon.load_prior("gaussian", shape=SHAPE), 2), problem)) == 1.0


def test_oversampled_readout_is_cropped_exactly() -> None:
    image = torch.zeros(1, 32, 10, dtype=torch.complex64)
    image[:, 8:24] = torch.randn(1, 16, 10, dtype=torch.complex64, generator=torch.Generator().manual_seed(0))
    cropped = crop_oversampling(fftc(image), -2, 2.0)
    torch.testing.assert_close(cropped, fftc(image[:, 8:24]))
    white = torch.randn(4, 64, 64, dtype=torch.complex64, generator=torch.Generator().manual_seed(1))
    assert crop_oversampling(white, -2, 2.0).abs().square().mean() == pytest.approx(1, rel=0.05)


def test_the_mask_of_the_data_is_as_simple_as_possible() -> None:
    kspace = torch.ones(2, 6, 8, dtype=torch.complex64)
    kspace[..., 1::2] = 0
    assert infer_mask(kspace).shape == (1, 8)
    assert infer_mask(kspace.transpose(1, 2)).shape == (8, 1)
    kspace[0, 0, 1] = 1
    assert infer_mask(kspace).shape == (6, 8)


def test_slices_are_chosen_in_every_way() -> None:
    assert choose_slices(None, 3) == [0, 1, 2]
    assert choose_slices("1:", 3) == [1, 2]
    assert choose_slices("-1", 3) == [2]
    assert choose_slices(1, 3) == [1]
    assert choose_slices([0, 2], 3) == [0, 2]
    for bad in ("5:9", "x", 7, [0, 3], "2:1"):
        with pytest.raises(InputError, match="slices"):
            choose_slices(bad, 3)


BAD = {
    "NaN": (
        lambda k: np.where(np.arange(k.size).reshape(k.shape) == 5, np.nan, k),
        {},
        InputError,
        "1 of 28672 values are NaN or Inf",
    ),
    "zeros": (lambda k: np.zeros_like(k), {}, InputError, "zero everywhere"),
    "real": (lambda k: k.real, {}, InputError, "complex"),
    "rank": (lambda k: k[0, 0], {}, ShapeError, r"expected \(coil, y, x\)"),
    "no coils": (lambda k: k[:0], {}, ShapeError, "empty"),
    "empty mask": (lambda k: k, {"mask": np.zeros((1, 56), bool)}, InputError, "mask is empty"),
    "wrong mask": (lambda k: k, {"mask": np.ones((1, 57), bool)}, ShapeError, "mask"),
    "foreign mask": (lambda k: k * (np.arange(56) < 28), {"mask": np.arange(56) > 42}, InputError, "belong"),
    "coil mismatch": (lambda k: k, {"coil_maps": loop_sensitivities(SHAPE, 4)}, ShapeError, "coil"),
    "zero maps": (lambda k: k, {"coil_maps": 0 * loop_sensitivities(SHAPE, 8)}, InputError, "coil_maps"),
    "negative noise": (lambda k: k, {"noise_std": -1.0}, InputError, "noise_std"),
    "NaN noise": (lambda k: k, {"noise_std": float("nan")}, InputError, "noise_std"),
    "small centre": (lambda k: k * (np.arange(56) % 2 == 0), {}, InputError, "centre"),
    "unknown pattern": (lambda k: k, {"mask": "zigzag", "acceleration": 4}, InputError, "zigzag"),
    "mask and acceleration": (lambda k: k, {"mask": np.ones((1, 56)), "acceleration": 4}, InputError, "pattern name"),
    "centre alone": (lambda k: k, {"center_fraction": 0.1}, InputError, "acceleration"),
    "samples": (lambda k: k, {"samples": 0}, InputError, "samples"),
    "sampler": (lambda k: k, {"sampler": "magic"}, InputError, "magic"),
    "prior": (lambda k: k, {"prior": "magic"}, InputError, "magic"),
    "source": (lambda k: 5, {}, InputError, "source"),
    "1 x N": (lambda k: k[:, :1], {}, InputError, "centre"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_gets_one_clear_line(full: np.ndarray, name: str) -> None:
    spoil, options, error, message = BAD[name]
    with pytest.raises(error, match=message) as caught:
        _quick(spoil(full), **options)
    assert "\n" not in str(caught.value)


class _Broken:
    """A prior whose network returns NaN for some samples."""

    sigma_min, sigma_max, space = 0.01, 10.0, None

    def __init__(self, bad: list[int]) -> None:
        self.bad = bad

    def denoise(self, x: torch.Tensor, sigma: float) -> torch.Tensor:
        out = x / (1 + sigma**2)
        out[[k for k in self.bad if k < len(x)]] = float("nan")
        return out


@pytest.mark.slow
def test_divergence_is_reported_and_never_hidden(full: np.ndarray) -> None:
    with pytest.warns(UserWarning, match="1 of 3 samples are not finite"):
        posterior = _quick(full, acceleration=2, prior=_Broken([1]))
    assert posterior.valid.tolist() == [True, False, True]
    assert np.isfinite(posterior.mean).all()
    with pytest.raises(DivergenceError, match="non-finite"):
        _quick(full, acceleration=2, prior=_Broken([0, 1, 2]))


class _Alternating(_Broken):
    """Another sample is lost in each slice."""

    def denoise(self, x: torch.Tensor, sigma: float) -> torch.Tensor:
        if sigma > 9:  # the first level
            self.bad = [(self.bad[0] + 1) % len(x)]
        return super().denoise(x, sigma)


@pytest.mark.slow
def test_samples_lost_in_one_slice_or_another_are_an_error(full: np.ndarray, tmp_path: Path) -> None:
    np.save(tmp_path / "two.npy", np.stack([full, full]))
    strategy = dataclasses.replace(QUICK, sigma_max=10.0)
    with pytest.raises(DivergenceError, match="each of the 2 samples is invalid in some slice"):
        _quick(tmp_path / "two.npy", acceleration=2, prior=_Alternating([0]), sampler=strategy, samples=2)


@pytest.mark.slow
def test_a_wrong_noise_level_is_noticed(full: np.ndarray) -> None:
    with pytest.warns(UserWarning, match="the model fails to explain .* times the noise"):
        _quick(full, acceleration=2, noise_std=0.005)


def test_problem_with_a_real_operator_is_kept_real() -> None:
    from operators import Identity, Space

    space = Space((8, 8), torch.float32)
    problem = Problem(torch.ones(8, 8), Identity(space), 0.1, scale=2.0, offset=1.0)
    prior = recon.GaussianPrior(torch.zeros(8, 8), std_map=torch.ones(8, 8))
    posterior = recon.reconstruct(problem, prior=prior, sampler="exact", samples=50, progress=False)
    assert posterior.samples.dtype == np.float32
    assert posterior.mean.mean() == pytest.approx(3.0, abs=0.05)


def test_an_empty_measurement_is_said_to_be_one() -> None:
    from operators import CartesianMRI

    operator = CartesianMRI(torch.zeros(1, 16), shape=(16, 16))
    problem = Problem(torch.zeros(16, 16, dtype=torch.complex64), operator, 0.1)
    prior = recon.GaussianPrior.power_law((16, 16), std=0.5)
    with pytest.warns(UserWarning, match="nothing was measured"):
        posterior = recon.reconstruct(problem, prior=prior, sampler="exact", samples=4, progress=False)
    assert posterior.provenance["notes"] == ["nothing was measured: the samples are those of the prior"]
