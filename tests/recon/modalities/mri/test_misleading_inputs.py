"""Inputs that are not k-space, or are stored in another way: refused with advice, or reconstructed right."""

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

import recon
from operators import fftc, ifftc, make_mask
from recon.cli import main
from recon.errors import InputError
from recon.modalities.mri import plausible
from recon.modalities.mri.describe import inspect, layout_doubts
from recon.modalities.mri.field_shift import half_shift
from recon.modalities.mri.files.readers import open_kspace
from recon.modalities.mri.prepare import prepare
from recon.modalities.mri.sampling import Sampling

SIZE, COILS, NOISE = 64, 4, 0.004
QUICK = {"prior": "gaussian", "samples": 2, "steps": 3, "progress": False}


def _run(source: object, **options: object) -> recon.Posterior:
    """Reconstruct in few steps; the notes are in the provenance as well."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return recon.reconstruct(source, **{**QUICK, **options})


def _noted(found: recon.Posterior, text: str) -> bool:
    return any(text in note for note in found.provenance["notes"])


def _coils(ny: int = SIZE, nx: int = SIZE) -> np.ndarray:
    y, x = (np.arange(n)[:, None] / (n / 2) - 1 for n in (ny, nx))
    angles = 2 * np.pi * np.arange(COILS)[:, None, None] / COILS
    distance = (y - 1.1 * np.sin(angles)) ** 2 + (x.T - 1.1 * np.cos(angles)) ** 2
    return np.exp(-distance / 1.8 + 1j * (angles + 0.7 * x.T - 0.5 * y))


def _object(ny: int = SIZE, nx: int = SIZE) -> np.ndarray:
    """A head that is unlike itself under any flip or shift."""
    y, x = np.arange(ny)[:, None] / (ny / 2) - 1, np.arange(nx) / (nx / 2) - 1

    def soft(value: np.ndarray) -> np.ndarray:
        return 1 / (1 + np.exp(-value / 0.04))

    image = 0.55 * soft(1 - np.hypot(y / 0.8, x / 0.66)) + 0.35 * soft(0.2 - np.hypot(y + 0.35, x - 0.25))
    return image - 0.3 * soft(0.14 - np.hypot(y - 0.25, (x + 0.28) * 0.8))


def _scan(noise: float = NOISE, ny: int = SIZE, nx: int = SIZE) -> np.ndarray:
    rng = np.random.default_rng(0)
    clean = fftc(torch.from_numpy(_coils(ny, nx) * _object(ny, nx))).numpy()
    white = (rng.standard_normal(clean.shape) + 1j * rng.standard_normal(clean.shape)) / np.sqrt(2)
    return (clean + noise * white).astype(np.complex64)


def _rss(kspace: np.ndarray) -> np.ndarray:
    return ifftc(torch.from_numpy(np.ascontiguousarray(kspace))).abs().square().sum(0).sqrt().numpy()


def _error(image: np.ndarray, truth: np.ndarray) -> float:
    return float(np.linalg.norm(np.abs(image) - truth) / np.linalg.norm(truth))


def _lines(every: int = 3, central: int = 16, n: int = SIZE) -> np.ndarray:
    mask = np.arange(n) % every == 0
    mask[n // 2 - central // 2 : n // 2 + central // 2] = True
    return mask


def _checkerboard(ny: int = SIZE, nx: int = SIZE) -> np.ndarray:
    return (-1.0) ** np.add.outer(np.arange(ny), np.arange(nx))


def _radial(spokes: int = 48) -> np.ndarray:
    """Radial k-space (coil, sample, spoke), by a direct Fourier sum."""
    images, r = _coils() * _object(), np.arange(SIZE) - SIZE // 2
    out = np.zeros((COILS, SIZE, spokes), np.complex64)
    for k, angle in enumerate(np.pi * np.arange(spokes) / spokes):
        rows = np.exp(-2j * np.pi * np.outer(r * np.sin(angle), r) / SIZE)
        columns = np.exp(-2j * np.pi * np.outer(r * np.cos(angle), r) / SIZE)
        out[:, :, k] = np.einsum("ry,cyx,rx->cr", rows, images, columns)
    return out


def _bart(path: Path, array: np.ndarray) -> Path:
    """Write an array in the order of BART's dimensions."""
    dims = " ".join(map(str, array.shape + (1,) * (16 - array.ndim)))
    path.with_suffix(".hdr").write_text(f"# Dimensions\n{dims}\n")
    path.with_suffix(".cfl").write_bytes(array.astype("<c8").tobytes(order="F"))
    return path.with_suffix(".cfl")


