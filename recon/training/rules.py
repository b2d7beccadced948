"""Valid values of the settings of a training run."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from typing import Any

import torch

from recon.errors import ConfigError
from recon.options import shown
from recon.priors.networks.unet import PARAMETRIZATIONS, UNet
from recon.run_options import TRAINING_PRECISIONS
from recon.valid_values import POSITIVE, SWITCH, TABLE, TEXT, Rule, either, number, whole

#: Largest network that can be trained here; its training state takes five times 4 bytes for each parameter.
_MOST_PARAMETERS = 10**9

#: Rules for the fields of ``TrainConfig``.
SETTINGS: dict[str, Rule] = {
    **dict.fromkeys(("data", "output", "initial", "modality", "device"), TEXT),
    **dict.fromkeys(("network", "card"), TABLE),
    "sigma_data": POSITIVE,
    "sigma_log_mean": number(-math.inf),
    "sigma_log_std": number(0),
    "sigma_min": POSITIVE,
    "sigma_max": POSITIVE,
    "parametrization": either(PARAMETRIZATIONS),
    "steps": whole(1),
    "warmup": whole(0),
    "decay": whole(0),
    "position_channels": SWITCH,
    "augmentation_labels": SWITCH,
    "learning_rate": POSITIVE,
    "muon_factor": POSITIVE,
    "weight_decay": number(0),
    "clip": POSITIVE,
    "ema_decay": number(0, 1),
    "seed": whole(0),
    "precision": either(TRAINING_PRECISIONS),
    "threads": whole(1),
    "accumulate": whole(1),
    "checkpoint_minutes": POSITIVE,
    "evaluation_minutes": POSITIVE,
    "previews": whole(0),
}


def check_patches(patches: Any, multiple: int) -> None:
    """Raise ConfigError unless these are valid sizes for the network, with numbers of images and probabilities."""
    size, batch, probability = whole(1)[0], whole(1)[0], number(0)[0]
    good = isinstance(patches, list | tuple) and len(patches) > 0
    for patch in patches if good else ():
        fits = isinstance(patch, list | tuple) and len(patch) == 3
        if not (fits and size(patch[0]) and patch[0] % multiple == 0 and batch(patch[1]) and probability(patch[2])):
            raise ConfigError(
                f"patches: expected [size, images, probability], size a multiple of {multiple}, got {shown(patch)}"
            )
    if not good or not sum(patch[2] for patch in patches) > 0:
        raise ConfigError(f"patches: expected a list of [size, images, probability], got {shown(patches)}")


def network_multiple(settings: Mapping[str, Any]) -> int:
    """Return what image sizes must be multiples of; raise ConfigError if these arguments are not valid."""
    known = sorted(inspect.signature(UNet).parameters)
    for key in settings:
        if key not in known:
            raise ConfigError(f"[network]: unknown key {key!r}; known keys: {', '.join(known)}")
    try:
        with torch.device("meta"):  # takes no memory and no random numbers
            network = UNet(**settings)
        parameters = sum(values.numel() for values in network.parameters())
        if parameters > _MOST_PARAMETERS:
            raise ValueError(f"expected at most {_MOST_PARAMETERS:,} parameters, got {parameters:,}")
        return network.multiple
    except (TypeError, ValueError, IndexError, RuntimeError, ArithmeticError) as error:
        raise ConfigError(f"[network]: invalid settings: {error}") from error
