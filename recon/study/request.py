"""Everything that determines the samples of a slice, to tell whether results belong together."""

from __future__ import annotations

import hashlib
import io
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from recon.engine.provenance import describe_sampler, describe_source, release, sha256
from recon.engine.reconstruction import Reconstruction
from recon.errors import InputError
from recon.files.plain_values import compact
from recon.priors.hub import list_models


def request_of(wanted: Reconstruction) -> dict[str, Any]:
    """Return everything that determines the samples of a slice, with dotted names.

    The number of samples computed together is not part of it.
    """
    run, source = wanted.run, wanted.source
    computing = {name: value for name, value in wanted.computing.items() if name != "batch_size"}
    tree = {
        "release": release(),
        "source": None if source is None or source.path is None else describe_source(source.path),
        "modality": None if run.modality is None else run.modality.name,
        **({} if source is None else source.config),
        **computing,
        "seed": run.seed,
        "prior": _identity(run.prior),
        "sampler": describe_sampler(run.sampler),
    }
    return dict(_flat({name: compact(value) for name, value in tree.items()}))


def _identity(prior: Any) -> dict[str, Any]:
    """Return name and sha256 of a prior, without loading it; of an object its class, and what it holds."""
    if not isinstance(prior, str | Path):
        known = getattr(prior, "card", {}).get("sha256")
        return {"name": type(prior).__name__, "sha256": known or _content(prior)}
    path = Path(prior)
    shipped = {card["name"]: card.get("sha256") for card in list_models()}
    if str(prior) in shipped:
        return {"name": str(prior), "sha256": shipped[str(prior)]}
    return {"name": path.name, "sha256": sha256(path) if path.exists() else None}


def _content(value: Any) -> str | None:
    """Return the sha256 of an object; None if it cannot be written, so that nobody can tell two of them apart."""
    stream = io.BytesIO()
    try:
        _Contents(stream).dump(value)
    except Exception:  # objects answer with errors of any kind
        return None
    return hashlib.sha256(stream.getbuffer()).hexdigest()


class _Contents(pickle.Pickler):
    """Writes tensors by their values, where pickle adds what differs between two equal ones."""

    fast = True  # without references, which depend on what happens to be one object

    def reducer_override(self, value: Any) -> Any:
        if not isinstance(value, Tensor):
            return NotImplemented
        content = value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()
        return torch.empty, (str(value.dtype), tuple(value.shape), content)


def _flat(tree: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for name, value in tree.items():
        found += _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else [(prefix + name, value)]
    return found


def require_same(known: Mapping[str, Any], wanted: Mapping[str, Any], where: Path) -> None:
    """Refuse to go on with other settings; names the first that differs.

    Raises
    ------
    InputError
    """
    for name in dict.fromkeys([*wanted, *known]):
        if known.get(name) != wanted.get(name):
            if name == "source.sha256":
                raise InputError(
                    f"{where}: is not the result of this file, whose content is another one; remove it, use --force to "
                    "start again, or another folder"
                )
            raise InputError(
                f"{where}: was made with {name} = {known.get(name)}, but now {name} = {wanted.get(name)}; use the same "
                "options to go on, --force to start again, or another folder"
            )
