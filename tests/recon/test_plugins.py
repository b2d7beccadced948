"""Strategies and priors of other distributions are found by their names."""

import dataclasses
from collections.abc import Callable
from importlib.metadata import EntryPoint
from typing import Any

import pytest
import torch

from recon import plugins
from recon.engine.samplers import resolve_sampler
from recon.errors import InputError
from recon.priors import GaussianPrior, load_prior
from samplers import DDS


@dataclasses.dataclass(frozen=True)
class OtherSampler(DDS):
    """A strategy of somebody else."""

    steps: int = 3


def other_prior() -> GaussianPrior:
    return GaussianPrior(torch.zeros(4, 4), std_map=torch.ones(4, 4))


@pytest.fixture
def offered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pretend that a distribution with two entry points is installed."""
    objects: dict[tuple[str, str], Any] = {
        ("diffrecon.samplers", "other"): OtherSampler,
        ("diffrecon.priors", "other"): other_prior,
    }

    class Entry:
        def __init__(self, group: str, name: str) -> None:
            self.group, self.name = group, name
            self.load: Callable[[], Any] = lambda: objects[group, name]

    def entry_points(group: str, name: str | None = None) -> list[Entry]:
        return [Entry(*key) for key in objects if key[0] == group and name in (None, key[1])]

    assert hasattr(EntryPoint, "load")
    monkeypatch.setattr(plugins, "entry_points", entry_points)


def test_a_foreign_strategy(offered: None) -> None:
    assert resolve_sampler("other") == OtherSampler()
    assert resolve_sampler("other", steps=7).steps == 7
    with pytest.raises(InputError, match=r"dds, .*exact, .*other"):
        resolve_sampler("nobody")


def test_a_foreign_prior(offered: None) -> None:
    assert load_prior("other").space.shape == (4, 4)
    with pytest.raises(InputError, match="gaussian, other"):
        load_prior("nobody")
