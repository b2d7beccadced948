"""State dicts of guided-diffusion's U-Net: DDS (knee, AAPM), DPS (FFHQ), OpenAI.

Names determine everything but the width of an attention head: 64 in all published weights known to us; otherwise a card
(or the authors' configuration) contains ``head_channels``. Published scripts place attention by ``image_size // 16``,
which is not a power of two for 320 pixels: that network has attention in the middle only. Here, only the file counts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from recon.errors import CheckpointError
from recon.priors.checkpoints.archive import Content
from recon.priors.checkpoints.tensors import Checkpoint, choose, states

TITLE = "guided-diffusion ADM U-Net (DDS, DPS, OpenAI)"
PREFIXES = ("model.", "diffusion_model.")


def matches(content: Content) -> bool:
    """Recognise the layout by the names of first and last blocks."""
    return any(
        state is not None and {"time_embed.0.weight", "input_blocks.0.0.weight", "out.2.weight"} <= state.keys()
        for state in states(content.data, PREFIXES)
    )


def read(content: Content) -> Checkpoint:
    """Read a checkpoint of this layout."""
    tensors, weights = choose(content.path, *states(content.data, PREFIXES), content.data)
    if "label_emb.weight" in tensors:
        raise CheckpointError(f"{content.path}: class-conditional ('label_emb.weight'), which is not supported")
    try:
        network = _network(tensors)
    except (LookupError, ValueError, TypeError, ArithmeticError) as error:
        raise CheckpointError(f"{content.path}: its blocks do not form an ADM U-Net ({error})") from error
    channels = network["in_channels"]
    return Checkpoint(
        layout="adm",
        architecture="adm",
        network=network,
        parametrization={"kind": "vp", "schedule": "linear", "steps": 1000, "prediction": "epsilon"},
        channels=channels,
        tensors=tensors,
        weights=weights,
        card={
            "scale": "as in training: not stored in the file" if channels < 3 else "-1 ... 1",
            "images": "complex" if channels == 2 else "real",
        },
    )


def settings(original: Mapping[str, Any], network: Mapping[str, Any]) -> dict[str, Any]:
    """Translate the flat configuration of the guided-diffusion scripts.

    Raises
    ------
    CheckpointError
        If the width of heads varies between levels, or steps are passed to the network in another unit.
    """
    found: dict[str, Any] = {}
    width = original.get("num_head_channels", -1)
    if width > 0:
        found["head_channels"] = width
    elif "num_heads" in original:
        found["head_channels"] = _head_width(original, network)
    if "use_new_attention_order" in original:
        found["grouped_heads"] = not original["use_new_attention_order"]
    steps: dict[str, Any] = {}
    if "diffusion_steps" in original:
        steps["steps"] = original["diffusion_steps"]
        if original.get("rescale_timesteps") and steps["steps"] != 1000:
            raise CheckpointError("rescale_timesteps is only supported with 1000 diffusion_steps")
    if original.get("predict_xstart"):
        steps["prediction"] = "sample"
    if "noise_schedule" in original:
        steps["schedule"] = original["noise_schedule"]
    return {"network": found, "parametrization": steps}


def _head_width(original: Mapping[str, Any], network: Mapping[str, Any]) -> int:
    """Return the width of heads whose number is configured; it must be the same at every level."""
    heads, upward = original["num_heads"], original.get("num_heads_upsample", -1)
    factors = network["channel_mult"]
    widths = {network["model_channels"] * factors[level] for level in (*network["attention_levels"], len(factors) - 1)}
    if len(widths) > 1 or upward not in (-1, heads):
        raise CheckpointError(
            f"num_heads = {heads} without num_head_channels: heads whose width varies between levels are not "
            f"supported (attention is {', '.join(map(str, sorted(widths)))} channels wide)"
        )
    (width,) = widths
    if not isinstance(heads, int) or heads < 1 or width % heads:
        raise CheckpointError(f"num_heads = {heads!r} does not divide {width} channels")
    return int(width // heads)


def _network(tensors: dict[str, Tensor]) -> dict[str, Any]:
    """Infer the arguments of the network from names and shapes."""
    features = tensors["time_embed.0.weight"].shape[1]
    # A block that doubles the resolution ends a level of the decoder.
    blocks = len({name.split(".")[1] for name in tensors if name.startswith("output_blocks.")})
    ends = [number for number in range(blocks) if _rises(tensors, number)]
    per_level = ends[0] + 1 if ends else blocks
    levels = len(ends) + 1
    updown = any(f"output_blocks.{number}.{k}.in_layers.0.weight" in tensors for number in ends for k in (1, 2))
    starts = [1 + level * per_level for level in range(levels)]
    widths = [len(tensors[f"input_blocks.{start}.0.out_layers.3.weight"]) for start in starts]
    if any(width % features for width in widths):
        raise ValueError(f"widths {widths} are not multiples of {features}")
    first = "input_blocks.1.0."
    return {
        "in_channels": tensors["input_blocks.0.0.weight"].shape[1],
        "out_channels": len(tensors["out.2.weight"]),
        "model_channels": features,
        "res_blocks": per_level - 1,
        "channel_mult": [width // features for width in widths],
        "attention_levels": [
            level for level, start in enumerate(starts) if f"input_blocks.{start}.1.qkv.weight" in tensors
        ],
        "scale_shift": len(tensors[first + "emb_layers.1.weight"]) == 2 * widths[0],
        "resblock_updown": updown,
        "conv_resample": not ends or updown or f"input_blocks.{per_level}.0.op.weight" in tensors,
    }


def _rises(tensors: dict[str, Tensor], number: int) -> bool:
    block = f"output_blocks.{number}"
    return any(f"{block}.{k}.{leaf}" in tensors for k in (1, 2) for leaf in ("in_layers.0.weight", "conv.weight"))
