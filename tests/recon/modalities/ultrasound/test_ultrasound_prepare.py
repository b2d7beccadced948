"""From channel data to Problems and posteriors: selection, noise, pulse, field of view, the command line."""

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

import recon
from operators import Grid, PlaneWaveGeometry, PlaneWaveUltrasound
from operators.ultrasound.beamform import METHODS
from recon.cli import main
from recon.errors import InputError
from recon.modalities import modality
from recon.modalities.ultrasound.data import PlaneWaveData
from recon.modalities.ultrasound.files.readers import open_ultrasound
from recon.modalities.ultrasound.grid import COLUMNS, ROWS, record_window, scene_of
from recon.modalities.ultrasound.image_metrics import fwhm
from recon.modalities.ultrasound.independent_pixels import speckle_prior, unexplained, wiener
from recon.modalities.ultrasound.options import Ultrasound
from recon.modalities.ultrasound.prepare import prepare_frame
from recon.modalities.ultrasound.pulse import pulse_of, pulse_samples
from recon.modalities.ultrasound.selection import choose, thin_out
from recon.posterior import Posterior
from recon.uncertainty import Calibration
from samplers import Problem

C, FC, FS, COUNT = 1540.0, 5e6, 20e6, 330
ELEMENTS = np.stack([(np.arange(16) - 7.5) * 0.3e-3, np.zeros(16)], axis=1)
GEOMETRY = PlaneWaveGeometry(ELEMENTS, [-0.2, 0.0, 0.2], FS, FC, C, COUNT, element_width=0.27e-3)
POINT = (0.4e-3, 7e-3)
NOISE = 0.02

ULTRASOUND = modality("ultrasound")


def channel_data(seed: int = 0, noise: float = NOISE, strength: float = 0.3) -> np.ndarray:
    """RF of speckle between 4 and 10 mm and a bright point, on a grid finer than that of the pipeline; rms 1."""
    rng = np.random.default_rng(seed)
    fine = Grid(np.arange(-2.2e-3, 2.2e-3, 0.06e-3), np.arange(4e-3, 10e-3, 0.04e-3))
    scatterers = strength * rng.standard_normal(fine.shape) * (rng.random(fine.shape) < 0.2)
    scatterers[np.abs(fine.z - POINT[1]).argmin(), np.abs(fine.x - POINT[0]).argmin()] = 30
    operator = PlaneWaveUltrasound(GEOMETRY, fine, bandwidth=0.5, engine="torch")
    rf = operator(operator.from_reflectivity(torch.from_numpy(scatterers).to(torch.complex64))).numpy()
    return (rf / rf.std() + noise * rng.standard_normal(rf.shape)).astype(np.float32)


def made(values: np.ndarray, geometry: PlaneWaveGeometry = GEOMETRY) -> PlaneWaveData:
    return PlaneWaveData(Path("made"), "picmus", 1, lambda i: values, geometry)


@pytest.fixture(scope="module")
def speckle() -> np.ndarray:
    return channel_data()


@pytest.fixture
def picmus_file(tmp_path: Path, speckle: np.ndarray) -> Callable[..., Path]:
    """Write channel data in the layout of the challenge."""

    def write(values: np.ndarray = speckle, name: str = "picmus.hdf5") -> Path:
        path = tmp_path / name
        with h5py.File(path, "w") as file:
            group = file.create_group("US/US_DATASET0000")
            group["data/real"], group["data/imag"] = values, np.zeros_like(values)
            group["angles"] = np.asarray(GEOMETRY.angles, np.float32)
            group["probe_geometry"] = np.insert(ELEMENTS, 1, 0, axis=1).T.astype(np.float32)
            scalars = {"sampling_frequency": FS, "sound_speed": C, "initial_time": 0, "modulation_frequency": 0}
            for key, value in {**scalars, "PRF": 100}.items():
                group[key] = np.array([value], np.float32)
        return path

    return write


