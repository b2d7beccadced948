"""What makes two runs the same one: a checkpoint is continued only by the run that wrote it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from recon.training.config import TrainConfig

_ALWAYS = ("sources", "network", "seed", "patches", "sigma_data", "sigma_log_mean", "sigma_log_std")
#: Not in the first checkpoints, which are compared without them.
_ADDED = ("modality", "sigma_min", "sigma_max")
#: What is newer than the first checkpoints counts where it is used.
_NEWER = {"position_channels": False, "augmentation_labels": False, "accumulate": 1, "parametrization": "edm"}
#: Where files lie and what is said of them makes no difference to the weights.
_PLACES = ("data", "output", "card")


def identity_of(config: TrainConfig) -> dict[str, Any]:
    """Return the settings that may not change while a run is continued, as JSON has them."""
    settings = _plain(config)
    used = [name for name, default in _NEWER.items() if settings[name] != default]
    found = {key: settings[key] for key in (*_ALWAYS, *_ADDED, *used)}
    for source in found["sources"]:
        for name, default in {"every": 1, "phase_jumps": 0.0}.items():
            if source[name] == default:
                del source[name]
    return found


def differences(checkpoint: Mapping[str, Any], config: TrainConfig) -> list[str]:
    """Return the names of the settings that make ``config`` another run than the one that wrote ``checkpoint``."""
    stored, own = table_of(checkpoint, "identity"), identity_of(config)
    names = {*stored, *own} - {name for name in _ADDED if name not in stored}
    return sorted(name for name in names if stored.get(name, ...) != own.get(name, ...))


def changes(checkpoint: Mapping[str, Any], config: TrainConfig) -> list[str]:
    """Return what else has changed since ``checkpoint``, as ``name old -> new``; it counts from now on."""
    stored, own = table_of(checkpoint, "config"), _plain(config)
    kept = (*_PLACES, *_ALWAYS, *_ADDED, *_NEWER)
    names = [name for name in own if name in stored and name not in kept]
    return [f"{name} {stored[name]} -> {own[name]}" for name in names if stored[name] != own[name]]


def _plain(config: TrainConfig) -> dict[str, Any]:
    """Return the settings with lists for tuples."""
    plain: dict[str, Any] = json.loads(json.dumps(asdict(config)))
    return plain


def table_of(checkpoint: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return a table that the checkpoint holds as JSON; an empty one where it has none."""
    try:
        found = json.loads(checkpoint.get(name) or "{}")
    except (TypeError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
