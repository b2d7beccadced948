"""The sound speed found in the echoes, the doubt about a wrong one, and the option that corrects it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from operators import Grid, PlaneWaveGeometry, PlaneWaveUltrasound
from recon.cli import main
from recon.errors import InputError
from recon.modalities.ultrasound.data import PlaneWaveData
from recon.modalities.ultrasound.files.readers import open_ultrasound
from recon.modalities.ultrasound.focus import FACTORS, Focus, find_focus, sharpest
from recon.modalities.ultrasound.grid import scene_of
from recon.modalities.ultrasound.options import Ultrasound
from recon.modalities.ultrasound.prepare import prepare_frame
from recon.modalities.ultrasound.selection import choose

C, FC, FS = 1540.0, 5e6, 20e6
FIELD = Ultrasound(depth=(6, 13), width=(-4, 4))


def geometry(angles: tuple[float, ...]) -> PlaneWaveGeometry:
    x = (np.arange(40) - 19.5) * 0.3e-3
    return PlaneWaveGeometry(np.stack([x, 0 * x], 1), angles, FS, FC, C, 400, element_width=0.27e-3)


@pytest.fixture(scope="module")
def speckle() -> PlaneWaveData:
    """RF of developed speckle, without any structure, heard in three waves."""
    rng = np.random.default_rng(3)
    fine = Grid(np.arange(-7e-3, 7e-3, 0.1e-3), np.arange(4e-3, 15e-3, 0.075e-3))
    white = rng.standard_normal((2, *fine.shape))
    operator = PlaneWaveUltrasound(geometry((-0.17, 0.0, 0.17)), fine, bandwidth=0.6)
    rf = operator(operator.from_reflectivity(torch.complex(*torch.from_numpy(white).float()))).numpy()
    values = (rf / rf.std() + 0.03 * rng.standard_normal(rf.shape)).astype(np.float32)
    return PlaneWaveData(Path("made"), "picmus", 1, lambda i: values, operator.geometry)


def stated(data: PlaneWaveData, factor: float) -> PlaneWaveData:
    """The same echoes in a file that states another speed."""
    return replace(data, geometry=replace(data.geometry, sound_speed=factor * data.geometry.sound_speed))


def focus_of(data: PlaneWaveData, options: Ultrasound = FIELD) -> Focus | None:
    _, region = scene_of(choose(options, data).geometry, options.depth, options.width)
    return find_focus(data, 0, options, region.grid)


@pytest.mark.parametrize("factor", [0.95, 0.97, 1.0, 1.03, 1.05])
@pytest.mark.parametrize("selection", [{}, {"elements": 20}, {"elements": 20, "array": "centre"}])
def test_speed_is_recovered_and_a_wrong_one_doubted(speckle, factor, selection):
    found = focus_of(stated(speckle, factor), replace(FIELD, **selection))
    assert found is not None and found.speed == pytest.approx(C, rel=0.01)
    assert found.error < 0.008 * C
    assert bool(found.doubts()) == (factor != 1)


def test_one_wave_of_mere_speckle_does_not_tell(speckle):
    for factor in (0.95, 1.0, 1.05):
        assert focus_of(stated(speckle.select(angles=[1]), factor)) is None


@pytest.mark.slow
def test_frame_records_the_speed_and_the_option_removes_the_doubt(speckle):
    # One wave is reconstructed; the speed is found in all waves of the file.
    options = replace(FIELD, angles=1, elements=20, array="centre")
    wrong = prepare_frame(stated(speckle, 1.05), 0, options)
    assert wrong.diagnostics["sound_speed"] == pytest.approx(1.05 * C)
    assert wrong.diagnostics["focus_speed"] == pytest.approx(C, rel=0.01)
    (doubt,) = wrong.doubts
    assert "(1617 is used)" in doubt and "too large" in doubt and "--sound-speed 15" in doubt
    right = prepare_frame(stated(speckle, 1.05), 0, replace(options, sound_speed=C))
    assert right.problem.operator.geometry.sound_speed == C and not right.doubts
    assert right.diagnostics["sound_speed"] == C
    assert right.grid.spacing == pytest.approx(prepare_frame(speckle, 0, options).grid.spacing)


def test_doubt_takes_the_uncertainty_into_account():
    assert not Focus(C, 0.01 * C, 1.03 * C).doubts()
    assert "too small" in Focus(C, 0.002 * C, 0.97 * C).doubts()[0]
    assert not Focus(C, 0.0, 1.01 * C).doubts()


def test_peak_is_found_only_where_it_stands_out():
    rng = np.random.default_rng(0)
    noise = 0.1 * rng.standard_normal((len(FACTORS), 30))
    hill = np.exp(-(((FACTORS - 1.013) / 0.03) ** 2))[:, None]
    place, error = sharpest(hill + noise, FACTORS)
    assert place == pytest.approx(1.013, abs=max(3 * error, 1e-3)) and error < 0.005
    assert sharpest(noise, FACTORS) is None
    assert sharpest((hill + noise)[:, :4], FACTORS) is None  # too few blocks
    assert sharpest(FACTORS[:, None] + 0.01 * noise, FACTORS) is None  # still rising at the end


def test_sound_speed_on_the_command_line(capsys):
    for wrong in ("0", "-1540", "nan"):
        assert main(["run", "nothing.hdf5", "-o", "out", f"--sound-speed={wrong}"]) == 2
        assert "sound_speed" in capsys.readouterr().err
    with pytest.raises(InputError, match="sound_speed"):
        Ultrasound(sound_speed=0.0)


def test_waves_of_a_simulator(realdata):
    data = open_ultrasound(realdata / "ultrasound" / "field2_3pw_192el.hdf5")
    options = Ultrasound(depth=(16, 26), width=(-5, 5), elements=96, array="centre")
    for factor in (0.97, 1.0):
        found = focus_of(stated(data, factor), options)
        assert found is not None and found.speed == pytest.approx(1540, rel=0.01)
        assert bool(found.doubts()) == (factor != 1)
