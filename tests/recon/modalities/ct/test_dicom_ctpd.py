"""DICOM-CT-PD folders written with plain pydicom, from closed-form projections, in every encoding of the tags."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from recon.errors import InputError
from recon.modalities.ct.data import CTProjections
from recon.modalities.ct.files.readers import open_ct

SMALL = {"rows": 8, "columns": 48, "views_per_turn": 60, "turns": 1.5}
ONE_TURN = {**SMALL, "turns": 1.0}


def relative(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


@pytest.mark.parametrize("encoding", ["raw", "typed", "ascii", "text"])
def test_every_encoding_of_the_private_tags(helix: Callable, tmp_path: Path, encoding: str) -> None:
    scan = helix(spot="FFSXYZ", **SMALL)
    found = open_ct(scan.write(tmp_path / "scan", encoding))
    assert isinstance(found, CTProjections)
    geometry = found.geometry
    assert (geometry.kind, geometry.det_count, found.shape) == ("fan-curved", 48, (60, 48))
    assert geometry.source_to_iso_mm == pytest.approx(595.0)
    assert geometry.source_to_detector_mm == pytest.approx(1085.6)
    expected = -(np.arange(48, 0, -1) - scan.centre[0]) * scan.column_spacing
    np.testing.assert_allclose(geometry.positions_mm, expected, rtol=1e-5, atol=1e-3)
    assert found.water_attenuation_per_mm == pytest.approx(0.0192)
    assert found.attributes["flying_focal_spot"] == "FFSXYZ"
    assert found.attributes["views_per_turn"] == found.attributes["stated_views_per_turn"] == 60
    assert found.positions_mm is not None
    middle = len(found) // 2
    assert relative(found[middle], scan.through(geometry, found.positions_mm[middle])) < 0.03
    photons = found.photons(middle)
    assert photons is not None
    assert photons.shape == found.shape
    assert photons.min() > 0.99e5


def test_the_operators_agree(helix: Callable, tmp_path: Path) -> None:
    """What the reader gives is what `operators.CT` makes of the slice: no mirror image, no wrong turn."""
    import torch

    from operators.ct.projection import CT

    scan = helix(**SMALL)
    found = open_ct(scan.write(tmp_path / "scan"))
    assert found.positions_mm is not None
    n, pixel = 160, 2.0
    x, y = (np.arange(n) - (n - 1) / 2) * pixel, ((n - 1) / 2 - np.arange(n)) * pixel
    image = np.zeros((n, n), np.float32)
    for (cx, cy, cz), (a, b, c), mu in scan.ellipsoids:
        height = ((found.positions_mm[1] - cz) / c) ** 2
        image += mu * (((x[None] - cx) / a) ** 2 + ((y[:, None] - cy) / b) ** 2 + height < 1)
    expected = CT(found.geometry.beam(), (n, n), pixel, engine="onthefly")(torch.from_numpy(image)).numpy()
    assert relative(found[1], expected) < 0.03
    assert relative(found[1][:, ::-1], expected) > 0.1
    np.testing.assert_allclose(found.geometry.beam().coordinates(), found.geometry.positions_mm)


@pytest.mark.slow
def test_slices_are_where_a_turn_is_complete(helix: Callable, tmp_path: Path) -> None:
    scan = helix(**{**SMALL, "turns": 2.5})
    found = open_ct(scan.write(tmp_path / "scan"))
    assert found.positions_mm is not None
    feed = scan.pitch * scan.rows * scan.row_spacing * scan.radius / scan.distance
    assert np.ptp(found.positions_mm) <= 1.5 * feed + 1e-3
    np.testing.assert_allclose(np.diff(found.positions_mm), 1.0947 * 595 / 1085.6, rtol=1e-3)
    for sinogram, z in zip(found, found.positions_mm, strict=True):
        assert relative(sinogram, scan.through(found.geometry, z)) < 0.01


@pytest.mark.slow
def test_slices_at_chosen_positions(helix: Callable, tmp_path: Path) -> None:
    scan = helix(**{**SMALL, "turns": 2.5})
    folder = scan.write(tmp_path / "scan")
    found = open_ct(folder, positions_mm=[1.0, -1.5])
    assert len(found) == 2
    assert relative(found[1], scan.through(found.geometry, -1.5)) < 0.01
    assert len(open_ct(folder, slice_spacing_mm=2.0)) == 3
    with pytest.raises(InputError, match=r"positions_mm must lie between -\d"):
        open_ct(folder, positions_mm=[50.0])


@pytest.mark.parametrize(
    "fields", [{"curved": False}, {"clockwise": True}, {"pitch": -0.6}, {"turns": 1.0}, {"pitch": 0.0, "turns": 1.0}]
)
def test_other_scans(helix: Callable, tmp_path: Path, fields: dict) -> None:
    scan = helix(**{**SMALL, **fields})
    found = open_ct(scan.write(tmp_path / "scan"))
    assert found.positions_mm is not None
    middle = len(found) // 2
    expected = scan.through(found.geometry, found.positions_mm[middle])
    assert relative(found[middle], expected) < 0.01
    assert found.geometry.kind == ("fan-curved" if scan.curved else "fan-flat")


def test_pixels_that_are_not_transposed(helix: Callable, tmp_path: Path) -> None:
    scan = helix(**ONE_TURN)
    found, usual = (open_ct(scan.write(tmp_path / str(way), transposed=way)) for way in (False, True))
    np.testing.assert_array_equal(found[0], usual[0])


def test_without_photons_and_numbers(helix: Callable, tmp_path: Path) -> None:
    scan = helix(**SMALL)
    found = open_ct(scan.write(tmp_path / "scan", InstanceNumber=None, t70331065=None, t70411001=None))
    assert (found.photons(0), found.water_attenuation_per_mm) == (None, None)
    assert relative(found[1], scan.through(found.geometry, found.positions_mm[1])) < 0.01


def test_no_patient_in_what_the_reader_keeps(helix: Callable, tmp_path: Path) -> None:
    assert "SECRET" not in repr(open_ct(helix(**ONE_TURN).write(tmp_path / "scan")))


@pytest.mark.parametrize(
    ("tags", "words"),
    [
        ({"t70311001": None}, r"DetectorFocalCenterAngularPosition \(7031,1001\) is missing"),
        ({"t70291010": None}, r"NumberofDetectorRows \(7029,1010\) is missing"),
        ({"t70311033": (3.0,)}, r"DetectorCentralElement \(7031,1033\) must be 2 finite"),
        ({"t70311003": (float("nan"),)}, "must be 1 finite number"),
        ({"t70311003": (2000.0,)}, "source inside the radius"),
        ({"t70291010": 9}, r"holds 48 x 8 pixels; expected 48 x 9"),
        ({"t7029100B": "SPHERICAL"}, "DetectorShape CYLINDRICAL or FLAT, got SPHERICAL"),
        ({"t70391009": "NO"}, "LogFlag is NO"),
        ({"t7037100A": "CONEBEAM"}, "TypeofProjectionGeometry FANBEAM, got CONEBEAM"),
        ({"t70331065": (1.0, 2.0)}, "PhotonStatistics must be 48 positive numbers"),
        ({"RescaleSlope": None}, "RescaleSlope or RescaleIntercept is missing"),
        ({"PixelData": b"\0" * 10}, "PixelData has 10 bytes, but 48 x 8 pixels of 16 bits are 768"),
    ],
)
def test_unusable_headers(helix: Callable, tmp_path: Path, tags: dict, words: str) -> None:
    folder = helix(**{**SMALL, "turns": 0.1}).write(tmp_path / "scan", **tags)
    with pytest.raises(InputError, match=words) as caught:
        open_ct(folder)
    assert "\n" not in str(caught.value)
    assert "SECRET" not in str(caught.value)


def test_short_scans_gaps_and_single_files(helix: Callable, tmp_path: Path) -> None:
    folder = helix(**{**SMALL, "turns": 0.4}).write(tmp_path / "short")
    with pytest.raises(InputError, match="24 projections cover 144 degrees; a slice needs 2"):
        open_ct(folder)
    with pytest.raises(InputError, match="give the folder"):
        open_ct(next(folder.iterdir()))
    folder = helix(**SMALL).write(tmp_path / "gap")
    for file in list(folder.iterdir()):
        if 30 <= int(_number(file)) < 40:
            file.unlink()
    with pytest.raises(InputError, match="about 10 projections are missing between"):
        open_ct(folder)


def test_two_scans_in_one_folder(helix: Callable, tmp_path: Path) -> None:
    first, second = (helix(**{**ONE_TURN, "first_angle": a}).write(tmp_path / str(a)) for a in (0.0, 1.0))
    for file in second.iterdir():
        shutil.copy(file, first / f"b{file.name}")
    with pytest.raises(InputError, match=r"not monotonic|missing|not move uniformly"):
        open_ct(first)


def test_half_turn_and_fan(helix: Callable, tmp_path: Path) -> None:
    scan = helix(**{**SMALL, "turns": 0.75})
    found = open_ct(scan.write(tmp_path / "scan"))
    assert (len(found), found.shape) == (1, (45, 48))
    assert relative(found[0], scan.through(found.geometry, found.positions_mm[0])) < 0.01


def _number(file: Path) -> int:
    import pydicom

    return pydicom.dcmread(file, stop_before_pixels=True).InstanceNumber
