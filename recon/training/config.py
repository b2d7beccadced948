"""Settings of a training run: one frozen dataclass defines names, defaults and meanings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from recon.errors import ConfigError
from recon.files.documents import read_toml
from recon.images.sources import SourceConfig, check_source
from recon.modalities import training_images
from recon.options import shown
from recon.training import rules
from recon.valid_values import check


@dataclass(frozen=True)
class TrainConfig:
    """All settings of a training run; TOML keys are these names.

    Parameters
    ----------
    data : str
        Folder that the patterns of ``sources`` are relative to.
    output : str
        Folder for the checkpoint, the log and the held-out curves. A checkpoint found there is continued.
    initial : str
        Weights to start from (.safetensors of a network of the same architecture; a prior of real images may start from
        one of complex images). Random weights by default.
    modality : str
        One of `recon.modalities.names`, which says what the images are and how they are drawn from files.
    sources : sequence of SourceConfig
        Sets of training files.
    network : mapping
        Arguments of `recon.priors.networks.unet.UNet`.
    sigma_data : float
        Standard deviation of the data per real channel.
    parametrization : str
        What the network predicts: "edm" (a mixture of image and noise), or the noise, from an input scaled to variance
        1 ("vp") or unscaled ("ve"); see `recon.priors.networks.unet.EDMDenoiser`.
    sigma_log_mean, sigma_log_std, sigma_min, sigma_max : float
        Distribution of the training noise level per real channel: log sigma is normal, sigma is clipped.
    steps, warmup, decay : int
        Total number of optimiser steps, steps of the linear warm-up, and steps of the final decay to zero (the rate is
        constant in between, so ``steps`` can be changed until a run begins to decay).
    patches : sequence of (size, batch, probability)
        Patch size in pixels, images per step at that size, and how often each size is drawn.
    position_channels : bool
        Condition the network on the position of a patch in the whole image (two more input channels), so that it learns
        from patches what belongs where. It then needs images framed like those of training.
    augmentation_labels : bool
        Condition the network during training on how an image was flipped, scaled and changed in contrast, and leave
        some images unchanged: a prior trained on few data then does not generate flipped or stretched images.
    learning_rate, muon_factor : float
        Peak rate of AdamW (biases, embeddings, first and last layer), and the rate of Muon (all other kernels) relative
        to it.
    weight_decay, clip, ema_decay : float
        Decoupled weight decay, largest gradient norm, and decay of the moving average that is evaluated and exported.
    seed : int
        Determines initial weights, images and noise.
    precision : str
        "bfloat16" (autocast of the network) or "float32".
    threads : int
        CPU threads; each processes a part of every batch. Results are reproducible for a fixed number of threads.
    device : str
        "cpu", "cuda", "cuda:1" or "auto". Under ``torchrun``, each process draws its own images (with "cuda", on
        the GPU with its local rank), and gradients are averaged.
    accumulate : int
        Batches whose gradients are averaged in one step: a large batch in little memory. One process that accumulates
        two batches and two processes with one each are equivalent, up to rounding.
    checkpoint_minutes, evaluation_minutes : float
        Minutes between checkpoints and between held-out denoising curves.
    previews : int
        Number of images drawn from the prior with every held-out curve (``previews.png``, beside ``curves.png``; needs
        matplotlib); 0 for no pictures.
    card : mapping
        Entries for the card of the exported prior: name, licence, training data, limits. Not used in training.
    """

    data: str = ""
    output: str = ""
    initial: str = ""
    modality: str = ""
    sources: Sequence[SourceConfig] = ()
    network: Mapping[str, Any] = field(default_factory=dict)
    sigma_data: float = 0.25
    parametrization: str = "edm"
    sigma_log_mean: float = -1.8
    sigma_log_std: float = 1.5
    sigma_min: float = 0.002
    sigma_max: float = 20.0
    steps: int = 8000
    warmup: int = 300
    decay: int = 3000
    patches: Sequence[Sequence[float]] = ((96, 16, 0.65), (128, 9, 0.2), (192, 4, 0.15))
    position_channels: bool = False
    augmentation_labels: bool = False
    learning_rate: float = 1e-3
    muon_factor: float = 2.0
    weight_decay: float = 0.01
    clip: float = 1.0
    ema_decay: float = 0.999
    seed: int = 0
    precision: str = "bfloat16"
    threads: int = 2
    device: str = "cpu"
    accumulate: int = 1
    checkpoint_minutes: float = 5.0
    evaluation_minutes: float = 10.0
    previews: int = 4
    card: Mapping[str, Any] = field(default_factory=dict)


def load_config(path: str | Path, overrides: Mapping[str, Any] | None = None) -> TrainConfig:
    """Read a TOML file into a ``TrainConfig``; ``overrides`` replace its keys.

    Raises
    ------
    ConfigError
        If the file cannot be parsed, or a key is unknown (the message names it).
    """
    table = read_toml(path, "training configuration")
    table.update(overrides or {})
    sources = table.get("sources", [])
    if not (isinstance(sources, list) and all(isinstance(entry, dict) for entry in sources)):
        raise ConfigError(f"{path}: sources: expected tables [[sources]], got {shown(sources)}")
    table["sources"] = tuple(build_section(SourceConfig, entry, "sources") for entry in sources)
    return build_section(TrainConfig, table, str(path))


def build_section(kind: type, table: Mapping[str, Any], where: str) -> Any:
    """Build a dataclass from a table; raise ConfigError with ``where`` for an unknown key."""
    names = {f.name for f in fields(kind)}
    for key in table:
        if key not in names:
            raise ConfigError(f"{where}: unknown key {key!r}; known keys: {', '.join(sorted(names))}")
    try:
        return kind(**table)
    except TypeError as error:
        raise ConfigError(f"{where}: {error}") from error


def validate(config: TrainConfig) -> None:
    """Raise ConfigError if a setting is missing or invalid."""
    for key in ("data", "output", "sources"):
        if not getattr(config, key):
            raise ConfigError(f"training needs {key!r}")
    check(config, rules.SETTINGS)
    if not config.sigma_min < config.sigma_max:
        raise ConfigError(f"expected sigma_min < sigma_max, got {config.sigma_min} and {config.sigma_max}")
    for source in config.sources:
        check_source(source, training_images(config.modality).unused)
