"""`recon models`: list the priors; describe, convert and download weights."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from recon.commands.text import card_lines
from recon.errors import InputError


def models(action: str | None = None, **arguments: Any) -> int:
    """List the priors, or run the requested action."""
    if action is None:
        return _list()
    actions: dict[str, Callable[..., int]] = {"info": _info, "convert": _convert, "download": _download}
    return actions[action](**arguments)


def _list() -> int:
    from recon.priors import hub_store
    from recon.priors.hub import list_models

    cards = list_models()
    for card in cards:
        print("\n".join(card_lines(card)))
    if not cards:
        print("no trained prior is installed; --prior gaussian needs none")
    print("published networks (recon models download NAME, or bring your own copy)")
    for name, entry in hub_store.entries().items():
        state = "cached" if hub_store.cached_file(entry).is_file() else "not cached" if entry["url"] else "no link"
        print(f"  {name:<19} {state:<9} {entry['data']}")
    return 0


def _info(file: Path) -> int:
    from recon.priors import hub_store
    from recon.priors.checkpoints import load_checkpoint, prior_lines
    from recon.priors.hub import WEIGHTS_FOLDER, is_own
    from recon.priors.network import load_network_prior

    if not file.name:
        raise InputError(f"models: expected a file or the name of a network, got {str(file)!r}")
    shipped = WEIGHTS_FOLDER / f"{file.name}.safetensors"
    if file.name == str(file) and not file.exists() and shipped.is_file():
        file = shipped
    if is_own(file):
        prior = load_network_prior(file)
        print("\n".join(card_lines({"name": file.stem, **prior.card})))
        return 0
    entry = _published(file)
    if entry is None:
        print("\n".join(prior_lines(file, load_checkpoint(file))))
    else:
        path = hub_store.require_file(entry)
        print("\n".join(prior_lines(path, hub_store.verified(path, entry))))
    return 0


def _convert(source: Path, target: Path, force: bool = False) -> int:
    from recon.priors import hub_store
    from recon.priors.checkpoints import convert_checkpoint

    entry = _published(source)
    if entry is not None:
        source = hub_store.require_file(entry)
        hub_store.verified(source, entry)  # raises unless the cached file is what its name says
    convert_checkpoint(source, target, force, entry)
    print(f"{target}: {target.stat().st_size / 1e6:.1f} MB")
    return 0


def _download(name: str, force: bool = False) -> int:
    from recon.priors import hub_store

    entry = hub_store.find_entry(name)
    if entry["url"]:
        print(f"fetching {entry['url']}")
    path = hub_store.download(name, force)
    print(f"{path}: {path.stat().st_size / 1e6:.1f} MB, every tensor accounted for")
    if entry["sha256"] is None:
        print(
            "no sha256 is published for it: verified by names, shapes and number of parameters; its sha256 is recorded"
        )
    return 0


def _published(file: Path) -> dict[str, Any] | None:
    """Return the hub entry if this is the name of a published network and not a file."""
    from recon.priors import hub_store

    return None if file.exists() else hub_store.entries().get(str(file))
