"""Names of files: a printable form of any name, and names that a file system cannot hold."""

import os
import unicodedata
from pathlib import Path

from recon.errors import InputError

_LONGEST = 255
#: Python reads byte 0x80 + k of a name that is not UTF-8 as the character U+DC80 + k.
_UNDECODED = range(0xDC80, 0xDD00)


def printable(name: str | os.PathLike[str]) -> str:
    r"""Return a name or any text from a file with everything escaped that is not a visible character.

    Control characters, line breaks, marks that reverse the direction of writing, and bytes that are not UTF-8 become
    escapes such as ``\x1b`` and ``\u202e``: safe on a terminal, in a picture, in a table and in UTF-8 files.
    """
    return "".join(c if c.isprintable() or unicodedata.category(c) == "Zs" else _escaped(c) for c in os.fspath(name))


def _escaped(character: str) -> str:
    code = ord(character)
    if code in _UNDECODED:
        return f"\\x{code - 0xDC00:02x}"
    return character.encode("unicode_escape").decode("ascii")


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
