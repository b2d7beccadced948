"""Where a training step spends its time: waiting for images, gradients, optimisers.

    python benchmarks/speed_training.py --data VOLUMES [--config CONFIG] [--patch 64] [--batch 32] [--steps 10]
        [--json FILE]

Steps of a run as ``recon train`` does them, into a temporary folder. Images are drawn by a thread beside those that
compute. What the others wait for them should not be above a tenth of the time; nor should what drawing takes of the
processors, since on a CPU it is taken from the rest.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from recon.training.config import load_config
from recon.training.run import TrainingRun

CONFIG = Path(__file__).parent / "configs" / "brain-mri.toml"


class Clock:
    """Adds up how long functions take, in seconds and in seconds of the thread that runs them."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.processor: dict[str, float] = {}

    def watched(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return a function that does the same and is timed under ``name``."""

        def run(*arguments: Any) -> Any:
            started, used = time.perf_counter(), time.thread_time()
            try:
                return function(*arguments)
            finally:
                self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - started
                self.processor[name] = self.processor.get(name, 0.0) + time.thread_time() - used

        return run

    def clear(self) -> None:
        """Forget everything."""
        self.seconds.clear()
        self.processor.clear()


def main() -> None:
    """Train a few steps and print where the time went."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder that the patterns of the config refer to")
    parser.add_argument("--config", type=Path, default=CONFIG)
    parser.add_argument("--patch", type=int, default=64)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # as in training: the workers are the parallelism
    with tempfile.TemporaryDirectory() as folder:
        config = load_config(arguments.config, {"data": arguments.data, "output": folder, "threads": arguments.threads})
        patches = ((arguments.patch, arguments.batch, 1.0),)
        run = TrainingRun(replace(config, patches=patches, initial=""))
    clock = Clock()
    run.modality = replace(run.modality, draw=clock.watched("drawing", run.modality.draw))
    run.batches.take = clock.watched("waiting for images", run.batches.take)  # type: ignore[method-assign]
    run.replicas.gradients = clock.watched("gradients", run.replicas.gradients)  # type: ignore[method-assign]
    run.state.update = clock.watched("optimisers", run.state.update)  # type: ignore[method-assign]
    step = clock.watched("step", run.advance)
    step()  # allocates
    clock.clear()
    started = time.process_time()
    for _ in range(arguments.steps):
        step()
    used = time.process_time() - started
    whole, drawing = clock.seconds.pop("step"), clock.processor["drawing"]
    run.close()
    result = {
        "patch": arguments.patch,
        "batch": arguments.batch,
        "threads": arguments.threads,
        "seconds a step": whole / arguments.steps,
        "share of time": {name: value / whole for name, value in clock.seconds.items() if name != "drawing"},
        "drawing, share of processor time": drawing / used,
        "busy cores": used / whole,
        "load_average": os.getloadavg(),
        "torch": torch.__version__,
    }
    print(json.dumps(result, indent=1))
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