def test_pulse_is_that_of_the_spectrum(speckle):
    center, bandwidth = pulse_of(made(speckle), 0)
    assert center == pytest.approx(FC, rel=0.05)
    assert bandwidth == pytest.approx(0.5, rel=0.15)
    # Base-band samples of another carrier tell the same.
    again, same = pulse_of(made(speckle).to_iq(0.9 * FC), 0)
    assert again == pytest.approx(center, rel=0.01) and same == pytest.approx(bandwidth, rel=0.05)


def test_pulse_of_demodulated_data_has_gone_through_their_filter():
    used = thin_out(Ultrasound(), made(channel_data(noise=0)))
    assert used.geometry.sampling_frequency == FS / 3
    plain, filtered = (pulse_samples(used.geometry, FC, 0.8, band) for band in (None, FS / 3))
    gain = np.abs(np.fft.fft(filtered, 512)), np.abs(np.fft.fft(plain, 512))
    rate = used.geometry.sampling_frequency * 3
    away = np.abs(np.fft.fftfreq(512, 1 / rate) - FC)
    inner, outer = away < 0.8 * FS / 6, away > 1.02 * FS / 6
    np.testing.assert_allclose(gain[0][inner], gain[1][inner], rtol=0.02)
    assert gain[0][outer].max() < 0.02 * gain[1].max() < gain[1][outer].max()


def test_problem_explains_the_data_and_knows_their_noise(speckle):
    ready = prepare_frame(made(speckle), 0, Ultrasound(angles=1))
    problem = ready.problem
    assert problem.operator.domain.dtype == torch.complex64 and problem.y.is_complex()
    assert ready.grid.spacing == pytest.approx((ROWS * C / FC, COLUMNS * C / FC))
    assert ready.diagnostics["angles_deg"] == [0.0] and ready.diagnostics["elements"] == 16
    assert ready.diagnostics["fit_residual"] < 0.06 and not ready.notes
    # Electronic noise of RF with std s is 2 s / sqrt(n) in every n-th base-band sample.
    assert ready.diagnostics["noise_std"] == pytest.approx(2 * NOISE / np.sqrt(3), rel=0.3)
    level = problem.noise_std * problem.scale
    assert level.shape == (1, 1, problem.y.shape[-1])
    strength = (problem.y * problem.scale).abs().square().mean().sqrt()
    assert 0.05 <= ready.diagnostics["model_error"] < 0.06
    assert ready.diagnostics["noise_std"] < level.median() < 0.1 * strength + ready.diagnostics["noise_std"]
    # The .99 quantile of the image is about 1 in the scale of the prior, and delay and sum is in the result's units.
    assert 0.3 < ready.images["das"].abs().square().mean().sqrt() / problem.scale < 3


def test_point_is_where_it_is_in_both_images(speckle):
    from samplers import ExactGaussian

    ready = prepare_frame(made(channel_data(strength=0.02)), 0, Ultrasound(angles=1, depth=(6, 8)))
    mean = ExactGaussian(iterations=60).posterior_mean(
        ready.problem, speckle_prior(ready.problem, ready.grid, ready.images["das"])
    )
    widths = []
    for image in (ready.images["das"].abs().numpy(), mean.abs().numpy()):
        row, column = np.unravel_index(image.argmax(), image.shape)
        assert ready.grid.x[column] == pytest.approx(POINT[0], abs=0.11e-3)
        assert ready.grid.z[row] == pytest.approx(POINT[1], abs=0.11e-3)
        widths.append(fwhm(image, ready.grid.x, ready.grid.z, POINT, half_width=0.9e-3))
    assert widths[1].lateral < 0.8 * widths[0].lateral  # what a model of the waves gains over delay and sum


