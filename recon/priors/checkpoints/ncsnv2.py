"""Checkpoints of ncsnv2, as trained by csgm-mri-langevin.

A list: weights (names with the prefix ``module.``, and the buffer ``sigmas``), optimizer, epoch, step, and a dict of
averaged weights without prefix. Conditioning on a level is a division by its sigma, so any sigma can be used.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from recon.errors import CheckpointError
from recon.priors.checkpoints.archive import Content
from recon.priors.checkpoints.tensors import Checkpoint, choose, is_state, states, strip

TITLE = "NCSNv2 deepest (csgm-mri-langevin)"


def matches(content: Content) -> bool:
    """Recognise the layout by the names of first and last blocks."""
    data = content.data[0] if isinstance(content.data, list) and content.data else content.data
    return any(
        state is not None and {"begin_conv.weight", "normalizer.alpha", "refine1.crp.convs.0.weight"} <= state.keys()
        for state in states(data)
    )


def read(content: Content) -> Checkpoint:
    """Read a checkpoint of this layout."""
    data = content.data
    if isinstance(data, list):
        raw: dict[str, Any] | None = strip(data[0])
        ema = strip(data[4]) if len(data) > 4 and is_state(data[4]) else None
        if ema is None and len(data) > 4 and data[4] is not None:
            raise CheckpointError(f"{content.path}: its averaged weights, entry 4, are not named tensors")
    else:
        ema, raw = states(data)
    sigmas = (raw or {}).get("sigmas", (ema or {}).get("sigmas"))
    tensors, weights = choose(content.path, ema, raw, data)
    tensors = {name: value for name, value in tensors.items() if name != "sigmas"}
    stem = tensors.get("begin_conv.weight")
    if stem is None or stem.ndim != 4:
        raise CheckpointError(f"{content.path}: 'begin_conv.weight' is not a convolution kernel")
    low, high = 0.0066, 232.0
    if sigmas is not None and sigmas.ndim == 1 and 1 < len(sigmas) <= 1_000_000:
        low, high = float(sigmas.min()), float(sigmas.max())
    return Checkpoint(
        layout="ncsnv2",
        architecture="ncsnv2-deepest",
        network={"channels": stem.shape[1], "features": stem.shape[0]},
        parametrization={"kind": "scaled", "sigma_min": low, "sigma_max": high},
        channels=stem.shape[1],
        tensors=tensors,
        weights=weights,
        card={
            "scale": "0.99 quantile of the magnitude = 1",
            "images": "complex" if stem.shape[1] == 2 else "real",
        },
    )


def settings(original: Mapping[str, Any], network: Mapping[str, Any]) -> dict[str, Any]:
    """Translate the authors' configuration."""
    data = dict(original.get("data", original))
    return {"network": {"rescaled": data["rescaled"]} if "rescaled" in data else {}}
