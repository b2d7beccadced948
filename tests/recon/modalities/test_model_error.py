"""What a fit leaves unexplained, as noise of each datum."""

import numpy as np
import pytest
import torch

from recon.errors import InputError
from recon.modalities.model_error import from_residual, of_share, quiet_power


def _white(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(shape, dtype=torch.complex64, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def groups() -> torch.Tensor:
    """Three groups of rows, and columns that were not measured."""
    labels = torch.arange(60)[:, None].div(20, rounding_mode="floor").expand(60, 40).clone()
    labels[:, ::4] = -1
    return labels


def test_noise_alone_has_no_error_of_the_model(groups: torch.Tensor) -> None:
    left = 0.1 * _white(4, 60, 40, seed=0)
    found = from_residual(left, _white(4, 60, 40, seed=1), 0.1, groups)
    assert found.share == 0 and found.noise_level == 0.1
    torch.testing.assert_close(found.noise_std, torch.full((60, 40), 0.1))


def test_what_a_group_misses_is_its_noise(groups: torch.Tensor) -> None:
    error = torch.tensor([0.3, 0.0, 0.05]).repeat_interleave(20)[:, None]
    left = 0.1 * _white(4, 60, 40, seed=0) + error * _white(4, 60, 40, seed=1)
    found = from_residual(left, 3 * _white(4, 60, 40, seed=2), 0.1, groups)
    expected = (0.1**2 + error.square()).sqrt()
    measured = groups >= 0
    torch.testing.assert_close(found.noise_std[measured], expected.expand(60, 40)[measured], rtol=0.1, atol=0.0)
    assert found.share == pytest.approx(np.sqrt((0.3**2 + 0.05**2) / 3) / 3, rel=0.1)
    doubled = from_residual(left, 3 * _white(4, 60, 40, seed=2), 0.1, groups, growth=2.0)
    assert float(doubled.noise_std[0, 1]) == pytest.approx(np.sqrt(0.1**2 + 4 * 0.3**2), rel=0.1)
    assert doubled.share == pytest.approx(found.share)


def test_the_quiet_groups_bound_the_noise(groups: torch.Tensor) -> None:
    left = 0.1 * _white(4, 60, 40, seed=0)
    left[:, :20] *= 3
    assert quiet_power(left, groups) == pytest.approx(0.1**2, rel=0.1)
    # A group that holds one datum in forty is no bound.
    few = torch.where(torch.arange(40) == 1, 3, groups)
    left[:, :, 1] *= 0.1
    assert quiet_power(left, few) == pytest.approx(0.1**2, rel=0.1)


def test_a_given_share_follows_the_signal_of_each_group(groups: torch.Tensor) -> None:
    data = _white(4, 60, 40, seed=0) * torch.tensor([1.0, 10.0, 100.0]).repeat_interleave(20)[:, None]
    found = of_share(data, 0.0, groups, 0.02).noise_std
    for row, level in ((0, 0.02), (30, 0.2), (50, 2.0)):
        assert float(found[row, 1]) == pytest.approx(level, rel=0.1)
    with pytest.raises(InputError, match="model_error"):
        of_share(data, 0.0, groups, -1.0)
