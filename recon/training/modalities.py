"""What training needs to know of a kind of image: how files become slices, slices patches, and slices test images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from recon.errors import ConfigError
from recon.images import augment
from recon.images.sources import Slice, SourceConfig
from recon.modalities.ct import training as ct_volumes
from recon.modalities.mri import training as volumes
from recon.modalities.ultrasound import training as ultrasound_images
from recon.training import evaluate


@dataclass(frozen=True)
class Modality:
    """A kind of image that priors are trained on.

    Parameters
    ----------
    channels : int
        Real channels of the network: 2 for complex images, 1 for real ones.
    scale : str
        What 1 means, for the card.
    load : callable
        ``(root, source, held_out) -> slices``.
    draw : callable
        ``(pools, rng, batch, size, untouched) -> Drawn``: random training images ``(batch, channels, size, size)``,
        a share of which is not augmented.
    test_image : callable
        ``(slice, number) -> (y, x)``, complex or real: what denoising is measured on.
    """

    channels: int
    scale: str
    load: Callable[[Path, SourceConfig, bool], list[Slice]]
    draw: Callable[[Sequence[augment.Pool], np.random.Generator, int, int, float], augment.Drawn]
    test_image: Callable[[Slice, int], Tensor]

    def held_out(self, root: Path, source: SourceConfig, count: int = 5) -> list[Slice]:
        """Return ``count`` slices spread evenly over the held-out files of a source, in its first plane."""
        slices = [s for s in self.load(root, source, True) if s.plane == source.planes[0]]
        return [slices[int(k)] for k in np.linspace(0, len(slices) - 1, count + 2)[1:-1]]


#: By the name that a training configuration gives.
MODALITIES = {
    "mri": Modality(
        2,
        "0.99 quantile of the magnitude = 1",
        volumes.load_slices,
        augment.draw_images,
        evaluate.evaluation_image,
    ),
    "ct": Modality(
        1,
        "attenuation of water = 1: (HU + 1000) / 1000",
        ct_volumes.load_slices,
        augment.draw_real_images,
        evaluate.real_evaluation_image,
    ),
    "ultrasound": Modality(
        2,
        "0.99 quantile of the magnitude of a first fit = 1",
        ultrasound_images.load_slices,
        ultrasound_images.draw_images,
        ultrasound_images.held_out_image,
    ),
}


def modality(name: str) -> Modality:
    """Return the modality of a name, or raise ConfigError."""
    if name not in MODALITIES:
        raise ConfigError(f"modality is {name!r}; expected one of {sorted(MODALITIES)}")
    return MODALITIES[name]
