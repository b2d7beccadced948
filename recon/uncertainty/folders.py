"""Reading results, references and groups from folders for `recon calibrate` and `recon evaluate`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from recon import modalities
from recon.engine.slices import choose_slices
from recon.errors import InputError
from recon.files.documents import read_json
from recon.files.posterior_file import is_posterior
from recon.modalities.protocols import Source
from recon.posterior import Posterior
from recon.posterior_samples import PosteriorSamples
from recon.uncertainty.calibration import ALL
from recon.uncertainty.fitting import Case


def results_in(folder: Path) -> list[Path]:
    """Return the results of `recon run` in a folder, sorted by name.

    Raises
    ------
    InputError
        If the folder does not exist or contains no result.
    """
    found = [path for path in files_in(folder) if path.suffix in (".h5", ".hdf5") and is_posterior(path)]
    if not found:
        raise InputError(f"{folder}: contains no result of recon run (.h5)")
    return found


def files_in(folder: Path) -> list[Path]:
    """Return the visible files of a folder, sorted by name."""
    if not folder.is_dir():
        raise InputError(f"{folder}: is not a folder")
    return sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))


def read_cases(
    results: list[Path],
    references: Path | None = None,
    groups: Mapping[str, str] | None = None,
    group: str | None = None,
) -> Iterator[Case]:
    """Load results one at a time, each with the reference of the same name and its group (or the one given)."""
    for path in results:
        posterior = Posterior.load(path).usable
        reference = None
        if references is not None:
            reference = load_reference(reference_named(references, path.stem), posterior)
        source = posterior.provenance.get("source")
        name = source.get("name") if isinstance(source, dict) else None
        label = group or group_of(groups, [name or path.name, path.stem])
        yield Case(posterior, path.stem, reference, label)


def load_reference(path: Path, posterior: PosteriorSamples) -> NDArray:
    """Return the true image of a result: an image array (.npy), another result, or fully sampled raw data."""
    if is_posterior(path):
        reference = Posterior.load(path).images.get("reference")
        if reference is None:
            raise InputError(f"{path}: is a result without a reference image")
        return reference
    image = _image(path)
    if image is not None:
        return image
    source = _source_of(path, posterior)
    slices = posterior.provenance.get("slices")
    planes = [source.reference(index) for index in choose_slices(slices, len(source))]
    if any(plane is None for plane in planes):
        raise InputError(f"{path}: is not fully sampled and holds no reference image")
    stack = np.stack([plane for plane in planes if plane is not None])
    return stack if posterior.samples.ndim == 4 else stack[0]


def _source_of(path: Path, posterior: PosteriorSamples) -> Source:
    """Open raw data with the options used for a result."""
    known = modalities.find(path)
    config = posterior.provenance.get("config") or {}
    options = {
        field.name: config[field.name]
        for field in fields(known.options)
        if field.metadata["kind"] is not None and config.get(field.name) not in (None, "array")
    }
    return known.source(path, known.options(**options), 0)


def read_groups(path: Path | None) -> dict[str, str] | None:
    """Read a JSON file that maps file names to group names."""
    if path is None:
        return None
    content = read_json(path)
    if not all(isinstance(label, str) and label for label in content.values()):
        raise InputError(f'{path}: expected a JSON object that maps file names to groups, such as {{"scan.h5": "T1"}}')
    return content


def group_of(groups: Mapping[str, str] | None, names: list[str]) -> str:
    """Return the group of a file, looked up by any of its names."""
    if groups is None:
        return ALL
    for name in names:
        if name in groups:
            return groups[name]
    raise InputError(f"the groups file does not list {names[0]}")


def recordings_in(folder: Path) -> list[Path]:
    """Return the candidates for raw data: the folder itself if a reader recognises it, else its files and folders."""
    if not folder.is_dir():
        raise InputError(f"{folder}: is not a folder")
    with suppress(InputError):
        modalities.find(folder)
        return [folder]
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def reference_named(folder: Path, stem: str) -> Path:
    """Return the file of a folder with that name, whatever its extension."""
    found = _by_stem(folder).get(stem)
    if found is None:
        raise InputError(f"{folder}: contains no reference named {stem}")
    return found


def _by_stem(folder: Path) -> dict[str, Path]:
    """Return the files of a folder by stem; of several with one stem the first (.cfl before .hdr)."""
    return {path.stem: path for path in reversed(files_in(folder))}


def _image(path: Path) -> NDArray | None:
    """Return the content of a .npy file of real numbers; complex arrays are raw data."""
    if path.suffix != ".npy":
        return None
    try:
        image = np.load(
            path, mmap_mode="r", allow_pickle=False
        )  # detects headers that declare more data than the file has
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{path}: is not a readable .npy file ({' '.join(str(error).split())})") from error
    return np.array(image) if image.dtype.kind in "fiu" else None
