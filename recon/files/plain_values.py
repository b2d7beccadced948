"""Values as JSON knows them, for what is recorded beside a result."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

#: Longer values are recorded by their sha256.
_LONG = 400


def plain(value: Any) -> Any:
    """Return a value as plain JSON types: paths and dtypes as text, arrays and tuples as lists, Python numbers."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    if isinstance(value, list | tuple | set | frozenset | range):
        return [plain(item) for item in value]
    if isinstance(value, complex):
        return [value.real, value.imag]
    return str(value)


def compact(value: Any) -> Any:
    """Return a value as `plain` does, with long values (arrays in sampler settings) replaced by their sha256."""
    if isinstance(value, Mapping):
        return {str(key): compact(item) for key, item in value.items()}
    known = plain(value)
    text = json.dumps(known)
    return known if len(text) <= _LONG else "sha256:" + hashlib.sha256(text.encode()).hexdigest()
