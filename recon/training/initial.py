"""The network that a run starts with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from recon.errors import CheckpointError
from recon.images import rules
from recon.images.augment import LABELS
from recon.modalities import training_images
from recon.priors.network import load_network_prior
from recon.priors.networks.unet import EDMDenoiser, UNet
from recon.training.config import TrainConfig


def build_model(config: TrainConfig) -> EDMDenoiser:
    """Return the network with initial weights that depend on ``config.seed`` only."""
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):  # leaves the global generators alone
        torch.manual_seed(config.seed)
        model = EDMDenoiser(UNet(**network_settings(config)), config.sigma_data, config.parametrization)
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return model


def network_settings(config: TrainConfig) -> dict[str, Any]:
    """Return the arguments of ``UNet``: the configured ones, the channels of the modality and the conditions."""
    channels = training_images(config.modality).channels
    settings: dict[str, Any] = {"in_channels": channels, "out_channels": channels}
    if config.position_channels:
        settings["position_channels"] = True
    if config.augmentation_labels:
        settings["augmentation_labels"] = len(LABELS)
    return {**settings, **config.network}


def check_network(config: TrainConfig) -> None:
    """Raise ConfigError if there is no such network, or it cannot take the patches."""
    rules.check_patches(config.patches, rules.network_multiple(network_settings(config)))


def start_from(model: EDMDenoiser, weights: Path) -> None:
    """Copy the weights of an exported prior into a model of the same architecture.

    A model of real images may start from a prior of complex ones: it takes the channel of the real part. One that is
    told positions or augmentations may start from one that is not, and starts as the same function.

    Raises
    ------
    CheckpointError
        If the file is damaged or holds another network.
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
        raise CheckpointError(f"{weights} holds another network than the configuration: {(wrong or list(given))[0]}")
    model.load_state_dict(given)
