"""Masks, coil maps, calibration scans and noise scans: from files of every format, and what is wrong with others."""

import json
import warnings
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

import recon
from operators import fftc
from recon.cli import main
from recon.errors import InputError, ShapeError
from recon.modalities.mri.conditions import conditions
from recon.modalities.mri.options import MRI
from recon.modalities.mri.side_files import coil_maps, noise, read_array, sampling_masks
from recon.modalities.mri.source import KspaceSource

NY, NX, COILS, NOISE = 48, 40, 4, 0.004
RNG = np.random.default_rng(0)


def _white(*shape: int) -> np.ndarray:
    return (RNG.standard_normal(shape) + 1j * RNG.standard_normal(shape)) / np.sqrt(2)


def _maps(ny: int = NY, nx: int = NX) -> np.ndarray:
    y, x = np.arange(ny)[:, None] / (ny / 2) - 1, np.arange(nx) / (nx / 2) - 1
    angles = 2 * np.pi * np.arange(COILS)[:, None, None] / COILS
    seen = np.exp(-((y - 1.1 * np.sin(angles)) ** 2 + (x - 1.1 * np.cos(angles)) ** 2) / 1.8 + 1j * (angles + x))
    return (seen / np.sqrt((np.abs(seen) ** 2).sum(0))).astype(np.complex64)


def _object(ny: int = NY, nx: int = NX) -> np.ndarray:
    y, x = np.arange(ny)[:, None] / (ny / 2) - 1, np.arange(nx) / (nx / 2) - 1
    body = 1 / (1 + np.exp((np.hypot(y / 0.8, x / 0.7) - 1) / 0.04))
    return body * (0.7 + 0.2 * np.sin(7 * x + 2) * np.cos(6 * y))


def _scan(factor: float = 1.0) -> np.ndarray:
    clean = fftc(torch.from_numpy(_maps() * _object())).numpy()
    return (factor * clean + NOISE * _white(COILS, NY, NX)).astype(np.complex64)


