"""Load a third-party checkpoint as a prior: recognise the layout, account for every tensor, adapt."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from recon.errors import CheckpointError
from recon.priors.checkpoints import adm, diffusers, edm, ncsnv2, score_sde
from recon.priors.checkpoints.archive import Content, read_file, sha256_of
from recon.priors.checkpoints.card import check_keys, complete, read_sidecar
from recon.priors.checkpoints.converted import is_converted, read_converted
from recon.priors.checkpoints.parametrization import parametrize, sigma_range
from recon.priors.checkpoints.prior import CheckpointPrior
from recon.priors.checkpoints.tensors import Checkpoint, Layout, account, fill
from recon.priors.networks.table import ARCHITECTURES, build

LAYOUTS: dict[str, Layout] = {
    "score-sde": score_sde,
    "adm": adm,
    "edm": edm,
    "ncsnv2": ncsnv2,
    "diffusers": diffusers,
}


def load_checkpoint(
    path: str | Path,
    *,
    card: Mapping[str, Any] | None = None,
    images: str | None = None,
    device: torch.device | str = "cpu",
    max_batch: int | None = None,
    precision: str = "float32",
    compiled: bool | str = False,
) -> CheckpointPrior:
    """Load a third-party pretrained network as a prior.

    The layout is recognised by names and shapes; averaged (EMA) weights are used if there are any; every tensor is
    accounted for. Nothing in the file is run.

    Parameters
    ----------
    path : str or Path
        ``.pt``, ``.pth``, ``.safetensors`` or the folder of a diffusers model.
    card : mapping, optional
        Information that is not in the file; by default the ``.json`` of the same name beside it: a card (``scale``,
        ``images``, ``gain``, ``sha256``, ``network``, ``parametrization``, ...), or the authors' configuration.
    images : "complex" or "real", optional
        Kind of images; by default according to the card or the layout.
    device, max_batch, precision, compiled
        As in `recon.priors.network.NetworkPrior`.

    Raises
    ------
    InputError
        If the file does not exist.
    CheckpointError
        If it is damaged, contains code, has an unknown layout or a sha256 other than its card's, or if a tensor is
        missing, unexpected, of another shape, or not finite (the message names it).
    """
    checkpoint, network = _read(Path(path), card)
    known = checkpoint.card
    description = {
        **known,
        "layout": checkpoint.layout,
        "architecture": checkpoint.architecture,
        "network": checkpoint.network,
        "parametrization": checkpoint.parametrization,
        "channels": checkpoint.channels,
        "weights": checkpoint.weights,
    }
    try:
        model = parametrize(network, checkpoint.parametrization)
        levels = sigma_range(checkpoint.parametrization)
    except (LookupError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: the card does not specify how to use the network: {error}") from error
    prior = CheckpointPrior(
        model,
        checkpoint.channels,
        levels,
        images or known.get("images", "complex"),
        known.get("gain", 1.0),
        description,
        max_batch,
        precision,
        offset=known.get("offset", 0.0),
        compiled=compiled,
    )
    prior.to(device)
    return prior


def read_checkpoint(path: str | Path, card: Mapping[str, Any] | None = None) -> Checkpoint:
    """Read a checkpoint and account for its tensors; ``tensors`` are float32 copies with the network's names.

    Raises
    ------
    InputError, CheckpointError
        As for `load_checkpoint`.
    """
    return _read(Path(path), card)[0]


def checkpoint_lines(path: str | Path, card: Mapping[str, Any] | None = None) -> list[str]:
    """Verify a checkpoint completely and describe it in lines of text."""
    return prior_lines(path, load_checkpoint(path, card=card))


def prior_lines(path: str | Path, prior: CheckpointPrior) -> list[str]:
    """Describe a loaded checkpoint."""
    card = prior.card
    title = LAYOUTS[card["layout"]].TITLE if card["layout"] in LAYOUTS else "?"
    kinds = {"ve": "score, given sigma", "scaled": "score times sigma", "edm": "EDM denoiser", "vp": "DDPM steps"}
    lines = [
        f"{path}",
        f"  layout      {card['layout']} ({title})",
        f"  network     {card['architecture']}, {prior.n_parameters:,} parameters, {prior.channels} channel(s)",
        f"  weights     {card['weights']}; every tensor accounted for, all finite",
        f"  output      {kinds[card['parametrization']['kind']]}",
        *_assumed(prior),
        f"  images      {prior.images}",
        f"  sigma       {prior.sigma_min:.4g} to {prior.sigma_max:.4g}"
        + (" (of complex noise)" if prior.images == "complex" else ""),
        f"  scale       {card.get('scale', '?')}"
        + (f"; gain {prior.gain:g}" if prior.gain != 1 else "")
        + (f"; offset {prior.offset:g}" if prior.offset else ""),
    ]
    lines += [f"  {key:<11} {card[key]}" for key in ("name", "data", "licence", "citation") if card.get(key)]
    return [*lines, f"  sha256      {card['sha256']}"]


def _assumed(prior: CheckpointPrior) -> list[str]:
    """Report the width of attention heads if it is only assumed."""
    architecture = ARCHITECTURES[prior.card["architecture"]]
    width = inspect.signature(architecture).parameters.get("head_channels")
    attends = any(name.endswith("qkv.weight") for name in prior.model.state_dict())
    if width is None or "head_channels" in prior.card["network"] or not attends:
        return []
    return [f"  heads       {width.default} channels wide (assumed: no card contains network.head_channels)"]


def _read(path: Path, card: Mapping[str, Any] | None) -> tuple[Checkpoint, nn.Module]:
    """Return the checkpoint with accounted tensors, and its network filled with them."""
    given = dict(read_sidecar(path) if card is None else card)
    check_keys("card", given)
    weights = path if not path.is_dir() else diffusers.weights_file(path)
    digest = sha256_of(weights) if weights.is_file() else None
    expected = str(given["sha256"]).lower() if given.get("sha256") else None
    if expected not in (None, digest) and digest is not None and not _made_from(weights, expected):
        raise CheckpointError(
            f"{path}: sha256 is {digest}, but its card says {given['sha256']}: damaged, or a different file; "
            "download it again"
        )
    content = diffusers.read_folder(path) if path.is_dir() else read_file(path)
    if is_converted(content):
        checkpoint = read_converted(content)
        check_keys(path, checkpoint.card)
        if checkpoint.layout not in LAYOUTS:
            raise CheckpointError(f"{path}: unknown layout {checkpoint.layout!r}; expected {', '.join(LAYOUTS)}")
    else:
        checkpoint = LAYOUTS[_recognise(content)].read(content)
    checkpoint = complete(checkpoint, given, LAYOUTS[checkpoint.layout])
    try:
        network = build(checkpoint.architecture, checkpoint.network)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}; a card beside it may supply what is missing in the file") from error
    tensors = account(path, checkpoint.tensors, network)
    checkpoint = dataclasses.replace(checkpoint, tensors=tensors, card={**checkpoint.card, "sha256": digest})
    return checkpoint, fill(network, tensors)


def _made_from(path: Path, source: str | None) -> bool:
    """Tell whether a file was converted from one with this sha256, whose card is beside both."""
    if path.suffix != ".safetensors":
        return False
    content = read_file(path)
    return is_converted(content) and read_converted(content).card.get("sha256") == source


def _recognise(content: Content) -> str:
    """Return the name of the layout of a file."""
    for name, layout in LAYOUTS.items():
        if layout.matches(content):
            return name
    data = content.data[0] if isinstance(content.data, list) and content.data else content.data
    keys = [str(key) for key in data][:4] if isinstance(data, Mapping) else [type(data).__name__]
    titles = "; ".join(layout.TITLE for layout in LAYOUTS.values())
    raise CheckpointError(
        f"{content.path}: weights of unknown layout (the file begins with {', '.join(keys)}); known layouts: {titles}"
    )
