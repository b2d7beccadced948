"""What a run starts from or continues with: network, settings and checkpoint."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any, cast

import torch
from torch import Tensor, nn

from recon.errors import CheckpointError
from recon.files.atomic import atomic_path, make_folder
from recon.files.checked import checked_file
from recon.images.augment import LABELS
from recon.modalities import training_images
from recon.priors.network import load_network_prior
from recon.priors.networks.unet import EDMDenoiser, UNet
from recon.training import rules
from recon.training.config import TrainConfig
from recon.training.muon import Muon
from recon.training.parallel import Workers


def build_model(config: TrainConfig) -> EDMDenoiser:
    """Return the network with initial weights that depend on ``config.seed`` only."""
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):  # does not touch the global generators
        torch.manual_seed(config.seed)
        model = EDMDenoiser(UNet(**network_settings(config)), config.sigma_data, config.parametrization)
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return model


def network_settings(config: TrainConfig) -> dict[str, Any]:
    """Return the arguments of ``UNet``: the configured ones, the modality's channels, and the conditions."""
    channels = training_images(config.modality).channels
    settings: dict[str, Any] = {"in_channels": channels, "out_channels": channels}
    if config.position_channels:
        settings["position_channels"] = True
    if config.augmentation_labels:
        settings["augmentation_labels"] = len(LABELS)
    return {**settings, **config.network}


def check_network(config: TrainConfig) -> None:
    """Raise ConfigError if the network cannot be built or does not accept the patch sizes."""
    rules.check_patches(config.patches, rules.network_multiple(network_settings(config)))


def start_from(model: EDMDenoiser, weights: Path) -> None:
    """Copy the weights of an exported prior into a model of the same architecture.

    A model of real images may start from a prior of complex ones: it takes the channel of the real part. A model
    conditioned on positions or augmentation may start from one that is not, and initially is the same function.

    Raises
    ------
    CheckpointError
        If the file is damaged or contains a different network.
    """
    source = load_network_prior(weights).model
    given, own = source.state_dict(), model.state_dict()
    for name in given.keys() & own.keys() & {"network.head.weight", "network.head.bias"}:
        given[name] = given[name][: len(own[name])]
    images, conditions = given["network.stem.weight"].tensor_split([source.network.in_channels], dim=1)
    if model.network.position_channels and not source.network.position_channels:
        conditions = torch.zeros_like(images[:, :1]).repeat(1, 2, 1, 1)
    given["network.stem.weight"] = torch.cat([images[:, : model.network.in_channels], conditions], dim=1)
    given = {name: value for name, value in own.items() if name.endswith("embedding.labels.weight")} | given
    wrong = [name for name in own if name not in given or given[name].shape != own[name].shape]
    if wrong or len(given) != len(own):
        raise CheckpointError(
            f"{weights} contains a different network than the configuration: {(wrong or list(given))[0]}"
        )
    model.load_state_dict(given)


_ALWAYS = ("sources", "network", "seed", "patches", "sigma_data", "sigma_log_mean", "sigma_log_std")
#: Missing in the oldest checkpoints, which are compared without them.
_ADDED = ("modality", "sigma_min", "sigma_max")
#: Newer settings, compared if they differ from their defaults.
_NEWER = {"position_channels": False, "augmentation_labels": False, "accumulate": 1, "parametrization": "edm"}
#: Paths and card entries have no influence on the weights.
_PLACES = ("data", "output", "card")


def identity_of(config: TrainConfig) -> dict[str, Any]:
    """Return the settings that may not change when a run is continued, as JSON values."""
    settings = _plain(config)
    used = [name for name, default in _NEWER.items() if settings[name] != default]
    found = {key: settings[key] for key in (*_ALWAYS, *_ADDED, *used)}
    for source in found["sources"]:
        for name, default in {"every": 1, "phase_jumps": 0.0}.items():
            if source[name] == default:
                del source[name]
    return found


def differences(checkpoint: Mapping[str, Any], config: TrainConfig) -> list[str]:
    """Return the names of the settings by which ``config`` differs from the run that wrote ``checkpoint``."""
    stored, own = table_of(checkpoint, "identity"), identity_of(config)
    names = {*stored, *own} - {name for name in _ADDED if name not in stored}
    return sorted(name for name in names if stored.get(name, ...) != own.get(name, ...))


