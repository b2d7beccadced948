"""Readers of channel data on files written with plain h5py and scipy, each in its own clock, and on the real files.

The truth is a point scatterer: its echo arrives `(x sin th + z cos th + |r - r_e|) / c` after the wave front of the
angle th passed the origin. Whatever the clock of a format, the data read must have their peaks, and the phase of their
carrier, at that time.
"""

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from scipy.io import savemat

from recon.cli import main
from recon.errors import InputError
from recon.modalities.ultrasound.data import PlaneWaveData
from recon.modalities.ultrasound.files.picmus_files import read_picmus_image, read_picmus_phantom, read_picmus_scan
from recon.modalities.ultrasound.files.readers import open_ultrasound
from recon.modalities.ultrasound.signals import time_zero

C, FS, FC, COUNT, SIGMA = 1540.0, 20e6, 5e6, 600, 0.2e-6
ANGLES = np.array([-0.2, 0.0, 0.15])
POINT = (2e-3, 12e-3)
CENTRED = (np.arange(16) - 7.5) * 0.3e-3
ASIDE = CENTRED + 1e-3


def arrivals(x: np.ndarray, angles: np.ndarray = ANGLES) -> np.ndarray:
    """`(angle, element)` in s, the origin's time."""
    way = POINT[0] * np.sin(angles) + POINT[1] * np.cos(angles)
    return (way[:, None] + np.hypot(POINT[0] - x, POINT[1])[None]) / C


def echo(first: np.ndarray, x: np.ndarray, angles: np.ndarray = ANGLES) -> tuple[np.ndarray, np.ndarray]:
    """Analytic echo, and the time of its samples; `first` is that of sample 0 of each angle in the origin's time."""
    times = np.broadcast_to(first, angles.shape)[:, None, None] + np.arange(COUNT) / FS
    late = times - arrivals(x, angles)[..., None]
    return np.exp(-(late**2) / (2 * SIGMA**2) + 2j * np.pi * FC * late), times


def check_arrivals(data: PlaneWaveData, x: np.ndarray, angles: np.ndarray = ANGLES, frame: int = 0) -> None:
    """Peaks and carrier phase of the data, in the time of their geometry, are those of the point."""
    np.testing.assert_allclose(data.geometry.angles, angles, atol=1e-6)
    np.testing.assert_allclose(data.geometry.elements[:, 0], x, atol=1e-9)
    assert data.geometry.sampling_frequency == pytest.approx(FS)
    assert data.geometry.sound_speed == pytest.approx(C)
    assert data.geometry.center_frequency == pytest.approx(FC)
    iq = data if data.geometry.is_complex else data.to_iq()
    values = iq[frame].astype(complex)
    expected = arrivals(x, angles)
    peak = np.abs(values).argmax(axis=-1)
    level = np.log(
        np.abs(np.stack([np.take_along_axis(values, (peak + d)[..., None], -1)[..., 0] for d in (-1, 0, 1)]))
    )
    exact = peak + 0.5 * (level[0] - level[2]) / (level[0] - 2 * level[1] + level[2])
    found = iq.geometry.initial_times[:, None] + exact / FS
    np.testing.assert_allclose(found, expected, atol=1e-9)
    at_peak = np.take_along_axis(values, peak[..., None], -1)[..., 0]
    time = iq.geometry.initial_times[:, None] + peak / FS
    phase = np.angle(at_peak * np.exp(2j * np.pi * FC * time) * np.exp(-2j * np.pi * FC * (time - expected)))
    assert np.abs(phase).max() < 0.02


# PICMUS


