"""Noise level, prewhitening and coil compression."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from operators import (
    InputError,
    ShapeError,
    compress_coils,
    estimate_noise_covariance,
    estimate_noise_std,
    fftc,
    ifftc,
    make_mask,
    noise_covariance,
    prewhiten,
)


def _random(*shape: int, seed: int = 0, dtype: torch.dtype = torch.complex128) -> Tensor:
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def _covariance(coils: int) -> Tensor:
    root = torch.eye(coils) + 0.3 * _random(coils, coils, seed=9)
    return root @ root.mH


def _signal(coils: int, ny: int, nx: int) -> Tensor:
    """k-space of a coil-weighted object with edges, whose spectrum falls as that of anatomy does."""
    y, x = torch.linspace(-1, 1, ny, dtype=torch.float64)[:, None], torch.linspace(-1, 1, nx, dtype=torch.float64)
    image = (y**2 / 0.8**2 + x**2 / 0.6**2 < 1) * 1.0 - 0.5 * ((y - 0.2) ** 2 + x**2 < 0.1) + 0.3 * (abs(y + x) < 0.1)
    angles = 2 * np.pi * torch.arange(coils, dtype=torch.float64)[:, None, None] / coils
    maps = torch.exp(-((y - angles.sin()) ** 2 + (x - angles.cos()) ** 2)) * torch.exp(1j * angles)
    return fftc(maps * image)


def test_noise_covariance_is_the_sample_covariance() -> None:
    covariance = _covariance(4)
    samples = torch.linalg.cholesky(covariance) @ _random(4, 40000, seed=1)
    torch.testing.assert_close(noise_covariance(samples.reshape(4, 200, 200)), covariance, rtol=0.05, atol=0.05)
    unit = torch.eye(3, dtype=torch.complex128) * 3**0.5
    torch.testing.assert_close(noise_covariance(unit), torch.eye(3, dtype=torch.complex128))


def test_prewhitened_noise_is_white() -> None:
    covariance = _covariance(4)
    noise = (torch.linalg.cholesky(covariance) @ _random(4, 30 * 40, seed=1)).reshape(4, 30, 40)
    exact = noise_covariance(noise)
    white = prewhiten(noise.to(torch.complex64), exact)
    assert white.dtype is torch.complex64
    torch.testing.assert_close(noise_covariance(white), torch.eye(4) + 0j, rtol=1e-4, atol=1e-4)
    batch = torch.stack([noise, 2 * noise])
    torch.testing.assert_close(prewhiten(batch, exact)[1], 2 * prewhiten(noise, exact))


def test_prewhitening_refuses_bad_covariances() -> None:
    kspace = _random(3, 6, 8)
    with pytest.raises(InputError, match="positive definite"):
        prewhiten(kspace, torch.zeros(3, 3) + 0j)
    with pytest.raises(InputError, match="positive definite"):
        prewhiten(kspace, torch.full((3, 3), float("nan")) + 0j)
    with pytest.raises(ShapeError, match=r"\(3, 3\)"):
        prewhiten(kspace, torch.eye(4))
    with pytest.raises(ShapeError, match="complex"):
        prewhiten(kspace.real, torch.eye(3))
    with pytest.raises(InputError, match="samples"):
        noise_covariance(_random(4, 3))


@pytest.mark.parametrize(
    ("pattern", "acceleration"), [("random", 1), ("random", 4), ("equispaced", 8), ("gaussian1d", 4), ("poisson", 8)]
)
@pytest.mark.parametrize("shape", [(160, 128), (320, 128)], ids=["plain", "oversampled"])
def test_noise_std_within_ten_percent(shape: tuple[int, int], pattern: str, acceleration: int) -> None:
    signal = _signal(4, 160, 128)
    if shape[0] == 320:  # the field of view is twice as long along the readout, with the same k-space extent
        image = torch.zeros(4, 320, 128, dtype=torch.complex128)
        image[:, 80:240] = ifftc(signal)
        signal = fftc(image)
    std = torch.tensor([0.03, 0.05, 0.04, 0.08], dtype=torch.float64)
    noisy = signal + std[:, None, None] * _random(4, *shape, seed=1)
    mask = torch.from_numpy(make_mask(shape, pattern, acceleration, 0.08))
    estimate = estimate_noise_std((noisy * mask).to(torch.complex64))
    assert estimate.dtype is torch.float32
    # Anatomy's tail is as strong as the noise here, so single coils are less certain than their mean.
    assert float((estimate / std).square().mean().sqrt()) == pytest.approx(1, abs=0.1)
    assert ((estimate / std) - 1).abs().max() < 0.2
    torch.testing.assert_close(estimate_noise_std((noisy * mask).to(torch.complex64), mask), estimate)


def test_air_of_an_oversampled_readout_shows_the_noise_of_every_coil() -> None:
    image = torch.zeros(4, 320, 128, dtype=torch.complex128)
    image[:, 80:240] = ifftc(_signal(4, 160, 128))
    std = torch.tensor([0.003, 0.005, 0.004, 0.008], dtype=torch.float64)  # far below the anatomy's tail
    mask = torch.from_numpy(make_mask((320, 128), "random", 4))
    kspace = (fftc(image) + std[:, None, None] * _random(4, 320, 128, seed=1)) * mask
    assert (estimate_noise_std(kspace) / std - 1).abs().max() < 0.1
    turned = estimate_noise_std(kspace.mT)
    torch.testing.assert_close(turned, estimate_noise_std(kspace), rtol=0.02, atol=0)


def test_erased_air_is_not_taken_for_silence() -> None:
    image = torch.zeros(4, 320, 128, dtype=torch.complex128)
    image[:, 80:240] = ifftc(_signal(4, 160, 128) + 0.05 * _random(4, 160, 128))
    kspace = fftc(image) * torch.from_numpy(make_mask((320, 128), "random", 4))
    assert estimate_noise_std(kspace).min() > 0.02


def test_pure_noise_and_single_coil() -> None:
    assert float(estimate_noise_std(0.7 * _random(1, 64, 64))) == pytest.approx(0.7, rel=0.05)


@pytest.mark.parametrize("scale", [1e-12, 1e12])
def test_noise_std_scales_with_the_data(scale: float) -> None:
    kspace = (_signal(3, 64, 64) + 0.05 * _random(3, 64, 64)).to(torch.complex64)
    torch.testing.assert_close(
        estimate_noise_std(kspace * scale) / scale, estimate_noise_std(kspace), rtol=1e-4, atol=0
    )


def test_outliers_do_not_matter() -> None:
    kspace = _signal(2, 96, 96) + 0.05 * _random(2, 96, 96)
    spoiled = kspace.clone()
    spoiled[:, ::20, ::20] = 100
    torch.testing.assert_close(estimate_noise_std(spoiled), estimate_noise_std(kspace), rtol=0.05, atol=0)


def test_noise_covariance_from_the_scan_itself() -> None:
    covariance = 0.05**2 * _covariance(4)
    noise = (torch.linalg.cholesky(covariance) @ _random(4, 160 * 128, seed=1)).reshape(4, 160, 128)
    mask = torch.from_numpy(make_mask((160, 128), "random", 4))
    kspace = (_signal(4, 160, 128) + noise) * mask
    estimate = estimate_noise_covariance(kspace)
    assert torch.linalg.matrix_norm(estimate - covariance) < 0.2 * torch.linalg.matrix_norm(covariance)
    torch.testing.assert_close(estimate, estimate.mH)
    torch.testing.assert_close(estimate.diagonal().real.sqrt(), estimate_noise_std(kspace))
    assert bool(torch.isfinite(prewhiten(kspace, estimate).abs()).all())


def test_noise_estimates_refuse_bad_input() -> None:
    kspace = _random(2, 16, 16)
    with pytest.raises(InputError, match="sampled points"):
        estimate_noise_std(torch.zeros_like(kspace))
    with pytest.raises(InputError, match="sampled points"):
        estimate_noise_std(kspace, torch.zeros(16, 16))
    with pytest.raises(InputError, match="finite"):
        estimate_noise_std(kspace * float("nan"))
    with pytest.raises(ShapeError, match="coil, y, x"):
        estimate_noise_std(kspace[None])


@pytest.mark.parametrize("method", ["svd", "geometric"])
def test_compression_keeps_the_image(method: str) -> None:
    kspace = torch.stack([_signal(8, 32, 24), 0.5 * _signal(8, 32, 24).flip(-1)])
    for coils, error in ((8, 1e-10), (5, 0.05)):
        virtual = compress_coils(kspace, coils, method)
        assert virtual.shape == (2, coils, 32, 24)
        energy = ifftc(virtual).abs().square().sum(1).sqrt()
        full = ifftc(kspace).abs().square().sum(1).sqrt()
        assert torch.linalg.vector_norm(energy - full) <= error * torch.linalg.vector_norm(full)


def test_svd_compression_is_optimal() -> None:
    kspace = _random(6, 8, 8)
    singular = torch.linalg.svdvals(kspace.flatten(1))
    kept = compress_coils(kspace, 2).abs().square().sum()
    torch.testing.assert_close(kept, (singular[:2] ** 2).sum())


@pytest.mark.parametrize("readout_axis", [-2, -1])
def test_geometric_compression_beats_svd_and_keeps_unsampled_columns_empty(readout_axis: int) -> None:
    kspace = _signal(8, 32, 24)
    mask = torch.from_numpy(make_mask((32, 24), "random", 2))
    mask = mask if readout_axis == -2 else torch.from_numpy(make_mask((24, 32), "random", 2).T)
    virtual = compress_coils(kspace * mask, 3, "geometric", readout_axis)
    assert virtual[:, ~mask.expand(32, 24)].abs().max() < 1e-12
    plain = compress_coils(kspace * mask, 3)
    assert virtual.abs().square().sum() > plain.abs().square().sum()


def test_geometric_compression_is_aligned() -> None:
    # Aligned virtual coils are smooth along the readout: their k-space stays concentrated.
    kspace = _signal(8, 32, 24)
    virtual = ifftc(compress_coils(kspace, 3, "geometric"))
    change = (virtual[:, 1:] - virtual[:, :-1]).abs().square().sum() / virtual.abs().square().sum()
    original = ifftc(kspace)
    reference = (original[:, 1:] - original[:, :-1]).abs().square().sum() / original.abs().square().sum()
    assert change < 1.5 * reference


def test_white_noise_stays_white() -> None:
    noise = _random(6, 100, 100)
    for method in ("svd", "geometric"):
        covariance = noise_covariance(compress_coils(noise, 6, method))
        torch.testing.assert_close(covariance.trace().real, noise_covariance(noise).trace().real)


def test_compression_refuses_bad_requests() -> None:
    kspace = _random(4, 8, 8)
    with pytest.raises(InputError, match="n_coils"):
        compress_coils(kspace, 5)
    with pytest.raises(InputError, match="n_coils"):
        compress_coils(kspace, 0)
    with pytest.raises(InputError, match="svd"):
        compress_coils(kspace, 2, "magic")
    with pytest.raises(InputError, match="-2 or -1"):
        compress_coils(kspace, 2, "geometric", 0)
    with pytest.raises(InputError, match="finite"):
        compress_coils(kspace * float("inf"), 2)


@pytest.mark.parametrize(("pattern", "acceleration"), [("random", 4), ("random", 8), ("poisson", 8)])
def test_noise_added_to_a_measured_brain(realdata: Path, pattern: str, acceleration: int) -> None:
    array = np.fromfile(realdata / "mri_kspace" / "brain_8ch_full.cfl", np.complex64).reshape(8, 180, 230)
    kspace = torch.from_numpy(np.ascontiguousarray(array.transpose(0, 2, 1)))
    image = ifftc(kspace).abs().square().sum(0).sqrt()
    std = 0.02 * float(image.quantile(0.99))
    noisy = kspace + std * _random(*kspace.shape, dtype=torch.complex64)
    mask = torch.from_numpy(make_mask((230, 180), pattern, acceleration, 0.08))
    estimate = estimate_noise_std(noisy * mask)
    assert float(estimate.square().mean().sqrt()) == pytest.approx(std, rel=0.1)
    assert (estimate / std - 1).abs().max() < 0.3
