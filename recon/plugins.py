"""Strategies and priors that other distributions offer through entry points."""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import Any


def find(group: str, name: str) -> Any | None:
    """Load what another distribution offers as ``diffrecon.<group>`` under ``name``, or return None.

    Parameters
    ----------
    group : "samplers" or "priors"
    name : str
    """
    for entry in entry_points(group=f"diffrecon.{group}", name=name):
        return entry.load()
    return None


def names(group: str) -> list[str]:
    """Return the names that other distributions offer in a group."""
    return sorted({entry.name for entry in entry_points(group=f"diffrecon.{group}")})
