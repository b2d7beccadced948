"""Samplers, priors and readers of other distributions are found."""

import dataclasses
import sys
from collections.abc import Callable
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import recon
from recon import plugins
from recon.cli import main
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


def test_a_foreign_reader_joins_those_of_its_modality(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A text file of k-space, read by a module that another distribution installs."""
    (tmp_path / "text_kspace.py").write_text(
        """
import numpy as np
from recon.io import KspaceScan

def sniff(path):
    return path.suffix == ".kspace"

def read(path):
    values = np.loadtxt(path, dtype=complex)[None]
    return KspaceScan(path, "text", 1, lambda i: values, dataset="text", slice_shape=values.shape)
"""
    )
    info = tmp_path / "text_kspace-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: text-kspace\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[diffrecon.readers.mri]\ntext = text_kspace\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    kspace = np.arange(16 * 12).reshape(16, 12) * (1 + 2j) + 1
    np.savetxt(tmp_path / "a.kspace", kspace)
    assert recon.open(tmp_path / "a.kspace").format == "text"
    np.testing.assert_array_equal(recon.open(tmp_path / "a.kspace")[0][0], kspace.astype(np.complex64))
    assert main(["info", str(tmp_path / "a.kspace")]) == 0
    sys.modules.pop("text_kspace")