@pytest.mark.parametrize("shape", ["(x,)", "(y, x)"])
def test_a_transposed_mask_is_named(shape: str) -> None:
    mask = _lines()
    kspace = _scan() * mask
    wrong = mask[:, None] if shape == "(x,)" else np.broadcast_to(mask[:, None], (SIZE, SIZE))
    with pytest.raises(InputError, match=r"exactly zero in all coils.*its transpose does: give mask\.T"):
        prepare(kspace, np.ascontiguousarray(wrong))
    assert prepare(kspace, mask).diagnostics["acceleration"] == pytest.approx(SIZE / mask.sum())


def test_a_mask_of_other_data_is_refused_and_padding_is_not() -> None:
    kspace = _scan() * _lines()
    other = np.random.default_rng(1).random((SIZE, SIZE)) < 0.5
    with pytest.raises(InputError, match=r"does not belong to these data$"):
        prepare(kspace, other)
    padded = kspace.copy()
    padded[:, :, -14:] = 0
    ready = prepare(padded, _lines())
    assert any("zero padding" in note for note in ready.notes)
    assert not bool(ready.mask.expand(SIZE, SIZE)[:, -14:].any())


def test_an_image_is_not_kspace() -> None:
    images = (_coils() * _object()).astype(np.complex64)
    with pytest.raises(InputError, match="looks like an image, not k-space"):
        prepare(images)


@pytest.mark.parametrize("axes", [(-2, -1), (-1,), (-2,)])
def test_run_says_that_kspace_is_not_centred_as_check_does(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], axes: tuple[int, ...]
) -> None:
    np.save(tmp_path / "corner.npy", np.fft.ifftshift(_scan() * _lines(), axes=axes))
    file = str(tmp_path / "corner.npy")
    assert main(["run", file, "-o", str(tmp_path / "out"), "--samples", "2", "--no-report"]) == 2
    ran = capsys.readouterr().err
    assert "is this k-space, and centred?" in ran and f"fftshift(kspace, axes={axes})" in ran
    assert main(["check", file]) == 2
    assert f"fftshift(kspace, axes={axes})" in capsys.readouterr().err


