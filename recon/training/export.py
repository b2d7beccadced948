"""Turn training checkpoints into priors that can be shipped: float16 weights and a machine-readable card.

``python -m recon.training.export CONFIG CHECKPOINT DESTINATION [--evaluation RESULTS]`` exports a checkpoint. CONFIG is
the TOML file of the run; RESULTS is the JSON file of ``benchmarks/quality_denoising.py`` (written into the card).

``python -m recon.training.export average DESTINATION PRIOR=WEIGHT PRIOR=WEIGHT ... [--evaluation RESULTS]`` averages
exported priors that were trained from one another: what one run forgot, another may still know. The card is that of the
first prior. Networks fine-tuned from the same weights often lie in one basin, where the average is better than its
parts (Wortsman et al., "Model soups", ICML 2022). Nothing guarantees it: measure it.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from recon.errors import CheckpointError, ConfigError, InputError
from recon.modalities import training_images
from recon.priors.network import load_network_prior
from recon.priors.networks.files import ARCHITECTURE, read_card, read_tensors, write_prior
from recon.training.config import TrainConfig, load_config
from recon.training.state import build_model, load_checkpoint, network_settings, table_of


def export_prior(
    config: TrainConfig, checkpoint: Path, destination: Path, evaluation: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Write the averaged weights of ``checkpoint`` to ``destination`` (.safetensors) and the card; return the card.

    Noise levels on the card follow the engine's convention (E|n|^2 = 1): for complex images they are sqrt(2) times
    those of the training, which are per real channel.

    Raises
    ------
    CheckpointError
        If the checkpoint cannot be used, was trained with a network other than that of ``config``, its weights do not
        fit float16, or the exported prior cannot be loaded.
    InputError
        If ``destination`` does not end in .safetensors.
    """
    if destination.suffix != ".safetensors":
        raise InputError(f"{destination}: expected a file name that ends in .safetensors")
    state = load_checkpoint(checkpoint)
    _check_same(config, checkpoint, state)
    kind = training_images(config.modality)
    ratio = math.sqrt(kind.channels)
    spread = 3 * config.sigma_log_std  # noise levels further out were hardly ever drawn
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
    load_network_prior(destination)  # fails here, not at first use, if the prior is unusable
    return complete


def _check_same(config: TrainConfig, checkpoint: Path, state: Mapping[str, Any]) -> None:
    """Raise CheckpointError if the configuration does not match what was trained."""
    trained = {**table_of(state, "identity"), **table_of(state, "config")}  # the oldest checkpoints hold no "config"
    wanted = json.loads(json.dumps(asdict(config)))
    for name in ("modality", "network", "sigma_data", "parametrization", "position_channels", "augmentation_labels"):
        if name in trained and trained[name] != wanted[name]:
            raise CheckpointError(
                f"{checkpoint} was trained with {name} = {trained[name]!r}, but the configuration has {wanted[name]!r}"
            )
    try:
        build_model(config).load_state_dict(state["average"])
    except RuntimeError as error:
        raise CheckpointError(
            f"{checkpoint}: the weights do not fit the network of the configuration: {error}"
        ) from error


def with_evaluation(card: Mapping[str, Any], evaluation: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the card with benchmark results: the error by noise level, which samplers use, and the rest."""
    if not evaluation:
        return dict(card)
    known = {name: evaluation[name] for name in ("error_std", "error_spectrum") if name in evaluation}
    rest = {name: value for name, value in evaluation.items() if name not in known}
    return {**card, **known, "evaluation": rest}


def _images(config: TrainConfig, steps: int) -> int:
    """Return the expected number of patches seen in ``steps`` steps."""
    total = sum(p for _, _, p in config.patches)
    return round(steps * sum(batch * p for _, batch, p in config.patches) / total)


def average_priors(
    weights: Mapping[Path, float], destination: Path, evaluation: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Write the weighted average of priors to ``destination`` (.safetensors) and the card; return the card.

    Parameters
    ----------
    weights : mapping from path to float
        Positive weight of each prior; normalised to a sum of 1.
    destination : Path
    evaluation : mapping, optional
        Replaces the benchmark results on the card of the first prior.

    Raises
    ------
    ConfigError
        If there are fewer than two priors or a weight is not positive.
    CheckpointError
        If a file cannot be read, or the priors have different networks.
    """
    if len(weights) < 2 or not all(math.isfinite(weight) and weight > 0 for weight in weights.values()):
        raise ConfigError(f"expected two or more priors with positive weights, got the weights {[*weights.values()]}")
    cards = {path: read_card(path.with_suffix(".json")) for path in weights}
    first = next(iter(weights))
    total = sum(weights.values())
    mean: dict[str, Tensor] = {}
    expected = _tensors(first)
    for path, weight in weights.items():
        for key in ("network", "sigma_data"):
            if cards[path][key] != cards[first][key]:
                raise CheckpointError(f"{path}: {key} differs from that of {first}, so the two cannot be averaged")
        tensors = read_tensors(path, cards[path]["sha256"], expected)
        mean = {name: mean.get(name, 0) + weight / total * value.double() for name, value in tensors.items()}
    card = {key: value for key, value in cards[first].items() if key not in ("sha256", "bytes")}
    card["average"] = [
        {"sha256": cards[path]["sha256"], "share": round(weight / total, 4), "training": cards[path].get("training")}
        for path, weight in weights.items()
    ]
    return write_prior(destination, mean, with_evaluation(card, evaluation))


def _tensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"cannot read the weights {path}: {error}") from error


def main(argv: Sequence[str] | None = None) -> None:
    """Export or average from the command line."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words[:1] == ["average"]:
        _average_command(words[1:])
    else:
        _export_command(words)


def _export_command(words: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(
        prog="recon.training.export",
        description="Export the averaged weights of a training checkpoint as a prior.",
        epilog="`recon.training.export average --help`: average the weights of exported priors.",
    )
    parser.add_argument("config", type=Path, help="TOML file of the run")
    parser.add_argument("checkpoint", type=Path, help="checkpoint.pt of the run")
    parser.add_argument("destination", type=Path, help="output file (.safetensors)")
    arguments, evaluation = _parse(parser, words)
    card = export_prior(load_config(arguments.config), arguments.checkpoint, arguments.destination, evaluation)
    print(f"{arguments.destination}: {card['bytes']:,} bytes, step {card['training']['steps']}")


def _average_command(words: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(
        prog="recon.training.export average",
        description="Average the weights of priors that were trained from one another.",
    )
    parser.add_argument("destination", type=Path, help="output file (.safetensors)")
    parser.add_argument("priors", nargs="+", type=_weighted, metavar="PRIOR=WEIGHT")
    arguments, evaluation = _parse(parser, words)
    card = average_priors(dict(arguments.priors), arguments.destination, evaluation)
    print(f"{arguments.destination}: {card['bytes']:,} bytes, average of {len(card['average'])}")


def _parse(parser: argparse.ArgumentParser, words: Sequence[str]) -> tuple[argparse.Namespace, dict[str, Any] | None]:
    """Return the arguments and the benchmark results, if a file of them is named."""
    parser.add_argument("--evaluation", type=Path, help="JSON written by benchmarks/quality_denoising.py")
    arguments = parser.parse_args(words)
    return arguments, json.loads(arguments.evaluation.read_text()) if arguments.evaluation else None


def _weighted(text: str) -> tuple[Path, float]:
    path, equals, weight = text.rpartition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"expected PRIOR=WEIGHT, got {text!r}")
    return Path(path), float(weight)


if __name__ == "__main__":
    main()
