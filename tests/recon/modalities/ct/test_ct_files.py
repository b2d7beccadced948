"""LoDoPaB, Data Exchange and numbered .npy slices, on files written with plain h5py and numpy; and `recon info`."""

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from operators.ct.projection import CT
from recon.cli import main
from recon.errors import InputError, ShapeError
from recon.modalities.ct.data import CTImages, CTProjections
from recon.modalities.ct.files.data_exchange import centre_of_mass, centre_of_opposites
from recon.modalities.ct.files.readers import open_ct

MU_MAX = 81.35858
RNG = np.random.default_rng


def disc(s: np.ndarray, theta: np.ndarray, x: float, y: float, r: float) -> np.ndarray:
    """Chord of a disc at (x, y): parallel rays with <p, (cos, sin)> = s; `(angle, detector)`."""
    distance = s[None] - (x * np.cos(theta) + y * np.sin(theta))[:, None]
    return 2 * np.sqrt(np.clip(r**2 - distance**2, 0, None))


# LoDoPaB


def lodopab(folder: Path, part: str, k: int, n: int = 2, truth: bool = True) -> Path:
    """Discs as the format defines them: x along the first axis, metres, angles (k + 0.5) pi / 1000."""
    theta, edge = (np.arange(1000) + 0.5) * np.pi / 1000, 0.13 * np.sqrt(2)
    s = -edge + (np.arange(513) + 0.5) * 2 * edge / 513
    grid = -0.13 + (np.arange(362) + 0.5) * 0.26 / 362
    observations, images = np.empty((n, 1000, 513), np.float32), np.empty((n, 362, 362), np.float32)
    for i in range(n):
        x, y, r, mu = 0.05, -0.02 * (i + 1), 0.03, 20.0
        observations[i] = mu * disc(s, theta, x, y, r) / MU_MAX
        images[i] = mu * ((grid[:, None] - x) ** 2 + (grid[None] - y) ** 2 < r**2) / MU_MAX
    path = folder / f"observation_{part}_{k:03d}.hdf5"
    with h5py.File(path, "w") as file:
        file["data"] = observations
    if truth:
        with h5py.File(folder / f"ground_truth_{part}_{k:03d}.hdf5", "w") as file:
            file["data"] = images
    return path


def test_lodopab_scale_and_directions(tmp_path: Path) -> None:
    scan = open_ct(lodopab(tmp_path, "test", 0))
    assert isinstance(scan, CTProjections)
    assert (scan.format, len(scan), scan.shape, scan.image_shape) == ("lodopab", 2, (1000, 513), (362, 362))
    assert scan[0].max() == pytest.approx(20 * 0.06, rel=1e-3)  # 20 / m through 6 cm
    reference = scan.reference(1)
    assert reference is not None
    assert reference.max() == pytest.approx(0.02)
    assert scan.water_attenuation_per_mm == pytest.approx(0.02)
    photons = scan.photons(0)
    assert photons is not None
    assert float(photons.max()) == 4096
    # The stored image, projected along the geometry, is the stored observation (a few views of it).
    views = slice(0, 1000, 50)
    beam = type(scan.geometry)("parallel", scan.geometry.angles[views], 513, scan.geometry.det_spacing_mm).beam()
    expected = CT(beam, (362, 362), 260 / 362, engine="onthefly")(torch.from_numpy(reference)).numpy()
    found = scan[1][views]
    assert np.linalg.norm(found - expected) < 0.03 * np.linalg.norm(found)


def test_lodopab_ground_truth_alone_is_hu(tmp_path: Path) -> None:
    lodopab(tmp_path, "test", 0)
    images = open_ct(tmp_path / "ground_truth_test_000.hdf5")
    assert isinstance(images, CTImages)
    assert images.units == "HU"
    assert (images[0].min(), images[0].max()) == pytest.approx((-1001, 0), abs=0.01)