LINES = np.arange(NX) % 2 == 1  # no central line: NX // 2 is even
MASK = np.arange(NX) % 3 == 0
MASK[NX // 2 - 6 : NX // 2 + 6] = True


def _bart(path: Path, array: np.ndarray) -> str:
    dims = " ".join(map(str, array.shape + (1,) * (16 - array.ndim)))
    path.with_suffix(".hdr").write_text(f"# Dimensions\n{dims}\n")
    path.with_suffix(".cfl").write_bytes(array.astype("<c8").tobytes(order="F"))
    return str(path.with_suffix(".cfl"))


def _saved(folder: Path, kind: str, array: np.ndarray, name: str) -> str:
    """Write an array as `npy`, as the only array of `npz` and `h5`, or beside another one under its name."""
    path = folder / f"side.{kind.split()[0]}"
    others = {"other": np.zeros(3)} if "beside" in kind else {}
    arrays = {name if others else "anything": array, **others}
    if path.suffix == ".npy":
        np.save(path, array)
    elif path.suffix == ".npz":
        np.savez(path, **arrays)
    else:
        with h5py.File(path, "w") as file:
            for key, value in arrays.items():
                file[key] = value
    return str(path)


def _run(source: object, **options: object) -> recon.Posterior:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return recon.reconstruct(source, "gaussian", samples=2, steps=3, progress=False, **options)


def _error(image: np.ndarray) -> float:
    truth = np.abs(_object())
    return float(np.linalg.norm(np.abs(image) - truth) / np.linalg.norm(truth))


@pytest.mark.parametrize("kind", ["npy", "npz", "npz beside", "h5", "h5 beside"])
@pytest.mark.parametrize(("option", "name"), [("mask", "mask"), ("coil_maps", "sens_maps"), ("noise_scan", "noise")])
def test_files_of_every_format_are_read(tmp_path: Path, kind: str, option: str, name: str) -> None:
    array = {"mask": MASK, "coil_maps": _maps(), "noise_scan": _white(COILS, 50)}[option]
    np.testing.assert_array_equal(read_array(_saved(tmp_path, kind, array, name), option), array)


def test_bart_axes_are_those_of_the_kspace_reader(tmp_path: Path) -> None:
    maps = _maps()
    plain = maps.transpose(1, 2, 0)  # y, x, coil
    for stored in (plain[:, :, None], plain):  # coils in dimension 3, and in dimension 2
        np.testing.assert_array_equal(read_array(_bart(tmp_path / "a", stored), "coil_maps"), maps)
    pairs = np.stack([maps, 2 * maps])
    two = pairs.transpose(2, 3, 1, 0)[:, :, None]  # map in dimension 4
    np.testing.assert_array_equal(read_array(_bart(tmp_path / "a", two), "coil_maps"), pairs)
    volume = np.stack([maps, 2 * maps, 3 * maps])  # a 3D scan is separated along dimension 0
    found = read_array(_bart(tmp_path / "a", volume.transpose(0, 2, 3, 1)), "coil_maps")
    np.testing.assert_array_equal(found, volume)
    points = RNG.random((NY, NX)) < 0.5
    np.testing.assert_array_equal(read_array(_bart(tmp_path / "m", points), "mask")[0], points)
    np.testing.assert_array_equal(read_array(_bart(tmp_path / "m", points[None]), "mask")[0], points)
    samples = _white(COILS, 50).astype(np.complex64)
    found = read_array(_bart(tmp_path / "n", samples.T.reshape(50, 1, 1, COILS)), "noise_scan")
    np.testing.assert_array_equal(found, samples)
    matrix = (samples @ samples.conj().T).reshape(1, 1, 1, COILS, COILS)
    np.testing.assert_array_equal(read_array(_bart(tmp_path / "n", matrix), "noise_scan"), matrix[0, 0, 0])
    with pytest.raises(InputError, match="dimension 5 has length 2, expected 1 for mask"):
        read_array(_bart(tmp_path / "m", points.reshape(NY, NX, 1, 1, 1, 1).repeat(2, 5)), "mask")


@pytest.mark.parametrize("shape", [(NX,), (1, NX), (NY, 1), (NY, NX), (3, 1, NX), (3, NY, NX)])
def test_shapes_of_masks(shape: tuple[int, ...]) -> None:
    given = (RNG.random(shape) < 0.5).astype(np.float32)
    found = sampling_masks(torch.from_numpy(given), 3, (NY, NX))
    assert found.dtype == bool and found.ndim == 3
    np.testing.assert_array_equal(np.broadcast_to(found, (3, NY, NX)), np.broadcast_to(given > 0, (3, NY, NX)))


def test_a_mask_by_slice_is_used_by_slice() -> None:
    masks = np.stack([MASK[None], np.roll(MASK, 1)[None] | MASK])
    source = KspaceSource(np.stack([_scan(), _scan()]), MRI(mask=masks))
    sampled = [source.prepare(k, "cpu").images["mask"].numpy() for k in (0, 1)]
    assert [int(one[0].sum()) for one in sampled] == masks.sum(axis=(1, 2)).tolist()


@pytest.mark.slow
def test_a_mask_file_is_that_mask(tmp_path: Path) -> None:
    np.save(tmp_path / "mask.npy", MASK)
    file = tmp_path / "mask.npy"
    by_array, by_file, by_text = (_run(_scan_once(), mask=given) for given in (MASK, file, str(file)))
    np.testing.assert_array_equal(by_array.samples, by_file.samples)
    np.testing.assert_array_equal(by_array.samples, by_text.samples)
    assert by_file.provenance["config"]["mask"] == str(file)
    assert by_array.provenance["config"]["mask"] == "array"
    # The k-space was complete, so the image is known; the samples are measured ones, not those of a named pattern.
    assert _error(by_file.images["reference"]) < 0.05
    assert conditions(by_file)["pattern"].value is None
    assert conditions(_run(_scan_once(), mask="equispaced", acceleration=2))["pattern"].value == "equispaced"


def _scan_once() -> np.ndarray:
    global RNG
    RNG = np.random.default_rng(7)
    return _scan()


def test_coil_maps_and_noise_from_files_without_a_centre(tmp_path: Path) -> None:
    np.save(tmp_path / "maps.npy", _maps())
    samples = (NOISE * _white(COILS, 4000)).astype(np.complex64)
    np.savez(tmp_path / "noise.npz", noise=samples, dwell=np.ones(1))
    found = _run(_scan() * LINES, coil_maps=tmp_path / "maps.npy", noise_scan=tmp_path / "noise.npz")
    assert _error(found.mean) < 0.1
    assert found.provenance["measured"][0]["noise_from"] == "given"
    source = KspaceSource(_scan() * LINES, MRI(coil_maps=_maps(), noise_scan=tmp_path / "noise.npz"))
    assert source.prepare(0, "cpu").diagnostics["noise_std"] == pytest.approx(NOISE, rel=0.05)
    config = found.provenance["config"]
    assert config["coil_maps"] == str(tmp_path / "maps.npy") and config["noise_scan"] == str(tmp_path / "noise.npz")


def test_maps_of_slices_and_of_the_oversampled_field_of_view() -> None:
    stack = np.stack([_scan(), _scan()])
    by_slice = KspaceSource(stack, MRI(coil_maps=np.stack([_maps(), 1j * _maps()])))
    first, second = (by_slice.prepare(k, "cpu").coil_maps for k in (0, 1))
    torch.testing.assert_close(1j * first, second)
    pair = KspaceSource(_scan(), MRI(coil_maps=np.stack([_maps(), _maps()])))
    assert pair.prepare(0, "cpu").diagnostics["maps"] == 2
    wide = np.pad(_maps(), ((0, 0), (NY // 2, NY // 2), (0, 0)))
    cropped = KspaceSource(_scan(), MRI(coil_maps=wide)).prepare(0, "cpu").coil_maps
    np.testing.assert_allclose(cropped.numpy(), _maps())


@pytest.mark.parametrize("size", [(24, 24), (64, 20), (16, 12)])
@pytest.mark.parametrize("factor", [0.1, 30.0])
def test_a_calibration_scan_gives_the_maps(size: tuple[int, int], factor: float) -> None:
    """Of another matrix size, intensity and noise than the data, which have no central line."""
    full = factor * fftc(torch.from_numpy(_maps(96, 80) * _object(96, 80))).numpy()
    rows, columns = (slice(n // 2 - m // 2, n // 2 - m // 2 + m) for n, m in zip((96, 80), size, strict=True))
    calibration = full[:, rows, columns]
    calibration = (calibration + 0.01 * factor * _white(*calibration.shape)).astype(np.complex64)
    source = KspaceSource(_scan() * LINES, MRI(calibration=calibration))
    ready = source.prepare(0, "cpu")
    inside = torch.from_numpy(_object() > 0.1)
    maps, true = ready.whitening.coloured_maps(ready.coil_maps), torch.from_numpy(_maps())
    alike = (maps.conj() * true).sum(0).abs() / (maps.abs().square().sum(0).sqrt() * true.abs().square().sum(0).sqrt())
    assert float(alike[inside].mean()) > 0.98
    assert ready.diagnostics["calibration"] == [min(n, 24) for n in size]
    assert ready.diagnostics["noise_std"] == pytest.approx(NOISE, rel=0.5)
    image = ready.problem.operator.H(ready.problem.y)
    assert "separate calibration scan" in ready.refined(image).diagnostics["maps_from"]
    found = _run(_scan() * LINES, calibration=calibration)
    assert _error(found.mean) < 0.12
    assert found.provenance["config"]["calibration"] == "given"


def test_a_calibration_scan_of_any_format_and_with_virtual_coils(tmp_path: Path) -> None:
    calibration = _scan()[:, 12:36, 8:32]
    files = [
        _saved(tmp_path, "npz beside", calibration, "calibration"),
        _bart(tmp_path / "c", calibration.transpose(1, 2, 0)),
    ]
    with h5py.File(tmp_path / "fastmri.h5", "w") as file:
        file["kspace"] = calibration[None]
    for given in (*files, tmp_path / "fastmri.h5"):
        source = KspaceSource(np.stack([_scan() * LINES] * 2), MRI(calibration=given, coils=3))
        ready = source.prepare(1, "cpu")
        assert ready.diagnostics["calibration"] == [24, 24] and ready.diagnostics["coils"] == 3
        assert source.config["calibration"] == str(given)


def test_the_command_line_and_toml_have_the_doors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save(tmp_path / "scan.npy", _scan())
    np.save(tmp_path / "mask.npy", LINES)
    np.save(tmp_path / "calibration.npy", _scan()[:, 12:36, 8:32])
    np.save(tmp_path / "noise.npy", (NOISE * _white(COILS, 1000)).astype(np.complex64))
    (tmp_path / "o.toml").write_text(f"[mri]\nnoise_scan = {json.dumps(str(tmp_path / 'noise.npy'))}\n")
    common = ["run", str(tmp_path / "scan.npy"), "-o", str(tmp_path / "out"), "--no-report"]
    more = ["--prior", "gaussian", "--samples", "2", "--steps", "3", "--config", str(tmp_path / "o.toml")]
    files = [f"--{name}={tmp_path / name}.npy" for name in ("mask", "calibration")]
    assert main([*common, *more, *files]) == 0
    result = recon.Posterior.load(tmp_path / "out" / "scan.h5")
    assert result.provenance["measured"][0]["acceleration"] == 2
    assert "separate" in result.provenance["measured"][0]["maps_from"]
    assert result.provenance["config"]["noise_scan"].endswith("noise.npy")
    capsys.readouterr()
    assert main([*common, "--force", "--coil-maps", str(tmp_path / "none.npy")]) == 2
    assert f"coil_maps: {tmp_path / 'none.npy'}: no such file" in capsys.readouterr().err


MISUSE = {
    "mask shape": ({"mask": np.ones((NX, NY))}, ShapeError, r"mask: expected \(x,\).*its transpose fits"),
    "mask values": ({"mask": np.full(NX, 0.5)}, InputError, "mask: expected only 0 and 1"),
    "mask slices": ({"mask": np.ones((3, 1, NX))}, ShapeError, "mask: expected"),
    "mask and R": ({"mask": MASK, "acceleration": 2.0}, InputError, "does not apply to given samples"),
    "mask list": ({"mask": [1, 0]}, InputError, "mask: expected an array or the path of a file, got list"),
    "real maps": ({"coil_maps": np.ones((COILS, NY, NX))}, InputError, "coil_maps: expected complex numbers"),
    "other coils": ({"coil_maps": _maps()[:3]}, ShapeError, "coil_maps: expected .* of 4 coils"),
    "small maps": ({"coil_maps": _maps(32, 32)}, ShapeError, r"coil_maps: expected \(4, 48, 40\)"),
    "real calibration": ({"calibration": np.ones((COILS, 24, 24))}, InputError, "calibration: expected complex"),
    "calibration coils": ({"calibration": _maps()[:3]}, InputError, "calibration: expected 4 coils"),
    "image as calibration": ({"calibration": _maps() * _object()}, InputError, "calibration: this looks like an image"),
    "maps twice": ({"calibration": _maps(), "coil_maps": _maps()}, InputError, "both define the coil maps"),
    "real noise": ({"noise_scan": np.ones((COILS, 99))}, InputError, "noise_scan: expected complex samples"),
    "noise coils": ({"noise_scan": _white(3, 99)}, ShapeError, "noise_scan: expected samples"),
    "coils last": ({"noise_scan": _white(99, COILS)}, ShapeError, "move the coils to the front"),
    "few samples": ({"noise_scan": _white(COILS, 3)}, InputError, "at least as many samples as coils"),
    "not positive": ({"noise_scan": -np.eye(COILS)}, InputError, "Hermitian positive definite"),
    "noise twice": ({"noise_scan": np.eye(COILS), "noise_std": 1.0}, InputError, "all define the noise"),
}


@pytest.mark.parametrize("case", MISUSE)
def test_misuse_is_one_clear_line(case: str) -> None:
    options, kind, message = MISUSE[case]
    with pytest.raises(kind, match=message) as caught:
        recon.reconstruct(_scan(), "gaussian", samples=1, progress=False, **options)
    assert "\n" not in str(caught.value)


def test_files_with_several_arrays_or_none(tmp_path: Path) -> None:
    np.savez(tmp_path / "two.npz", a=_maps(), b=_maps())
    with pytest.raises(InputError, match=r"two.npz: expected one array, or one named coil_maps or maps.*\['a', 'b'\]"):
        read_array(str(tmp_path / "two.npz"), "coil_maps")
    np.savez(tmp_path / "both.npz", maps=_maps(), coil_maps=_maps())
    with pytest.raises(InputError, match="expected one array"):
        read_array(str(tmp_path / "both.npz"), "coil_maps")
    (tmp_path / "mask.png").write_bytes(b"\x89PNG")
    with pytest.raises(InputError, match="expected a NumPy"):
        recon.reconstruct(_scan(), mask=tmp_path / "mask.png")
    with pytest.raises(InputError, match=r"mask: .*none\.cfl: no such file"):
        recon.reconstruct(_scan(), mask=tmp_path / "none.cfl")
    with pytest.raises(InputError, match=r"calibration: none\.npy: no such file"):
        recon.reconstruct(_scan(), calibration="none.npy")


def test_a_square_matrix_is_a_covariance_only_if_it_is_hermitian() -> None:
    matrix = np.eye(COILS) + 0.1j * (np.eye(COILS, k=1) - np.eye(COILS, k=-1))
    np.testing.assert_array_equal(noise(matrix, COILS)[0], matrix)
    samples = _white(COILS, COILS).astype(np.complex64)
    np.testing.assert_allclose(noise(samples, COILS)[0], samples @ samples.conj().T / COILS, rtol=1e-4)
    samples = _white(COILS, 30, 40)
    np.testing.assert_allclose(noise(samples, COILS)[0], np.eye(COILS), atol=0.15)
    assert coil_maps(np.ones((2, 3, COILS, 5, 6), complex), 2, COILS).shape == (2, 3, COILS, 5, 6)
