"""CT files as slices: which projections are used, the noise of each slice, and the geometry of what comes out."""

import gc
import math
import weakref
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from recon.cli import main
from recon.engine.slices import of_slices
from recon.errors import InputError
from recon.modalities.ct.data import CTProjections, ScanGeometry
from recon.modalities.ct.options import CT, reader_options
from recon.modalities.ct.source import CTSource
from recon.posterior import Posterior

SMALL = {"rows": 8, "columns": 48, "views_per_turn": 60, "turns": 1.5}
PIXEL = 0.01  # mm, of the detector of a synchrotron


def parallel(angles: np.ndarray) -> CTProjections:
    """Two sinograms whose values are the numbers of their views."""
    numbers = np.repeat(np.arange(len(angles), dtype=np.float32)[:, None], 24, axis=1)
    geometry = ScanGeometry("parallel", angles, 24, 2.0)
    return CTProjections(Path("numbers"), "lodopab", 2, lambda _: numbers, geometry, lambda _: 1e5 + numbers)


def synchrotron(path: Path, attenuation: float = 0.05) -> Path:
    """A Data Exchange file that does not know the size of its pixels: a disc of 5 elements radius in the middle."""
    chord = 2 * np.sqrt(np.clip(25.0 - (np.arange(16) - 7.5) ** 2, 0, None))
    with h5py.File(path, "w") as file:
        file["exchange/data"] = np.tile(1e4 * np.exp(-attenuation * chord), (30, 2, 1)).astype(np.float32)
        file["exchange/data_white"], file["exchange/data_dark"] = np.full((1, 2, 16), 1e4), np.zeros((1, 2, 16))
        file["exchange/theta"] = np.arange(30) * 6.0
    return path


@pytest.mark.parametrize("first", [0.0, 40.0])
def test_an_arc_of_measured_projections(first: float) -> None:
    stack = parallel(np.deg2rad(first + np.arange(0, 360, 3.0)))
    ready = CTSource(stack, CT(views_every=2, arc=90.0)).prepare(0, "cpu")
    expected = np.arange(0, 30, 2)
    np.testing.assert_allclose(ready.problem.y[:, 0] * ready.diagnostics["water_per_mm"], expected, rtol=1e-6)
    np.testing.assert_allclose(np.asarray(ready.problem.operator.geometry.angles), stack.geometry.angles[expected])
    noise_std = np.exp(expected / 2) / np.sqrt(1e5 + expected)
    np.testing.assert_allclose(ready.problem.noise_std[:, 0] * ready.diagnostics["water_per_mm"], noise_std, rtol=1e-5)
    known = CTSource(stack, CT(views_every=2, arc=90.0)).config
    assert known == {"views_every": 2, "arc": 90.0, "pixel_size": None, "reader": None, "model_error": None}
    every = CTSource(stack, CT()).prepare(0, "cpu")
    assert every.problem.y.shape == (120, 24)


@pytest.mark.parametrize("option", [{"photons": 1e4}, {"geometry": "parallel"}, {"views": 8}])
def test_what_measured_projections_have_already_is_refused(option: dict) -> None:
    with pytest.raises(InputError, match=next(iter(option))):
        CTSource(parallel(np.arange(4.0)), CT(**option))


@pytest.mark.parametrize("size", [0.0, -1.0, math.nan, math.inf])
def test_pixel_sizes_that_cannot_be(size: float) -> None:
    with pytest.raises(InputError, match="pixel_size"):
        CTSource(parallel(np.arange(4.0)), CT(pixel_size=size))