def test_lodopab_folder(tmp_path: Path) -> None:
    lodopab(tmp_path, "test", 1, n=1)
    lodopab(tmp_path, "test", 0, n=2)
    scan = open_ct(tmp_path)
    assert len(scan) == 3
    np.testing.assert_array_equal(scan[2], open_ct(tmp_path / "observation_test_001.hdf5")[0])
    lodopab(tmp_path, "train", 0, n=1, truth=False)
    with pytest.raises(InputError, match="choose part= one of test, train"):
        open_ct(tmp_path)
    train = open_ct(tmp_path, part="train")
    assert isinstance(train, CTProjections)
    assert (len(train), train.reference(0)) == (1, None)


def test_lodopab_that_does_not_fit(tmp_path: Path) -> None:
    path = lodopab(tmp_path, "test", 0, n=2)
    with h5py.File(tmp_path / "ground_truth_test_000.hdf5", "w") as file:
        file["data"] = np.zeros((1, 362, 362), np.float32)
    with pytest.raises(InputError, match="holds 1 images for 2 observations"):
        open_ct(path)
    (tmp_path / "ground_truth_test_000.hdf5").unlink()
    with h5py.File(path, "r+") as file:
        file["data"][1, 5, 5] = np.nan
    with pytest.raises(InputError, match="slice 1: 1 of 513000 values are NaN"):
        open_ct(path)[1]
    with h5py.File(path, "w") as file:
        file["data"] = np.zeros((2, 10, 513), np.float32)
    with pytest.raises(InputError, match=r"unknown layout \(it holds: data\); expected .*LoDoPaB"):
        open_ct(path)


# Data Exchange


def exchange(path: Path, **parts: object) -> tuple[Path, np.ndarray]:
    """Counts through two discs, rotation axis at element 25.3 of 60, with an uneven beam and dark current."""
    theta, s = np.radians(np.arange(0, 180, 3.0)), np.arange(60) - 25.3
    integrals = 0.05 * disc(s, theta, 5, 3, 12) + 0.1 * disc(s, theta, -8, 2, 4)
    beam = 2e4 * (1 + 0.2 * np.sin(np.arange(60) / 5))
    counts = np.stack([integrals, 0.5 * integrals], 1)
    content: dict[str, object] = {
        "data": (100 + beam * np.exp(-counts)).astype(np.float32),
        "data_white": np.broadcast_to(100 + beam, (5, 2, 60)).astype(np.float32),
        "data_dark": np.full((4, 2, 60), 100, np.uint16),
        "theta": np.degrees(theta),
        **parts,
    }
    with h5py.File(path, "w") as file:
        for name, value in content.items():
            if value is not None:
                file[f"exchange/{name}"] = value
    return path, counts.transpose(1, 0, 2)


def test_flat_and_dark_correction(tmp_path: Path) -> None:
    path, integrals = exchange(tmp_path / "a.h5")
    scan = open_ct(path)
    assert isinstance(scan, CTProjections)
    assert (len(scan), scan.shape, scan.geometry.kind) == (2, (60, 60), "parallel")
    for found, expected in zip(scan, integrals, strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-4)
    np.testing.assert_allclose(scan.geometry.angles, np.radians(np.arange(0, 180, 3.0)))
    assert scan.attributes["rotation_centre"] == pytest.approx(25.3, abs=0.1)
    assert scan.geometry.positions_mm[25] == pytest.approx(-0.3, abs=0.1)


