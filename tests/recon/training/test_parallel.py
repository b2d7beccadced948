"""Gradient accumulation and several processes: the same step, divided in other ways."""

import os
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from recon.errors import CheckpointError, ConfigError, InputError
from recon.images.augment import Pool, step_generator
from recon.modalities import training_images
from recon.training.batches import Ahead, draw_batch, drawing_threads
from recon.training.cli import TrainConfig, train
from recon.training.parallel import device_of_this_process
from recon.training.state import load_checkpoint

ROOT = Path(__file__).resolve().parents[3]
#: What ``python -m recon.training.cli`` does; then, that no thread of the process group is left to abort the exit.
PROCESS = """
from pathlib import Path
from recon.training.cli import run_command

run_command()
threads = [path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm")]
assert not [name for name in threads if "gloo" in name], threads
"""


@pytest.fixture
def config(small_training):
    return small_training("[[16, 4, 0.5], [24, 2, 0.5]]")


def pools_of(config: TrainConfig) -> list[Pool]:
    kind = training_images(config.modality)
    return [Pool.build(s, kind.load(Path(config.data), s, False)) for s in config.sources]


def test_pieces_of_a_step_differ_and_have_one_size(config):
    kind, pools = training_images("mri"), pools_of(config)
    for step in range(4):
        first, second, again = (draw_batch(config, kind, pools, step, piece) for piece in (0, 1, 1))
        assert first.clean.shape == second.clean.shape and not torch.equal(first.clean, second.clean)
        assert not torch.equal(first.noise, second.noise) and torch.equal(second.clean, again.clean)
    # Checkpoints of earlier versions are continued with the images they would have seen.
    old = np.random.Generator(np.random.Philox(key=np.array([3, 8], dtype=np.uint64)))
    assert np.array_equal(old.random(5), step_generator(3, 8).random(5))


def test_accumulation_is_the_mean_of_its_pieces(config, tmp_path):
    from recon.training.run import TrainingRun

    run = TrainingRun(replace(config, accumulate=3))
    loss = run._gradients()
    whole = [p.grad.clone() for p in run.state.model.parameters()]
    pieces = []
    losses = []
    for k in range(3):
        losses.append(run._piece(k))
        pieces.append([p.grad.clone() for p in run.state.model.parameters()])
    run.close()
    torch.testing.assert_close(loss, torch.stack(losses).mean())
    for mine, *theirs in zip(whole, *pieces, strict=True):
        torch.testing.assert_close(mine, sum(theirs) / 3, rtol=1e-5, atol=1e-7)


@pytest.mark.slow
def test_two_processes_do_what_one_does_with_two_pieces(config, tmp_path):
    one = load_checkpoint(train(replace(config, accumulate=2, output=str(tmp_path / "one"))))
    (tmp_path / "process.py").write_text(PROCESS)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "process.py"]
    command += [str(tmp_path / "run.toml"), "--data", config.data, "--output", str(tmp_path / "two")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=240, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-4000:]
    two = load_checkpoint(tmp_path / "two" / "checkpoint.pt")
    assert two["step"] == 3
    for name, value in one["model"].items():
        torch.testing.assert_close(two["model"][name], value, rtol=1e-3, atol=1e-5)
    assert len((tmp_path / "two" / "held_out.jsonl").read_text().splitlines()) == 1  # the first process alone writes
    start = load_checkpoint(train(replace(config, output=str(tmp_path / "three"))))["model"]
    assert any(not torch.allclose(start[name], value, atol=1e-5) for name, value in one["model"].items())


def test_settings_of_parallel_runs(config, monkeypatch, tmp_path):
    with pytest.raises(ConfigError, match="accumulate"):
        train(replace(config, accumulate=0))
    with pytest.raises(ConfigError, match="device"):
        train(replace(config, device="tpu"))
    train(replace(config, steps=1))
    with pytest.raises(CheckpointError, match="different network"):
        train(replace(config, accumulate=2))
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert device_of_this_process("cuda") == "cuda:1"
    assert device_of_this_process("cpu") == "cpu" and device_of_this_process("cuda:0") == "cuda:0"
    monkeypatch.setenv("WORLD_SIZE", "many")
    with pytest.raises(ConfigError, match="WORLD_SIZE"):
        train(replace(config, output=str(tmp_path / "other")))


def test_batches_are_drawn_ahead_and_are_the_same_whatever_is_asked_for():
    second = threading.Event()

    def draw(step, piece):
        if (step, piece) == (0, 1):
            second.set()
        if step == 9:
            raise ValueError("no such image")
        return 10 * step + piece

    ahead = Ahead(draw, lambda step, piece: (step, 1) if piece == 0 else (step + 1, 0), threads=1)
    assert ahead.take(0, 0) == 0
    assert second.wait(20)  # nobody has asked for it yet
    assert [ahead.take(*key) for key in [(0, 1), (1, 0), (7, 1), (0, 0)]] == [1, 10, 71, 0]
    with pytest.raises(ValueError, match="no such image"):
        ahead.take(9, 0)
    ahead.close()


def test_a_gpu_gets_the_processors_that_are_idle(monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 16)
    assert drawing_threads(torch.device("cpu")) == 1
    assert drawing_threads(torch.device("cuda:0")) == 8
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert drawing_threads(torch.device("cuda:1")) == 3
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "64")
    assert drawing_threads(torch.device("cuda:1")) == 1


@pytest.mark.parametrize("kind", ["vp", "ve"])
def test_networks_that_predict_noise_are_trained_exported_and_used(config, tmp_path, kind):
    from recon.priors.network import load_network_prior
    from recon.training.export import export_prior
    from recon.training.run import TrainingRun

    config = replace(config, parametrization=kind)
    path = train(config)
    card = export_prior(config, path, tmp_path / "mine.safetensors")
    assert card["parametrization"] == kind
    run = TrainingRun(config)
    x = torch.randn(1, 2, 16, 16, generator=torch.Generator().manual_seed(0))
    sigma = torch.tensor([0.5])
    expected = run.state.average(x, sigma)
    run.close()
    found = load_network_prior(tmp_path / "mine.safetensors").model(x, sigma)
    torch.testing.assert_close(found, expected, rtol=1e-2, atol=1e-3)
    with pytest.raises(CheckpointError, match="parametrization"):
        export_prior(replace(config, parametrization="edm"), path, tmp_path / "other.safetensors")
    with pytest.raises(CheckpointError, match="different network"):
        train(replace(config, parametrization="edm"))
    with pytest.raises(InputError, match="ends in"):
        export_prior(config, path, tmp_path / "mine.pt")
