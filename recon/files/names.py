"""Names of files that a file system cannot hold."""

import os
from pathlib import Path

from recon.errors import InputError
from recon.printable import printable

_LONGEST = 255


def require_name(path: Path) -> None:
    """Refuse a name that is too long for the file system of its folder, which need not exist yet.

    Raises
    ------
    InputError
        If the name or a part of the path has too many bytes.
    """
    if "\0" in os.fspath(path):
        raise InputError(f"{printable(path)}: a file name cannot contain a null character")
    for part in (path, *path.parents):
        length, longest = len(os.fsencode(part.name)), _longest(part.parent)
        if length > longest:
            raise InputError(
                f"{printable(part)}: this name has {length} bytes, but {printable(part.parent)} allows {longest}; "
                "use a shorter name"
            )


def _longest(folder: Path) -> int:
    """Return how many bytes a name in a folder, or in its nearest parent that exists, may have."""
    for present in (folder, *folder.parents):
        try:
            return os.pathconf(present, "PC_NAME_MAX")
        except (OSError, ValueError, AttributeError):  # not there yet, or a system without pathconf
            continue
    return _LONGEST