@pytest.mark.parametrize("coils", [4, 16])
def test_coils_on_another_axis_are_named(coils: int) -> None:
    kspace = np.concatenate([_scan() * (1 + k) for k in range(coils // COILS)])
    with pytest.raises(InputError, match=r"coils seem to be last.*numpy\.moveaxis\(kspace, -1, 0\)"):
        prepare(np.ascontiguousarray(np.moveaxis(kspace, 0, -1)))
    with pytest.raises(InputError, match=r"coils seem to be second.*numpy\.moveaxis\(kspace, 1, 0\)"):
        prepare(np.ascontiguousarray(np.moveaxis(kspace, 0, 1)))


def test_no_noise_is_for_data_without_noise() -> None:
    with pytest.raises(InputError, match=r"noise_std=0 is only right for simulated data.*0\.00[345]"):
        prepare(_scan(), noise_std=0.0)
    for mask in (None, _lines()):
        assert prepare(_scan(0.0), mask, noise_std=0.0).diagnostics["noise_std"] == 0
    assert prepare(_scan(0.0)[:1], noise_std=0.0).diagnostics["noise_std"] == 0


def test_radial_kspace_is_refused_by_name(tmp_path: Path) -> None:
    radial = _radial()
    file = _bart(tmp_path / "radial", np.moveaxis(radial, 0, -1)[None])
    with pytest.raises(InputError, match=r"48 lines along x cross the centre.*radial \(non-Cartesian\)"):
        recon.reconstruct(file, **QUICK)
    with pytest.raises(InputError, match="radial"):
        inspect(open_kspace(file))
    with pytest.raises(InputError, match="48 lines along y cross"):
        prepare(np.ascontiguousarray(radial.swapaxes(1, 2)))


def test_undersampled_data_are_not_undersampled_again() -> None:
    kspace = _scan() * _lines()
    with pytest.raises(InputError, match=r"undersampled already \(R = 2\).*omit acceleration and mask"):
        prepare(kspace, sampling=Sampling("random", 4.0))
    partial = _scan()
    partial[:, :, : SIZE // 4] = 0
    corners = _scan() * (np.hypot(*np.meshgrid(*[np.arange(SIZE) - SIZE // 2] * 2)) <= SIZE // 2)
    for complete in (partial, corners):
        assert prepare(complete, sampling=Sampling("random", 2.0)).diagnostics["acceleration"] > 1.9


@pytest.mark.parametrize(("pattern", "fraction"), [("random", 0.25), ("equispaced", 0.3), ("poisson", 0.5)])
def test_a_centre_that_takes_all_samples_is_refused(pattern: str, fraction: float) -> None:
    with pytest.raises(InputError, match=f"{fraction} at acceleration 4 leaves no sample outside the centre"):
        recon.reconstruct(_scan(), mask=pattern, acceleration=4, center_fraction=fraction, **QUICK)


def test_the_scale_is_right_without_any_central_line() -> None:
    maps = _coils() / np.sqrt((np.abs(_coils()) ** 2).sum(0))
    mask = np.arange(SIZE) % 3 == 0
    assert not mask[SIZE // 2]
    ready = prepare(_scan() * mask, coil_maps=maps.astype(np.complex64))
    assert ready.diagnostics["scale"] == pytest.approx(np.quantile(_rss(_scan()), 0.99), rel=0.25)


@pytest.mark.parametrize(("ny", "nx"), [(64, 64), (63, 64), (64, 65)])
def test_an_image_in_the_corners_is_reconstructed_in_the_middle(ny: int, nx: int) -> None:
    mask = _lines(n=nx)
    plain = prepare(_scan(ny=ny, nx=nx) * mask)
    moved = prepare((_scan(ny=ny, nx=nx) * mask * _checkerboard(ny, nx)).astype(np.complex64))
    assert any("shifted by half of the field of view" in note for note in moved.notes) and not plain.notes
    inner = moved.problem.operator.H(moved.problem.y).abs()
    assert float(inner[ny // 4 : -ny // 4, nx // 4 : -nx // 4].square().sum() / inner.square().sum()) > 0.5
    truth = _rss(_scan(ny=ny, nx=nx) * mask * _checkerboard(ny, nx).astype(np.float32))
    assert _error(moved.images["zero_filled"].numpy(), truth) < 0.05


def test_the_result_and_known_maps_of_a_shifted_image_stay_in_place() -> None:
    maps = (_coils() / np.sqrt((np.abs(_coils()) ** 2).sum(0))).astype(np.complex64)
    kspace = (_scan() * _checkerboard()).astype(np.complex64)
    rolled = np.fft.fftshift(maps, axes=(-2, -1))
    found = _run(kspace, coil_maps=rolled)
    assert _noted(found, "shifted by half of the field of view")
    assert _error(found.mean, _rss(kspace)) < 0.05
    assert _error(found.mean, found.images["reference"]) < 0.05


def test_a_stack_in_the_wrong_dimension_is_refused(tmp_path: Path) -> None:
    slices = np.stack([_scan() * (1 + 0.1 * k) for k in range(24)], axis=-1)  # coil, y, x, slice
    file = _bart(tmp_path / "stack", slices.transpose(1, 2, 3, 0))
    with pytest.raises(InputError, match=r"has no centre as k-space has.*slices in dimension 13|radial"):
        recon.reconstruct(file, slices="32", **QUICK)
    try:
        found = inspect(open_kspace(file)).warnings
    except InputError as error:
        found = [str(error)]
    assert any("has no centre" in line or "radial" in line for line in found)


def test_three_axes_without_a_header_are_ambiguous(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "coils.h5", "w") as file:
        file["kspace"] = _scan()
    scan = open_kspace(tmp_path / "coils.h5")
    assert "taken for 4 slices of one coil" in layout_doubts(scan)[0]
    assert any("(1, coil, y, x)" in line for line in inspect(scan).warnings)
    assert _noted(_run(tmp_path / "coils.h5", slices="0"), "taken for 4 slices of one coil")


def test_a_dead_coil_is_left_out() -> None:
    kspace = _scan()
    kspace[2] = 0
    rest = np.delete(kspace, 2, axis=0)
    covariance = np.diag([1, 2, 3, 4]) * NOISE**2
    calibration = _scan()[:, 20:44, 20:44]
    ready = prepare(kspace, _lines(), noise_covariance=covariance, calibration=calibration)
    assert ready.diagnostics["coils"] == 3 and "coil(s) 2 contain only zeros" in ready.notes[0]
    assert ready.diagnostics["noise_std"] == pytest.approx(NOISE * np.sqrt(7 / 3), rel=1e-3)
    found = _run(kspace)
    assert _noted(found, "coil(s) 2 contain only zeros and are left out")
    assert _error(found.mean, _rss(rest)) < 0.03


@pytest.mark.slow
def test_an_empty_slice_does_not_lose_the_others(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save(tmp_path / "stack.npy", np.stack([_scan(), 0 * _scan(), 2 * _scan()]))
    found = _run(tmp_path / "stack.npy")
    assert found.samples.shape == (2, 3, SIZE, SIZE) and found.provenance["slices"] == [0, 1, 2]
    assert np.isnan(found.mean[1]).all() and found.slice_valid.tolist() == [True, False, True]
    assert _error(found.mean[2], _rss(2 * _scan())) < 0.05
    assert found.usable.mean.shape == (2, SIZE, SIZE) and np.isfinite(found.usable.std).all()
    assert found.usable.provenance["slices"] == [0, 2]
    found.save(tmp_path / "result.h5")
    read = recon.Posterior.load(tmp_path / "result.h5")
    assert np.array_equal(read.samples, found.samples, equal_nan=True) and read.slice_valid.tolist() == [1, 0, 1]
    assert _noted(found, "slice 1 is left out: ") and _noted(found, "every value is zero")
    assert main(["check", str(tmp_path / "stack.npy")]) == 0
    told = capsys.readouterr().out
    assert "warning: left out of a reconstruction: " in told and "slice 1: every value is zero" in told
    with pytest.raises(InputError, match="every value is zero"):
        recon.reconstruct(tmp_path / "stack.npy", slices="1", **QUICK)


def _harmless(kspace: np.ndarray) -> dict[str, np.ndarray]:
    """Ways to acquire a scan that must not be taken for a mistake."""
    ny, nx = kspace.shape[1:]
    rng = np.random.default_rng(3)
    white = (rng.standard_normal(kspace.shape) + 1j * rng.standard_normal(kspace.shape)) / np.sqrt(2)
    white = white * np.quantile(_rss(kspace), 0.99)
    found = {"as it is": kspace, "every third line": kspace * (np.arange(nx) % 3 == 1), "folded": kspace[:, :, ::2]}
    found |= {f"{p} x{r}": kspace * make_mask((ny, nx), p, r) for p in ("random", "poisson") for r in (2, 8)}
    found["partial Fourier"] = kspace * (np.arange(nx) < 0.6 * nx)
    found["centre only"] = kspace * make_mask((ny, nx), "equispaced", nx / 16, 16 / nx)
    for level in (0.4, 1.0, 1000.0):
        noisy = kspace + level * white
        found |= {f"noise {level}": noisy, f"noise {level}, x8": noisy * make_mask((ny, nx), "equispaced", 8)}
    return found


@pytest.mark.parametrize("name", ["brain_8ch_full.cfl", "brain_16ch_96.npy", "brain_8ch_poisson_r8.npy", "low field"])
def test_measured_scans_raise_no_alarm(realdata: Path, name: str) -> None:
    folder = realdata / "mri_kspace"
    if name == "low field":
        stored = np.load(folder / "brain_0.055T_1ch.npz")
        scans = [stored[key][None, :, :, 1] for key in ("F6B_GRE", "F6B_FSE", "F6B_FLAIR")]
    else:
        scans = [open_kspace(folder / name)[0]]
    for scan in scans:
        for case, kspace in _harmless(scan).items():
            data = torch.from_numpy(np.ascontiguousarray(kspace)).to(torch.complex64)
            assert not plausible.doubts(data), case
    middle = [slice(n // 2 - 12, n // 2 + 12) for n in scan.shape[1:]]
    region = (middle[0], middle[1])
    data = torch.from_numpy(np.ascontiguousarray(scan))
    assert half_shift(data, region) == (0, 0)
    turned = data * torch.from_numpy(_checkerboard(*scan.shape[1:])).to(torch.float32)
    assert half_shift(turned, region) == (scan.shape[1] // 2, scan.shape[2] // 2)


@pytest.mark.parametrize("size", [32, 64])
def test_phantoms_raise_no_alarm(size: int) -> None:
    for case, kspace in _harmless(_scan(ny=size, nx=size)).items():
        data = torch.from_numpy(np.ascontiguousarray(kspace)).to(torch.complex64)
        assert not plausible.doubts(data), case
