"""How values are put into lines of text."""

from typing import Any


def short(value: Any, limit: int = 160) -> str:
    """Return a value in one line."""
    text = " ".join(str(value).split())
    return text if len(text) <= limit else text[: limit - 3] + "..."
