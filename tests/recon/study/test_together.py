"""Slices that go through the network together: the same images as one after the other, and the same ends of a run."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import recon
from recon.cli import main
from recon.engine.meeting import Meeting
from recon.errors import ConfigError, InputError
from recon.posterior import Posterior
from recon.priors import hub
from recon.priors.network import NetworkPrior
from recon.priors.networks.files import write_prior
from recon.priors.networks.unet import EDMDenoiser, UNet
from recon.study.planning import Planned, plan_files
from recon.study.pools import Here, Together
from recon.study.workers import slices_together, with_slices_together, worker_count
from samplers import DDS, DPS, DDSVolume

SMALL = {"channels": [8, 12], "encoder_blocks": [1, 1], "decoder_blocks": [1], "embedding": 16}
FAST = {"samples": 2, "steps": 4, "device": "cpu", "acceleration": 2, "center_fraction": 0.3}


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The file of a small network, which is not trained: it multiplies, so that nothing is rounded by its batch."""
    path = tmp_path_factory.mktemp("prior") / "small.safetensors"
    with torch.random.fork_rng(devices=[]):
        model = EDMDenoiser(UNet(**SMALL), sigma_data=0.3)
    card = {"architecture": "unet-edm", "network": SMALL, "sigma_data": 0.3, "sigma_min": 0.003, "sigma_max": 20.0}
    write_prior(path, model.state_dict(), card)
    return str(path)


@pytest.fixture
def sizes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Images in each call of the network, and a zero for each time that one is loaded."""
    seen: list[int] = []
    denoise, load = NetworkPrior.denoise, hub._load_file

    def counted(self: NetworkPrior, x: torch.Tensor, sigma: Any) -> torch.Tensor:
        seen.append(len(x))
        return denoise(self, x, sigma)

    def loaded(*arguments: Any) -> Any:
        seen.append(0)
        return load(*arguments)

    monkeypatch.setattr(NetworkPrior, "denoise", counted)
    monkeypatch.setattr(hub, "_load_file", loaded)
    return seen


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Let none of the first slices begin before so many of them are prepared."""

    def begin(number: int) -> None:
        sampling, together, entered = Meeting.sampling, threading.Barrier(number), itertools.count()

        @contextmanager
        def gathered(self: Meeting) -> Iterator[None]:
            with sampling(self):
                if next(entered) < number:
                    together.wait(20)
                yield

        monkeypatch.setattr(Meeting, "sampling", gathered)

    return begin


def test_the_images_are_those_of_slices_one_by_one(volume, network, sizes, at_once, tmp_path) -> None:
    at_once(3)
    scans, found, images = [volume("a.npy", bad=[1]), volume("b.npy", slices=2, seed=1)], {}, {}
    for together in (1, 3):
        folder = tmp_path / str(together)
        outcomes = recon.reconstruct_many(
            scans, folder, slices_together=together, prior=network, progress=False, **FAST
        )
        assert [one.slices_without_result for one in outcomes] == [(1,), ()]
        assert "NaN" in outcomes[0].reasons[0]
        found[together] = [Posterior.load(folder / f"{name}.h5") for name in "ab"]
        images[together] = sum(sizes)
        if together == 3:
            assert sizes.count(0) == 1, "one network for all threads"
            assert max(sizes) == 6
        sizes.clear()
    assert images[1] == images[3]
    for one, other in zip(found[1], found[3], strict=True):
        assert one.samples.shape == other.samples.shape
        np.testing.assert_array_equal(other.samples, one.samples)
        np.testing.assert_array_equal(other.diagnostics["residual"], one.diagnostics["residual"])
        assert other.provenance["network_calls"] == one.provenance["network_calls"]
        assert other.provenance["notes"] == one.provenance["notes"]


def test_with_a_trained_network_they_differ_by_rounding(volume, sizes, at_once, tmp_path) -> None:
    at_once(2)
    scan, found = volume(slices=2), []
    for together in (1, 2):
        folder = tmp_path / str(together)
        recon.reconstruct_many([scan], folder, slices_together=together, progress=False, **{**FAST, "steps": 3})
        found.append(Posterior.load(folder / "scan.h5").samples)
    assert max(sizes) == 4
    assert np.linalg.norm(found[1] - found[0]) < 1e-5 * np.linalg.norm(found[0])
    assert np.abs(found[1] - found[0]).max() < 1e-5 * np.abs(found[0]).max()


