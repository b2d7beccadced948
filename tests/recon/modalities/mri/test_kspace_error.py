"""The model error of k-space grows with the aliases that the pattern makes."""

from __future__ import annotations

import pytest
import torch

from operators.mri.masks import make_mask
from recon.modalities.mri.kspace_error import Unexplained, kspace_error
from recon.modalities.mri.measured import Measured
from recon.modalities.mri.noise import CoilNoise

SHAPE, NOISE, COILS = (96, 96), 0.1, 4


def _growth(pattern: str, acceleration: float) -> float:
    """Return how much larger a residual of twice the noise counts than for complete data."""
    full = torch.ones(SHAPE, dtype=torch.bool)
    mask = full if acceleration == 1 else torch.from_numpy(make_mask(SHAPE, pattern, acceleration)).expand(SHAPE)
    levels = []
    for sampled in (mask, full):
        generator = torch.Generator().manual_seed(0)
        left = 2 * NOISE * torch.randn(COILS, *SHAPE, dtype=torch.complex64, generator=generator) * sampled
        noise = CoilNoise(NOISE**2 * torch.eye(COILS, dtype=torch.complex64), "given")
        measured = Measured(10 * left, sampled, None, noise, 1.0, None, None)
        error = kspace_error(measured, 10 * left, NOISE, Unexplained(left, *torch.ones(2, *SHAPE)))
        assert error is not None
        levels.append(float((error.noise_std[sampled].square().mean() - NOISE**2).sqrt()))
    return levels[0] / levels[1]


@pytest.mark.parametrize(
    "pattern, acceleration, low, high",
    [
        ("equispaced", 1, 0.99, 1.01),
        ("equispaced", 2, 2.0, 3.0),
        ("equispaced", 4, 3.8, 4.6),
        ("random", 4, 3.3, 4.6),
        ("poisson", 4, 2.0, 3.0),
        ("poisson", 8, 3.0, 4.6),
    ],
)
def test_errors_of_regular_lines_add_up_more(pattern: str, acceleration: float, low: float, high: float) -> None:
    assert low < _growth(pattern, acceleration) < high


def test_a_residual_is_scaled_by_what_the_fit_leaves_of_noise() -> None:
    """The fit leaves .6 of the inner rings and a tenth of the outer ones, where errors of the image may be more."""
    rings = torch.arange(SHAPE[0])[:, None].div(48, rounding_mode="floor").expand(SHAPE).clone()
    rings[:, ::4] = -1
    generator = torch.Generator().manual_seed(0)
    first, second = torch.randn(2, COILS, *SHAPE, dtype=torch.complex64, generator=generator) * (rings >= 0)
    kept = torch.tensor([0.6, 0.1]).repeat_interleave(48)[:, None]
    left = kept.sqrt() * second
    found = Unexplained.of(kept.sqrt() * first, second, left, 0.5 * left, rings)
    torch.testing.assert_close(found.most, 2 * first, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(found.least[:, :48], first[:, :48], rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(found.least[:, 48:], 0.1**0.5 * first[:, 48:], rtol=1e-4, atol=1e-6)