def picmus(path: Path, data: np.ndarray, first: float, modulation: float = 0.0, **changes: object) -> Path:
    content: dict[str, object] = {
        "data/real": data.real.astype(np.float32),
        "data/imag": np.zeros_like(data.real, np.float32) if not modulation else data.imag.astype(np.float32),
        "angles": ANGLES.astype(np.float32),
        "probe_geometry": np.stack([ASIDE, 0 * ASIDE, 0 * ASIDE]).astype(np.float32),
        **{
            name: np.array([value], np.float32)
            for name, value in (
                ("sampling_frequency", FS),
                ("sound_speed", C),
                ("initial_time", first),
                ("modulation_frequency", modulation),
                ("PRF", 300.0),
            )
        },
        **changes,
    }
    with h5py.File(path, "w") as file:
        group = file.create_group("US/US_DATASET0000")
        for name, value in content.items():
            if value is not None:
                group[name] = value
        file.attrs["version"] = np.array([b"v.0.0.40"])
        group.attrs.update({"type": np.array([0], np.int32), "subtype": np.array([1], np.int32)})
        group.attrs["name"] = np.array([b"a point"])
    return path


def test_picmus_rf(tmp_path: Path) -> None:
    first = 2.5e-6
    rf = echo(np.array(first), ASIDE)[0]
    data = open_ultrasound(picmus(tmp_path / "rf.hdf5", rf, first), center_frequency=FC)
    assert (data.format, len(data), data.shape) == ("picmus", 1, (3, 16, COUNT))
    assert data[0].dtype == np.float32
    assert data.frame_rate == pytest.approx(100)
    assert data.attributes["name"] == "a point"
    assert data.geometry.element_width == pytest.approx(0.27e-3, rel=1e-4)
    np.testing.assert_array_equal(data[-1], rf.real.astype(np.float32))
    check_arrivals(data, ASIDE)


def test_picmus_iq(tmp_path: Path) -> None:
    first = 2.5e-6
    analytic, times = echo(np.array(first), ASIDE)
    iq = analytic * np.exp(-2j * np.pi * FC * times)
    data = open_ultrasound(picmus(tmp_path / "iq.hdf5", iq, first, FC))
    assert data.geometry.is_complex
    assert data.geometry.center_frequency == data.geometry.demodulation_frequency == FC
    check_arrivals(data, ASIDE)


def test_picmus_default_frequency_and_one_angle(tmp_path: Path) -> None:
    rf = echo(np.array(0.0), ASIDE)[0]
    path = picmus(tmp_path / "rf.hdf5", rf[1], 0.0, angles=np.zeros(1, np.float32))
    data = open_ultrasound(path)
    assert data.geometry.center_frequency == 5.208e6
    assert data.shape == (1, 16, COUNT)


def test_picmus_other_files(tmp_path: Path) -> None:
    x, z = np.linspace(-1e-2, 1e-2, 5), np.linspace(1e-2, 3e-2, 7)
    with h5py.File(tmp_path / "scan.hdf5", "w") as file:
        file["US/US_DATASET0000/x_axis"], file["US/US_DATASET0000/z_axis"] = x, z
    with h5py.File(tmp_path / "image.hdf5", "w") as file:
        group = file.create_group("US/US_DATASET0000")
        group["scan/x_axis"], group["scan/z_axis"] = x, z
        group["number_plane_waves"] = np.array([1, 75], np.float32)
        group["data/real"] = np.arange(70, dtype=np.float32).reshape(2, 5, 7)
        group["data/imag"] = np.zeros((2, 5, 7), np.float32)
    grid, image = read_picmus_scan(tmp_path / "scan.hdf5"), read_picmus_image(tmp_path / "image.hdf5")
    assert grid.shape == (7, 5)
    assert image.images.dtype == np.float32
    np.testing.assert_array_equal(image.frame(75), np.arange(35, 70).reshape(5, 7).T)
    with pytest.raises(InputError, match="no image of 11 plane waves"):
        image.frame(11)
    for name in ("scan", "image"):
        with pytest.raises(InputError, match=f"read_picmus_{name}"):
            open_ultrasound(tmp_path / f"{name}.hdf5")


# UFF


