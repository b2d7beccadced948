"""Valid values of the settings of a training run."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from recon.errors import ConfigError
from recon.options import TRAINING_PRECISIONS
from recon.priors.networks.unet import PARAMETRIZATIONS, UNet

Rule = tuple[Callable[[Any], bool], str]


def whole(least: int) -> Rule:
    """Whole numbers >= ``least``."""
    return lambda v: isinstance(v, int) and not isinstance(v, bool) and v >= least, f"a whole number >= {least}"


def number(low: float, high: float = math.inf, open_low: bool = False, open_high: bool = True) -> Rule:
    """Finite numbers in an interval."""

    def fits(v: Any) -> bool:
        if isinstance(v, bool) or not isinstance(v, int | float) or not math.isfinite(v):
            return False
        return (v > low if open_low else v >= low) and (v < high if open_high else v <= high)

    if low == -math.inf:
        return fits, "a finite number"
    sign = ">" if open_low else ">="
    if not math.isfinite(high):
        return fits, f"a number {sign} {low:g}"
    return fits, f"a number {sign} {low:g} and {'<' if open_high else '<='} {high:g}"


def either(values: Sequence[Any]) -> Rule:
    """One of a few values."""
    return lambda v: v in values, " or ".join(str(v) for v in values)


def _texts(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(v, str) for v in value)


def _two(value: Any) -> bool:
    return isinstance(value, list | tuple) and len(value) == 2 and all(number(-math.inf)[0](v) for v in value)


def _rising(value: Any) -> bool:
    return _two(value) and 0 < value[0] <= value[1]


POSITIVE, SHARE = number(0, open_low=True), number(0, 1, open_high=False)
SWITCH: Rule = (lambda v: isinstance(v, bool), "true or false")
TABLE: Rule = (lambda v: isinstance(v, Mapping), "a table")
TEXT: Rule = (lambda v: isinstance(v, str), "a string")
TEXTS: Rule = (_texts, "a list of strings")
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
#: Rules for the fields of ``SourceConfig``.
SOURCE: dict[str, Rule] = {
    "pattern": (
        lambda v: isinstance(v, str) and not Path(v).is_absolute(),
        "a pattern relative to the data folder",
    ),
    "planes": TEXTS,
    "held_out": TEXTS,
    "spacing": (_rising, "two increasing numbers in mm"),
    "rescale": (_two, "two numbers"),
    "weight": POSITIVE,
    "native": SHARE,
    "phase_jumps": SHARE,
    "max_zoom": number(1),
    "pixel": POSITIVE,
    "every": whole(1),
}


def check(settings: Any, rules: Mapping[str, Rule], where: str = "") -> None:
    """Raise ConfigError for the first setting that breaks its rule."""
    for name, (fits, expected) in rules.items():
        value = getattr(settings, name)
        if not fits(value):
            raise ConfigError(f"{where}{name} is {value!r}; expected {expected}")


def check_patches(patches: Any, multiple: int) -> None:
    """Raise ConfigError unless these are valid sizes for the network, with numbers of images and probabilities."""
    size, batch, probability = whole(1)[0], whole(1)[0], number(0)[0]
    good = isinstance(patches, list | tuple) and len(patches) > 0
    for patch in patches if good else ():
        fits = isinstance(patch, list | tuple) and len(patch) == 3
        if not (fits and size(patch[0]) and patch[0] % multiple == 0 and batch(patch[1]) and probability(patch[2])):
            raise ConfigError(
                f"patches has {patch!r}; expected [size, images, probability], size a multiple of {multiple}"
            )
    if not good or not sum(patch[2] for patch in patches) > 0:
        raise ConfigError(f"patches is {patches!r}; expected a list of [size, images, probability]")


def network_multiple(settings: Mapping[str, Any]) -> int:
    """Return what image sizes must be multiples of; raise ConfigError if these arguments are not valid."""
    known = sorted(inspect.signature(UNet).parameters)
    for key in settings:
        if key not in known:
            raise ConfigError(f"[network]: unknown key {key!r}; known keys: {', '.join(known)}")
    try:
        with torch.device("meta"):  # takes no memory and no random numbers
            return int(UNet(**settings).multiple)
    except (TypeError, ValueError, IndexError, RuntimeError, ArithmeticError) as error:
        raise ConfigError(f"[network]: invalid settings: {error}") from error
