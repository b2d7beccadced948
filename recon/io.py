"""Readers and recordings of every modality in one namespace: ``from recon.io import open_...``.

The names are those exported by the packages below `recon.modalities`; `recon.open` finds the right reader itself.
"""

from __future__ import annotations

import importlib
from typing import Any

from recon import modalities


def __getattr__(name: str) -> Any:
    """Load a name from the modality that exports it."""
    for each in () if name.startswith("__") else modalities.shipped():
        package = importlib.import_module(f"{modalities.__name__}.{each}")
        if name in package.__all__:
            return getattr(package, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    packages = (importlib.import_module(f"{modalities.__name__}.{each}") for each in modalities.shipped())
    return sorted(name for package in packages for name in package.__all__)
