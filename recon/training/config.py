"""Settings of a training run: one frozen dataclass is the only source of names, defaults and meanings."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from recon.errors import ConfigError
from recon.images import rules
from recon.images.sources import SourceConfig, check_source

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


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
        Weights (.safetensors of a network of the same architecture, whose images may be complex where these are real)
        to start from; random ones by default.
    modality : str
        "mri" (complex images: measured, or magnitudes with a synthetic phase), "ct" (real images, attenuation relative
        to water) or "ultrasound" (complex base-band reflectivity, simulated when it is drawn: no files are read).
    sources : sequence of SourceConfig
        Training files.
    network : mapping
        Arguments of ``UNet``.
    sigma_data : float
        Standard deviation of the data per real channel.
    parametrization : str
        What the network predicts: "edm" (a mixture of image and noise), "vp" or "ve" (noise; from images of variance
        1, or as they are), see `recon.priors.networks.unet.EDMDenoiser`.
    sigma_log_mean, sigma_log_std, sigma_min, sigma_max : float
        Distribution of the training noise per real channel: log sigma normal, clipped.
    steps, warmup, decay : int
        Optimiser steps in all; linear warm-up; steps of the final decay to zero (constant rate in between, so
        ``steps`` can be changed while a run has not begun to decay).
    patches : sequence of (size, batch, probability)
        Patch sizes in pixels, images per step at that size and how often each is drawn.
    position_channels : bool
        Tell the network where in the whole image a patch lies (two more input channels): it learns from patches what
        belongs where. It then needs images of the same framing as those of training.
    augmentation_labels : bool
        Tell the network in training how an image was turned, scaled and changed in contrast, and leave some images as
        they are: a prior from few data that does not make turned or stretched images.
    learning_rate, muon_factor : float
        Peak rate of AdamW (biases, embeddings, first and last layer) and how many times larger that of Muon (all other
        kernels) is.
    weight_decay, clip, ema_decay : float
        Decoupled weight decay, largest gradient norm, decay of the moving average that is evaluated and shipped.
    seed : int
        Fixes initial weights, images and noise.
    precision : str
        "bfloat16" (autocast of the network) or "float32".
    threads : int
        CPU threads; each takes its part of every batch. Results are reproducible for one number of threads.
    device : str
        "cpu", "cuda", "cuda:1" or "auto". Under ``torchrun`` each process takes images of its own, on the GPU of its
        number with "cuda", and all share their gradients.
    accumulate : int
        Batches whose gradients are added up for one step: a large batch where memory is small. One process that
        accumulates two batches and two processes with one each do the same, up to rounding.
    checkpoint_minutes, evaluation_minutes : float
        How often to write a checkpoint and a held-out denoising curve.
    previews : int
        Images that are drawn from the prior with every held-out curve (``previews.png``, beside ``curves.png``; needs
        matplotlib); 0 for no pictures.
    card : mapping
        Facts for the card of the exported prior: name, licence, training data, limits. Not used in training.
    """

    data: str = ""
    output: str = ""
    initial: str = ""
    modality: str = "mri"
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
    try:
        with open(path, "rb") as file:
            table = tomllib.load(file)
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"cannot read the training configuration {path}: {error}") from error
    table.update(overrides or {})
    sources = table.get("sources", [])
    if not (isinstance(sources, list) and all(isinstance(entry, dict) for entry in sources)):
        raise ConfigError(f"{path}: sources is {sources!r}; expected tables [[sources]]")
    table["sources"] = tuple(build_section(SourceConfig, entry, "sources") for entry in sources)
    return build_section(TrainConfig, table, str(path))


def build_section(kind: type, table: Mapping[str, Any], where: str) -> Any:
    """Build a dataclass from a table; ConfigError names an unknown key and ``where`` it was found."""
    names = {f.name for f in fields(kind)}
    for key in table:
        if key not in names:
            raise ConfigError(f"{where}: unknown key {key!r}; known keys: {', '.join(sorted(names))}")
    try:
        return kind(**table)
    except TypeError as error:
        raise ConfigError(f"{where}: {error}") from error


def validate(config: TrainConfig) -> None:
    """Raise ConfigError where a setting is missing or makes no sense."""
    for key in ("data", "output", "sources"):
        if not getattr(config, key):
            raise ConfigError(f"training needs {key!r}")
    rules.check(config, rules.SETTINGS)
    if not config.sigma_min < config.sigma_max:
        raise ConfigError(
            f"sigma_min is {config.sigma_min}, sigma_max {config.sigma_max}; expected sigma_min < sigma_max"
        )
    for source in config.sources:
        check_source(source)
