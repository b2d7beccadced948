"""Architectures by their names in cards and converted files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from recon.errors import CheckpointError
from recon.priors.networks.adm import ADMUNet
from recon.priors.networks.diffusers_unet import UNet2D
from recon.priors.networks.edm import DhariwalUNet
from recon.priors.networks.edm_song import SongUNet
from recon.priors.networks.ncsnpp import NCSNpp
from recon.priors.networks.ncsnv2 import NCSNv2Deepest

ARCHITECTURES: dict[str, type[nn.Module]] = {
    "adm": ADMUNet,
    "edm-dhariwal": DhariwalUNet,
    "edm-song": SongUNet,
    "ncsnpp": NCSNpp,
    "ncsnv2-deepest": NCSNv2Deepest,
    "unet2d": UNet2D,
}


def build(architecture: str, arguments: Mapping[str, Any]) -> nn.Module:
    """Build a network without memory for its weights (device "meta").

    Raises
    ------
    CheckpointError
        If the architecture is unknown, or the arguments are invalid.
    """
    if architecture not in ARCHITECTURES:
        raise CheckpointError(f"unknown architecture {architecture!r}; expected {', '.join(ARCHITECTURES)}")
    for name, value in arguments.items():
        # Without a limit, a small file could request millions of layers.
        if (name == "res_blocks" and value not in range(1, 65)) or (isinstance(value, list) and len(value) > 64):
            raise CheckpointError(f"invalid argument of the network {architecture!r}: {name} = {value!s:.80}")
    try:
        with torch.device("meta"):
            return ARCHITECTURES[architecture](**arguments)
    except (TypeError, ValueError, ArithmeticError, LookupError, RuntimeError) as error:
        raise CheckpointError(
            f"invalid arguments of the network {architecture!r}: {dict(arguments)}: {error}"
        ) from error
