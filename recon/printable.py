"""Text from files and names of files as visible characters: safe on a terminal, in a picture, and in UTF-8 files."""

import os
import unicodedata

#: Python reads byte 0x80 + k of a name that is not UTF-8 as the character U+DC80 + k.
_UNDECODED = range(0xDC80, 0xDD00)


def printable(name: str | os.PathLike[str]) -> str:
    r"""Return a name or any text from a file as one line, with everything escaped that is not a visible character.

    Control characters, line breaks, marks that reverse the direction of writing, and bytes that are not UTF-8 become
    escapes such as ``\x1b`` and ``\u202e``.
    """
    return "".join(c if c.isprintable() or unicodedata.category(c) == "Zs" else escaped(c) for c in os.fspath(name))


def escaped(character: str) -> str:
    r"""Return a character as an escape such as ``\x1b``."""
    code = ord(character)
    if code in _UNDECODED:
        return f"\\x{code - 0xDC00:02x}"
    return character.encode("unicode_escape").decode("ascii")
