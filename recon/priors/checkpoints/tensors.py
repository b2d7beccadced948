"""Content of a checkpoint file, and a check that it has every tensor of the network, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from recon.errors import CheckpointError
from recon.priors.checkpoints.archive import Content


@dataclass(frozen=True)
class Checkpoint:
    """Weights and everything needed to use them; all but ``tensors`` can be written as JSON.

    Attributes
    ----------
    layout : str
        Layout of the file.
    architecture, network
        Name in `recon.priors.networks.table.ARCHITECTURES` and its arguments.
    parametrization : dict
        See `recon.priors.checkpoints.parametrization.parametrize`; sigmas per channel.
    channels : int
        Number of image channels.
    tensors : dict of Tensor
        Averaged weights with the names of the network; not yet accounted for.
    weights : str
        Which weights these are, in words.
    card : dict
        Information for users (``scale``, ``images``, ``gain``, ``licence``, ...).
    """

    layout: str
    architecture: str
    network: dict[str, Any]
    parametrization: dict[str, Any]
    channels: int
    tensors: dict[str, Tensor]
    weights: str
    card: dict[str, Any] = field(default_factory=dict)


class Layout(Protocol):
    """Interface of the modules of layouts."""

    TITLE: str

    def matches(self, content: Content) -> bool:
        """Tell by keys whether the file has this layout."""

    def read(self, content: Content) -> Checkpoint:
        """Infer the configuration from names and shapes, and take the averaged weights."""

    def settings(self, original: Mapping[str, Any], network: Mapping[str, Any]) -> dict[str, Any]:
        """Translate the authors' configuration file into ``network`` and ``parametrization``.

        ``network`` contains what is already known from names and shapes.
        """


def count(names: Mapping[str, Any], pattern: str) -> int:
    """Return how many of ``pattern.format(0)``, ``pattern.format(1)``, ... exist consecutively."""
    number = 0
    while pattern.format(number) in names:
        number += 1
    return number


PREFIXES = ("module.", "_orig_mod.")
#: Keys under which training code stores weights; averaged ones first.
EMA_KEYS = ("ema", "model_ema", "ema_model", "ema_state_dict", "ema_state", "shadow_params")
RAW_KEYS = ("net", "model", "state_dict", "model_state_dict", "score_model", "network")
#: Scalars that averaging code stores beside the weights.
COUNTERS = {"num_updates", "n_averaged", "decay", "initted", "step"}


def is_state(value: Any) -> bool:
    """Tell whether ``value`` maps names to tensors."""
    return (
        isinstance(value, Mapping)
        and bool(value)
        and all(isinstance(name, str) for name in value)
        and all(isinstance(tensor, Tensor) for tensor in value.values())
    )


def strip(state: Mapping[str, Tensor], extra: Sequence[str] = ()) -> dict[str, Tensor]:
    """Remove prefixes such as ``module.`` that all names have in common."""
    found = dict(state)
    again = True
    while again and found:
        again = False
        for prefix in (*PREFIXES, *extra):
            if all(name.startswith(prefix) for name in found):
                found = {name[len(prefix) :]: value for name, value in found.items()}
                again = True
    return found


def states(data: Any, extra: Sequence[str] = ()) -> tuple[dict[str, Tensor] | None, dict[str, Tensor] | None]:
    """Return (averaged, raw) weights of a state dict, or of a dict that contains them under the usual names."""
    if is_state(data):
        return None, strip(data, extra)
    if not isinstance(data, Mapping):
        return None, None
    pairs = []
    for keys in (EMA_KEYS, RAW_KEYS):
        found = [state for key in keys if (state := _inner(data.get(key))) is not None]
        pairs.append(strip(found[0], extra) if found else None)
    return pairs[0], pairs[1]


def _inner(value: Any) -> Mapping[str, Tensor] | None:
    """Return the state dict that an entry is (apart from numbers such as a count of updates) or contains."""
    if not isinstance(value, Mapping):
        return None
    rest = {name: item for name, item in value.items() if not _is_counter(name, item)}
    if is_state(rest):
        return rest
    inside = [rest[key] for key in (*RAW_KEYS, "params") if is_state(rest.get(key))]
    return inside[0] if inside else None


def _is_counter(name: Any, item: Any) -> bool:
    return isinstance(item, int | float | None) or (isinstance(item, Tensor) and item.numel() == 1 and name in COUNTERS)


def averages(data: Any) -> tuple[str, Any]:
    """Return key and value of the averaged weights in a file, understood or not; ("", None) if there are none."""
    if isinstance(data, Mapping) and not is_state(data):
        for key in EMA_KEYS:
            if data.get(key) is not None:
                return key, data[key]
    return "", None


def choose(
    path: Path, ema: dict[str, Tensor] | None, raw: dict[str, Tensor] | None, data: Any = None
) -> tuple[dict[str, Tensor], str]:
    """Return the averaged weights if there are any, else the raw ones, and a description of which these are.

    Raises
    ------
    CheckpointError
        If the averaged weights do not match the raw ones, or ``data``, the content of the file, has averaged weights
        stored in an unknown way: the raw ones would silently be worse.
    """
    key, _ = averages(data)
    if ema is None and key:
        raise CheckpointError(f"{path}: its averaged weights, {key!r}, are stored in an unknown way")
    if ema is None:
        return raw or {}, "as stored (the file has no separate EMA)"
    if raw is not None:
        for name, value in ema.items():
            if name in raw and raw[name].shape != value.shape:
                raise CheckpointError(
                    f"{path}: expected shape {tuple(raw[name].shape)} of the EMA of {name!r}, got {tuple(value.shape)}"
                )
    return ema, "EMA"


def account(path: Path, found: Mapping[str, Tensor], network: nn.Module) -> dict[str, Tensor]:
    """Return float32 copies of ``found`` after checking every name, shape and value against the (meta) network.

    Raises
    ------
    CheckpointError
        If a tensor is missing, unexpected, of another shape, not floating-point or not finite; the message names it.
    """
    expected = network.state_dict()
    missing = [name for name in expected if name not in found]
    unexpected = [name for name in found if name not in expected]
    problems = []
    if missing:
        problems.append(f"missing {_some(missing)}")
    if unexpected:
        problems.append(f"unexpected {_some(unexpected)}")
    shapes = [name for name in expected if name in found and found[name].shape != expected[name].shape]
    if shapes:
        first = shapes[0]
        wanted, got = tuple(expected[first].shape), tuple(found[first].shape)
        problems.append(f"expected shape {wanted} of {first!r}, got {got}{_more(shapes, 1)}")
    if problems:
        raise CheckpointError(f"{path}: the tensors do not match the network: {'; '.join(problems)}")
    _check_size(path, found)
    return {name: _sound(path, name, found[name]) for name in expected}


def fill(network: nn.Module, tensors: Mapping[str, Tensor]) -> nn.Module:
    """Load checked tensors into a network on device "meta"."""
    network.load_state_dict(dict(tensors), strict=True, assign=True)
    return network.eval().requires_grad_(False)


def _check_size(path: Path, found: Mapping[str, Tensor]) -> None:
    """Refuse tensors that claim more values than the file can contain (strides of zero), before copying any."""
    for name, value in found.items():
        if value.numel() * value.element_size() > value.untyped_storage().nbytes():
            raise CheckpointError(f"{path}: tensor {name!r} claims {value.numel()} values, but stores fewer")
    total = sum(value.numel() * value.element_size() for value in found.values())
    stored = sum(file.stat().st_size for file in (path.rglob("*") if path.is_dir() else [path]) if file.is_file())
    if total > stored:
        raise CheckpointError(f"{path}: its tensors claim {total} bytes, but it has only {stored}")


def _sound(path: Path, name: str, value: Tensor) -> Tensor:
    if not value.is_floating_point():
        raise CheckpointError(f"{path}: expected a floating-point tensor {name!r}, got {value.dtype}")
    copy = value.detach().to(torch.float32, copy=True, memory_format=torch.contiguous_format)
    if not bool(torch.isfinite(copy).all()):
        raise CheckpointError(f"{path}: tensor {name!r} contains NaN or infinity")
    return copy


def _some(names: list[str], shown: int = 3) -> str:
    return ", ".join(repr(name) for name in names[:shown]) + _more(names, shown)


def _more(names: list[str], shown: int) -> str:
    return f" and {len(names) - shown} more" if len(names) > shown else ""
