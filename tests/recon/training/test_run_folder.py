"""The folder of a run: what is said, kept, locked and exported when a run is stopped, goes on or goes wrong."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from recon.errors import CheckpointError, ConfigError, StorageError
from recon.training.cli import train
from recon.training.state import load_checkpoint, save_checkpoint

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def config(small_training):
    return small_training()


def test_progress_is_said_and_a_stopped_run_says_so(config, tmp_path, capsys, monkeypatch):
    from recon.cli import main
    from recon.training.parallel import StopFlag

    command = [
        "train",
        "--config",
        str(tmp_path / "run.toml"),
        "--data",
        config.data,
        "--output",
        str(tmp_path / "said"),
    ]
    with monkeypatch.context() as patched:
        patched.setattr(StopFlag, "raised", property(lambda self: True, lambda self, value: None), raising=False)
        assert main(command) == 130
    said = capsys.readouterr()
    assert "stopped at step 0 of 3; run the same command to continue" in said.err
    assert main(command) == 0
    said = capsys.readouterr()
    assert "start at step 0 of 3" in said.err and said.out.strip().endswith("checkpoint.pt")
    rows = (tmp_path / "said" / "loss.jsonl").read_text().splitlines()
    assert [json.loads(row)["step"] for row in rows] == [3]


def test_curves_survive_a_line_that_was_cut_and_do_not_run_backwards(tmp_path):
    from recon.training import pictures

    path = tmp_path / "loss.jsonl"
    pictures.append(path, {"step": 50, "loss": 1.0})
    with open(path, "a") as file:
        file.write('{"step": 100, "lo')
    pictures.append(path, {"step": 150, "loss": 0.5})
    assert [row["step"] for row in pictures.rows_of(path)] == [50, 150]
    pictures.keep_until(path, 100)
    assert [row["step"] for row in pictures.rows_of(path)] == [50]
    held = tmp_path / "held_out.jsonl"
    pictures.append(held, {"step": 50, "psnr": {"0.1": 20.0}})
    pictures.append(held, {"step": 60, "psnr": {"0.1": 21.0, "1.0": 9.0}})
    pictures.append(held, {"step": 70, "psnr": {"1.0": 9.0}})
    held.write_bytes(held.read_bytes() + b'{"psnr": {}}\n\xff\xfe\n')
    assert [row["step"] for row in pictures.rows_of(held, "psnr")] == [50, 60, 70]
    if pictures.has_matplotlib():
        pictures.draw_curves(path, held, tmp_path / "curves.png")
        assert (tmp_path / "curves.png").stat().st_size > 1000


def test_export_compares_with_what_was_trained(config, tmp_path):
    from recon.training.export import export_prior

    path, target = train(config), tmp_path / "mine.safetensors"
    changes = {"network": {**config.network, "embedding": 16}, "sigma_data": 0.5, "modality": "ultrasound"}
    for name, value in changes.items():
        with pytest.raises(CheckpointError, match=f"was trained with {name} = "):
            export_prior(replace(config, **{name: value}), path, target)
    state = load_checkpoint(path)
    torch.save({**state, "config": None}, path)  # as the first checkpoints
    with pytest.raises(CheckpointError, match=r"was trained with sigma_data = 0\.25, but the configuration has 0.5"):
        export_prior(replace(config, sigma_data=0.5), path, target)
    del state["average"]["network.head.bias"]
    torch.save(state, path)
    with pytest.raises(CheckpointError, match=r"(?s)do not fit .*network\.head\.bias"):
        export_prior(config, path, target)
    assert not target.exists()


def test_rows_beyond_the_checkpoint_are_dropped_when_a_run_goes_on(config):
    folder = train(config).parent
    for name in ("loss.jsonl", "held_out.jsonl"):
        with open(folder / name, "a") as file:
            file.write('{"step": 999, "loss": 1.0, "psnr": {}}\n{"loss"')
    train(replace(config, steps=5))
    for name in ("loss.jsonl", "held_out.jsonl"):
        rows = [json.loads(line) for line in (folder / name).read_text().splitlines()]
        assert [row["step"] for row in rows] == [3, 5]


@pytest.mark.slow
def test_two_runs_do_not_share_a_folder(config, tmp_path):
    script = "import sys; from pathlib import Path; from recon.files.lock import owned\n"
    script += "with owned(Path(sys.argv[1]), 'training run'): print('held', flush=True); sys.stdin.read()"
    other = subprocess.Popen(
        [sys.executable, "-c", script, config.output],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    try:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(ConfigError, match=rf"in use by another training run \(process {other.pid} on "):
            train(config)
    finally:
        other.kill()
        other.communicate()
    assert load_checkpoint(train(config))["step"] == 3  # the lock ended with its process


def test_a_full_disk_leaves_the_checkpoint_before(config, tmp_path):
    resource = pytest.importorskip("resource")
    path = tmp_path / "checkpoint.pt"
    save_checkpoint(path, {"step": 1})
    present = set(tmp_path.iterdir())
    content, limits = path.read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(StorageError, match=r"checkpoint.pt: cannot be written .* what was there is unchanged"):
            save_checkpoint(path, {"step": 2, "weights": torch.zeros(1_000_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == content
    assert set(tmp_path.iterdir()) == present