def changes(checkpoint: Mapping[str, Any], config: TrainConfig) -> list[str]:
    """Return which other settings have changed since ``checkpoint``, as ``name old -> new``; the new ones apply."""
    stored, own = table_of(checkpoint, "config"), _plain(config)
    kept = (*_PLACES, *_ALWAYS, *_ADDED, *_NEWER)
    names = [name for name in own if name in stored and name not in kept]
    return [f"{name} {stored[name]} -> {own[name]}" for name in names if stored[name] != own[name]]


def _plain(config: TrainConfig) -> dict[str, Any]:
    """Return the settings with lists instead of tuples."""
    plain: dict[str, Any] = json.loads(json.dumps(asdict(config)))
    return plain


def table_of(checkpoint: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return a table that the checkpoint stores as JSON; an empty one if it has none."""
    try:
        found = json.loads(checkpoint.get(name) or "{}")
    except (TypeError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


class TrainingState:
    """Model, optimisers, moving average of the weights, and number of finished steps."""

    def __init__(self, model: EDMDenoiser, weight_decay: float, ema_decay: float) -> None:
        self.model = model
        self.average = copy.deepcopy(model).requires_grad_(False)
        kernels, others = split_parameters(model)
        # Two groups of about equal size, for two workers.
        groups = [{"params": kernels[0::2]}, {"params": kernels[1::2]}]
        self.muon = Muon(groups, lr=0.0, weight_decay=weight_decay)
        self.adam = torch.optim.AdamW(others, lr=0.0, betas=(0.9, 0.99), weight_decay=weight_decay, fused=True)
        self.ema_decay, self.weight_decay = ema_decay, weight_decay
        self.step = 0

    def set_learning_rates(self, muon: float, adam: float) -> None:
        """Set the learning rates of the next step."""
        for optimiser, rate in ((self.muon, muon), (self.adam, adam)):
            for group in optimiser.param_groups:
                group["lr"] = rate

    def update(self, workers: Workers) -> None:
        """Step both optimisers with the current gradients and count the step."""
        workers.map(self.muon.step_group, self.muon.param_groups)
        self.adam.step()
        self.step += 1
        self.update_average()

    @torch.no_grad()
    def update_average(self) -> None:
        """Move the average towards the weights; its window grows with the step, so that the start is forgotten."""
        decay = min(self.ema_decay, (1 + self.step) / (10 + self.step))
        torch._foreach_lerp_(list(self.average.parameters()), list(self.model.parameters()), 1 - decay)

    def state_dict(self) -> dict[str, Any]:
        """Return everything needed to continue."""
        return {
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "muon": self.muon.state_dict(),
            "adam": self.adam.state_dict(),
            "step": self.step,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from ``state``."""
        self.model.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        self.muon.load_state_dict(state["muon"])
        self.adam.load_state_dict(state["adam"])
        for group in (*self.muon.param_groups, *self.adam.param_groups):
            group["weight_decay"] = self.weight_decay  # a setting, which may have changed since
        self.step = int(state["step"])


def split_parameters(model: EDMDenoiser) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Return the kernels of the inner convolutions (for Muon) and all other parameters (for AdamW)."""
    kernels: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        outer = name.startswith(("network.stem", "network.head"))
        (kernels if parameter.ndim == 4 and not outer else others).append(parameter)
    return kernels, others


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write ``state`` atomically, so that ``path`` is always a complete file.

    Raises
    ------
    StorageError
        If it cannot be written (the disk is full, or the folder is gone); an earlier checkpoint is kept.
    """
    make_folder(path.parent)
    # torch reports a full disk as a RuntimeError, in words of its own.
    with atomic_path(path) as temporary, checked_file(temporary) as file:
        torch.save(state, cast(IO[bytes], file))


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint without executing code from it.

    Raises
    ------
    CheckpointError
        If the file is damaged, is not a training checkpoint or contains numbers that are not finite.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise CheckpointError(f"cannot read the training checkpoint {path}: {error}") from error
    if not isinstance(state, dict) or not {"model", "average", "muon", "adam", "step"} <= set(state):
        raise CheckpointError(f"{path} is not a training checkpoint of this engine")
    for part in ("model", "average"):
        for name, value in state[part].items():
            if isinstance(value, Tensor) and not torch.isfinite(value).all():
                raise CheckpointError(f"{path}: {part} tensor {name!r} is not finite")
    return state