def uff(
    path: Path, data: np.ndarray, first: float, delays: np.ndarray, modulation: float = 0.0, **waves: float
) -> Path:
    """`data` is (frame, wave, channel, time), the order in which MATLAB's (time, channel, wave, frame) is stored."""
    flags = {"array": np.array([0]), "size": np.array([1, 1])}

    def single(group: h5py.Group, name: str, value: float) -> None:
        group[name] = np.full((1, 1), value, np.float32)
        group[name].attrs.update({"class": "single", "name": name, "complex": np.array([0]), **flags})

    with h5py.File(path, "w") as file:
        root = file.create_group("channel_data")
        root.attrs.update({"class": "uff.channel_data", "name": "channel_data", **flags})
        for name, value in (("sampling_frequency", FS), ("initial_time", first), ("sound_speed", C)):
            single(root, name, value)
        single(root, "modulation_frequency", modulation)
        single(root.create_group("pulse"), "center_frequency", FC)
        if modulation:
            part = root.create_group("data")
            part.attrs["complex"] = np.array([1])
            part["real"], part["imag"] = data.real.astype(np.float32), data.imag.astype(np.float32)
        else:
            root["data"] = data.real.astype(np.float32)
            root["data"].attrs["complex"] = np.array([0])
        size = np.full(len(ASIDE), 0.27e-3)
        zero = 0 * ASIDE
        root["probe/geometry"] = np.stack([ASIDE, zero, zero, zero, zero, size, size]).astype(np.float32)
        sequence = root.create_group("sequence")
        sequence.attrs.update({"class": "uff.wave", "size": np.array([1, len(ANGLES)])})
        for k, (angle, delay) in enumerate(zip(ANGLES, delays, strict=True)):
            wave = sequence.create_group(f"sequence_{k + 1:04d}")
            single(wave, "wavefront", waves.get("wavefront", 0))
            single(wave, "delay", delay)
            source = wave.create_group("source")
            for name, value in (("azimuth", angle), ("elevation", 0.0), ("distance", np.inf)):
                single(source, name, value)
    return path


@pytest.mark.parametrize("modulation", [0.0, FC])
def test_uff(tmp_path: Path, modulation: float) -> None:
    first, delays = 1e-6, np.array([1.37e-6, 0.0, 0.81e-6])
    analytic, times = echo(first + delays, ASIDE)
    # The carrier of a UFF file runs in initial_time + n / fs, without the delay.
    stored = analytic * np.exp(-2j * np.pi * FC * (times - delays[:, None, None])) if modulation else analytic
    data = open_ultrasound(uff(tmp_path / "point.uff", np.stack([stored, 2 * stored]), first, delays, modulation))
    assert (data.format, len(data), data.shape) == ("uff", 2, (3, 16, COUNT))
    np.testing.assert_allclose(data.geometry.initial_times, first + delays, atol=1e-12)
    check_arrivals(data, ASIDE, frame=1)


def test_uff_refuses_focused_waves(tmp_path: Path) -> None:
    rf = echo(np.zeros(3), ASIDE)[0][None]
    with pytest.raises(InputError, match="not a plane wave"):
        open_ultrasound(uff(tmp_path / "focused.uff", rf, 0.0, np.zeros(3), wavefront=1))


# zea


def zea(path: Path, data: np.ndarray, track: str = "", **scan: object) -> Path:
    """`data` is (frame, tx, ax, el, ch)."""
    along = ASIDE[None] * np.sin(ANGLES)[:, None] / C
    content: dict[str, object] = {
        "sampling_frequency": np.float32(FS),
        "center_frequency": np.float32(FC),
        "demodulation_frequency": np.float32(FC),
        "initial_times": np.zeros(3, np.float32),
        "t0_delays": (along - along.min(axis=1, keepdims=True)).astype(np.float32),
        "polar_angles": ANGLES.astype(np.float32),
        "azimuth_angles": np.zeros(3, np.float32),
        "focus_distances": np.full(3, np.inf, np.float32),
        "sound_speed": np.float32(C),
        **scan,
    }
    with h5py.File(path, "w") as file:
        file[f"{track}data/raw_data"] = data.astype(np.float32)
        file["probe/probe_geometry"] = np.stack([ASIDE, 0 * ASIDE, 0 * ASIDE], axis=1).astype(np.float32)
        for name, value in content.items():
            if value is not None:
                file[f"{track}scan/{name}"] = value
    return path