def test_rotation_centre_pixel_size_and_angles(tmp_path: Path) -> None:
    path, _ = exchange(tmp_path / "a.h5")
    scan = open_ct(path, rotation_centre=25.0, pixel_size_mm=0.5, angles=np.linspace(0, 3, 60))
    assert isinstance(scan, CTProjections)
    assert scan.geometry.positions_mm[25] == 0
    assert scan.geometry.det_spacing_mm == 0.5
    assert scan.geometry.angles[-1] == 3
    with h5py.File(path, "r+") as file:
        file["exchange/data"].attrs["rotation_center"] = 24.5
        file["measurement/instrument/detector/pixel_size_x"] = np.array([3.0])
        file["measurement/instrument/detector/pixel_size_x"].attrs["units"] = "um"
        file["exchange/theta"][...] = np.radians(file["exchange/theta"][()])
        file["exchange/theta"].attrs["units"] = "radians"
    scan = open_ct(path)
    assert isinstance(scan, CTProjections)
    assert (scan.attributes["rotation_centre"], scan.attributes["rotation_centre_from"]) == (24.5, "file")
    assert scan.geometry.det_spacing_mm == pytest.approx(0.003)
    assert scan.geometry.angles[-1] == pytest.approx(np.radians(177))


@pytest.mark.parametrize(
    ("theta", "scale", "unit"),
    [
        (np.arange(60) * np.pi / 60, 1.0, "radians (no unit"),
        (np.arange(60) * 2 * np.pi / 60 - np.pi, 1.0, "radians (no unit"),
        (np.linspace(0, np.pi, 60), 1.0, "radians (no unit"),
        (np.arange(60) * 3.0, np.pi / 180, "degrees (no unit"),
        (np.arange(60) * 0.15, np.pi / 180, "degrees (no unit"),  # 9 degrees: a limited angle
    ],
)
def test_angles_without_a_unit(tmp_path: Path, theta: np.ndarray, scale: float, unit: str) -> None:
    scan = open_ct(exchange(tmp_path / "a.h5", theta=theta)[0], rotation_centre=25.3)
    assert isinstance(scan, CTProjections)
    np.testing.assert_allclose(scan.geometry.angles, theta * scale)
    assert scan.attributes["angles"].startswith(unit)


@pytest.mark.parametrize("most", [0.1, 2.1, 4.4])
def test_angles_that_may_be_either_are_refused(tmp_path: Path, most: float) -> None:
    path, _ = exchange(tmp_path / "a.h5", theta=np.linspace(0, most, 60))
    with pytest.raises(InputError, match=rf"exchange/theta: angles from 0 to {most} have no unit"):
        open_ct(path)
    with h5py.File(path, "r+") as file:
        file["exchange/theta"].attrs["units"] = "rad"
    assert open_ct(path).geometry.angles[-1] == pytest.approx(most)


def half_acquisition(axis: float, columns: int, views: int = 90) -> tuple[np.ndarray, np.ndarray]:
    """A whole turn around an axis near one side, of discs wider than that side."""
    theta = np.arange(views) * 2 * np.pi / views
    s = np.arange(columns) - axis
    return theta, 0.02 * disc(s, theta, 3, -2, 36) + 0.03 * disc(s, theta, 12, 8, 7)


@pytest.mark.parametrize("axis", [12.0, 15.3, 41.6])
def test_the_axis_of_a_half_acquisition_is_found(tmp_path: Path, axis: float) -> None:
    theta, integrals = half_acquisition(axis, 60)
    assert centre_of_opposites(integrals, theta) == pytest.approx(axis, abs=0.1)
    counts = np.repeat(1e5 * np.exp(-integrals)[:, None], 2, axis=1).astype(np.float32)
    beam = np.full((1, 2, 60), 1e5, np.float32)
    more = {"data": counts, "data_white": beam, "data_dark": None, "theta": np.degrees(theta)}
    scan = open_ct(exchange(tmp_path / "a.h5", **more)[0])
    assert scan.attributes["rotation_centre"] == pytest.approx(axis, abs=0.1)
    assert scan.attributes["rotation_centre_from"] == "estimate (opposite projections)"


def test_half_a_turn_has_no_opposite_projections() -> None:
    theta, integrals = half_acquisition(12.0, 60)
    assert centre_of_opposites(integrals[:45], theta[:45]) is None
    assert centre_of_opposites(integrals[:, :6], theta) is None


