"""ESPIRiT on maps that are known, and on a measured brain against sigpy."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from operators import InputError, ShapeError, calibration_size, espirit_eigenmaps, espirit_maps, fftc
from operators.mri import espirit as module


def _smooth_maps(coils: int, ny: int, nx: int) -> Tensor:
    """Smooth coil maps from coils on a ring, with unit sum of squares."""
    y = torch.linspace(-1, 1, ny, dtype=torch.float64)[:, None]
    x = torch.linspace(-1, 1, nx, dtype=torch.float64)
    maps = []
    for k in range(coils):
        angle = 2 * np.pi * k / coils
        distance = (y - 1.3 * np.sin(angle)) ** 2 + (x - 1.3 * np.cos(angle)) ** 2
        maps.append(torch.exp(-distance / 2) * torch.exp(1j * (angle + 0.7 * x * np.cos(angle) + 0.5 * y)))
    stack = torch.stack(maps)
    return stack / torch.linalg.vector_norm(stack, dim=0)


def _simulate(coils: int = 6, ny: int = 64, nx: int = 48, noise: float = 1e-4) -> tuple[Tensor, Tensor, Tensor]:
    """k-space, coil maps and support of a disc with some texture."""
    y = torch.linspace(-1, 1, ny, dtype=torch.float64)[:, None]
    x = torch.linspace(-1, 1, nx, dtype=torch.float64)
    support = y**2 / 0.7**2 + x**2 / 0.6**2 < 1
    generator = torch.Generator().manual_seed(0)
    image = support * (1 + 0.3 * torch.cos(9 * x) * torch.sin(7 * y)) * torch.exp(1j * (x + y))
    maps = _smooth_maps(coils, ny, nx)
    kspace = fftc(maps * image)
    return kspace + noise * torch.randn(kspace.shape, dtype=kspace.dtype, generator=generator), maps, support


def _agreement(a: Tensor, b: Tensor, where: Tensor) -> Tensor:
    return (a.conj() * b).sum(-3).abs()[..., where]


@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
@pytest.mark.parametrize("shape", [(64, 48), (63, 49)])
def test_recovers_known_maps(shape: tuple[int, int], dtype: torch.dtype) -> None:
    kspace, truth, support = _simulate(6, *shape)
    maps = espirit_maps(kspace.to(dtype))
    assert maps.dtype == dtype
    assert maps.shape == kspace.shape
    inside = torch.nn.functional.max_pool2d(-support[None].float(), 5, 1, 2)[0] == -1
    assert _agreement(maps, truth.to(dtype), inside).min() > 0.999
    power = maps.abs().square().sum(0)
    mask = power > 0
    torch.testing.assert_close(power[mask], torch.ones_like(power[mask]), rtol=1e-4, atol=0)
    assert mask[inside].all()
    assert mask[:4, :4].sum() == 0


def test_phase_is_smooth_and_independent_of_the_order_of_coils() -> None:
    kspace, _, _ = _simulate()
    maps = espirit_maps(kspace)
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    torch.testing.assert_close(espirit_maps(kspace[order]), maps[order], rtol=1e-6, atol=1e-6)
    inside = (maps.abs().sum(0) > 0)[:, 1:] & (maps.abs().sum(0) > 0)[:, :-1]
    steps = (maps[:, :, 1:] * maps[:, :, :-1].conj()).sum(0).angle()[inside]
    assert steps.abs().max() < 0.3


def test_batch_is_one_by_one() -> None:
    kspace, _, _ = _simulate()
    batch = torch.stack([kspace, kspace.flip(-1), 2 * kspace])[:, None]
    together = espirit_maps(batch)
    assert together.shape == batch.shape
    for item, maps in zip(batch, together, strict=True):
        assert torch.equal(espirit_maps(item), maps)


@pytest.mark.parametrize("scale", [1e-12, 1e12])
def test_scale_of_the_data_does_not_matter(scale: float) -> None:
    kspace = _simulate()[0].to(torch.complex64)
    torch.testing.assert_close(espirit_maps(kspace * scale), espirit_maps(kspace), rtol=1e-4, atol=1e-4)


def test_only_the_calibration_region_is_read() -> None:
    kspace, _, _ = _simulate()
    other = torch.full_like(kspace, float("nan"))
    other[:, 20:44, 12:36] = kspace[:, 20:44, 12:36]
    assert torch.equal(espirit_maps(other), espirit_maps(kspace))


def test_fast_eigenvectors_are_the_exact_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    kspace = _simulate()[0].to(torch.complex64)
    maps, values = espirit_eigenmaps(kspace)
    assert values.shape == kspace.shape[1:]
    chunked = module._CPU_CHUNK
    monkeypatch.setattr(module, "_CPU_CHUNK", 1)
    torch.testing.assert_close(espirit_maps(kspace), maps, rtol=1e-5, atol=1e-5)
    monkeypatch.setattr(module, "_CPU_CHUNK", chunked)
    monkeypatch.setattr(module, "_eigen", lambda matrices, n_maps, crop: module._exact(matrices, n_maps))
    exact_maps, exact_values = espirit_eigenmaps(kspace)
    torch.testing.assert_close(maps, exact_maps, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(values, exact_values, rtol=1e-4, atol=1e-4)


def test_close_eigenvalues_are_solved_exactly() -> None:
    values = torch.tensor([0.99, 0.985, 0.2, 0.1], dtype=torch.float64)
    basis = torch.linalg.qr(torch.randn(4, 4, dtype=torch.complex128, generator=torch.Generator().manual_seed(0)))[0]
    matrix = (basis * values) @ basis.mH
    vectors, found = module._eigen(matrix[None].to(torch.complex64), 1, 0.95)
    assert (vectors[0, 0].conj().to(torch.complex128) @ basis[:, 0]).abs() == pytest.approx(1, abs=1e-4)
    assert float(found[0, 0]) == pytest.approx(0.99, abs=1e-5)


def test_two_maps_for_folded_images() -> None:
    # An object wider than the field of view folds: two maps are needed where it overlaps itself.
    kspace, _, _ = _simulate(8, 96, 96)
    folded = kspace[:, :, ::2]
    maps, values = espirit_eigenmaps(folded, n_maps=2)
    assert maps.shape == (2, 8, 96, 48)
    assert values.shape == (2, 96, 48)
    assert (values[0] >= values[1]).all()
    first, second = maps.abs().sum(1) > 0
    assert second.sum() > 50
    assert (first | ~second).all()
    overlap = (maps[0].conj() * maps[1]).sum(0).abs()
    assert overlap[second].max() < 1e-5


def test_single_coil() -> None:
    kspace, _, support = _simulate(1)
    maps = espirit_maps(kspace)
    assert ((maps[0] - 1).abs() < 1e-5)[support].float().mean() > 0.95


def _with(kspace: Tensor, region: tuple[slice, slice], value: complex) -> Tensor:
    copy = kspace.clone()
    copy[:, region[0], region[1]] = value
    return copy


EVERYTHING = (slice(None), slice(None))


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (lambda k: k, {"calib_size": 60}, r"larger than kspace \(64, 48\)"),
        (lambda k: k, {"calib_size": (70, 10)}, "larger"),
        (lambda k: k, {"calib_size": 5}, "smaller than the kernel"),
        (lambda k: k, {"calib_size": 0}, "positive"),
        (lambda k: k, {"threshold": 0.0}, "threshold"),
        (lambda k: k, {"crop": 1.0}, "crop"),
        (lambda k: k, {"n_maps": 7}, "n_maps"),
        (lambda k: k.abs(), {}, "complex"),
        (lambda k: k[0], {"n_maps": 1}, "coil"),
        (lambda k: _with(k, EVERYTHING, 0), {}, "all zero"),
        (lambda k: _with(k, (slice(None), slice(30)), 0), {}, r"fully sampled centre.*calib_size"),
        (lambda k: _with(k, (slice(32, 33), slice(None)), float("nan")), {}, "not finite"),
        (lambda k: _with(k, (slice(32, 33), slice(None)), float("inf")), {}, "not finite"),
    ],
)
def test_bad_input(change: Callable[[Tensor], Tensor], options: dict, message: str) -> None:
    kspace, _, _ = _simulate()
    with pytest.raises((InputError, ShapeError), match=message):
        if change(kspace).ndim == 2:
            espirit_maps(change(kspace), **options)
        espirit_maps(change(kspace), **options)


class TestCalibrationSize:
    def test_columns(self) -> None:
        mask = np.zeros((64, 48), dtype=bool)
        mask[:, 24 - 7 : 24 + 8] = True
        assert calibration_size(mask) == (24, 15)
        assert calibration_size(mask, 12) == (12, 12)

    def test_block_and_full_and_none(self) -> None:
        mask = torch.zeros(64, 48, dtype=torch.bool)
        assert calibration_size(mask) == (0, 0)
        mask[32 - 5 : 32 + 5, 24 - 8 : 24 + 8] = True
        assert calibration_size(mask) == (10, 16)
        assert calibration_size(torch.ones(64, 20)) == (24, 20)

    def test_disc_gives_the_largest_block(self) -> None:
        y, x = np.mgrid[:64, :64] - 32
        height, width = calibration_size(np.hypot(y, x) <= 10, 24)
        assert abs(height - width) <= 2
        assert height * width >= 13 * 13

    def test_rank(self) -> None:
        with pytest.raises(ShapeError, match="mask"):
            calibration_size(np.ones((2, 3, 4)))


def _read_cfl(path: Path) -> np.ndarray:
    lengths = [int(n) for n in path.with_suffix(".hdr").read_text().splitlines()[1].split()]
    array = np.fromfile(path.with_suffix(".cfl"), np.complex64).reshape(lengths[::-1])
    return np.ascontiguousarray(array.reshape(8, 180, 230).transpose(0, 2, 1))


def test_agrees_with_sigpy_on_a_measured_brain(realdata: Path) -> None:
    app = pytest.importorskip("sigpy.mri.app")
    kspace = _read_cfl(realdata / "mri_kspace" / "brain_8ch_full")
    ours = espirit_maps(kspace)
    theirs = torch.from_numpy(app.EspiritCalib(kspace, show_pbar=False).run())
    support, other = ours.abs().sum(0) > 0, theirs.abs().sum(0) > 0
    assert (support ^ other).float().mean() < 1e-3
    assert _agreement(ours, theirs, support & other).mean() >= 0.99
