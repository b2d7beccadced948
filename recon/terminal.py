"""The door to the terminal: control characters of files and names are printed as escapes.

A file's header or name may hold sequences that rename the window, clear the screen or turn the text around. The
command line prints through `escaped_output`; nothing else needs to think of it.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import Any, TextIO

from recon.printable import escaped

#: C0 and C1 controls, marks of the writing direction, line and paragraph separators, and halves of surrogate pairs;
#: without tab, line feed and carriage return.
_CONTROL = "\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff"
_UNSAFE = re.compile(f"[{_CONTROL}\r]")
#: A progress bar returns to the start of its line.
_UNSAFE_BESIDE_BAR = re.compile(f"[{_CONTROL}]")


class _Escaped:
    """A text stream that escapes what is written, including characters that its encoding lacks."""

    def __init__(self, stream: TextIO, unsafe: re.Pattern[str]) -> None:
        self._stream, self._unsafe = stream, unsafe

    def write(self, text: str) -> int:
        """Write escaped text."""
        encoding = getattr(self._stream, "encoding", None) or "utf-8"
        safe = self._unsafe.sub(lambda found: escaped(found[0]), text)
        self._stream.write(safe.encode(encoding, "backslashreplace").decode(encoding))
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def escaped_output() -> Iterator[None]:
    """Escape control characters in everything printed to stdout and stderr; a nested call changes nothing."""
    if isinstance(sys.stdout, _Escaped):
        yield
        return
    out: Any = _Escaped(sys.stdout, _UNSAFE)
    err: Any = _Escaped(sys.stderr, _UNSAFE_BESIDE_BAR)
    with redirect_stdout(out), redirect_stderr(err):
        yield