def test_dead_and_dark_pixels_stay_finite(tmp_path: Path) -> None:
    white = np.broadcast_to(np.float32(1100), (5, 2, 60)).copy()
    white[:, :, 30] = 100  # a dead column
    data = np.full((60, 2, 60), 600, np.float32)
    data[3, 1, 7] = 0  # below the dark current
    scan = open_ct(exchange(tmp_path / "a.h5", data=data, data_white=white)[0])
    row = scan[1]
    assert np.isfinite(row).all()
    np.testing.assert_allclose(row[:, 30], np.log(2), rtol=1e-5)
    assert row[3, 7] == pytest.approx(-np.log(1e-4), rel=1e-5)
    assert scan.attributes["dead_elements"] == 2


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ({"data_white": None}, "exchange/data_white is missing"),
        ({"theta": None}, "exchange/theta is missing; give angles="),
        ({"theta": np.arange(59.0)}, "expected 60 angles"),
        ({"data": np.ones((60, 60), np.float32)}, r"expected real numbers \(angle, row, column\)"),
        ({"data": np.ones((60, 2, 60), np.complex64)}, "expected real numbers"),
        ({"data_white": np.ones((5, 2, 59), np.float32)}, r"data_white: expected images of \(2, 60\)"),
        ({"data_white": np.ones((5, 2, 60), np.float32)}, "not brighter than"),
        ({"data_dark": np.full((4, 2, 60), np.nan)}, "data_dark: holds NaN"),
        ({"data": np.full((60, 2, 60), np.inf, np.float32)}, "row 1: holds NaN or infinite"),
    ],
)
def test_unusable_exchange_files(tmp_path: Path, parts: dict, words: str) -> None:
    with pytest.raises(InputError, match=words):
        open_ct(exchange(tmp_path / "a.h5", **parts)[0])
    with pytest.raises(InputError, match="rotation centre 99 is outside"):
        open_ct(exchange(tmp_path / "b.h5")[0], rotation_centre=99)


def test_links_are_refused(tmp_path: Path) -> None:
    exchange(tmp_path / "secret.h5")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["exchange/data"] = h5py.ExternalLink("secret.h5", "/exchange/data")
    with pytest.raises(InputError, match="is a link to"):
        open_ct(tmp_path / "a.h5")
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file.create_dataset("exchange/data", shape=(4000, 4000, 4000), dtype=np.float32)
    with pytest.raises(InputError, match="declares 238"):
        open_ct(tmp_path / "b.h5")


def test_real_tooth(realdata: Path) -> None:
    scan = open_ct(realdata / "ct_projections" / "tooth.h5")
    assert isinstance(scan, CTProjections)
    assert (len(scan), scan.shape) == (2, (181, 640))
    assert scan.attributes["rotation_centre"] == pytest.approx(295.5, abs=0.5)
    sinogram = scan[0]
    assert np.median(sinogram[:, :40]) == pytest.approx(0, abs=0.02)  # air
    assert 0.5 < np.quantile(sinogram, 0.99) < 4
    # Half a turn later the projection is its own mirror image about the axis.
    centre = scan.attributes["rotation_centre"]
    mirrored = np.interp(2 * centre - np.arange(640), np.arange(640), sinogram[-1])
    inside = slice(60, 530)
    assert np.corrcoef(sinogram[0, inside], mirrored[inside])[0, 1] > 0.99


def test_centre_of_mass_of_an_empty_sinogram() -> None:
    assert 0 <= centre_of_mass(np.zeros((5, 8)), np.linspace(0, 3, 5)) <= 7


# Numbered .npy slices


def test_npy_slices_are_sorted_by_number(tmp_path: Path) -> None:
    folder = tmp_path / "256_sorted" / "L067"
    folder.mkdir(parents=True)
    images = {name: RNG(k).random((6, 5)) for k, name in enumerate(["10", "9", "0100", "1.5"])}
    for name, image in images.items():
        np.save(folder / f"{name}.npy", image)
    found = open_ct(folder)
    assert isinstance(found, CTImages)
    assert (found.format, found.units, found.shape) == ("npy-folder", "relative", (6, 5))
    assert [file.stem for file in found.files] == ["1.5", "9", "10", "0100"]
    for image, name in zip(found, ["1.5", "9", "10", "0100"], strict=True):
        np.testing.assert_array_equal(image, images[name].astype(np.float32))
    with pytest.raises(InputError, match="name one of its folders: L067"):
        open_ct(folder.parent)


