"""Files of a network prior: float16 tensors in safetensors, and a JSON card beside them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from recon.errors import CheckpointError
from recon.files.atomic import atomic_path
from recon.files.documents import read_json
from recon.priors.networks.card import check_card

ARCHITECTURE = "unet-edm"


def read_card(path: Path) -> dict[str, Any]:
    """Read the JSON card of a network prior.

    Raises
    ------
    CheckpointError
        If it cannot be read, lacks a key, has a value of the wrong kind, or describes another architecture.
    """
    card = read_json(path, CheckpointError, "the model card")
    check_card(card, path, ARCHITECTURE)
    return card


def read_tensors(path: Path, sha256: str, expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file as float32 after accounting for every one of them.

    Raises
    ------
    CheckpointError
        If the file is damaged, its sha256 does not match, or a tensor is missing, unexpected, not of the shape in
        ``expected``, or not finite.
    """
    try:
        content = path.read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        if digest != sha256:
            raise CheckpointError(f"{path}: sha256 is {digest}, but the card says {sha256}; download the weights again")
        found = load(content)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"cannot read the weights {path}: {error}") from error
    for name in expected:
        if name not in found:
            raise CheckpointError(f"{path}: tensor {name!r} is missing")
    for name, value in found.items():
        if name not in expected:
            raise CheckpointError(f"{path}: unexpected tensor {name!r}")
        if value.shape != expected[name].shape:
            wanted = tuple(expected[name].shape)
            raise CheckpointError(f"{path}: expected shape {wanted} of tensor {name!r}, got {tuple(value.shape)}")
        if not torch.isfinite(value).all():
            raise CheckpointError(f"{path}: tensor {name!r} contains values that are not finite")
    return {name: value.float() for name, value in found.items()}


def write_prior(path: Path, tensors: Mapping[str, Tensor], card: Mapping[str, Any]) -> dict[str, Any]:
    """Write tensors as float16 and the card with their sha256; return the card.

    Raises
    ------
    CheckpointError
        If a value does not fit float16 or is not finite.
    """
    half = {name: value.detach().cpu().to(torch.float16).contiguous() for name, value in tensors.items()}
    for name, value in half.items():
        if not torch.isfinite(value).all():
            raise CheckpointError(f"tensor {name!r} is not finite in float16")
    metadata = {key: str(card[key]) for key in ("name", "licence", "architecture", "scale") if key in card}
    content = save(half, metadata)
    complete = {**card, "sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    path.parent.mkdir(parents=True, exist_ok=True)
    card_text = json.dumps(complete, indent=2) + "\n"
    for target, written in ((path, content), (path.with_suffix(".json"), card_text.encode("utf-8"))):
        with atomic_path(target) as temporary:
            temporary.write_bytes(written)
    return complete
