"""Choosing a reader by content and handing it its options: what the tables of CT and ultrasound readers share."""

import inspect
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from recon.errors import InputError


def open_with(
    readers: Mapping[str, Any], path: str | os.PathLike[str], options: Mapping[str, Any], unknown: Callable[[Path], str]
) -> Any:
    """Read a path with the first reader that is responsible for it.

    Parameters
    ----------
    readers
        Modules with `sniff(path)` and `read(path, ...)` by name.
    path
        A file or a folder.
    options
        For the reader.
    unknown
        Says what a path is that no reader knows.

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
        problem = unknown(file)
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror or error})") from error
    raise InputError(problem)


def is_known(readers: Mapping[str, Any], path: str | os.PathLike[str]) -> bool:
    """Tell whether one of the readers is responsible for a path."""
    try:
        return any(reader.sniff(Path(path)) for reader in readers.values())
    except (OSError, InputError):
        return False


def _read(name: str, reader: Any, file: Path, options: Mapping[str, Any]) -> Any:
    known = list(inspect.signature(reader.read).parameters)[1:]
    unknown = sorted(set(options) - set(known))
    if unknown:
        offered = ", ".join(known) or "none"
        raise InputError(f"{file}: the reader of {name} has no option {', '.join(unknown)} (it has: {offered})")
    return reader.read(file, **options)
