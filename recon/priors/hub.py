"""Load a prior by name or from a file, or accept one that is passed as an object."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Real
from pathlib import Path
from typing import Any

import torch

from recon import plugins
from recon.device import resolve_device
from recon.errors import CheckpointError, InputError
from recon.files.documents import read_json
from recon.priors import hub_store
from recon.priors.analytic import GaussianPrior
from recon.priors.precision import resolve_precision
from samplers.base import Denoiser

WEIGHTS_FOLDER = Path(__file__).parent / "weights"
GAUSSIAN = "gaussian"
WEIGHTS_SUFFIXES = (".safetensors", ".pt", ".pth", ".ckpt", ".pkl", ".bin")


def load_prior(
    source: str | Path | Denoiser,
    *,
    shape: Sequence[int] | None = None,
    device: torch.device | str = "cpu",
    precision: str = "auto",
    images: str | None = None,
    compiled: bool | str = False,
) -> Denoiser:
    """Return a prior for the samplers.

    Parameters
    ----------
    source : str, path or Denoiser
        A name from `list_models` (``"brain-mri"``); a published network, by its name (``recon models`` lists
        them) or the path of its file: ``.pt``, ``.pth``, ``.safetensors`` or the folder of a diffusers
        model; ``"gaussian"``, a stationary Gaussian with an image-like spectrum (no network; needs ``shape``); a name
        that another distribution provides through the entry points ``diffrecon.priors``; or any object with
        ``denoise``, ``sigma_min``, ``sigma_max`` and ``space``, which is returned unchanged.
    shape : sequence of int, optional
        Image shape, for priors that depend on it.
    device : torch.device or str
        Device of the prior.
    precision : "auto", "float32", "tf32" or "bfloat16"
        Arithmetic of loaded networks; "auto" is bfloat16 where the device is faster in it, and float32 elsewhere.
    images : "complex" or "real", optional
        Kind of images, where both are possible: for a published network with one channel (by default according to its
        card) and for ``"gaussian"`` (complex by default).
    compiled : bool or "cuda-graphs"
        Whether to compile loaded networks; see `recon.priors.inference.PreparedNetwork`.

    Raises
    ------
    InputError
        If the prior does not exist.
    CheckpointError
        If its file is damaged, unsafe, or not what it claims to be.
    """
    if not isinstance(source, str | Path):
        missing = [name for name in ("denoise", "sigma_min", "sigma_max", "space") if not hasattr(source, name)]
        if missing:
            raise InputError(f"prior: a {type(source).__name__} is not a denoiser: it lacks {', '.join(missing)}")
        _check_levels(source)
        return source
    device = resolve_device(device) if isinstance(device, str) else device
    if source == GAUSSIAN:
        if shape is None:
            raise InputError("prior 'gaussian' needs the image shape: load_prior('gaussian', shape=(y, x))")
        dtype = torch.float32 if images == "real" else torch.complex64
        return GaussianPrior.power_law(shape, std=0.35, exponent=2.4, corner=0.01, dtype=dtype).to(device)
    # Imported late: listing models does not need the networks.
    from recon.priors.network import load_network_prior

    precision = resolve_precision(precision, device)
    path, name = Path(source), str(source)
    if not path.name:
        raise _unknown(name)
    shipped = WEIGHTS_FOLDER / f"{name}.safetensors"
    if path.name == name and shipped.is_file():
        return load_network_prior(shipped, device=device, precision=precision, compiled=compiled)
    if path.name == name and name in hub_store.entries():
        return hub_store.load_published(name, images=images, device=device, precision=precision, compiled=compiled)
    if path.suffix in WEIGHTS_SUFFIXES or path.exists():
        return _load_file(path, images, device, precision, compiled)
    offered = plugins.find("priors", name)
    if offered is not None:
        return offered()
    raise _unknown(name)


def _check_levels(prior: Denoiser) -> None:
    """Raise InputError unless a denoiser can be called and its noise levels are numbers in order."""
    levels: tuple[Any, Any] = prior.sigma_min, prior.sigma_max
    if not all(isinstance(level, Real) and math.isfinite(level) for level in levels) or not 0 <= levels[0] < levels[1]:
        raise InputError(f"prior: expected numbers 0 <= sigma_min < sigma_max, got {levels[0]!r} and {levels[1]!r}")
    if not callable(prior.denoise):
        raise InputError(f"prior: expected a method denoise, got {type(prior.denoise).__name__}")


def require_known(source: str) -> None:
    """Raise InputError for a prior that `load_prior` would not find; nothing is loaded."""
    path = Path(source)
    shipped = [card["name"] for card in list_models()]
    if source in (GAUSSIAN, *shipped, *hub_store.entries(), *plugins.names("priors")) or path.exists():
        return
    raise _absent(path) if path.suffix in WEIGHTS_SUFFIXES else _unknown(source)


def _unknown(name: str) -> InputError:
    names = ", ".join([card["name"] for card in list_models()] + [GAUSSIAN, *plugins.names("priors")])
    return InputError(
        f"unknown prior {name!r}; choose one of {names}, a published network (see `recon models`), "
        "or a weights file (.safetensors, .pt, .pth)"
    )


def _absent(path: Path) -> InputError:
    return InputError(f"prior: the file {path} does not exist")


def _load_file(
    path: Path, images: str | None, device: torch.device | str, precision: str, compiled: bool | str
) -> Denoiser:
    """Load a built-in network (safetensors with its card) or a third-party one."""
    from recon.priors.checkpoints import load_checkpoint
    from recon.priors.network import load_network_prior

    if not path.exists():
        raise _absent(path)
    if is_own(path):
        return load_network_prior(path, device=device, precision=precision, compiled=compiled)
    return load_checkpoint(path, images=images, device=device, precision=precision, compiled=compiled)


def is_own(path: Path) -> bool:
    """Tell by the card beside a file whether it has the built-in architecture."""
    card = path.with_suffix(".json")
    if path.suffix != ".safetensors" or not card.is_file():
        return False
    try:
        return "architecture" in read_json(card, CheckpointError)
    except CheckpointError:
        return True  # its loader reports what is wrong with the card


def list_models() -> list[dict[str, Any]]:
    """Return the cards of the priors that ship with the package, with their ``name`` and ``path``."""
    cards = []
    for path in sorted(WEIGHTS_FOLDER.glob("*.json")):
        card = read_json(path, CheckpointError, "the model card")
        cards.append({**card, "name": path.stem, "path": str(path.with_suffix(".safetensors"))})
    return cards
