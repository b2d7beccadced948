"""Turn a training checkpoint into a prior that can be shipped: float16 weights and a machine-readable card.

``python -m recon.training.export CONFIG CHECKPOINT DESTINATION [--evaluation RESULTS]`` where CONFIG is the TOML file
of the run and RESULTS the JSON file of ``benchmarks/quality_denoising.py`` (written into the card).
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from recon.errors import CheckpointError, InputError
from recon.modalities import training_images
from recon.priors.network import load_network_prior
from recon.priors.networks.files import ARCHITECTURE, write_prior
from recon.training.config import TrainConfig, load_config
from recon.training.identity import table_of
from recon.training.initial import build_model, network_settings
from recon.training.state import load_checkpoint


def export_prior(
    config: TrainConfig, checkpoint: Path, destination: Path, evaluation: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Write the averaged weights of ``checkpoint`` to ``destination`` (.safetensors) and the card; return the card.

    Noise levels on the card follow the engine's convention (E|n|^2 = 1): for complex images they are sqrt(2) times
    those of the training, which are per real channel.

    Raises
    ------
    CheckpointError
        If the checkpoint cannot be used, was trained with another network than ``config`` has, its weights do not fit
        float16, or the exported prior cannot be loaded.
    InputError
        If ``destination`` has another ending.
    """
    if destination.suffix != ".safetensors":
        raise InputError(f"{destination}: the name of exported weights ends in .safetensors")
    state = load_checkpoint(checkpoint)
    _check_same(config, checkpoint, state)
    kind = training_images(config.modality)
    ratio = math.sqrt(kind.channels)
    spread = 3 * config.sigma_log_std  # noise levels further out were hardly ever seen
    card = {
        "name": destination.stem,
        **config.card,
        "architecture": ARCHITECTURE,
        "network": network_settings(config),
        "sigma_data": config.sigma_data,
        **({} if config.parametrization == "edm" else {"parametrization": config.parametrization}),
        "sigma_min": round(ratio * max(config.sigma_min, math.exp(config.sigma_log_mean - spread)), 4),
        "sigma_max": round(ratio * min(config.sigma_max, math.exp(config.sigma_log_mean + spread)), 4),
        "noise": "complex noise with E|n|^2 = 1" if kind.channels == 2 else "real noise with E n^2 = 1",
        "scale": kind.scale,
        "training": {
            "steps": int(state["step"]),
            "images": _images(config, int(state["step"])),
            "sources": [
                {"pattern": s.pattern, "share": s.weight, "held_out": list(s.held_out)} for s in config.sources
            ],
        },
    }
    card = with_evaluation(card, evaluation)
    # The frequencies of the noise embedding follow from the architecture.
    tensors = {name: value for name, value in state["average"].items() if not name.endswith("embedding.frequencies")}
    complete = write_prior(destination, tensors, card)
    load_network_prior(destination)  # what cannot be used is told now
    return complete


def _check_same(config: TrainConfig, checkpoint: Path, state: Mapping[str, Any]) -> None:
    """Raise CheckpointError if what the card will say is not what was trained."""
    trained = {
        **table_of(state, "identity"),
        **table_of(state, "config"),
    }  # the first checkpoints hold no configuration
    wanted = json.loads(json.dumps(asdict(config)))
    for name in ("modality", "network", "sigma_data", "parametrization", "position_channels", "augmentation_labels"):
        if name in trained and trained[name] != wanted[name]:
            raise CheckpointError(
                f"{checkpoint} was trained with {name} = {trained[name]!r}, the configuration says {wanted[name]!r}"
            )
    try:
        build_model(config).load_state_dict(state["average"])
    except RuntimeError as error:
        raise CheckpointError(
            f"{checkpoint}: the weights do not fit the network of the configuration: {error}"
        ) from error


def with_evaluation(card: Mapping[str, Any], evaluation: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the card with what a benchmark found: the error by noise level, which samplers use, and the rest."""
    if not evaluation:
        return dict(card)
    known = {name: evaluation[name] for name in ("error_std", "error_spectrum") if name in evaluation}
    rest = {name: value for name, value in evaluation.items() if name not in known}
    return {**card, **known, "evaluation": rest}


def _images(config: TrainConfig, steps: int) -> int:
    """Return the expected number of patches seen in ``steps`` steps."""
    total = sum(p for _, _, p in config.patches)
    return round(steps * sum(batch * p for _, batch, p in config.patches) / total)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the export from the command line."""
    parser = argparse.ArgumentParser(description="Export the averaged weights of a training checkpoint as a prior.")
    parser.add_argument("config", type=Path)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("destination", type=Path, help="a .safetensors file")
    parser.add_argument("--evaluation", type=Path, help="JSON written by benchmarks/quality_denoising.py")
    arguments = parser.parse_args(argv)
    evaluation = json.loads(arguments.evaluation.read_text()) if arguments.evaluation else None
    card = export_prior(load_config(arguments.config), arguments.checkpoint, arguments.destination, evaluation)
    print(f"{arguments.destination}: {card['bytes']:,} bytes, step {card['training']['steps']}")


if __name__ == "__main__":
    main()
