"""Average the weights of priors that were trained from one another: what one run forgot, another still knows.

``python -m recon.training.average DESTINATION PRIOR=SHARE PRIOR=SHARE ... [--evaluation RESULTS]``, with the priors as
exported .safetensors files. The card is that of the first; RESULTS is the JSON file of
``benchmarks/quality_denoising.py``.

Wortsman et al., "Model soups", ICML 2022: networks that were trained on from the same weights often lie in one basin,
where the average is better than its parts. Measure it; nothing guarantees it.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from recon.errors import CheckpointError, ConfigError
from recon.priors.networks.files import read_card, read_tensors, write_prior
from recon.training.export import with_evaluation


def average_priors(
    shares: Mapping[Path, float], destination: Path, evaluation: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Write the average of the weights of ``shares`` to ``destination`` (.safetensors) and the card; return the card.

    Parameters
    ----------
    shares : mapping from path to float
        Positive; they are normalised to a sum of 1.
    destination : Path
    evaluation : mapping, optional
        Replaces what the card of the first prior says of its quality.

    Raises
    ------
    ConfigError
        If there are fewer than two priors or a share is not positive.
    CheckpointError
        If a file cannot be read, or the priors have different networks.
    """
    if len(shares) < 2 or not all(math.isfinite(share) and share > 0 for share in shares.values()):
        raise ConfigError(f"expected two priors or more with positive shares, came {[*shares.values()]}")
    cards = {path: read_card(path.with_suffix(".json")) for path in shares}
    first = next(iter(shares))
    total = sum(shares.values())
    mean: dict[str, Tensor] = {}
    expected = _tensors(first)
    for path, share in shares.items():
        for key in ("network", "sigma_data"):
            if cards[path][key] != cards[first][key]:
                raise CheckpointError(f"{path}: {key} is another than that of {first}; such weights have no average")
        tensors = read_tensors(path, cards[path]["sha256"], expected)
        mean = {name: mean.get(name, 0) + share / total * value.double() for name, value in tensors.items()}
    card = {key: value for key, value in cards[first].items() if key not in ("sha256", "bytes")}
    card["average"] = [
        {"sha256": cards[path]["sha256"], "share": round(share / total, 4), "training": cards[path].get("training")}
        for path, share in shares.items()
    ]
    return write_prior(destination, mean, with_evaluation(card, evaluation))


def _tensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"cannot read the weights {path}: {error}") from error


def _share(text: str) -> tuple[Path, float]:
    path, equals, share = text.rpartition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"expected PRIOR=SHARE, came {text!r}")
    return Path(path), float(share)


def main(argv: Sequence[str] | None = None) -> None:
    """Average from the command line."""
    parser = argparse.ArgumentParser(description="Average the weights of priors that were trained from one another.")
    parser.add_argument("destination", type=Path, help="a .safetensors file")
    parser.add_argument("priors", nargs="+", type=_share, metavar="PRIOR=SHARE")
    parser.add_argument("--evaluation", type=Path, help="JSON written by benchmarks/quality_denoising.py")
    arguments = parser.parse_args(argv)
    evaluation = json.loads(arguments.evaluation.read_text()) if arguments.evaluation else None
    card = average_priors(dict(arguments.priors), arguments.destination, evaluation)
    print(f"{arguments.destination}: {card['bytes']:,} bytes, average of {len(card['average'])}")


if __name__ == "__main__":
    main()
