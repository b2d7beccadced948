"""Checkpoints in EDM's layout: InverseBench (DhariwalUNet), and SongUNet trained with the EDM loss.

A dict with ``ema`` and ``net`` (or one state dict); names have the prefix ``model.`` of the preconditioning. The file
does not contain the preconditioning: that of EDM is assumed, with ``sigma_data`` 0.5.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from recon.errors import CheckpointError
from recon.priors.checkpoints.archive import Content
from recon.priors.checkpoints.tensors import Checkpoint, choose, count, states

TITLE = "EDM (InverseBench)"
PREFIXES = ("model.",)


def matches(content: Content) -> bool:
    """Recognise the layout by the mapping layers and an encoder."""
    return any(
        state is not None and "map_layer0.weight" in state and any(name.startswith("enc.") for name in state)
        for state in states(content.data, PREFIXES)
    )


def read(content: Content) -> Checkpoint:
    """Read a checkpoint of this layout."""
    tensors, weights = choose(content.path, *states(content.data, PREFIXES), content.data)
    # Augmentation labels are zero when sampling, so this matrix has no effect.
    tensors = {name: value for name, value in tensors.items() if name != "map_augment.weight"}
    if any(name.startswith("map_label.") for name in tensors):
        raise CheckpointError(f"{content.path}: class-conditional ('map_label.weight'), which is not supported")
    try:
        architecture, network = _network(tensors)
    except (LookupError, ValueError, TypeError, ArithmeticError) as error:
        raise CheckpointError(f"{content.path}: its blocks do not form an EDM network ({error})") from error
    channels = network["channels"]
    return Checkpoint(
        layout="edm",
        architecture=architecture,
        network=network,
        parametrization={"kind": "edm", "sigma_data": 0.5, "sigma_min": 0.002, "sigma_max": 80.0},
        channels=channels,
        tensors=tensors,
        weights=weights,
        card={
            "scale": "0.99 quantile of the magnitude = 1"
            if channels == 2
            else "as in training: not stored in the file",
            "images": "complex" if channels == 2 else "real",
        },
    )


def settings(original: Mapping[str, Any], network: Mapping[str, Any]) -> dict[str, Any]:
    """Translate the authors' configuration; all but sigma_data is already known from names and shapes."""
    model = dict(original.get("model", original))
    names = ("sigma_data", "sigma_min", "sigma_max")
    return {"parametrization": {name: model[name] for name in names if model.get(name)}}


def _network(tensors: dict[str, Tensor]) -> tuple[str, dict[str, Any]]:
    """Infer architecture and arguments from names and shapes."""
    sizes = sorted({int(name.split(".")[1].split("x")[0]) for name in tensors if name.startswith("enc.")}, reverse=True)
    levels = [f"{size}x{size}" for size in sizes]
    if any(size != sizes[0] >> level for level, size in enumerate(sizes)):
        raise ValueError(f"levels {levels} do not halve")
    features = len(tensors["map_layer0.weight"]) // 4
    widths = [len(tensors[f"enc.{level}_block0.conv0.weight"]) for level in levels]
    if any(width % features for width in widths):
        raise ValueError(f"widths {widths} are not multiples of {features}")
    network: dict[str, Any] = {
        "resolution": sizes[0],
        "channels": tensors[f"enc.{levels[0]}_conv.weight"].shape[1],
        "features": features,
        "multipliers": [width // features for width in widths],
        "res_blocks": count(tensors, f"enc.{levels[0]}_block{{}}.conv0.weight"),
        "attention_levels": [k for k, level in enumerate(levels) if f"enc.{level}_block0.qkv.weight" in tensors],
    }
    if "out_conv.weight" in tensors:
        return "edm-dhariwal", {**network, "out_channels": len(tensors["out_conv.weight"])}
    kinds = {"skip": "aux_skip", "residual": "aux_residual"}
    encoder = [kind for kind, mark in kinds.items() if any(mark in name for name in tensors)]
    filters = [value.shape[-1] for name, value in tensors.items() if name.endswith("resample_filter")]
    network |= {
        "out_channels": len(tensors[f"dec.{levels[0]}_aux_conv.weight"]),
        "encoder": (encoder or ["standard"])[0],
        "decoder": "skip" if any("aux_up" in name for name in tensors) else "standard",
        "fourier": "map_noise.freqs" in tensors,
        "noise_features": tensors["map_layer0.weight"].shape[1],
        "taps": [1] * (filters[0] if filters else 2),  # the values are in the file
    }
    return "edm-song", network
