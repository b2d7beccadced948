"""Choosing a reader by content and handing it its options."""

from __future__ import annotations

import inspect
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from recon.errors import InputError
from recon.files import hdf5
from recon.plugins import offered


def with_plugins(readers: Mapping[str, Any], modality: str) -> dict[str, Any]:
    """Return the readers of a modality and those that other distributions provide as ``diffrecon.readers.<name>``."""
    others = {entry.name: entry.load() for entry in offered(f"diffrecon.readers.{modality}")}
    return {**readers, **others}


def open_with(
    readers: Mapping[str, Any],
    path: str | os.PathLike[str],
    options: Mapping[str, Any],
    formats: str = "",
    hint: str | None = None,
) -> Any:
    """Read a path with the first reader that is responsible for it.

    Parameters
    ----------
    readers : mapping
        Modules with ``sniff(path)`` and ``read(path, ...)`` by name.
    path : path
        A file or a folder.
    options : mapping
        Options of the reader.
    formats, hint : str, optional
        For the message about a path that no reader knows, see `unreadable`.

    Raises
    ------
    InputError
        If there is nothing, no reader knows it, it is damaged, or the reader has no such option.
    """
    file = Path(path)
    try:
        for name, reader in readers.items():
            if reader.sniff(file):
                return _read(name, reader, file, options)
        problem = unreadable(file, [formats], [hint] if hint else [])
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror or error})") from error
    raise InputError(problem)


def is_known(readers: Mapping[str, Any], path: str | os.PathLike[str]) -> bool:
    """Tell whether one of the readers is responsible for a path."""
    try:
        return any(reader.sniff(Path(path)) for reader in readers.values())
    except (OSError, InputError):
        return False


def unreadable(file: Path, formats: Sequence[str], hints: Sequence[str]) -> str:
    """Say what a path is that no reader knows.

    Parameters
    ----------
    file : Path
    formats : sequence of str
        What could have been read.
    hints : sequence of str
        What is known of this file all the same.
    """
    known = "".join(f"; {hint}" for hint in hints)
    expected = f"expected {' or '.join(formats)}"
    if not file.exists():
        return f"{file}: no such file or folder"
    if file.is_dir():
        return f"{file}: no data in this folder that can be read here{known}; {expected}"
    if file.stat().st_size == 0:
        return f"{file}: the file is empty (0 bytes)"
    if not os.access(file, os.R_OK):
        return f"{file}: no permission to read it"
    if hdf5.is_hdf5(file):
        with hdf5.open_hdf5(file) as content:
            return f"{file}: an HDF5 file of an unknown layout (it holds: {hdf5.keys(content)}){known}; {expected}"
    return f"{file}: not a file that can be read here{known}; {expected} (truncated files lose their signature, too)"


def _read(name: str, reader: Any, file: Path, options: Mapping[str, Any]) -> Any:
    known = list(inspect.signature(reader.read).parameters)[1:]
    unknown = sorted(set(options) - set(known))
    if unknown:
        offered = ", ".join(known) or "none"
        raise InputError(f"{file}: the reader of {name} has no option {', '.join(unknown)} (it has: {offered})")
    return reader.read(file, **options)
