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

from recon.engine.provenance import describe_sampler, release, sha256
from recon.engine.reconstruction import Reconstruction
from recon.errors import InputError
from recon.files.plain_values import compact
from recon.priors.hub import list_models
from recon.study.source_state import CHECKSUM, INODE, STAMP, stamps_of


def request_of(wanted: Reconstruction) -> dict[str, Any]:
    """Return everything that determines the samples of a slice, with dotted names.

    The number of samples computed together is not part of it. A source is identified by name, size and time; its
    checksum is not known yet.
    """
    run, source = wanted.run, wanted.source
    path = None if source is None else source.path
    computing = {name: value for name, value in wanted.computing.items() if name != "batch_size"}
    tree = {
        "release": release(),
        "source": None if path is None else {"name": path.name, **stamps_of(path)},
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
    """Refuse to go on with other settings; names the first that differs. The content of the source is not compared.

    Raises
    ------
    InputError
    """
    name = difference(known, wanted)
    if name is not None:
        raise InputError(
            f"{where}: was made with {name} = {known.get(name)}, but now {name} = {wanted.get(name)}; use the same "
            "options to go on, --force to start again, or another folder"
        )


def difference(known: Mapping[str, Any], wanted: Mapping[str, Any]) -> str | None:
    """Return the name of the first setting that differs, apart from the content of the source; None if none does."""
    names = dict.fromkeys([*wanted, *known])
    return next((n for n in names if n not in (STAMP, INODE, CHECKSUM) and known.get(n) != wanted.get(n)), None)
