"""The JSON file beside a weights file: a diffrecon card, or the configuration of the authors."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from recon.errors import CheckpointError
from recon.files.documents import read_json
from recon.priors.checkpoints.tensors import Checkpoint, Layout

#: Keys of a card: a file with one of these is a card, whatever else it contains ...
MARKS = {"scale", "images", "gain", "offset", "sha256", "licence", "network", "parametrization"}
#: ... and these are also allowed.
NOTES = {"name", "version", "data", "citation", "url", "page", "link", "limits", "notes", "error_std", "path"}
NOTES |= {"channels", "layout", "file", "parameters", "sigma_range"}
#: Without them, one of these marks a configuration of the authors: guided-diffusion, InverseBench and EDM, csgm,
#: score_sde. A diffusers folder has its own configuration.
CONFIGURATIONS: dict[str, set[str]] = {
    "adm": {"image_size", "num_channels", "num_res_blocks", "num_heads", "num_head_channels", "diffusion_steps"}
    | {"noise_schedule", "learn_sigma", "use_new_attention_order", "predict_xstart", "rescale_timesteps", "class_cond"},
    "edm": {"model_type", "model_channels", "img_resolution", "img_channels", "sigma_data", "sigma_min", "sigma_max"}
    | {"model"},
    "ncsnv2": {"ngf", "num_classes", "sigma_begin", "model", "training", "rescaled"},
    "score-sde": {"model", "training", "skip_rescale", "scale_by_sigma", "fir", "fir_kernel", "resblock_type"}
    | {"embedding_type", "progressive", "progressive_input", "progressive_combine", "attention_type", "conditional"},
    "diffusers": set(),
}
#: Keys of the parametrization in a card.
PARAMETRIZATION = {"kind", "sigma_min", "sigma_max", "sigma_data", "schedule", "beta_start", "beta_end", "steps"}
PARAMETRIZATION |= {"prediction"}


def read_sidecar(path: Path) -> dict[str, Any]:
    """Return the JSON object beside a file or folder (same name, ``.json``), or an empty dict if there is none.

    Raises
    ------
    CheckpointError
        If it is not a JSON object, or a card with an unknown key.
    """
    path = path.resolve() if path.is_dir() else path
    file = path.with_name(path.name + ".json") if path.is_dir() else path.with_suffix(".json")
    if not file.is_file():
        return {}
    given = read_json(file, CheckpointError, "the card")
    check_keys(file, given)
    return given


def is_card(given: Mapping[str, Any]) -> bool:
    """Tell a diffrecon card from a configuration file of the authors."""
    return bool(MARKS & given.keys()) or not any(is_configuration(given, layout) for layout in CONFIGURATIONS)


def is_configuration(given: Mapping[str, Any], layout: str) -> bool:
    """Tell whether this may be the configuration of a layout's authors."""
    data = layout in ("ncsnv2", "score-sde") and isinstance(given.get("data"), Mapping)
    return data or bool(CONFIGURATIONS[layout] & given.keys())


def check_keys(file: Path | str, given: Mapping[str, Any]) -> None:
    """Raise CheckpointError if a card has unknown keys, or a value of the wrong kind."""
    unknown = [key for key in given if key not in MARKS | NOTES]
    if is_card(given) and unknown:
        raise CheckpointError(
            f"{file}: unknown card key {_list(unknown)}; known keys: {', '.join(sorted(MARKS | NOTES))}"
        )
    kinds = {
        "network": dict,
        "parametrization": dict,
        "gain": int | float,
        "offset": int | float,
        "images": str,
        "sha256": str | None,
    }
    for key, kind in kinds.items():
        if key in given and is_card(given) and not isinstance(given[key], kind):
            raise CheckpointError(f"{file}: invalid value of {key!r} in the card: {given[key]!r:.80}")
    strange = sorted(given.get("parametrization", {}).keys() - PARAMETRIZATION) if is_card(given) else []
    if strange:
        expected = ", ".join(sorted(PARAMETRIZATION))
        raise CheckpointError(f"{file}: unknown parametrization key {_list(strange)}; expected {expected}")


def complete(checkpoint: Checkpoint, given: Mapping[str, Any], layout: Layout) -> Checkpoint:
    """Return the checkpoint updated by the card or the authors' configuration; a card takes precedence.

    Raises
    ------
    CheckpointError
        If it is a configuration of another layout, or one that cannot be used.
    """
    card = dict(given) if is_card(given) else _translated(checkpoint, given, layout)
    network = {**checkpoint.network, **card.pop("network", {})}
    parametrization = {**checkpoint.parametrization, **card.pop("parametrization", {})}
    card = {**checkpoint.card, **card}
    return dataclasses.replace(checkpoint, network=network, parametrization=parametrization, card=card)


def _translated(checkpoint: Checkpoint, given: Mapping[str, Any], layout: Layout) -> dict[str, Any]:
    """Return the authors' configuration as a card."""
    if not is_configuration(given, checkpoint.layout):
        raise CheckpointError(
            f"the file beside the weights is neither a card nor a configuration of {checkpoint.layout}: "
            f"it has {_list(list(given))}"
        )
    try:
        return layout.settings(given, checkpoint.network)
    except (TypeError, ValueError, AttributeError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"the configuration beside the weights cannot be read: {error}") from error


def _list(names: list[str]) -> str:
    return ", ".join(repr(name) for name in names)
