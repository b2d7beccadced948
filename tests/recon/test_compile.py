"""`--compile` reaches the network on a GPU; elsewhere it is ignored in one line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import recon
from recon.cli import main
from recon.device import compiling_pays
from recon.engine import reconstruction
from recon.priors.hub import load_prior

FAST = {"samples": 1, "steps": 1, "device": "cpu", "progress": False, "holdout": False, "precision": "float32"}


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[str | None]:
    """The mode of each network that is compiled, which is left as it is."""
    modes: list[str | None] = []
    monkeypatch.setattr(torch, "compile", lambda network, mode: modes.append(mode) or network)
    return modes


def test_it_pays_on_a_gpu_only() -> None:
    assert compiling_pays(torch.device("cuda:1")) and not compiling_pays(torch.device("cpu"))


@pytest.mark.filterwarnings("ignore:the mean reproduces", "ignore:1 steps")
def test_on_a_cpu_it_is_ignored_in_one_line(kspace: np.ndarray, compiled: list) -> None:
    with pytest.warns(UserWarning, match="^compile: ignored, because compiling a network pays on a GPU only$"):
        posterior = recon.reconstruct(kspace, **FAST, compile=True)
    assert not compiled and posterior.provenance["config"]["compile"] is False


@pytest.mark.filterwarnings("ignore::UserWarning")  # noise in one step
def test_where_it_pays_the_network_is_compiled(kspace: np.ndarray, compiled: list, monkeypatch) -> None:
    plain = recon.reconstruct(kspace, **FAST)
    assert not compiled
    monkeypatch.setattr(reconstruction, "compiling_pays", lambda device: True)
    posterior = recon.reconstruct(kspace, **FAST, compile=True)
    assert compiled == [None] and posterior.provenance["config"]["compile"] is True
    np.testing.assert_array_equal(posterior.samples, plain.samples)


def test_any_network_can_be_compiled(make_checkpoint: Callable[..., Path], compiled: list) -> None:
    load_prior("ultrasound", compiled=True)
    load_prior(make_checkpoint("edm"), compiled="cuda-graphs")
    assert compiled == [None, "reduce-overhead"]


def test_the_command_line_says_so_before_it_starts(kspace: np.ndarray, tmp_path: Path, capsys) -> None:
    np.save(tmp_path / "scan.npy", kspace)
    (tmp_path / "a.toml").write_text("compile = true\n")
    words = ["run", str(tmp_path / "scan.npy"), "-o", str(tmp_path / "out"), "--dry-run", "--device", "cpu"]
    for more, said in (((), 0), (("--compile",), 1), (("--config", str(tmp_path / "a.toml")), 1)):
        assert main([*words, *more]) == 0
        assert capsys.readouterr().err.count("compile: ignored") == said
    assert main([*words, "--config", str(tmp_path / "a.toml"), "--no-compile"]) == 0
    assert not capsys.readouterr().err
