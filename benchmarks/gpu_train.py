"""Train a shipped prior further for some minutes of a GPU, see `benchmarks/gpu_train.sh`.

The first steps are timed, the number of steps follows from the minutes, and the learning rate falls to zero over them.
Left in the folder: weights, card, ``log.txt`` of the run, and ``train.json`` with the error on held-out images before
and after, whose tables are on the card as well.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]

from gpu_table import use_wheels  # noqa: E402

use_wheels(ROOT / ".whl")

import numpy as np  # noqa: E402
import torch  # noqa: E402

from recon.images.sources import SourceConfig  # noqa: E402
from recon.priors.network import WEIGHTS_FOLDER, load_network_prior  # noqa: E402
from recon.training.cli import train  # noqa: E402
from recon.training.config import TrainConfig, load_config  # noqa: E402
from recon.training.evaluate import error_curve, error_spectrum  # noqa: E402
from recon.training.export import export_prior  # noqa: E402
from recon.training.run import TrainingRun  # noqa: E402

#: Steps before the clock starts, steps that are timed, and the part of the minutes that training may take.
WARM, TIMED, PART = 5, 15, 0.85


def main(given: list[str] | None = None) -> dict[str, Any]:
    """Train, export, compare; print and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", nargs="?", help="a shipped prior with a file in benchmarks/configs")
    parser.add_argument("data", nargs="?", help="folder that the patterns of its configuration refer to")
    parser.add_argument("--minutes", type=float, default=9.0)
    parser.add_argument("--out", type=Path, default=Path("."))
    parser.add_argument("--tiny", action="store_true")
    arguments = parser.parse_args(given)
    if not arguments.tiny and (arguments.data is None or not torch.cuda.is_available()):
        parser.error("expected NAME and DATA, and a GPU; --tiny tries the script on a CPU")
    began = time.perf_counter()
    arguments.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        config = tiny(Path(folder)) if arguments.tiny else shipped(arguments.name, arguments.data, Path(folder))
        images = held_out(config)
        before = error_curve(load_network_prior(config.initial, config.device), images) if config.initial else None
        config, seconds = timed(config, 60 * arguments.minutes * PART, arguments.tiny, began)
        checkpoint = train(config, lambda line: print(line, flush=True))
        name = "tiny" if arguments.tiny else arguments.name
        weights = arguments.out / f"{name}.safetensors"
        export_prior(config, checkpoint, weights)
        prior = load_network_prior(weights, config.device)
        after = error_curve(prior, images)
        tables = {"error_std": after, "error_spectrum": error_spectrum(prior, images)}
        export_prior(config, checkpoint, weights, tables)
        shutil.copy(Path(config.output) / "log.txt", arguments.out / "log.txt")
    result = {"prior": name, "steps": config.steps, "seconds a step": seconds}
    result |= {"error before": before, "error after": after, "minutes": (time.perf_counter() - began) / 60}
    (arguments.out / "train.json").write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))
    return result


def shipped(name: str, data: str, folder: Path) -> TrainConfig:
    """Return the configuration of a shipped prior that starts from its weights."""
    path = Path(__file__).parent / "configs" / f"{name}.toml"
    changes: dict[str, Any] = {"data": data, "output": str(folder / "run"), "device": "cuda", "previews": 0}
    changes |= {"initial": str(WEIGHTS_FOLDER / f"{name}.safetensors"), "evaluation_minutes": 1e6}
    return load_config(path, changes | {"checkpoint_minutes": 2.0, "threads": os.cpu_count() or 1})


def tiny(folder: Path) -> TrainConfig:
    """Return a configuration of a small network and two small volumes, written to the folder."""
    y, x = np.mgrid[-1:1:40j, -1:1:36j]
    for k in range(2):
        np.save(folder / f"s{k}.npy", np.stack([100.0 * (y**2 + x**2 < r) for r in (0.5, 0.6, 0.7)]))
    return TrainConfig(
        modality="mri",
        data=str(folder),
        output=str(folder / "run"),
        sources=(SourceConfig("s*.npy", spacing=(1.0, 1.5), held_out=("s1",)),),
        network={"channels": [8, 8], "encoder_blocks": [1, 1], "decoder_blocks": [1], "embedding": 8},
        patches=((16, 4, 1.0),),
        precision="float32",
        threads=1,
        previews=0,
    )


def timed(config: TrainConfig, seconds: float, short: bool, began: float) -> tuple[TrainConfig, float]:
    """Time a few steps; return the configuration with as many as there is time for, and the seconds of one."""
    warm, count = (1, 2) if short else (WARM, TIMED)
    with tempfile.TemporaryDirectory() as folder:
        run = TrainingRun(replace(config, output=folder))
        try:
            for _ in range(warm):
                run.advance()
            started = time.perf_counter()
            for _ in range(count):
                run.advance()
            step = (time.perf_counter() - started) / count
        finally:
            run.close()
    left = seconds - (time.perf_counter() - began)
    steps = 4 if short else max(int(left / step), 1)
    return replace(config, steps=steps, warmup=max(min(30, steps // 10), 1), decay=int(0.95 * steps)), step


def held_out(config: TrainConfig) -> list[torch.Tensor]:
    """Return the held-out images of a configuration."""
    with tempfile.TemporaryDirectory() as folder:
        run = TrainingRun(replace(config, output=folder, initial=""))
        run.close()
    return run.held_out


if __name__ == "__main__":
    main()
