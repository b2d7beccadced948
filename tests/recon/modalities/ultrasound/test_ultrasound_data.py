"""Channel data in memory: undersampling patterns, demodulation, gain, noise, and the time zero."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from operators.ultrasound.geometry import PlaneWaveGeometry
from recon.errors import InputError, ShapeError
from recon.modalities.ultrasound.data import PlaneWaveData
from recon.modalities.ultrasound.patterns import angle_pattern, element_pattern
from recon.modalities.ultrasound.signals import demodulate, noise_level, time_zero

C, FS, FC, COUNT = 1540.0, 20e6, 5e6, 700
ELEMENTS = np.stack([(np.arange(32) - 15.5) * 0.3e-3, np.zeros(32)], axis=1)
GEOMETRY = PlaneWaveGeometry(ELEMENTS, np.linspace(-0.25, 0.25, 9), FS, FC, C, COUNT, initial_times=1e-6)
POINTS = np.array([(2e-3, 10e-3), (-3e-3, 16e-3), (0.0, 22e-3)])


def echoes(geometry: PlaneWaveGeometry = GEOMETRY, late: float = 0.0, sigma: float = 0.2e-6) -> np.ndarray:
    """Analytic echoes of the points, `(angle, element, sample)`."""
    times = geometry.initial_times[:, None] + np.arange(geometry.sample_count) / geometry.sampling_frequency
    total = np.zeros(geometry.shape, complex)
    for x, z in POINTS:
        way = x * np.sin(geometry.angles) + z * np.cos(geometry.angles)
        arrival = (way[:, None] + np.hypot(x - geometry.elements[:, 0], z)[None]) / C + late
        delay = times[:, None] - arrival[..., None]
        total += np.exp(-(delay**2) / (2 * sigma**2) + 2j * np.pi * geometry.center_frequency * delay)
    return total


def made(frames: np.ndarray, geometry: PlaneWaveGeometry = GEOMETRY) -> PlaneWaveData:
    return PlaneWaveData(Path("made"), "picmus", len(frames), lambda i: frames[i], geometry)


def noise(seed: int = 0, shape: tuple[int, ...] = GEOMETRY.shape) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


# Patterns


def test_angles_are_spread_as_the_challenge_does() -> None:
    angles = np.linspace(-16, 16, 75)
    assert angle_pattern(angles, 1).tolist() == [37]
    assert angle_pattern(angles, 3).tolist() == [0, 37, 74]
    eleven = angle_pattern(angles, 11)
    assert len(set(eleven.tolist())) == 11
    np.testing.assert_allclose(angles[eleven], -angles[eleven][::-1])
    assert angle_pattern(angles, 75).tolist() == list(range(75))


@pytest.mark.parametrize("array", ["uniform", "random", "centre"])
@pytest.mark.parametrize(("total", "count"), [(128, 64), (128, 32), (128, 1), (128, 128), (192, 50), (7, 3)])
def test_element_patterns_are_ascending_and_complete(array: str, total: int, count: int) -> None:
    chosen = element_pattern(total, count, array)
    assert len(chosen) == count
    assert (np.diff(chosen) > 0).all()
    assert chosen[0] >= 0
    assert chosen[-1] < total


def test_element_patterns_are_what_they_say() -> None:
    assert element_pattern(128, 64, "centre").tolist() == list(range(32, 96))
    assert set(np.diff(element_pattern(128, 32, "uniform")).tolist()) == {4}
    first, second = element_pattern(128, 32, "random", 0), element_pattern(128, 32, "random", 1)
    assert (first // 4 == np.arange(32)).all()
    assert first.tolist() == element_pattern(128, 32, "random", 0).tolist()
    assert first.tolist() != second.tolist()


# Selections


def test_selection_is_that_of_array_and_geometry() -> None:
    frames = np.stack([noise(k) for k in range(3)])
    data = made(frames).select([1, 4], [0, 5, 31], [2, 0], decimation=3)
    assert (len(data), data.shape) == (2, (2, 3, 234))
    np.testing.assert_array_equal(data[0], frames[2][[1, 4]][:, [0, 5, 31], ::3].astype(np.float32))
    np.testing.assert_array_equal(data[-1], frames[0][[1, 4]][:, [0, 5, 31], ::3].astype(np.float32))
    np.testing.assert_array_equal(data.geometry.angles, GEOMETRY.angles[[1, 4]])
    np.testing.assert_array_equal(data.geometry.elements, GEOMETRY.elements[[0, 5, 31]])
    assert data.geometry.sampling_frequency == pytest.approx(FS / 3)
    assert data.geometry.transmit_aperture == GEOMETRY.transmit_aperture  # all elements transmit as before


def test_selections_can_be_chained_and_undersample_counts() -> None:
    data = made(noise()[None])
    once = data.select(angles=[2, 4, 6], elements=range(0, 32, 2)).select(angles=[1], elements=[3])
    np.testing.assert_array_equal(once[0], data[0][4:5, 6:7])
    few = data.undersample(angles=1, elements=8, array="random", seed=5)
    assert few.shape == (1, 8, COUNT)
    assert few.geometry.angles == pytest.approx([0.0])
    np.testing.assert_array_equal(few[0], data[0][4:5, element_pattern(32, 8, "random", 5)])


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"angles": [9]}, "angle out of range"),
        ({"angles": [-10]}, "angle out of range"),
        ({"angles": [0.5]}, "angle out of range"),
        ({"angles": []}, "no angle"),
        ({"elements": []}, "no element"),
        ({"elements": [32]}, "element out of range"),
        ({"frames": [2]}, "no frame 2"),
        ({"frames": []}, "empty"),
        ({"decimation": 0}, "decimation"),
    ],
)
def test_selections_out_of_range(choice: dict[str, list[int]], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        made(noise()[None]).select(**choice)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "choice", [{"angles": 0}, {"angles": 10}, {"elements": 0}, {"elements": 33}, {"elements": 4, "array": "spiral"}]
)
def test_counts_out_of_range(choice: dict[str, int]) -> None:
    with pytest.raises(InputError, match="made: "):
        made(noise()[None]).undersample(**choice)


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (np.full(GEOMETRY.shape, np.nan), "NaN or infinite"),
        (np.full(GEOMETRY.shape, 1e300), "NaN or infinite"),
        (np.zeros(GEOMETRY.shape), "every value is zero"),
        (noise()[0], "expected shape"),
        (noise() + 1j, "real"),
        (np.full(GEOMETRY.shape, "1"), "expected real numbers"),
    ],
)
def test_bad_frames(frame: np.ndarray, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        made(frame[None])[0]
    assert "\n" not in str(caught.value)


# Demodulation


def test_iq_is_the_analytic_signal_in_the_origins_time() -> None:
    analytic = echoes()
    iq = made(analytic.real[None]).to_iq()
    times = GEOMETRY.initial_times[:, None, None] + np.arange(COUNT) / FS
    expected = analytic * np.exp(-2j * np.pi * FC * times)
    inner = slice(20, -20)
    np.testing.assert_allclose(iq[0][..., inner], expected[..., inner], atol=2e-3)
    assert iq[0].dtype == np.complex64
    assert iq.geometry.is_complex
    assert iq.geometry.demodulation_frequency == FC


def test_nothing_is_lost_by_demodulation() -> None:
    rf = noise()
    iq = demodulate(rf, GEOMETRY, 4.3e6)
    times = GEOMETRY.initial_times[:, None, None] + np.arange(COUNT) / FS
    np.testing.assert_allclose((iq * np.exp(2j * np.pi * 4.3e6 * times)).real, rf, atol=1e-5)


def test_phase_does_not_depend_on_when_the_recording_began() -> None:
    late = replace(GEOMETRY, initial_times=1e-6 + 7.5 / FS)
    first, second = (made(echoes(scan).real[None], scan).to_iq() for scan in (GEOMETRY, late))
    # 7.5 samples apart: compare the carrier-free signals in the middle of two samples.
    middle = 0.5 * (first[0][..., 7:-1] + first[0][..., 8:])
    np.testing.assert_allclose(middle[..., 20:640], second[0][..., 20:640], atol=0.02)


def test_band_pass_sampled_rf_is_demodulated_too() -> None:
    scan = replace(GEOMETRY, sampling_frequency=20e6 / 3, sample_count=234)
    analytic = echoes(scan, sigma=0.7e-6)
    times = scan.initial_times[:, None, None] + np.arange(234) / scan.sampling_frequency
    expected = analytic * np.exp(-2j * np.pi * FC * times)
    np.testing.assert_allclose(demodulate(analytic.real, scan, FC)[..., 10:-10], expected[..., 10:-10], atol=5e-3)


def test_decimated_iq_keeps_the_echoes() -> None:
    wide = made(echoes(sigma=0.4e-6).real[None]).to_iq(bandwidth=4e6)
    few = wide.select(decimation=5)
    assert few.geometry.sampling_frequency == pytest.approx(4e6)
    spectrum = np.fft.fft(few[0].astype(complex), axis=-1)
    size = 5 * few.shape[2]
    padded = np.zeros((*few.shape[:2], size), complex)
    half = few.shape[2] // 2
    padded[..., :half], padded[..., -half:] = spectrum[..., :half], spectrum[..., -half:]
    again = 5 * np.fft.ifft(padded, axis=-1)[..., :COUNT]
    inner = slice(60, -60)
    assert np.abs(again[..., inner] - wide[0][..., inner]).max() < 0.03


def test_demodulation_refuses_iq_and_hopeless_frequencies() -> None:
    data = made(echoes().real[None])
    with pytest.raises(InputError, match="already"):
        data.to_iq().to_iq()
    with pytest.raises(InputError, match="mirror image"):
        data.to_iq(10e6)
    with pytest.raises(InputError, match="> 0 Hz"):
        data.to_iq(-5e6)
    with pytest.raises(InputError, match="bandwidth"):
        data.to_iq(bandwidth=30e6)


# Noise and gain


def test_noise_of_rf_is_seen_beside_strong_echoes() -> None:
    for std in (0.003, 0.1):
        data = made((30 * echoes().real + std * noise())[None])
        assert data.noise_std().item() == pytest.approx(std, rel=0.1)
    assert made((30 * echoes().real + 4.0 + 0.1 * noise())[None]).noise_std().item() == pytest.approx(0.1, rel=0.1)


def test_samples_before_the_first_echo_tell_the_noise_of_any_colour() -> None:
    scan = replace(GEOMETRY, initial_times=-15e-6)
    coloured = 0.3 * (noise()[..., 1:] + noise()[..., :-1]) / np.sqrt(2)
    rf = echoes(scan).real
    rf[..., 1:] += coloured
    assert noise_level(rf, scan) == pytest.approx(0.3, rel=0.03)


@pytest.mark.parametrize(("bandwidth", "growth"), [(None, np.sqrt(2)), (4e6, 2 * np.sqrt(4 / 20))])
def test_noise_of_iq_is_that_of_its_rf(bandwidth: float | None, growth: float) -> None:
    quiet = made((0.1 * noise())[None])
    iq = quiet.to_iq(bandwidth=bandwidth)
    assert iq.noise_std().item() == pytest.approx(0.1 * growth, rel=0.06)
    real_std = np.sqrt(np.mean(np.abs(iq[0]) ** 2))
    assert real_std == pytest.approx(0.1 * growth, rel=0.06)
    few = iq.select(angles=[3], elements=[1, 2], decimation=2)
    assert few.noise_std().item() == iq.noise_std().item()


def test_noise_of_iq_whose_pulse_fills_its_band_is_seen_between_the_echoes() -> None:
    """Demodulated and decimated to a rate of the centre frequency, a short echo of one point has no quiet band."""
    rf = made((30 * echoes().real + 0.01 * noise())[None])
    thin = rf.to_iq(bandwidth=GEOMETRY.sampling_frequency / 4).select(decimation=4)
    iq = made(thin[0][None], thin.geometry)
    expected = 0.01 * 2 * np.sqrt(1 / 4)
    assert iq.noise_std().item() == pytest.approx(expected, rel=0.25)
    blanked = thin[0].copy()
    blanked[..., :8] = 0
    assert made(blanked[None], thin.geometry).noise_std().item() == pytest.approx(expected, rel=0.25)


def test_gain_is_undone_or_goes_into_the_noise() -> None:
    gain = 10 ** (np.linspace(0, 40, COUNT) / 20)
    signal, white = echoes().real, 0.05 * noise()
    before = made(((signal + white) * gain)[None]).without_gain(gain)
    np.testing.assert_allclose(before[0], signal + white, atol=1e-5)
    assert before.noise_std().shape == (1, 1, 1)
    assert before.noise_std().item() == pytest.approx(0.05, rel=0.1)
    after = made((signal * gain + white)[None]).without_gain(gain, noise="after")
    np.testing.assert_allclose(after[0], signal + white / gain, atol=1e-5)
    assert after.noise_std().shape == (1, 1, COUNT)
    np.testing.assert_allclose(after.noise_std()[0, 0], 0.05 / gain, rtol=0.1)
    few = after.select(elements=[3], decimation=7)
    np.testing.assert_allclose(few.noise_std(), after.noise_std()[..., ::7])


@pytest.mark.parametrize(
    ("gain", "options", "message"),
    [
        (np.ones(5), {}, "each of 700"),
        (np.zeros(COUNT), {}, "positive"),
        (np.full(COUNT, np.nan), {}, "positive"),
        (np.ones(COUNT), {"noise": "none"}, "'before' or 'after'"),
    ],
)
def test_bad_gains(gain: np.ndarray, options: dict[str, str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        made(noise()[None]).without_gain(gain, **options)


# Time zero


@pytest.mark.parametrize("late", [0.2417e-6, -1.13e-6, 0.0])
@pytest.mark.parametrize("kind", ["rf", "iq"])
def test_time_zero_is_found_and_corrected(late: float, kind: str) -> None:
    data = made((echoes(late=late).real + 0.02 * noise())[None])
    data = data.to_iq() if kind == "iq" else data
    found = time_zero(data[0], data.geometry, POINTS)
    assert found == pytest.approx(late, abs=2e-9)
    right = data.shifted(-found)
    assert time_zero(right[0], right.geometry, POINTS) == pytest.approx(0, abs=1e-9)
    if kind == "iq":
        times = right.geometry.initial_times[:, None, None] + np.arange(COUNT) / FS
        scan = replace(GEOMETRY, initial_times=right.geometry.initial_times)
        expected = echoes(scan) * np.exp(-2j * np.pi * FC * times)
        assert np.abs(right[0] - expected)[..., 20:-20].max() < 0.3


def test_time_zero_of_nothing() -> None:
    with pytest.raises(InputError, match="no echo"):
        time_zero(echoes().real, GEOMETRY, [(0.0, 0.5)])
    with pytest.raises(ShapeError, match=r"\(point, 2\)"):
        time_zero(echoes().real, GEOMETRY, [(0.0, 0.02, 0.1)])
