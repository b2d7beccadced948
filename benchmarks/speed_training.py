"""Where a training step spends its time: drawing images, gradients, optimisers.

    python benchmarks/speed_training.py --data VOLUMES [--config CONFIG] [--patch 64] [--batch 32] [--steps 10]
        [--json FILE]

Steps of a run as ``recon train`` does them, into a temporary folder. For each part its share of the time, and of the
processor time; drawing is done by one thread while the others wait, so its share on an idle machine follows from the
processor times: drawing / (drawing + the rest / threads). That should not be above a tenth.
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
    """Adds up how long functions take, in seconds and in seconds of all processors."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.processor: dict[str, float] = {}

    def watched(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return a function that does the same and is timed under ``name``."""

        def run(*arguments: Any) -> Any:
            started, used = time.perf_counter(), time.process_time()
            try:
                return function(*arguments)
            finally:
                self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - started
                self.processor[name] = self.processor.get(name, 0.0) + time.process_time() - used

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
    run.replicas.gradients = clock.watched("gradients", run.replicas.gradients)  # type: ignore[method-assign]
    run.state.update = clock.watched("optimisers", run.state.update)  # type: ignore[method-assign]
    step = clock.watched("step", run.advance)
    step()  # allocates
    clock.clear()
    for _ in range(arguments.steps):
        step()
    run.workers.close()
    drawing, whole = clock.processor["drawing"], clock.processor["step"]
    result = {
        "patch": arguments.patch,
        "batch": arguments.batch,
        "threads": arguments.threads,
        "seconds a step": clock.seconds["step"] / arguments.steps,
        "share of time": {name: value / clock.seconds["step"] for name, value in clock.seconds.items()},
        "share of processor time": {name: value / whole for name, value in clock.processor.items()},
        "drawing on an idle machine": drawing / (drawing + (whole - drawing) / arguments.threads),
        "load_average": os.getloadavg(),
        "torch": torch.__version__,
    }
    print(json.dumps(result, indent=1))
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
