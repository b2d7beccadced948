"""Provenance of a result: enough to repeat it, written into every output."""

import dataclasses
import functools
import hashlib
import os
import platform
import sys
from collections.abc import Iterable, Mapping
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from recon.files.plain_values import compact, plain
from samplers import Denoiser, Sampler

_LIBRARIES = ("torch", "numpy", "scipy", "h5py")


def collect(
    *,
    config: Mapping[str, Any],
    seed: int,
    source: str | os.PathLike[str] | Mapping[str, str] | None = None,
    slices: Iterable[int] | None = None,
    prior: Mapping[str, Any] | None = None,
    sampler: Mapping[str, Any] | None = None,
    citations: Iterable[str] = (),
    **more: Any,
) -> dict[str, Any]:
    """Return the provenance of a run as plain values that JSON can hold.

    Parameters
    ----------
    config
        The resolved options, defaults included.
    seed
        The seed of the samples.
    source
        The raw-data file, recorded by name and sha256 (not by folder), or these two if they are known; None for arrays.
    slices
        The slices that were used.
    prior
        `name`, `sha256` of the weights, and the other entries of its card.
    sampler
        `name` and hyper-parameters.
    citations
        BibTeX keys of the methods that were used.
    more
        Further entries of the pipeline, such as quantities estimated from the data.
    """
    record = {
        "diffrecon": release(),
        "date_utc": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "libraries": {name: _version(name) for name in _LIBRARIES},
        "config": config,
        "seed": seed,
        "source": source if source is None or isinstance(source, Mapping) else describe_source(source),
        "slices": None if slices is None else list(slices),
        "prior": prior,
        "sampler": sampler,
        "citations": sorted(set(citations)),
        **more,
    }
    return {key: plain(value) for key, value in record.items()}


def release() -> str:
    """Return the version of this package."""
    return sys.modules["recon"].__version__


def describe_source(path: str | os.PathLike[str]) -> dict[str, str]:
    """Return the name and the sha256 of a file; of a recording in two files, that of the data."""
    file = Path(path)
    return {"name": file.name, "sha256": sha256(file)}


def sha256(path: str | os.PathLike[str]) -> str:
    """Return the sha256 of a file; of a folder, that of the names and contents of its files."""
    digest = hashlib.sha256()
    folder = Path(path)
    if folder.is_dir():
        for file in sorted(entry for entry in folder.iterdir() if entry.is_file()):
            digest.update(f"{file.name} {sha256(file)}\n".encode())
        return digest.hexdigest()
    known = os.stat(path)
    return _sha256_of(os.fspath(path), known.st_dev, known.st_ino, known.st_size, known.st_mtime_ns)


@functools.lru_cache(maxsize=4096)
def _sha256_of(path: str, *_: int) -> str:
    """Return the sha256 of a file as it is now, of a file that did not change only once in a process."""
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def describe_prior(prior: str | Path | Denoiser, loaded: Denoiser) -> dict[str, Any]:
    """Return the name and the identity of a prior."""
    card = getattr(loaded, "card", {})
    name = str(prior) if isinstance(prior, str | Path) else type(prior).__name__
    return {"name": Path(name).name, "sha256": card.get("sha256"), "licence": card.get("licence")}


def describe_sampler(sampler: Sampler) -> dict[str, Any]:
    """Return the name and the hyper-parameters of a sampler; arrays (a covariance) by their sha256."""
    fields: tuple[dataclasses.Field, ...] = dataclasses.fields(sampler) if dataclasses.is_dataclass(sampler) else ()
    settings = {field.name: _setting(getattr(sampler, field.name)) for field in fields}
    return {"name": type(sampler).__name__, **compact(settings)}


def _setting(value: Any) -> Any:
    """Return a setting as it is; one that is itself a dataclass (a rule, a covariance) with its name."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {"name": type(value).__name__, **dataclasses.asdict(value)}
    return value