def test_each_slice_has_noise_of_its_own(tmp_path: Path, write_ct: Callable[..., Path]) -> None:
    for k in range(2):
        write_ct(tmp_path / f"{k}.dcm", np.full((16, 16), 1024, np.uint16), z=3.0 * k)
    source = CTSource(tmp_path, CT(views=12, photons=1e4), seed=5)
    clean = CTSource(tmp_path, CT(views=12)).prepare(0, "cpu")
    first, second = ((source.prepare(k, "cpu").problem.y - clean.problem.y).numpy().ravel() for k in (0, 1))
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.2
    again = source.prepare(1, "cpu")
    np.testing.assert_array_equal(again.problem.y.numpy().ravel() - clean.problem.y.numpy().ravel(), second)


@pytest.mark.slow
def test_slices_share_the_matrix_and_leave_none_behind(tmp_path: Path, helix: Callable) -> None:
    source = CTSource(helix(**SMALL).write(tmp_path / "scan"), CT())
    first, second = (source.prepare(k, "cpu") for k in (0, 1))
    assert first.problem.operator is second.problem.operator
    other = CTSource(source.recording, CT(views_every=2)).prepare(0, "cpu")
    assert other.problem.operator is not first.problem.operator
    left = weakref.ref(first.problem.operator)
    del first, second
    gc.collect()
    assert left() is None


def test_the_image_of_measured_projections_has_a_size(tmp_path: Path, helix: Callable) -> None:
    source = CTSource(helix(**SMALL).write(tmp_path / "scan"), CT())
    ready = source.prepare(0, "cpu")
    step, y, x = source.geometry["voxel_size_mm"]
    assert y == x == ready.problem.operator.pixel_size
    assert step == pytest.approx(1.0947 * 595 / 1085.6, rel=1e-3)


def test_lengths_that_the_file_does_not_know(tmp_path: Path) -> None:
    path = synchrotron(tmp_path / "scan.h5")
    unknown, first = CTSource(path, CT()), CTSource(path, CT(pixel_size=PIXEL))
    told = CTSource(first.recording, CT(pixel_size=PIXEL))  # as `recon run` does, which opens a file once
    assert unknown.geometry["voxel_size_mm"] is None
    assert told.recording.geometry.det_spacing_mm == PIXEL
    here, there = (one.prepare(0, "cpu") for one in (unknown, told))
    assert here.problem.operator.domain.shape == there.problem.operator.domain.shape
    sizes = [one.problem.operator.pixel_size for one in (here, there)]
    assert sizes[1] == pytest.approx(PIXEL * sizes[0])
    assert told.config["pixel_size"] == PIXEL
    assert told.geometry["voxel_size_mm"] == pytest.approx((PIXEL, sizes[1], sizes[1]))


@pytest.mark.parametrize("chosen", [[0, 1, 2], [1, 2], [2], [0, 2]])
def test_voxels_are_where_dicom_has_them(tmp_path: Path, write_ct: Callable[..., Path], chosen: list[int]) -> None:
    """A turned plane, rows and columns of different size, slices that a tilted gantry shifts, shuffled names."""
    across, down = np.array([0.8, 0.6, 0.0]), np.array([-0.48, 0.64, 0.6])
    origins = [np.array([10.0, -20.0, 30.0]) + k * np.array([1.0, -2.0, 2.5]) for k in range(3)]
    for k, name in enumerate("bca"):
        tags = {"ImagePositionPatient": origins[k].tolist(), "ImageOrientationPatient": [*across, *down]}
        write_ct(tmp_path / f"{name}.dcm", np.zeros((4, 6), np.uint16), PixelSpacing=[3.0, 2.0], **tags)
    source = CTSource(tmp_path, CT(views=4))
    affine = np.array(of_slices(source.geometry, chosen)["affine"])
    for k, index in enumerate(chosen):
        expected = origins[index] + 2.0 * 5 * across + 3.0 * 3 * down
        np.testing.assert_allclose(affine @ [5, 3, k, 1], [-expected[0], -expected[1], expected[2], 1.0], atol=1e-6)
    assert "affine" not in CTSource(tmp_path, CT(views=4, pixel_size=2.0)).geometry


