"""Train a denoising prior.

``python -m recon.train CONFIG [--data FOLDER] [--output FOLDER] [--steps N]``; run again, it continues.
With several processes: ``torchrun --nproc-per-node 2 -m recon.train CONFIG ...``.

Minimises the EDM loss E |D(x0 + sigma n, sigma) - x0|^2 (sigma^2 + sigma_data^2) / (sigma sigma_data)^2 with log sigma
normal; *in this file sigma is per real channel*, as the two-channel network uses it. The engine's sigma (complex noise
with E|n|^2 = 1) is larger by sqrt(2); the adapter in ``recon.priors.network`` converts.

Source: Karras et al., "Elucidating the Design Space of Diffusion-Based Generative Models", NeurIPS 2022.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch

from recon.files.lock import owned
from recon.terminal import escaped_output
from recon.training.config import TrainConfig, load_config, validate
from recon.training.parallel import StopFlag, is_first_process
from recon.training.run import TrainingRun
from recon.training.state import check_network

__all__ = ["TrainConfig", "load_config", "main", "train"]


def train(config: TrainConfig, say: Callable[[str], None] | None = None) -> Path:
    """Train until ``config.steps``, continuing a checkpoint in ``config.output``; return the checkpoint's path.

    On SIGTERM or SIGINT, the current step is finished, a checkpoint is written, and the function returns. ``say`` is
    called with each line of ``log.txt``.

    Raises
    ------
    ConfigError, InputError
        If a setting or the data cannot be used, or another training run is using the output folder.
    CheckpointError
        If the checkpoint is damaged or belongs to another network, seed or data distribution.
    DivergenceError
        If the loss is not finite.
    ReconError
        If a checkpoint cannot be written; the previous one is kept.
    """
    return _train(config, say)[0]


def _train(config: TrainConfig, say: Callable[[str], None] | None) -> tuple[Path, bool]:
    """Train; return the path of the checkpoint and whether a signal ended training early."""
    validate(config)
    check_network(config)
    threads = torch.get_num_threads()
    with owned(Path(config.output), "training run") if is_first_process() else nullcontext():
        torch.set_num_threads(1)  # the workers are the parallelism
        try:
            return _run(config, say)
        finally:
            torch.set_num_threads(threads)


def _run(config: TrainConfig, say: Callable[[str], None] | None) -> tuple[Path, bool]:
    run = TrainingRun(config, say)
    stop = StopFlag()
    try:
        _loop(run, stop)
    finally:
        stop.restore()
        run.close()
    return run.path, run.state.step < config.steps


def _loop(run: TrainingRun, stop: StopFlag) -> None:
    config = run.config
    run.log(f"start at step {run.state.step} of {config.steps}, {run.parameters:,} parameters, pid {os.getpid()}")
    while not run.ranks.any(stop.raised) and run.state.step < config.steps:
        run.advance()
        run.housekeeping()
    run.report()
    run.checkpoint()
    if run.state.step < config.steps:
        run.log(f"stopped at step {run.state.step} of {config.steps}; run the same command to continue")
    run.evaluate()
    run.draw()
    run.ranks.wait()  # torchrun stops the first process, which writes, when another one fails


def main(config_path: str | Path, **overrides: Any) -> int:
    """Train from a TOML file; keyword arguments override its keys. Called by ``recon train``.

    Progress goes to stderr, the path of the checkpoint to stdout; returns the exit status, 130 after a signal.
    """
    path, stopped = _train(load_config(config_path, overrides), lambda line: print(line, file=sys.stderr, flush=True))
    print(path)
    return 130 if stopped else 0


def run_command(argv: Sequence[str] | None = None) -> int:
    """Train from the command line; return the exit status."""
    parser = argparse.ArgumentParser(description="Train a denoising prior, or continue an earlier run.")
    parser.add_argument("config", type=Path, help="TOML file whose keys are the fields of TrainConfig")
    parser.add_argument("--data", help="folder with the training data")
    parser.add_argument("--output", help="output folder for checkpoint and log")
    parser.add_argument("--steps", type=int, help="total number of optimiser steps")
    arguments = vars(parser.parse_args(argv))
    path = arguments.pop("config")
    with escaped_output():
        return main(path, **{key: value for key, value in arguments.items() if value is not None})


if __name__ == "__main__":
    sys.exit(run_command())