@pytest.mark.parametrize(
    ("name", "array", "words"),
    [
        ("last.npy", np.ones((6, 5)), r"last\.npy: expected slices named by their numbers"),
        ("nan.npy", np.ones((6, 5)), "named by their numbers"),
        ("01.npy", np.ones((6, 5)), r"1\.npy are the same number"),
        ("2.npy", np.ones((5, 5)), r"2\.npy: has \(5, 5\) pixels, 1\.npy has \(6, 5\)"),
        ("2.npy", np.ones((6, 5, 3)), r"expected one real image"),
        ("2.npy", np.ones((6, 5), np.complex64), "expected one real image"),
        ("2.npy", np.array([[{}]], dtype=object), "contains Python objects"),
    ],
)
def test_unusable_npy_folders(tmp_path: Path, name: str, array: np.ndarray, words: str) -> None:
    np.save(tmp_path / "1.npy", np.ones((6, 5)))
    np.save(tmp_path / name, array, allow_pickle=True)
    with pytest.raises(InputError, match=words):
        open_ct(tmp_path)


def test_npy_values_and_truncation(tmp_path: Path) -> None:
    np.save(tmp_path / "1.npy", np.full((6, 5), np.inf))
    with pytest.raises(InputError, match="slice 0: 30 of 30 values are NaN or infinite"):
        open_ct(tmp_path)[0]
    content = (tmp_path / "1.npy").read_bytes()
    (tmp_path / "1.npy").write_bytes(content[:-8])
    with pytest.raises(InputError, match=r"1\.npy: declares .* it is truncated"):
        open_ct(tmp_path)


# What all have in common


def test_what_is_not_ct(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no data in this folder that can be read here; expected DICOM"):
        open_ct(tmp_path)
    (tmp_path / "empty").touch()
    with pytest.raises(InputError, match=r"the file is empty \(0 bytes\)"):
        open_ct(tmp_path / "empty")
    (tmp_path / "text").write_text("hello")
    with pytest.raises(InputError, match="not a file that can be read here; expected DICOM"):
        open_ct(tmp_path / "text")


def test_indices_and_shapes(tmp_path: Path) -> None:
    np.save(tmp_path / "1.npy", np.ones((6, 5)))
    found = open_ct(tmp_path)
    np.testing.assert_array_equal(found[-1], found[0])
    with pytest.raises(IndexError, match="has 1 slices, so there is no slice 1"):
        found[1]
    np.save(tmp_path / "1.npy", np.ones((5, 6)))  # changed after it was opened
    with pytest.raises(ShapeError, match=r"expected shape \(6, 5\), got \(5, 6\)"):
        found[0]


def test_info(tmp_path: Path, capsys: pytest.CaptureFixture, write_ct: Callable, helix: Callable) -> None:
    cases = {
        lodopab(tmp_path, "test", 0, n=1): ["format: lodopab", "sinogram: 1000 x 513"],
        exchange(tmp_path / "a.h5")[0]: ["format: data-exchange", "rotation_centre: 25."],
        write_ct(tmp_path / "a.dcm", np.full((4, 5), 7, np.uint16)): ["format: dicom", "image: 4 x 5 (y, x), HU"],
        helix(rows=8, columns=32, views_per_turn=40, turns=1.2).write(tmp_path / "scan"): [
            *("format: dicom-ct-pd", "sinogram: 40 x 32", "flying_focal_spot: FFSNONE"),
        ],
    }
    for path, lines in cases.items():
        assert main(["info", str(path)]) == 0
        printed = capsys.readouterr().out
        for line in lines:
            assert line in printed
        assert "SECRET" not in printed