def test_slices_that_are_not_evenly_spaced_have_an_affine_each(tmp_path: Path, write_ct: Callable[..., Path]) -> None:
    for name, z in (("a", 0.0), ("b", 5.0), ("c", 15.0)):
        write_ct(tmp_path / f"{name}.dcm", np.zeros((4, 6), np.uint16), z=z)
    geometry = CTSource(tmp_path, CT(views=4)).geometry
    np.testing.assert_allclose(np.array(geometry["affine"])[:, 2, 3], [0, 5, 15])
    whole, part = of_slices(geometry, [0, 1, 2]), of_slices(geometry, [1, 2])
    assert whole["affine"][2][2] == 7.5 and np.shape(whole["affines"]) == (3, 4, 4)
    assert part["affine"][2][2:] == [10.0, 5.0] and "affines" not in part


def test_the_affine_of_one_file(tmp_path: Path, write_ct: Callable[..., Path]) -> None:
    path = write_ct(tmp_path / "a.dcm", np.zeros((4, 4), np.uint16), z=7.0)
    affine = np.array(CTSource(path, CT(views=4)).geometry["affine"])
    np.testing.assert_allclose(np.linalg.norm(affine[:3, :3], axis=0), [0.7421875, 0.7421875, 3.0])
    np.testing.assert_allclose(affine[:3, 3], [190.0, 190.0, 7.0])


def test_options_of_readers() -> None:
    assert reader_options("series=3") == {"series": 3} and isinstance(reader_options("series=3")["series"], int)
    assert reader_options(" a=1.5, part = test,uid=1.2.3") == {"a": 1.5, "part": "test", "uid": "1.2.3"}
    assert CT().reader is None and reader_options({"series": 3}) == {"series": 3}
    for wrong in ("", "series", "series=", "=3", "series=3,", "my series=3"):
        with pytest.raises(InputError, match="NAME=VALUE"):
            reader_options(wrong)


