"""Converted checkpoints: safetensors files whose metadata contain everything needed to use the network.

``metadata["diffrecon"]`` is JSON: layout, architecture and its arguments, parametrization, channels, card.
``metadata["digest"]`` is the sha256 of that text and all tensors; safetensors itself has no checksum.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

from torch import Tensor

from recon.errors import CheckpointError
from recon.files.documents import parse_json
from recon.priors.checkpoints.archive import Content
from recon.priors.checkpoints.tensors import Checkpoint

KEY, DIGEST = "diffrecon", "digest"
FIELDS = ("layout", "architecture", "network", "parametrization", "channels", "weights", "card")
KINDS = {"network": dict, "parametrization": dict, "card": dict, "channels": int}


def is_converted(content: Content) -> bool:
    """Recognise the layout by the metadata."""
    return KEY in content.metadata


def describe(checkpoint: Checkpoint) -> dict[str, str]:
    """Return the metadata for a checkpoint with accounted tensors."""
    text = json.dumps({name: getattr(checkpoint, name) for name in FIELDS})
    return {KEY: text, DIGEST: digest(text, checkpoint.tensors)}


def read_converted(content: Content) -> Checkpoint:
    """Return the checkpoint that `describe` described.

    Raises
    ------
    CheckpointError
        If the digest does not match, or the description is incomplete.
    """
    text = content.metadata[KEY]
    if content.metadata.get(DIGEST) != digest(text, content.data):
        raise CheckpointError(
            f"{content.path}: damaged (its digest does not match its content); convert or download it again"
        )
    try:
        found = parse_json(text, f"{content.path}: its description", CheckpointError)
        fields = {name: found[name] for name in FIELDS}
    except (KeyError, TypeError) as error:
        raise CheckpointError(f"{content.path}: its description is incomplete ({error})") from error
    for name, value in fields.items():
        if not isinstance(value, KINDS.get(name, str)):
            raise CheckpointError(f"{content.path}: its description has a {type(value).__name__} for {name!r}")
    return Checkpoint(tensors=dict(content.data), **fields)


def digest(text: str, tensors: Mapping[str, Tensor]) -> str:
    """Return the sha256 of a text and tensors, in the order of their names."""
    total = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        value = tensors[name].detach().contiguous()
        total.update(f"\n{name} {value.dtype} {tuple(value.shape)}\n".encode())
        total.update(value.flatten().numpy().data)
    return total.hexdigest()