def test_zea_of_today_with_tracks_and_gain(tmp_path: Path) -> None:
    gain = np.exp(np.linspace(0, 4, 50))
    values = np.random.default_rng(0).standard_normal((1, 3, 50, 16, 1))
    changes = {"center_frequency": np.full(3, FC), "sound_speed": None}
    plain = open_ultrasound(zea(tmp_path / "plain.hdf5", values))
    loud = values * gain[:, None, None]
    path = zea(tmp_path / "today.hdf5", loud, "tracks/track_0/", tgc_gain_curve=gain, **changes)
    data = open_ultrasound(path)
    np.testing.assert_allclose(data[0], plain[0], rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(data.geometry.initial_times, plain.geometry.initial_times)
    noise = data.noise_std(0)[0, 0]  # what came after the amplifier has been weakened with the echoes
    assert noise[0] / noise[-1] == pytest.approx(np.exp(4), rel=1e-3)
    with h5py.File(path, "a") as file:
        file["tracks/track_1/scan/polar_angles"] = ANGLES
    with pytest.raises(InputError, match="several tracks"):
        open_ultrasound(path)


@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize("delays", [True, False])
def test_zea(tmp_path: Path, parts: int, delays: bool) -> None:
    initial, peak = np.array([1e-6, 1.5e-6, 2e-6]), np.array([0.3e-6, 0.3e-6, 0.3e-6])
    # On the clock of the first firing element, the front passes the origin at -min p.v / c; the pulse peaks later.
    passing = -np.array([(ASIDE * np.sin(angle)).min() for angle in ANGLES]) / C
    first = initial - passing - peak
    analytic, times = echo(first, ASIDE)
    iq = analytic * np.exp(-2j * np.pi * FC * (times - first[:, None, None]))  # the carrier starts with sample 0
    stored = np.stack([analytic.real], -1) if parts == 1 else np.stack([iq.real, iq.imag], -1)
    changes = {"initial_times": initial.astype(np.float64), "t_peak": peak, **({} if delays else {"t0_delays": None})}
    path = zea(tmp_path / "point.hdf5", stored.swapaxes(1, 2)[None], **changes)
    data = open_ultrasound(path)
    assert (data.format, len(data), data.shape) == ("zea", 1, (3, 16, COUNT))
    np.testing.assert_allclose(data.geometry.initial_times, first, atol=1e-11)
    check_arrivals(data, ASIDE)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"focus_distances": np.full(3, 0.03)}, "only plane waves"),
        ({"azimuth_angles": np.full(3, 0.1)}, "image plane"),
        ({"t0_delays": np.abs(np.linspace(-1, 1, 48)).reshape(3, 16) * 1e-6}, "deviate"),
        ({"initial_times": np.zeros(4)}, "4 scan/initial_times"),
        ({"polar_angles": np.zeros(2), "t0_delays": None}, "3 scan/initial_times for 2"),
        ({"sampling_frequency": None}, "sampling_frequency"),
        ({"center_frequency": np.array([FC, FC, 2 * FC])}, "one number for all waves"),
        ({"tgc_gain_curve": np.ones(3) * np.arange(1, 4)}, "a gain for each of 50 samples"),
        ({"sound_speed": np.float32(1.54), "t0_delays": None}, "m/s"),
        ({"sound_speed": np.float32(np.nan)}, "NaN"),
        ({"polar_angles": np.array([-20.0, 0.0, 20.0]), "t0_delays": None}, "degrees"),
    ],
)
def test_zea_refuses_what_does_not_fit(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        open_ultrasound(zea(tmp_path / "bad.hdf5", np.ones((1, 3, 50, 16, 1)), **changes))
    assert "\n" not in str(caught.value)
    assert "bad.hdf5" in str(caught.value)


# MUST


def must(path: Path, variables: dict[str, object], **param: object) -> Path:
    along = CENTRED[None] * np.sin(ANGLES)[:, None] / C
    fields: dict[str, object] = {
        **{"fs": FS, "pitch": 0.3e-3, "fc": FC, "c": C, "t0": 1e-6, "width": 0.27e-3, "Nelements": 16, "PRF": 3000},
        **{"TXdelay": along - along.min(axis=1, keepdims=True), "bandwidth": 70},
        **param,
    }
    savemat(path, {**variables, "param": {name: value for name, value in fields.items() if value is not None}})
    return path


@pytest.mark.parametrize("kind", ["RF", "IQ"])
def test_must(tmp_path: Path, kind: str) -> None:
    # Time runs from TXdelay = 0: the front passes the origin (the middle of the probe) later.
    passing = -np.array([(CENTRED * np.sin(angle)).min() for angle in ANGLES]) / C
    analytic, times = echo(1e-6 - passing, CENTRED)
    clock = times + passing[:, None, None]
    stored = analytic.real if kind == "RF" else analytic * np.exp(-2j * np.pi * FC * clock)
    cells = np.empty((1, 3), object)
    cells[0] = [np.stack([wave.T, 3 * wave.T], axis=-1) for wave in stored]
    data = open_ultrasound(must(tmp_path / "point.mat", {kind: cells}))
    assert (data.format, len(data), data.shape) == ("must", 2, (3, 16, COUNT))
    assert data.frame_rate == 1000
    check_arrivals(data, CENTRED, frame=1)
    np.testing.assert_allclose(data[1], 3 * data[0], atol=1e-6)


@pytest.mark.parametrize(
    ("variables", "param", "message"),
    [
        ({"X": 1}, {}, "with the variables"),
        ({"RF": np.ones((50, 16))}, {}, "TXdelay"),
        ({"RF": np.ones((50, 16))}, {"TXdelay": np.linspace(0, 1e-3, 16)}, "steeper"),
        ({"RF": np.ones((50, 16))}, {"TXdelay": np.abs(CENTRED) / C}, "deviate"),
        ({"RF": np.ones((50, 16))}, {"TXdelay": np.full(16, np.nan)}, "NaN"),
        ({"RF": np.ones((50, 16, 2, 2))}, {"TXdelay": np.zeros(16)}, "sample, element, frame"),
        ({"RF": np.ones((50, 0))}, {"TXdelay": np.zeros(16)}, "none of them 0"),
        ({"RF": np.ones((50, 16))}, {"TXdelay": np.zeros(16), "fs": None}, "param.fs"),
        ({"RF": np.ones((50, 16))}, {"TXdelay": np.zeros(16), "radius": 0.06}, "linear arrays"),
        ({"RF": "text"}, {"TXdelay": np.zeros(16)}, "expected numbers"),
    ],
)
def test_must_refuses_what_does_not_fit(
    tmp_path: Path, variables: dict[str, object], param: dict[str, object], message: str
) -> None:
    with pytest.raises(InputError, match=message) as caught:
        open_ultrasound(must(tmp_path / "bad.mat", variables, **param))
    assert "\n" not in str(caught.value)
    assert "bad.mat" in str(caught.value)


# RF frames


def rf_frames(path: Path, shots: np.ndarray, correction: float, measured: bool = False, **changes: object) -> Path:
    """`shots` is (frame, angle, element, sample)."""
    content: dict[str, object] = {
        "data/f_sampling": np.array([[FS]]),
        "data/fps": np.array([[25.0]]),
        "data/tx_mode/PW_3_9": ANGLES[None],
        "trans_params/f_central": np.array([[FC]]),
        "trans_params/x_num_of_elements": np.array([[16.0]]),
        "trans_params/x_pitch": np.array([[0.3e-3]]),
        "trans_params/x_width": np.array([[0.27e-3]]),
        ("hardware_params/correction_time" if measured else "data/correction_time_shift"): correction,
        **{
            f"data/rf_data/frame_{i + 1}/shot_{k + 1}": shot
            for i, frame in enumerate(shots)
            for k, shot in enumerate(frame)
        },
        **changes,
    }
    with h5py.File(path, "w") as file:
        for name, value in content.items():
            if value is not None:
                file[name] = value
    return path


@pytest.mark.parametrize("measured", [True, False])
def test_rf_frames(tmp_path: Path, measured: bool) -> None:
    rf = echo(np.array(-2e-6), CENTRED)[0].real
    frames = np.stack([(k + 1) * rf for k in range(12)]) + 0.5 * measured
    data = open_ultrasound(rf_frames(tmp_path / "point.hdf5", frames, 2e-6, measured))
    assert (data.format, len(data), data.shape) == ("rf-frames", 12, (3, 16, COUNT))
    check_arrivals(data, CENTRED, frame=11)  # frame_12, not the twelfth in the order of the alphabet
    np.testing.assert_allclose(data[11], 12 * rf, atol=1e-4 if not measured else 0.05)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"trans_params/x_num_of_elements": 15.0}, "15 elements"),
        ({"data/tx_mode/PW_3_9": None}, "one transmission"),
        ({"data/tx_mode/PW_3_9": np.zeros((1, 2))}, "2 angle"),
        ({"trans_params/x_pitch": "wide"}, "real numbers"),
        ({"trans_params/x_pitch": 0.3}, "in mm"),
        ({"data/f_sampling": -1.0}, "sampling_frequency > 0"),
    ],
)
def test_rf_frames_refuse_what_does_not_fit(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    path = rf_frames(tmp_path / "bad.hdf5", np.ones((1, 3, 16, 50)), 0.0, **changes)
    with pytest.raises(InputError, match=message) as caught:
        open_ultrasound(path)
    assert "\n" not in str(caught.value)


# Bad input of all kinds


def good(path: Path, **changes: object) -> Path:
    return picmus(path, echo(np.array(0.0), ASIDE)[0], 0.0, **changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data/real": np.ones((3, 0, 50), np.float32)}, "an axis is empty"),
        ({"probe_geometry": np.zeros((3, 0), np.float32)}, r"0 element\(s\)"),
        ({"probe_geometry": np.zeros((3, 15), np.float32)}, r"15 element\(s\)"),
        ({"probe_geometry": np.zeros((16, 3), np.float32)}, r"\(3, element\)"),
        ({"probe_geometry": np.zeros(16, np.float32)}, "expected 2 axes"),
        ({"probe_geometry": np.full((3, 16), 20.0)}, "in mm"),
        ({"angles": np.array([-0.2, np.nan, 0.2])}, "NaN"),
        ({"angles": np.array([-16.0, 0.0, 16.0])}, "degrees"),
        ({"angles": None}, "angles"),
        ({"data/real": np.ones(50, np.float32)}, "expected 2 or 3 or 4 axes"),
        ({"data/real": np.ones((3, 16, 50), "S4")}, "real numbers"),
        ({"sampling_frequency": np.array([0.0])}, "sampling_frequency > 0"),
        ({"sound_speed": np.array([1540.0, 1540.0])}, "expected one number"),
        ({"modulation_frequency": np.array([5e6]), "data/imag": np.ones((3, 16, 9))}, "different shapes"),
    ],
)
def test_bad_headers_are_refused_in_one_line(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    path = good(tmp_path / "bad.hdf5", **changes)
    with pytest.raises(InputError, match=message) as caught:
        open_ultrasound(path)
    assert "\n" not in str(caught.value)
    assert "bad.hdf5" in str(caught.value)


def test_bad_samples_are_refused_when_read(tmp_path: Path) -> None:
    values = echo(np.array(0.0), ASIDE)[0].real
    values[1, 2, 3] = np.nan
    with pytest.raises(InputError, match="frame 0: 1 of 28800 values are NaN"):
        open_ultrasound(good(tmp_path / "nan.hdf5", **{"data/real": values}))[0]
    with pytest.raises(InputError, match="every value is zero"):
        open_ultrasound(good(tmp_path / "zero.hdf5", **{"data/real": 0 * np.nan_to_num(values)}))[0]
    with pytest.raises(IndexError, match="no frame 1"):
        open_ultrasound(good(tmp_path / "good.hdf5"))[1]


def test_damaged_and_foreign_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = good(tmp_path / "good.hdf5").read_bytes()
    matlab = must(tmp_path / "good.mat", {"RF": np.ones((50, 16))}, TXdelay=np.zeros(16)).read_bytes()
    for name, found in (
        ("half.hdf5", content[: len(content) // 2]),
        ("start.hdf5", content[:40]),
        ("half.mat", matlab[: len(matlab) // 2]),
        ("start.mat", matlab[:60]),
        ("empty.hdf5", b""),
        ("text.hdf5", b"US data, really"),
    ):
        (tmp_path / name).write_bytes(found)
        with pytest.raises(InputError) as caught:
            open_ultrasound(tmp_path / name)
        assert name in str(caught.value)
        assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="no such file"):
        open_ultrasound(tmp_path / "missing.hdf5")
    with pytest.raises(InputError, match="is a folder"):
        open_ultrasound(tmp_path)
    with pytest.raises(InputError, match=r"no option part .*center_frequency"):
        open_ultrasound(tmp_path / "good.hdf5", part=1)
    assert main(["info", str(tmp_path / "half.hdf5")]) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


def test_links_are_refused(tmp_path: Path) -> None:
    path = good(tmp_path / "good.hdf5")
    with h5py.File(path, "a") as file:
        del file["US/US_DATASET0000/data/real"]
        file["US/US_DATASET0000/data/real"] = h5py.ExternalLink("other.hdf5", "/data")
    with pytest.raises(InputError, match="link"):
        open_ultrasound(path)


def test_info_and_check(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    values = echo(np.array(0.0), ASIDE)[0].real
    values += 1e-3 * np.random.default_rng(0).normal(size=values.shape)
    values[:, 5] = 0
    path = str(good(tmp_path / "good.hdf5", **{"data/real": values}))
    assert main(["info", path]) == 0
    told = capsys.readouterr().out
    assert "format: picmus" in told
    assert "3 angle(s) x 16 element(s) x 600 samples" in told
    assert "angles: -11.46 to 8.594 degrees" in told
    assert main(["check", path]) == 0
    told = capsys.readouterr().out
    assert "element(s) 5 carry no signal" in told
    assert "usable, with 1 warning(s)" in told


# Measured and simulated files


def test_real_field2_scatterers_echo_at_the_stated_time(realdata: Path) -> None:
    path = realdata / "ultrasound" / "field2_3pw_192el.hdf5"
    data = open_ultrasound(path)
    assert (data.format, len(data), data.shape) == ("rf-frames", 1, (3, 192, 2313))
    with h5py.File(path) as file:
        x, _, z = file["sim_params/scatters_data"][()]
    chosen = (np.abs(x) < 5e-3) & (z > 15e-3) & (z < 30e-3)
    points = np.stack([x, z], axis=1)[chosen][::4]
    for k in range(3):  # each angle alone: an error of the sign or of the origin would move the outer ones apart
        one = data.select(angles=[k]).to_iq()
        assert abs(time_zero(one[0], one.geometry, points, search=2e-6)) < 1 / data.geometry.sampling_frequency


def test_real_muscle_frames(realdata: Path) -> None:
    data = open_ultrasound(realdata / "ultrasound" / "muscle_invivo_1angle.hdf5")
    assert (data.format, len(data), data.shape) == ("rf-frames", 2, (1, 192, 1408))
    assert np.abs(data[1].mean(axis=-1)).max() < 0.1
    assert data.geometry.wavelength == pytest.approx(0.2957e-3, rel=1e-3)


def test_real_rotating_disk(realdata: Path) -> None:
    data = open_ultrasound(realdata / "ultrasound" / "rotating_disk_1angle.mat")
    assert (data.format, len(data), data.shape) == ("must", 32, (1, 128, 334))
    scan = data.geometry
    assert (scan.sampling_frequency, scan.sound_speed, scan.center_frequency) == pytest.approx((20e6 / 3, 1480, 5e6))
    assert scan.initial_times == pytest.approx([9.95e-6])
    assert scan.angles == pytest.approx([0.0])
    iq = data.to_iq()
    # Band-pass sampled at 4/3 of the carrier: the energy of the base band is around 0 Hz.
    power = np.abs(np.fft.fft(iq[5], axis=-1)) ** 2
    frequency = np.fft.fftfreq(334, 1 / scan.sampling_frequency)
    assert power[..., np.abs(frequency) < 0.7e6].sum() > 0.8 * power.sum()


def test_real_phantoms(realdata: Path) -> None:
    folder = realdata / "ultrasound" / "picmus"
    wires, cysts = (read_picmus_phantom(folder / f"picmus_phantom_{k}.hdf5") for k in (1, 2))
    assert (wires.points.shape, len(wires.cysts), len(wires.speckle)) == ((20, 2), 0, 0)
    assert (len(cysts.points), cysts.cysts.shape, cysts.speckle.shape) == (0, (9, 3), (4, 4))
    np.testing.assert_allclose(cysts.speckle[0], [-0.006, 0.024, 5 * 0.00062407, 6 * 0.00044355], rtol=1e-4)
    with pytest.raises(InputError, match="read_picmus_phantom"):
        open_ultrasound(folder / "picmus_phantom_1.hdf5")


@pytest.mark.parametrize("reader", [read_picmus_scan, read_picmus_image, read_picmus_phantom])
def test_missing_picmus_files(tmp_path: Path, reader: Callable[[Path], object]) -> None:
    with pytest.raises(InputError, match="no such file"):
        reader(tmp_path / "missing.hdf5")
    with pytest.raises(InputError, match="there is no dataset"):
        reader(good(tmp_path / "channel.hdf5"))


@pytest.mark.slow
def test_damaged_bytes_give_typed_errors_only(tmp_path: Path) -> None:
    """Random bytes of the headers are overwritten; reading succeeds or is refused, in one line."""
    rf = echo(np.array(0.0), ASIDE)[0]
    seeds = [
        good(tmp_path / "picmus.hdf5"),
        uff(tmp_path / "point.uff", rf[None], 0.0, np.zeros(3), FC),
        zea(tmp_path / "zea.hdf5", rf.real.swapaxes(1, 2)[None, ..., None]),
        must(tmp_path / "must.mat", {"RF": np.ones((600, 16))}, TXdelay=np.zeros(16)),
        rf_frames(tmp_path / "frames.hdf5", rf.real[None], 0.0),
    ]
    rng = np.random.default_rng(0)
    refused = 0
    for path in seeds:
        content = path.read_bytes()
        for _ in range(15):
            damaged = np.frombuffer(content, np.uint8).copy()
            damaged[rng.integers(0, 4096, 4)] = rng.integers(0, 256, 4)
            (tmp_path / f"damaged{path.suffix}").write_bytes(damaged.tobytes())
            try:
                open_ultrasound(tmp_path / f"damaged{path.suffix}")[0]
            except InputError as error:
                refused += 1
                assert "\n" not in str(error)
    assert refused > 10
