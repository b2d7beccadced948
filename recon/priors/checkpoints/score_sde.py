"""Checkpoints of score_sde_pytorch with NCSN++: score-MRI and DiffusionMBIR.

A dict with ``model`` (names have the prefix ``module.``), ``ema`` (a list without names, in the order of the trainable
parameters, without the Fourier frequencies ``all_modules.0.W``), ``optimizer`` and ``step``. The frequencies must be
taken from ``model``, everything else from ``ema``. The published score-MRI code fails to do the former: it loads names
with the prefix ``module.`` into a network without it, ignores that none matches, and keeps random frequencies.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from recon.errors import CheckpointError
from recon.priors.checkpoints.archive import Content
from recon.priors.checkpoints.tensors import Checkpoint, averages, states

TITLE = "score_sde NCSN++ (score-MRI, DiffusionMBIR)"
FREQUENCIES = "all_modules.0.W"


def matches(content: Content) -> bool:
    """Recognise the layout by the numbered modules."""
    _, raw = states(content.data)
    return raw is not None and FREQUENCIES in raw


def read(content: Content) -> Checkpoint:
    """Read a checkpoint of this layout."""
    raw = dict(states(content.data)[1] or {})
    sigmas = raw.pop("sigmas", None)
    low, high = 0.01, 378.0
    if sigmas is not None and sigmas.ndim == 1 and 1 < len(sigmas) <= 1_000_000:
        low, high = float(sigmas.min()), float(sigmas.max())
    tensors, weights = _averaged(content, raw)
    network = _network(content, raw)
    return Checkpoint(
        layout="score-sde",
        architecture="ncsnpp",
        network=network,
        parametrization={"kind": "ve", "sigma_min": low, "sigma_max": high},
        channels=network["channels"],
        tensors=tensors,
        weights=weights,
        card={"scale": "magnitude images in 0 ... 1 (maximum = 1)", "images": "complex"},
    )


def settings(original: Mapping[str, Any], network: Mapping[str, Any]) -> dict[str, Any]:
    """Translate the authors' configuration (``model``, ``data``)."""
    model, data = dict(original.get("model", original)), dict(original.get("data", {}))
    known = {"progressive": "none", "progressive_input": "residual", "resblock_type": "biggan", "fir": True}
    known |= {"embedding_type": "fourier", "progressive_combine": "sum", "attention_type": "ddpm", "conditional": True}
    for name, value in known.items():
        if model.get(name, value) != value:
            raise CheckpointError(f"NCSN++: expected {name} = {value!r}, got {model[name]!r}, which is not supported")
    names = {"fir_kernel": "taps", "skip_rescale": "rescale", "scale_by_sigma": "scale_by_sigma"}
    found = {mine: model[theirs] for theirs, mine in names.items() if theirs in model}
    if "centered" in data:
        found["centered"] = data["centered"]
    return {"network": found}


def _averaged(content: Content, raw: dict[str, Tensor]) -> tuple[dict[str, Tensor], str]:
    """Return the weights, replaced by those of the EMA list."""
    key, ema = averages(content.data)
    if ema is None:
        return raw, "as stored (the file has no EMA)"
    named, _ = states({key: ema})
    if named is not None:
        return _named(content, raw, named), "EMA"
    shadow = ema.get("shadow_params") if isinstance(ema, Mapping) else ema
    if not isinstance(shadow, list | tuple):
        raise CheckpointError(f"{content.path}: its averaged weights, {key!r}, are stored in an unknown way")
    names = [name for name in raw if name != FREQUENCIES]
    if len(shadow) != len(names):
        raise CheckpointError(
            f"{content.path}: expected {len(names)} tensors in the EMA list, got {len(shadow)}; one for each parameter "
            f"except {FREQUENCIES!r}"
        )
    for name, value in zip(names, shadow, strict=True):
        if not isinstance(value, Tensor) or value.shape != raw[name].shape:
            shape = tuple(getattr(value, "shape", ()))
            raise CheckpointError(
                f"{content.path}: expected shape {tuple(raw[name].shape)} of the EMA tensor of {name!r}, got {shape}"
            )
    return {**raw, **dict(zip(names, shadow, strict=True))}, "EMA (a list in parameter order)"


def _named(content: Content, raw: dict[str, Tensor], named: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return averaged weights that have names; only the frequencies may be missing."""
    missing = [name for name in raw if name not in named and name != FREQUENCIES]
    if missing:
        raise CheckpointError(f"{content.path}: its averaged weights lack {missing[0]!r} ({len(missing)} missing)")
    return {**raw, **{name: value for name, value in named.items() if name != "sigmas"}}


def _network(content: Content, raw: dict[str, Tensor]) -> dict[str, Any]:
    """Infer the arguments of the network from the sequence of its modules."""
    kinds: dict[int, str] = {}
    for name in raw:
        part = name.split(".")
        if len(part) >= 3 and part[0] == "all_modules" and part[1].isdecimal():
            marks = {"Conv2d_0": "pyramid", "NIN_0": "attention", "Dense_0": "residual"}
            kinds[int(part[1])] = marks.get(part[2], kinds.get(int(part[1]), "plain"))
    pyramids = [index for index in sorted(kinds) if kinds[index] == "pyramid"]
    stem = raw.get("all_modules.3.weight")
    if stem is None or stem.ndim != 4:
        raise CheckpointError(f"{content.path}: 'all_modules.3.weight' is not a convolution kernel")
    try:
        features, levels = len(stem), len(pyramids) + 1
        first = [kinds[index] for index in range(4, pyramids[0] - 1)]
        res_blocks = first.count("residual")
        widths, attention, index = [], [], 4
        for level in range(levels):
            widths.append(len(raw[f"all_modules.{index}.Conv_0.weight"]))
            attends = kinds.get(index + 1) == "attention"
            attention += [level] * attends
            index += res_blocks * (2 if attends else 1) + 2
        if not res_blocks or any(width % features for width in widths):
            raise ValueError(f"widths {widths} are not multiples of {features}")
    except (LookupError, ValueError, TypeError, ArithmeticError) as error:
        raise CheckpointError(f"{content.path}: its modules do not form an NCSN++ ({error})") from error
    return {
        "channels": stem.shape[1],
        "features": features,
        "multipliers": [width // features for width in widths],
        "res_blocks": res_blocks,
        "attention_levels": attention,
    }