def test_one_of_several_series(
    tmp_path: Path, write_ct: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    for k in range(3):
        number, uid = (3, "1.2.3") if k else (7, "1.2.7")
        write_ct(tmp_path / f"{k}.dcm", np.zeros((8, 8), np.uint16), z=k, SeriesNumber=number, SeriesInstanceUID=uid)
    command = ["run", str(tmp_path), "-o", str(tmp_path / "out"), "--views", "8", "--dry-run"]
    assert main(command) == 2
    assert "--reader series=NUMBER" in capsys.readouterr().err
    assert main([*command, "--reader", "series=3"]) == 0
    assert "2 image(s)" in capsys.readouterr().out
    for wrong in ("series=4", "part=test", "series"):
        assert main([*command, "--reader", wrong]) == 2


def test_a_rotation_axis_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = synchrotron(tmp_path / "scan.h5")
    source = CTSource(path, CT(pixel_size=PIXEL, reader="rotation_centre=6.5"))
    assert source.recording.geometry.det_offset_mm == pytest.approx(PIXEL)
    command = ["run", str(path), "-o", str(tmp_path / "out"), "--dry-run", "--reader"]
    for wrong in ("rotation_centre=left", "rotation_centre=99"):
        assert main([*command, wrong]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert "rotation" in line and "should not happen" not in line


def test_what_was_taken_for_granted_is_told(tmp_path: Path, write_ct: Callable[..., Path]) -> None:
    np.save(tmp_path / "1.npy", np.full((8, 8), 0.5))
    source = CTSource(tmp_path, CT(views=4))
    ready, image = source.prepare(0, "cpu"), source.reference(0)
    assert image is not None and np.abs(image).max() == 0
    assert len(ready.notes) == 1 and "1 mm" in ready.notes[0]
    assert not CTSource(tmp_path, CT(views=4, pixel_size=0.7)).prepare(0, "cpu").notes
    dicom = write_ct(tmp_path / "a.dcm", np.zeros((8, 8), np.uint16), PixelSpacing=None)
    assert len(CTSource(dicom, CT(views=4)).prepare(0, "cpu").notes) == 1
    assert not CTSource(dicom, CT(views=4, pixel_size=0.7)).prepare(0, "cpu").notes


@pytest.mark.parametrize("attenuation", [0.003, 0.05, 0.3])
def test_a_synchrotron_knows_no_hounsfield_units(tmp_path: Path, attenuation: float) -> None:
    """Whatever the energy, the prior sees an object of about one; the result is in the unit of the lengths."""
    path = synchrotron(tmp_path / "scan.h5", attenuation)
    source = CTSource(path, CT())
    ready = source.prepare(0, "cpu")
    assert float(ready.images["fbp"][7:9, 7:9].mean()) == pytest.approx(attenuation, rel=0.1)
    relative = (ready.images["fbp"] - ready.problem.offset) / ready.problem.scale
    assert 0.8 < float(relative[7:9, 7:9].mean()) < 1.3
    assert source.geometry["units"] == "1/element" and "window" not in source.geometry
    assert not ready.notes
    told = CTSource(path, CT(pixel_size=PIXEL))
    assert told.geometry["units"] == "1/mm"
    assert float(told.prepare(1, "cpu").images["fbp"][7:9, 7:9].mean()) == pytest.approx(attenuation / PIXEL, rel=0.1)


def test_a_synchrotron_that_saw_nothing(tmp_path: Path) -> None:
    path = synchrotron(tmp_path / "scan.h5", 0.0)
    with pytest.raises(InputError, match="show no attenuation"):
        CTSource(path, CT(reader="rotation_centre=7.5")).prepare(0, "cpu")
    with pytest.raises(InputError, match="edge of the detector"):
        CTSource(path, CT(reader="rotation_centre=0")).prepare(0, "cpu")


@pytest.mark.slow
def test_measured_projections_from_the_command_line(tmp_path: Path, helix: Callable) -> None:
    """Every third view of a helical scan: HU of the body, and the dense rod in front (below) where it is."""
    folder = helix(rows=8, columns=96, views_per_turn=144, turns=1.5, spot="FFSXYZ").write(tmp_path / "projections")
    options = ["--views-every", "3", "--prior", "gaussian", "--steps", "10", "--samples", "2", "--no-report"]
    assert main(["run", str(folder), "-o", str(tmp_path / "out"), "--slices", "1", *options]) == 0
    found = Posterior.load(tmp_path / "out" / "projections.h5")
    _, size, _ = found.geometry["voxel_size_mm"]
    middle = (found.mean.shape[-1] - 1) / 2

    def around(x: float, y: float) -> float:
        row, column = round(middle - y / size), round(middle + x / size)
        return float(found.mean[row - 1 : row + 2, column - 1 : column + 2].mean())

    assert around(10, -60) > 400  # 0.04 / mm, twice the body
    for x, y in ((-10, -60), (10, 60), (-10, 60), (0, 0)):
        assert around(x, y) == pytest.approx(1000 * (0.02 / 0.0192 - 1), abs=300)  # few steps, two samples
    assert around(-50, -30) < -300  # 0.008 / mm
    assert found.images["fbp"].shape == found.mean.shape and found.geometry["units"] == "HU"


def test_a_reference_on_another_grid_is_none() -> None:
    geometry = ScanGeometry("parallel", np.arange(8.0), 24, 2.0)
    numbers, image = np.ones((8, 24), np.float32), np.full((16, 16), 0.02, np.float32)
    common = {"load_reference": lambda _: image, "image_shape": (16, 16), "pixel_spacing_mm": (2.0, 2.0)}
    stack = CTProjections(Path("x"), "lodopab", 1, lambda _: numbers, geometry, water_attenuation_per_mm=0.02, **common)
    reference = CTSource(stack, CT()).reference(0)
    assert reference is not None and np.abs(reference).max() < 1e-3  # water
    assert CTSource(stack, CT(pixel_size=1.0)).reference(0) is None
