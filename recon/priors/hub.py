"""Find a prior by its name, its file, or as an object."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from recon import plugins
from recon.errors import CheckpointError, InputError
from recon.priors.analytic import GaussianPrior
from samplers.base import Denoiser

WEIGHTS_FOLDER = Path(__file__).parent / "weights"
GAUSSIAN = "gaussian"


def load_prior(
    source: str | Path | Denoiser,
    *,
    shape: Sequence[int] | None = None,
    device: torch.device | str = "cpu",
    precision: str = "float32",
) -> Denoiser:
    """Return a prior that the samplers can use.

    Parameters
    ----------
    source : str, path or Denoiser
        A name of :func:`list_models` (``"brain-mri"``); the path of a ``.safetensors`` file with its ``.json`` card
        beside it; ``"gaussian"``, a stationary Gaussian with an image-like spectrum (no network; needs ``shape``); a
        name that another distribution offers through the entry points ``diffrecon.priors``; or any object with
        ``denoise``, ``sigma_min``, ``sigma_max`` and ``space``, which is returned as it is.
    shape : sequence of int, optional
        Image shape, for priors that need to know it.
    device : torch.device or str
    precision : "float32" or "bfloat16"
        Arithmetic of networks that are loaded here.

    Raises
    ------
    InputError
        If there is no such prior.
    CheckpointError
        If its file is damaged.
    """
    if not isinstance(source, str | Path):
        missing = [name for name in ("denoise", "sigma_min", "sigma_max", "space") if not hasattr(source, name)]
        if missing:
            raise InputError(f"prior: a {type(source).__name__} is no denoiser, it lacks {', '.join(missing)}")
        return source
    if source == GAUSSIAN:
        if shape is None:
            raise InputError("prior 'gaussian' needs the image shape: load_prior('gaussian', shape=(y, x))")
        return GaussianPrior.power_law(shape, std=0.35, exponent=2.4, corner=0.01).to(device)
    # Imported late: listing models must not build networks.
    from recon.priors.network import load_network_prior

    path = Path(source)
    if path.suffix == ".safetensors":
        if not path.is_file():
            raise InputError(f"prior: there is no file {path}")
        return load_network_prior(path, device=device, precision=precision)
    shipped = WEIGHTS_FOLDER / f"{source}.safetensors"
    if path.name != str(source) or not shipped.is_file():
        offered = plugins.find("priors", str(source))
        if offered is not None:
            return offered()
        names = ", ".join([card["name"] for card in list_models()] + [GAUSSIAN, *plugins.names("priors")])
        raise InputError(f"prior: there is none called {str(source)!r}; expected {names}, or a .safetensors file")
    return load_network_prior(shipped, device=device, precision=precision)


def list_models() -> list[dict[str, Any]]:
    """Return the cards of the priors that ship with the package, with their ``name`` and ``path``."""
    cards = []
    for path in sorted(WEIGHTS_FOLDER.glob("*.json")):
        try:
            card = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise CheckpointError(f"{path}: the card is not valid JSON ({error}); reinstall diffrecon") from error
        cards.append({**card, "name": path.stem, "path": str(path.with_suffix(".safetensors"))})
    return cards
