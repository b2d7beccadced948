"""Choosing a reader by content and passing it its options."""

import inspect
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from recon.errors import InputError


def open_with(
    readers: Mapping[str, Any], path: str | os.PathLike[str], options: Mapping[str, Any], unknown: Callable[[Path], str]
) -> Any:
    """Read a path with the first reader that recognises it.

    Parameters
    ----------
    readers
        Modules with `sniff(path)` and `read(path, ...)` by name.
    path
        A file or a folder.
    options
        Options of the reader.
    unknown
        Describes a path that no reader recognises, for the error message.

    Raises
    ------
    InputError
        If the path does not exist, no reader recognises it, it is damaged, or the reader has no such option.
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
    """Tell whether one of the readers recognises a path."""
    try:
        return any(reader.sniff(Path(path)) for reader in readers.values())
    except (OSError, InputError):
        return False


def _read(name: str, reader: Any, file: Path, options: Mapping[str, Any]) -> Any:
    known = list(inspect.signature(reader.read).parameters)[1:]
    unknown = sorted(set(options) - set(known))
    if unknown:
        offered = ", ".join(known) or "none"
        raise InputError(f"{file}: the {name} reader has no option {', '.join(unknown)} (its options: {offered})")
    return reader.read(file, **options)
