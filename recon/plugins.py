"""Entry points of other distributions, and names that are loaded on first use."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any


def find(group: str, name: str) -> Any | None:
    """Load the entry point ``name`` of the group ``diffrecon.<group>``, or return None.

    Parameters
    ----------
    group : "samplers" or "priors"
    name : str
    """
    for entry in entry_points(group=f"diffrecon.{group}", name=name):
        return entry.load()
    return None


def names(group: str) -> list[str]:
    """Return the names of the entry points in a group."""
    return sorted({entry.name for entry in entry_points(group=f"diffrecon.{group}")})


def offered(group: str) -> tuple[EntryPoint, ...]:
    """Return the entry points of a group; read once, since looking through all distributions takes milliseconds."""
    return _offered(group, tuple(sys.path))


@lru_cache(maxsize=64)
def _offered(group: str, path: tuple[str, ...]) -> tuple[EntryPoint, ...]:
    """Return the entry points of a group on the module search path."""
    return tuple(entry_points(group=group))


def exporter(package: str, homes: Mapping[str, str]) -> Callable[[str], Any]:
    """Return a module's ``__getattr__`` that loads names from the modules below the package that define them.

    Parameters
    ----------
    package : str
        Dotted name of the package.
    homes : mapping
        Module below the package, by the name that it defines.
    """

    def load(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(importlib.import_module(f"{package}.{homes[name]}"), name)

    return load
