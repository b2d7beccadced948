"""What "auto" becomes: bfloat16 where the device has it and is faster in it, and never without a measurement."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

import recon
from recon.engine.reconstruction import plan
from recon.errors import ConfigError
from recon.priors import precision
from recon.priors.hub import list_models, load_prior
from recon.priors.inference import PreparedNetwork
from recon.priors.precision import has_bfloat16, lacks_bfloat16, resolve_precision
from recon.study.job import Outputs, job_of
from recon.study.request import require_same
from recon.uncertainty.fingerprint import fingerprint

CPU = torch.device("cpu")


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., list[str]]]:
    """Give this CPU a capability and a time for each type; returns what is measured, call by call."""

    def give(capable: bool, float32: float = 1.0, bfloat16: float = 0.4) -> list[str]:
        calls: list[str] = []
        times = {"float32": float32, "bfloat16": bfloat16}
        known = {"avx512_bf16": capable, "amx_bf16": False, "cpu_name": "fake"}
        monkeypatch.setattr("torch.cpu.get_capabilities", lambda: known, raising=False)
        monkeypatch.setattr(precision, "_seconds", lambda image, weight, kind: calls.append(kind) or times[kind])
        precision._pays.cache_clear()
        return calls

    yield give
    precision._pays.cache_clear()


def test_without_instructions_nothing_is_measured(measured) -> None:
    calls = measured(capable=False)
    assert resolve_precision("auto", CPU) == "float32" and not calls
    assert lacks_bfloat16(CPU) and not has_bfloat16(CPU)


@pytest.mark.parametrize(("seconds", "chosen"), [(0.4, "bfloat16"), (0.9, "float32"), (8.0, "float32")])
def test_with_instructions_a_measurement_decides_once(measured, seconds: float, chosen: str) -> None:
    calls = measured(capable=True, bfloat16=seconds)
    assert resolve_precision("auto", CPU) == chosen
    n = len(calls)
    assert set(calls) == {"float32", "bfloat16"} and resolve_precision("auto", CPU) == chosen and len(calls) == n
    assert not lacks_bfloat16(CPU)


def test_what_is_asked_for_is_not_measured(measured) -> None:
    calls = measured(capable=True)
    assert [resolve_precision(name, CPU) for name in ("float32", "tf32", "bfloat16")] == ["float32", "tf32", "bfloat16"]
    assert not calls
    with pytest.raises(ConfigError, match="precision: expected one of float32, tf32, bfloat16, got 'half'"):
        resolve_precision("half", CPU)


def test_other_devices_are_float32(measured) -> None:
    measured(capable=True)
    assert resolve_precision("auto", torch.device("mps")) == "float32"
    if not torch.cuda.is_available():  # a GPU of other machines
        assert resolve_precision("auto", torch.device("cuda")) == "float32"


def test_an_older_torch_is_told_by_the_system(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delattr("torch.cpu.get_capabilities", raising=False)
    info = tmp_path / "cpuinfo"
    info.write_text("processor\t: 0\nflags\t\t: fpu avx2 avx512_bf16 amx_bf16\nbugs\t\t: none\n")
    assert {"avx512_bf16", "amx_bf16"} <= precision._cpu_flags(info)
    assert precision._cpu_flags(tmp_path / "absent") is None


def test_the_measurement_runs_on_this_machine() -> None:
    image, weight = torch.ones(1, 4, 8, 8), torch.ones(4, 4, 3, 3)
    assert all(0 < precision._seconds(image, weight, kind) < 5 for kind in ("float32", "bfloat16"))


def test_a_prior_is_loaded_in_what_is_best(measured) -> None:
    measured(capable=True)
    assert load_prior("ultrasound").precision == "bfloat16"
    assert load_prior("ultrasound", precision="float32").precision == "float32"
    measured(capable=False)
    assert load_prior("ultrasound").precision == "float32"


@pytest.mark.filterwarnings("ignore::UserWarning")  # two coils of noise in one step
def test_results_say_which_it_was(measured, kspace: np.ndarray) -> None:
    measured(capable=True)
    wanted = plan(kspace, samples=1, device="cpu")
    assert wanted.run.precision == "bfloat16" and wanted.computing["precision"] == "bfloat16"
    drawn = recon.reconstruct(kspace, samples=1, steps=1, device="cpu", progress=False, holdout=False)
    asked = {"precision": "bfloat16", "samples": 1, "steps": 1, "device": "cpu", "progress": False, "holdout": False}
    same = recon.reconstruct(kspace, **asked)
    assert drawn.provenance["config"]["precision"] == "bfloat16" == fingerprint(drawn)["precision"]
    np.testing.assert_array_equal(drawn.samples, same.samples)


def test_priors_without_a_choice_keep_theirs(measured, kspace: np.ndarray) -> None:
    calls = measured(capable=True)
    loaded = load_prior("ultrasound", precision="float32")
    calls.clear()
    assert plan(kspace, "gaussian", device="cpu").run.precision == "float32"
    assert plan(kspace, loaded, device="cpu").run.precision == "float32"
    assert plan(kspace, load_prior("ultrasound", precision="bfloat16"), device="cpu").run.precision == "bfloat16"
    assert plan(kspace, load_prior("gaussian", shape=(32, 32)), device="cpu").run.precision == "float32" and not calls


def test_another_machine_does_not_go_on_in_another_arithmetic(measured, kspace: np.ndarray, tmp_path: Path) -> None:
    np.save(tmp_path / "scan.npy", kspace)
    options = {"samples": 1, "device": "cpu"}

    def job(**more: str):
        arguments = {**options, **more}
        outputs = Outputs(tmp_path / "scan.h5")
        return job_of(tmp_path / "scan.npy", outputs, arguments, plan(tmp_path / "scan.npy", **arguments))

    measured(capable=True)
    fast = job()
    assert fast.arguments["precision"] == "bfloat16"  # workers do not choose again
    measured(capable=False)
    slow = job()
    with pytest.raises(recon.errors.InputError, match="precision = bfloat16, but now precision = float32"):
        require_same(fast.request, slow.request, tmp_path)
    require_same(fast.request, job(precision="bfloat16").request, tmp_path)
    assert fast.key == job(precision="bfloat16").key != slow.key


@pytest.mark.parametrize("sigma", [2.0, 8.0, torch.tensor([2.0, 8.0])])
def test_a_published_network_is_in_float32_at_high_noise(make_checkpoint, monkeypatch, sigma) -> None:
    used: list[bool] = []
    whole = PreparedNetwork.__call__

    def call(self, x, levels, exact=False):
        used.append(exact)
        return whole(self, x, levels, exact)

    monkeypatch.setattr(PreparedNetwork, "__call__", call)
    path = make_checkpoint("edm")
    full, half = (load_prior(path, precision=kind) for kind in ("float32", "bfloat16"))
    limit = 3.0 * half.split / half.gain  # in the units of the engine
    x = torch.randn(2, 16, 16, dtype=torch.complex64, generator=torch.Generator().manual_seed(0))
    level = sigma * limit / 4
    expected, found = full.denoise(x, level), half.denoise(x, level)
    high = float(torch.as_tensor(sigma).max()) > 4
    assert used == [high, high] and torch.equal(found, expected) == high
    assert math.isfinite(float(found.abs().max()))


def test_the_changes_by_bfloat16_are_within_their_bounds(benchmark_module) -> None:
    bench = benchmark_module("precision")
    stored = json.loads((Path(bench.__file__).parent / "results" / "precision.json").read_text())
    assert {row["prior"] for row in stored["rows"]} == {card["name"] for card in list_models()}
    for row in stored["rows"]:
        assert max(abs(row["denoising dB"]), abs(row["mean dB"])) < 0.05 and abs(row["coverage"]) < 0.01
    prior = load_prior("ultrasound", precision="float32")
    noisy = torch.randn(1, 16, 16, dtype=torch.complex64, generator=torch.Generator().manual_seed(0))
    assert bench.loss(prior, prior, noisy, 0.3) == 0
    assert -0.05 < bench.loss(prior, load_prior("ultrasound", precision="bfloat16"), noisy, 0.3) < 0
