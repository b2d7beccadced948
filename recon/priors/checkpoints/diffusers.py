"""Folders of diffusers: ``UNet2DModel`` with ``config.json``, safetensors, and the configuration of its scheduler."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from recon.errors import CheckpointError
from recon.files.documents import read_json
from recon.priors.checkpoints.archive import Content, read_file
from recon.priors.checkpoints.tensors import Checkpoint

TITLE = "diffusers UNet2DModel"
WEIGHTS = "diffusion_pytorch_model.safetensors"
# Names of the parts of attention in older versions of diffusers.
RENAMED = {".query.": ".to_q.", ".key.": ".to_k.", ".value.": ".to_v.", ".proj_attn.": ".to_out.0."}
FIXED = {
    "act_fn": "silu",
    "class_embed_type": None,
    "downsample_type": "conv",
    "mid_block_scale_factor": 1,
    "resnet_time_scale_shift": "default",
    "time_embedding_dim": None,
    "time_embedding_type": "positional",
    "upsample_type": "conv",
    "attn_norm_num_groups": None,
}


#: Schedulers of networks trained on DDPM steps begin with these names.
_SCHEDULERS: tuple[str, ...] = ("DDPM", "DDIM", "PNDM", "DPMSolver", "UniPC", "EulerDiscrete", "EulerAncestral")
_SCHEDULERS += ("LMSDiscrete", "Heun", "DEIS", "KDPM2")


def read_folder(path: Path) -> Content:
    """Read the folder of a pipeline or of its network.

    Raises
    ------
    CheckpointError
        If a file is missing or damaged.
    """
    folder = weights_file(path).parent
    if not (folder / WEIGHTS).is_file():
        raise CheckpointError(
            f"{folder}: no {WEIGHTS}; a diffusers folder needs it (.bin files are pickles; convert them with diffusers "
            "by save_pretrained(..., safe_serialization=True))"
        )
    schedulers = [path / "scheduler" / "scheduler_config.json", folder / "scheduler_config.json"]
    scheduler = next((read_json(file, CheckpointError) for file in schedulers if file.is_file()), {})
    content = read_file(folder / WEIGHTS)
    return Content(path, content.data, content.metadata, read_json(folder / "config.json", CheckpointError), scheduler)


def weights_file(path: Path) -> Path:
    """Return the path of the weights of a pipeline or of its network."""
    return (path / "unet" if (path / "unet" / "config.json").is_file() else path) / WEIGHTS


def matches(content: Content) -> bool:
    """Recognise the layout by the configuration."""
    return content.config.get("_class_name") == "UNet2DModel"


def read(content: Content) -> Checkpoint:
    """Read a checkpoint of this layout."""
    config, tensors = content.config, dict(content.data)
    for name, value in FIXED.items():
        if config.get(name, value) != value:
            raise CheckpointError(
                f"{content.path}: expected {name} = {value!r}, got {config[name]!r}, which is not supported"
            )
    for old, new in RENAMED.items():
        tensors = {name.replace(old, new) if ".attentions." in name else name: v for name, v in tensors.items()}
    try:
        network = _network(config)
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{content.path}: config.json does not describe a network ({error})") from error
    channels = network["in_channels"]
    return Checkpoint(
        layout="diffusers",
        architecture="unet2d",
        network=network,
        parametrization=_steps(content),
        channels=channels,
        tensors=tensors,
        weights="as stored",
        card={"scale": "-1 ... 1", "images": "complex" if channels == 2 else "real"},
    )


def settings(original: Mapping[str, Any], network: Mapping[str, Any]) -> dict[str, Any]:
    """Return no settings: the folder has its own configuration."""
    return {}


def _network(config: dict[str, Any]) -> dict[str, Any]:
    kinds = {"down": config["down_block_types"], "up": config["up_block_types"]}
    attention = {}
    for way, names in kinds.items():
        plain, attentive = f"{way.capitalize()}Block2D", f"Attn{way.capitalize()}Block2D"
        other = [name for name in names if name not in (plain, attentive)]
        if other:
            raise ValueError(f"block {other[0]!r} is not supported")
        attention[way] = [number for number, name in enumerate(names) if name == attentive]
    return {
        "in_channels": config["in_channels"],
        "out_channels": config["out_channels"],
        "features": config["block_out_channels"],
        "res_blocks": config.get("layers_per_block", 2),
        "attention_down": attention["down"],
        "attention_up": attention["up"],
        "middle_attention": config.get("add_attention", True),
        "head_channels": config.get("attention_head_dim", 8),
        "groups": config.get("norm_num_groups", 32),
        "eps": config.get("norm_eps", 1e-5),
        "flip": config.get("flip_sin_to_cos", True),
        "shift": config.get("freq_shift", 0),
        "down_padding": config.get("downsample_padding", 1),
        "center": config.get("center_input_sample", False),
    }


def _steps(content: Content) -> dict[str, Any]:
    """Return the noise schedule; by default that of DDPM."""
    given = content.scheduler
    kind = given.get("_class_name", "DDPMScheduler")
    if not isinstance(kind, str) or not kind.startswith(_SCHEDULERS):
        raise CheckpointError(f"{content.path}: unknown scheduler {kind!r}; expected one with DDPM steps")
    for key in ("trained_betas", "rescale_betas_zero_snr"):
        if given.get(key) not in (None, False):
            raise CheckpointError(f"{content.path}: {key} of the scheduler is not supported")
    schedules = {"linear": "linear", "scaled_linear": "scaled_linear", "squaredcos_cap_v2": "cosine"}
    schedule = given.get("beta_schedule", "linear")
    if schedule not in schedules:
        raise CheckpointError(f"{content.path}: unknown beta_schedule {schedule!r}; expected {', '.join(schedules)}")
    return {
        "kind": "vp",
        "schedule": schedules[schedule],
        "beta_start": given.get("beta_start", 1e-4),
        "beta_end": given.get("beta_end", 0.02),
        "steps": given.get("num_train_timesteps", 1000),
        "prediction": given.get("prediction_type", "epsilon"),
    }
