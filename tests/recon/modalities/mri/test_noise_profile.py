"""Noise that differs by line is found in the air, and nothing else is taken for it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from operators import fftc
from operators.mri.autocalibration import calibration_region
from operators.mri.masks import make_mask
from recon.modalities.mri.noise_profile import AirNoise, air_noise
from recon.modalities.mri.prepare import prepare

SHAPE = (128, 112)
#: Level of the noise by column, and on the whole.
LEVELS = torch.linspace(-1, 1, SHAPE[1]).mul(3).neg().sigmoid() + 0.3
NOISE = 0.1


def _disc(radius: float) -> Tensor:
    y, x = (torch.linspace(-1, 1, n) for n in SHAPE)
    return ((y[:, None] / radius) ** 2 + (x / 0.75) ** 2 < 1) * (1 + 0.3 * torch.cos(9 * x))


def _kspace(radius: float, levels: Tensor, coils: int = 1, noise: float = NOISE) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    weights = torch.linspace(0.5, 1, coils)[:, None, None]
    white = torch.randn(coils, *SHAPE, dtype=torch.complex64, generator=generator)
    return fftc((weights * _disc(radius)).to(torch.complex64)) + noise * levels * white


def _found(kspace: Tensor, sampled: Tensor) -> AirNoise | None:
    return air_noise(kspace * sampled, sampled, calibration_region(sampled, 24))


def _mask(acceleration: float) -> Tensor:
    if acceleration == 1:
        return torch.ones(SHAPE, dtype=torch.bool)
    return torch.from_numpy(make_mask(SHAPE, "random", acceleration)).expand(SHAPE)


@pytest.mark.parametrize("acceleration", [1, 2])
@pytest.mark.parametrize("coils", [1, 4])
@pytest.mark.parametrize("turned", [False, True])
def test_levels_by_line_are_found(acceleration: float, coils: int, turned: bool) -> None:
    kspace, sampled = _kspace(0.6, LEVELS, coils), _mask(acceleration)
    true = LEVELS / LEVELS[sampled[0]].square().mean().sqrt()
    if turned:
        kspace, sampled = kspace.mT, sampled.T
    found = _found(kspace, sampled)
    assert found is not None
    assert found.profile.shape == ((SHAPE[1], 1) if turned else (1, SHAPE[1]))
    ratio = (found.profile.flatten() / true)[sampled.all(dim=1 if turned else 0)]
    assert float(ratio.min()) > 0.75 and float(ratio.max()) < 1.3
    torch.testing.assert_close(found.profile.expand(sampled.shape)[sampled].square().mean(), torch.tensor(1.0))


@pytest.mark.parametrize("acceleration", [1, 2])
def test_white_noise_has_no_profile(acceleration: float) -> None:
    sampled = _mask(acceleration)
    assert _found(_kspace(0.6, torch.ones(()), 2), sampled) is None


@pytest.mark.parametrize("noise", [0.0, 0.01, NOISE])
def test_anatomy_up_to_the_ends_is_not_taken_for_noise(noise: float) -> None:
    sampled = _mask(2)
    assert _found(_kspace(1.4, torch.ones(()), 2, noise), sampled) is None


def test_points_show_no_air() -> None:
    sampled = torch.from_numpy(make_mask(SHAPE, "poisson", 2)).expand(SHAPE)
    assert _found(_kspace(0.6, LEVELS), sampled) is None


def test_each_line_counts_by_its_own_noise() -> None:
    sampled = _mask(2)
    ready = prepare((_kspace(0.6, LEVELS) * sampled).numpy())
    level = torch.as_tensor(ready.problem.noise_std).expand(1, *SHAPE)[0][sampled] * ready.problem.scale
    true = NOISE * LEVELS.expand(SHAPE)[sampled]
    assert float((level / true).min()) > 0.7 and float((level / true).max()) < 1.3
    assert any("differs by line" in note for note in ready.notes)
    assert ready.diagnostics["noise_std"] == pytest.approx(float(true.square().mean()) ** 0.5, rel=0.1)


def test_a_given_level_is_the_mean_of_the_profile() -> None:
    sampled = _mask(2)
    level = NOISE * float(LEVELS[sampled[0]].square().mean()) ** 0.5
    ready = prepare((_kspace(0.6, LEVELS) * sampled).numpy(), noise_std=level)
    found = torch.as_tensor(ready.problem.noise_std).expand(1, *SHAPE)[0][sampled] * ready.problem.scale
    assert float(found.square().mean()) ** 0.5 == pytest.approx(level, rel=1e-3)
    assert np.ptp(found.numpy()) > 0.5 * level


def test_without_a_sampled_centre_aliases_are_not_taken_for_noise() -> None:
    """Every fourth line alone: four copies of the object are as bright everywhere as noise is."""
    sampled = (torch.arange(SHAPE[1]) % 4 == 0).expand(SHAPE)
    kspace = _kspace(0.6, torch.ones(()), 2, 0.0)
    assert _found(kspace, sampled) is None
    assert air_noise(kspace * sampled, sampled, (slice(52, 76), slice(44, 68))) is not None