def test_interrupted_and_gone_on(volume, run, draws, network, sizes, tmp_path, capsys) -> None:
    """Threads that wait for others at the network end, too; slices that are written are not drawn again."""
    scan, words = volume(), ("--prior", network, "--slices-together", "2")
    draws.fail[3] = KeyboardInterrupt()
    assert run(scan, *words) == 130
    assert "of 4 slices are done and kept; the same command goes on" in capsys.readouterr().err
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("slice")]
    kept = {int(path.stem[-5:]) for path in (tmp_path / "out" / ".scan.parts").glob("slice-*.npz")}
    draws.fail.clear(), draws.units.clear()
    assert run(scan, *words) == 0
    assert {unit[0] for unit in draws.units} == set(range(4)) - kept
    assert Posterior.load(tmp_path / "out" / "scan.h5").n_valid == 2


def test_a_defect_of_one_slice_leaves_the_others(volume, network, at_once, monkeypatch, tmp_path) -> None:
    import recon.engine.sampling_run as engine

    at_once(3)
    fit, calls = engine.fit, itertools.count()

    def broken(limit: Any, problem: Any, wanted: int) -> None:
        if next(calls) == 0:
            raise RuntimeError("while others wait")
        fit(limit, problem, wanted)

    monkeypatch.setattr(engine, "fit", broken)
    (found,) = recon.reconstruct_many(
        [volume()], tmp_path / "out", slices_together=3, prior=network, progress=False, **FAST
    )
    assert found.result is None and len(found.slices_without_result) == 1
    assert "while others wait" in found.reasons[0]


def planned(scan: Path, **more: Any) -> list[Planned]:
    arguments = {"samples": 8, "device": "cpu", "acceleration": 2, "prior": "auto", **more}
    return plan_files([scan], scan.parent / "out", lambda modality: arguments)[0]


def on_gpu(scan: Path, **changed: Any) -> list[Any]:
    """Return what would be planned where there is a GPU."""
    (one,) = planned(scan)
    run = replace(one.wanted.run, device=torch.device("cuda"), **changed)
    return [SimpleNamespace(wanted=SimpleNamespace(run=run, units=one.wanted.units))]


def test_how_many_pay(volume) -> None:
    scan = volume(slices=6)
    assert slices_together(None, planned(scan)) == 1, "on a CPU"
    assert slices_together(None, on_gpu(scan)) == 4, "4 x 8 samples"
    assert slices_together(None, on_gpu(scan, samples=2)) == 6, "no more than there are"
    assert slices_together(None, on_gpu(scan, batch_size=4)) == 6, "32 / 4 is more than there are"
    assert slices_together(None, on_gpu(scan, samples=100)) == 1
    assert slices_together(None, on_gpu(scan, sampler=DDS(3))) == 4
    assert slices_together(None, on_gpu(scan, sampler=DPS(3))) == 1, "keeps gradients"
    assert slices_together(None, on_gpu(scan, prior="gaussian")) == 1
    assert slices_together(5, planned(scan)) == 5
    assert slices_together(5, planned(scan, prior="gaussian")) == 1, "no network"
    assert slices_together(5, on_gpu(scan, sampler=DDSVolume(3))) == 1, "coupled anyway"
    assert slices_together(None, on_gpu(scan, precision="tf32")) == 1
    with pytest.raises(ConfigError, match="slices_together: expected 1 with precision tf32"):
        slices_together(2, on_gpu(scan, precision="tf32"))


def test_who_does_the_work(volume) -> None:
    scans = planned(volume())
    assert isinstance(with_slices_together(Here(), scans, None), Here)
    pool = with_slices_together(Here(), scans, 2)
    assert isinstance(pool, Together) and pool.workers == 3, "one prepares"
    pool.close()
    assert worker_count("auto", scans, 2) == 1
    assert worker_count("2", scans, 2) == 2


@pytest.mark.parametrize("value", [0, 1.5, "many"])
def test_the_number_is_checked(value: object, volume, tmp_path) -> None:
    with pytest.raises(InputError, match="slices_together: expected an integer"):
        recon.reconstruct_many([volume()], tmp_path / "out", slices_together=value)  # type: ignore[arg-type]


def test_the_number_in_a_file(volume, sizes, network, at_once, tmp_path) -> None:
    at_once(2)
    file = tmp_path / "settings.toml"
    file.write_text(f'slices_together = 2\nprior = "{network}"\n')
    words = ["-o", str(tmp_path / "out"), "--config", str(file), "--no-report", "--quiet", "--device", "cpu"]
    words += ["--samples", "2", "--steps", "3", "--acceleration", "2", "--center-fraction", "0.3"]
    assert main(["run", str(volume(slices=2)), *words]) == 0
    assert max(sizes) == 4