@pytest.mark.slow
def test_field_of_view_keeps_out_what_lies_around_it(speckle):
    data = made(speckle)
    ready = prepare_frame(data, 0, Ultrasound(depth=(6, 8), width=(-1, 1.5)))
    z, x = ready.grid.z * 1e3, ready.grid.x * 1e3
    assert 6 <= z[0] < 6.1 and 7.9 < z[-1] <= 8 and -1 <= x[0] < -0.85 and 1.35 < x[-1] <= 1.5
    assert ready.diagnostics["fit_residual"] < 0.08
    whole = prepare_frame(data, 0, Ultrasound())
    # Its pixels are pixels of the whole image, and so are the values of delay and sum, up to the scale.
    rows, columns = (np.searchsorted(full, part - 1e-9) for full, part in
                     ((whole.grid.z, ready.grid.z), (whole.grid.x, ready.grid.x)))  # fmt: skip
    cut = whole.images["das"][rows][:, columns].abs()
    assert np.corrcoef(cut.flatten(), ready.images["das"].abs().flatten())[0, 1] > 0.999
    # Samples before the first and long after the last echo are not used.
    used = thin_out(Ultrasound(), data)
    scene, region = scene_of(used.geometry, (6, 8), None)
    window = record_window(used.geometry, region.grid, region)
    assert 0 < window.start < window.stop < used.shape[2]
    assert scene.z[-1] > region.grid.z[-1]
    # Steered waves light up what lies beside the aperture.
    far = region.grid.z[-1] * np.tan(0.2)
    assert scene.x[0] < ELEMENTS[0, 0] - far and scene.x[-1] > ELEMENTS[-1, 0] + far
    assert region.grid.x[0] >= ELEMENTS[0, 0] - 1e-9 and region.grid.x[-1] <= ELEMENTS[-1, 0] + 1e-9


@pytest.mark.parametrize("options", [{}, {"width": (-1.0, 1.0), "depth": (5.5, 8.0)}], ids=["whole", "part"])
def test_what_lies_outside_is_taken_off_or_counts_as_noise(options):
    used = thin_out(Ultrasound(), made(channel_data()))
    scene, _ = scene_of(used.geometry, None, None)
    generator = torch.Generator().manual_seed(3)
    image = torch.randn(scene.shape, dtype=torch.complex64, generator=generator)
    y = PlaneWaveUltrasound(used.geometry, scene, bandwidth=0.5)(image)
    y = y + NOISE * y.abs().square().mean().sqrt() * torch.randn(y.shape, dtype=y.dtype, generator=generator)
    ready = prepare_frame(made(y.numpy(), used.geometry), 0, Ultrasound(**options))
    rows, columns = (slice(k, k + n) for k, n in zip(
        (np.searchsorted(full, part[0] - 1e-9) for full, part in ((scene.z, ready.grid.z), (scene.x, ready.grid.x))),
        ready.grid.shape, strict=True))  # fmt: skip
    problem = ready.problem
    left = problem.y - problem.operator(image[rows, columns] / problem.scale)
    # The truth explains the data as well as the noise level says.
    assert 0.3 < (left / problem.noise_std).abs().square().mean() < 2


@pytest.mark.parametrize("claimed", [0.5, 1.0, 3.0, 10.0])
def test_withheld_elements_tell_whether_the_noise_level_is_too_high(claimed):
    grid = prepare_frame(made(channel_data()), 0, Ultrasound()).grid
    operator = PlaneWaveUltrasound(GEOMETRY, grid, bandwidth=0.5)
    generator = torch.Generator().manual_seed(5)
    y = operator(torch.randn(grid.shape, dtype=torch.complex64, generator=generator))
    noise = 0.1 * y.abs().square().mean().sqrt()
    y = y + noise * torch.randn(y.shape, dtype=y.dtype, generator=generator)
    ratio = unexplained(Problem(y, operator, (claimed * noise).expand(1, 1, y.shape[-1])), grid)
    # Predictions miss by the noise, which alone is claimed, and by what the pixels leave open.
    low, high = sorted((1.0, claimed**-2))
    assert 0.9 * low < ratio < 1.1 * high
    assert ratio == pytest.approx(claimed**-2, rel=1.5)


def test_withheld_data_are_expected_between_the_electronic_noise_and_the_noise_level(speckle):
    ready = prepare_frame(made(speckle), 0, Ultrasound(angles=1))
    level = ready.problem.noise_std
    assert ready.data_std.shape == level.shape
    assert (ready.data_std <= level).all() and ready.data_std.mean() < 0.8 * level.mean()
    floor = ready.diagnostics["noise_std"] / ready.problem.scale
    assert (ready.data_std >= torch.minimum(0.999 * torch.tensor(floor), level)).all()
    # What the caller says of the model error is not doubted.
    assert prepare_frame(made(speckle), 0, Ultrasound(angles=1, model_error=0.05)).data_std is None


def test_selection_and_undersampling(speckle):
    data = made(speckle)
    few = Ultrasound(angles=3, elements=8, array="centre", decimation=4, noise_std=0.5, time_shift=0.1)
    used = thin_out(few, choose(few, data))
    assert used.shape == (3, 8, -(-COUNT // 4))
    assert used.geometry.initial_times == pytest.approx(1e-7 * np.ones(3))
    # Four is beyond the band of the pulse: the filter stays that of three, and so does the noise of a sample.
    assert used.noise_std(0).item() == pytest.approx(0.5 * 2 / np.sqrt(3))
    absorbed = prepare_frame(data, 0, Ultrasound(angles=1, attenuation=2.0, depth=(4, 9)))
    plain = prepare_frame(data, 0, Ultrasound(angles=1, depth=(4, 9)))
    gain = [
        float(each.images["das"].abs()[-1].mean() / each.images["das"].abs()[0].mean()) for each in (absorbed, plain)
    ]
    way = 2e2 * (plain.grid.z[-1] - plain.grid.z[0])  # cm, there and back
    assert 20 * np.log10(gain[0] / gain[1]) == pytest.approx(2.0 * FC / 1e6 * way, rel=1e-3)
    assert isinstance(absorbed.problem.operator, PlaneWaveUltrasound)
    assert absorbed.problem.operator.geometry.attenuation == 2.0


@pytest.mark.parametrize("decimation", [3, 5, 8])
@pytest.mark.slow
def test_samples_below_the_nyquist_rate_are_explained_by_what_the_others_say(decimation):
    """The image that explains all samples explains every n-th of them: aliases are in the model, not in its error."""
    data = made(channel_data(noise=0.0))
    full = prepare_frame(data, 0, Ultrasound(angles=1, model_error=0.05))
    fit, _ = wiener(full.problem, full.grid)
    fewer = prepare_frame(data, 0, Ultrasound(angles=1, decimation=decimation, model_error=0.05))
    assert np.array_equal(fewer.grid.z[:120], full.grid.z[:120])  # the last row depends on the last sample
    image = torch.zeros(fewer.grid.shape, dtype=fit.dtype)
    image[: len(fit)] = fit[: len(image)]
    echoes = fewer.problem.operator(image * full.problem.scale / fewer.problem.scale)
    left = (fewer.problem.y - echoes).norm() / fewer.problem.y.norm()
    assert left < 0.1, f"{float(left):.3f}"


def test_elements_that_heard_nothing_are_left_out(speckle):
    silent = speckle.copy()
    silent[:, [3, 9]] = 0
    ready = prepare_frame(made(silent), 0, Ultrasound(angles=1))
    assert ready.diagnostics["elements"] == 14 and ready.problem.operator.geometry.shape[1] == 14
    assert ready.notes == ["element(s) 3, 9 of those selected carry no signal and are excluded"]
    assert ready.diagnostics["fit_residual"] < 0.06


@pytest.mark.filterwarnings("ignore:the data residual")  # which may be large then, too
@pytest.mark.slow
def test_a_sampler_that_is_not_exact_says_so():
    """A bright point in next to no noise makes the equations of independent pixels hard."""
    data = made(channel_data(noise=0.0, strength=1e-3))
    options = {"prior": "gaussian", "samples": 2, "angles": 1, "depth": (6, 8), "model_error": 1e-4, "noise_std": 0.0}
    with pytest.warns(UserWarning, match="equations of the exact sampler are solved only to"):
        recon.reconstruct(data, sampler="exact", **options)


def test_gain_that_was_undone_is_in_the_noise(speckle):
    gain = np.linspace(1, 8, COUNT)
    loud = speckle * gain + 5.0 * np.random.default_rng(0).standard_normal(speckle.shape)
    data = made(loud.astype(np.float32)).without_gain(gain, noise="after")
    ready = prepare_frame(data, 0, Ultrasound(angles=1, model_error=0.0))
    level = ready.problem.noise_std.flatten()
    assert float(level[0] / level[-1]) > 3


def test_complex_samples_are_used_as_they_are(speckle):
    iq = made(speckle).to_iq(bandwidth=FS / 3).select(decimation=3)
    ready = prepare_frame(made(iq[0], iq.geometry), 0, Ultrasound(angles=1))
    assert ready.problem.y.shape[-1] <= iq.shape[2]
    assert ready.diagnostics["fit_residual"] < 0.08
    assert ready.diagnostics["sampling_frequency_mhz"] == pytest.approx(FS / 3e6)


@pytest.mark.slow
def test_time_zero_that_is_wrong_shifts_the_image(speckle):
    data = made(channel_data(strength=0.02))
    found = []
    for shift in (0.0, 0.3):
        ready = prepare_frame(data.shifted(0.3e-6 - shift * 1e-6), 0, Ultrasound(time_shift=shift))
        found.append(ready.grid.z[int(ready.images["das"].abs().argmax()) // ready.images["das"].shape[1]])
    assert found[0] - found[1] == pytest.approx(0.0, abs=1e-9)
    assert found[0] == pytest.approx(POINT[1] + 0.3e-6 * C / 2, abs=0.1e-3)


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({"angles": 4}, "cannot keep 4 of 3 angles"),
        ({"elements": 17}, "cannot keep 17 of 16 elements"),
        ({"depth": (50, 60)}, "depth: 50 to 60 mm is outside the image"),
        ({"width": (30, 60)}, "width: 30 to 60 mm is outside the image"),
        ({"decimation": 1}, "expected >= 2"),
    ],
)
def test_selections_that_are_not_in_the_data(wanted, message, speckle):
    with pytest.raises(InputError, match=message) as caught:
        recon.reconstruct(made(speckle), prior="gaussian", **wanted)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "wrong",
    [
        {"angles": 0},
        {"elements": 0},
        {"decimation": 0},
        {"array": "spiral"},
        {"depth": (8.0, 6.0)},
        {"width": (0.0, float("nan"))},
        {"attenuation": -1.0},
        {"model_error": float("inf")},
        {"noise_std": -1.0},
        {"time_shift": float("nan")},
    ],
)
def test_acquisitions_that_cannot_be(wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        Ultrasound(**wrong)


@pytest.mark.slow
def test_a_file_becomes_samples_and_a_picture(picmus_file, tmp_path, capsys):
    file, out = picmus_file(), tmp_path / "out"
    options = ["--prior", "gaussian", "--samples", "3", "--steps", "25", "--angles", "1", "--depth", "6:8"]
    command = ["run", str(file), "-o", str(out), *options]
    assert main([*command, "--dry-run"]) == 0
    assert "1 of 3 angle(s), 16 of 16 element(s), depth 6 to 8 mm" in capsys.readouterr().out
    assert main([*command, "--elements", "8"]) == 0
    assert "the elements lie 2 wavelengths apart" in capsys.readouterr().err
    found = Posterior.load(out / "picmus.h5")
    assert found.samples.shape[0] == 3 and np.iscomplexobj(found.samples)
    assert found.geometry["axes"] == "z x" and found.geometry["origin_mm"][1] == pytest.approx(6, abs=0.1)
    assert found.images["das"].shape == found.samples.shape[1:]
    assert found.provenance["measured"][0]["elements"] == 8
    assert found.provenance["config"]["angles"] == 1
    assert (out / "picmus.png").stat().st_size > 1000
    assert main(["info", str(out / "picmus.h5")]) == 0
    # The same from Python.
    with pytest.warns(UserWarning, match="2 wavelengths apart"):
        again = recon.reconstruct(
            open_ultrasound(file), prior="gaussian", samples=3, steps=25, angles=1, elements=8, depth=(6, 8)
        )
    np.testing.assert_array_equal(again.samples, found.samples)


@pytest.mark.slow
def test_ultrasound_is_calibrated_with_true_images(tmp_path, picmus_file, capsys):
    folder, truths = tmp_path / "waves", tmp_path / "truths"
    folder.mkdir()
    truths.mkdir()
    picmus_file().rename(folder / "a.hdf5")
    options = ["--prior", "gaussian", "--sampler", "exact", "--samples", "3", "--angles", "1", "--depth", "6:8"]
    command = ["calibrate", str(folder), "-o", str(tmp_path / "c.json"), "--level", "0.5", *options]
    assert main(command) == 2
    assert "no reference to calibrate against" in capsys.readouterr().err
    assert main(["run", str(folder / "a.hdf5"), "-o", str(tmp_path / "r"), "--no-report", *options]) == 0
    np.save(truths / "a.npy", np.abs(Posterior.load(tmp_path / "r" / "a.h5").samples[0]))
    assert main([*command, "--reference", str(truths)]) == 0
    assert Calibration.load(tmp_path / "c.json").fingerprint["elements"] == 16


def test_data_in_memory_become_samples(speckle):
    drawn = recon.reconstruct(
        made(speckle), prior="gaussian", sampler="exact", samples=2, angles=1, depth=(6, 7.5), width=(-1, 1)
    )
    assert drawn.provenance["source"] is None and drawn.provenance["operator"] == "PlaneWaveUltrasound"
    assert drawn.samples.shape == (2, *drawn.images["das"].shape)
    assert 0.1 < np.median(drawn.diagnostics["residual"]) < 2  # much of what is heard comes from beside the part


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--prior", "gaussian", "--angles", "76"], "cannot keep 76 of 3 angles"),
        (["--prior", "gaussian", "--elements", "0"], "elements: expected an integer >= 1, got 0"),
        (["--prior", "gaussian", "--depth", "deep"], "depth: expected A:B"),
        (["--prior", "gaussian", "--depth", "90:99"], "is outside the image"),
        (["--prior", "gaussian", "--depth=-5:-1"], "depth: -5 to -1 mm is outside the record"),
        (["--prior", "gaussian", "--depth", "8:8.01"], "depth: 8 to 8.01 mm holds fewer than two pixels"),
        (["--prior", "gaussian", "--time-shift=-40"], "nothing is recorded below"),
        (["--prior", "gaussian", "--noise-std", "0", "--model-error", "0"], "the noise of some samples is 0"),
        (
            ["--prior", "gaussian", "--acceleration", "4"],
            "ultrasound has no option 'acceleration'; 'acceleration' is an option of MRI",
        ),
        (["--prior", "gaussian", "--views", "9"], "'views' is an option of CT"),
        (["--prior", "gaussian", "--slices", "3"], "slices"),
    ],
)
def test_what_cannot_be_is_one_line_and_nothing_is_written(picmus_file, tmp_path, capsys, options, message):
    out = tmp_path / "out"
    assert main(["run", str(picmus_file()), "-o", str(out), *options]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not out.exists() or not list(out.rglob("*.*"))


def test_damaged_values_are_refused(picmus_file, tmp_path, capsys, speckle):
    broken = speckle.copy()
    broken[1, 3, 100] = np.nan
    assert main(["run", str(picmus_file(broken)), "-o", str(tmp_path / "out"), "--prior", "gaussian"]) == 2
    assert "NaN" in capsys.readouterr().err


def test_options_of_ultrasound_are_refused_elsewhere():
    kspace = np.ones((2, 8, 8), np.complex64)
    with pytest.raises(InputError, match="'angles' is an option of ultrasound"):
        recon.reconstruct(kspace, prior="gaussian", angles=1)


def test_muscle_in_vivo(realdata):
    data = open_ultrasound(realdata / "ultrasound" / "muscle_invivo_1angle.hdf5")
    wanted = Ultrasound(elements=48, array="centre", depth=(18, 22), width=(-3, 3))
    ready = prepare_frame(data, 0, wanted)
    # One straight-ray model of one wave explains most of what a scanner heard in a living leg.
    assert ready.diagnostics["fit_residual"] < 0.15
    assert 3.9e6 < ready.diagnostics["pulse_frequency_mhz"] * 1e6 < 5.0e6  # tissue takes the high frequencies away
    assert not ready.notes
    ratio = ready.problem.y.abs().square().mean().sqrt() / torch.as_tensor(ready.problem.noise_std).mean()
    assert 2 < ratio < 40


def test_disc_that_was_sampled_below_nyquist(realdata):
    data = open_ultrasound(realdata / "ultrasound" / "rotating_disk_1angle.mat")
    ready = prepare_frame(data, 0, Ultrasound(elements=64, depth=(18, 24), width=(-4, 4)))
    assert ready.diagnostics["sampling_frequency_mhz"] == pytest.approx(10 / 3)
    assert ready.diagnostics["fit_residual"] < 0.2


def test_strategies_by_name_have_settings_for_ultrasound():
    from recon.engine.samplers import SAMPLERS, resolve_sampler
    from samplers import LocalEnergy

    for name in SAMPLERS:
        found = resolve_sampler(name, modality=ULTRASOUND)
        assert (found == SAMPLERS[name]) == (name not in ULTRASOUND.samplers)
    assert resolve_sampler("dds", modality=ULTRASOUND).spread == LocalEnergy(5)


def test_report_of_frames_and_of_one_sample(tmp_path):
    from recon.modalities.ultrasound.report import level_std
    from recon.modalities.ultrasound.report import rows as build_rows

    rng = np.random.default_rng(0)
    samples = (rng.standard_normal((5, 3, 24, 20)) + 1j * rng.standard_normal((5, 3, 24, 20))).astype(np.complex64)
    geometry = {"voxel_size_mm": (1.0, 0.1, 0.2), "origin_mm": (0.0, 5.0, -2.0), "display_db": (-60.0, 0.0)}
    frames = Posterior(samples, geometry, images={"das": samples[0]})
    rows = build_rows(frames)
    assert [len(row.panels) for row in rows] == [3, 5, 3]
    assert [panel.title for panel in rows[0].panels] == ["Delay and sum", "Posterior mean", "Std of the envelope (dB)"]
    assert rows[0].panels[0].extent == pytest.approx((-2.1, 1.9, 7.35, 4.95))
    assert rows[0].panels[0].image.max() > 0 and rows[0].panels[0].limits == (-60, 0)
    frames.report(tmp_path / "frames")
    one = Posterior(samples[:1, 0], geometry)
    (row,) = build_rows(one)
    assert [panel.title for panel in row.panels] == ["One sample"]
    # Nothing known but the strength: the log of a Rayleigh distribution spreads by 5.57 dB.
    many = rng.standard_normal((400, 8, 8)) + 1j * rng.standard_normal((400, 8, 8))
    assert level_std(many, 1.0, -60.0).mean() == pytest.approx(5.57, rel=0.05)


@pytest.mark.filterwarnings("ignore:the std is that of the estimate", "ignore:the data residual")
@pytest.mark.parametrize("method", METHODS)
def test_beamformers_are_samplers_and_show_the_point_at_the_scale_of_the_data(method):
    data = made(channel_data(strength=0.02))
    found = recon.reconstruct(data, sampler=method, samples=2, angles=1, depth=(6, 8), progress=False)
    assert found.provenance["prior"]["name"] == "none" and "noise of the data" in found.provenance["notes"][0]
    row, column = np.unravel_index(np.abs(found.mean).argmax(), found.mean.shape)
    grid = prepare_frame(data, 0, Ultrasound(angles=1, depth=(6, 8))).grid
    assert abs(grid.x[column] - POINT[0]) < 0.25e-3 and abs(grid.z[row] - POINT[1]) < 0.2e-3
    if method == "das":  # that of every other result, but without the echoes from outside
        assert np.corrcoef(np.abs(found.mean).ravel(), np.abs(found.images["das"]).ravel())[0, 1] > 0.98
