"""Values that the card of a network prior must have."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from recon.errors import CheckpointError
from recon.options import is_finite, shown

_NEEDED = ("architecture", "network", "sigma_data", "sigma_min", "sigma_max", "sha256")


def check_card(card: Mapping[str, Any], path: Path, architecture: str) -> None:
    """Check what is computed with: architecture, noise levels, sha256, and the tables of the measured error.

    Raises
    ------
    CheckpointError
        If the card lacks a key, has a value of the wrong kind, or describes another architecture.
    """

    def expect(fits: bool, name: str, expected: str) -> None:
        if not fits:
            raise CheckpointError(f"{path}: {name}: expected {expected}, got {shown(card.get(name))}")

    missing = [key for key in _NEEDED if key not in card]
    if missing:
        raise CheckpointError(f"{path}: the model card lacks {missing[0]!r}")
    expect(card["architecture"] == architecture, "architecture", repr(architecture))
    expect(isinstance(card["network"], dict), "network", "a table of the network's arguments")
    expect(isinstance(card["sha256"], str), "sha256", "text")
    for name in ("sigma_data", "sigma_min", "sigma_max"):
        expect(_positive(card[name]), name, "a number > 0")
    expect(card["sigma_min"] < card["sigma_max"], "sigma_max", f"more than sigma_min = {card['sigma_min']}")
    expect(_error_std(card.get("error_std")), "error_std", "lists sigma and error of the same length")
    expect(_error_spectrum(card.get("error_spectrum")), "error_spectrum", "lists sigma, frequency and ratio by both")


def _positive(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and is_finite(value) and value > 0


def _column(value: Any, length: int | None = None) -> bool:
    known = isinstance(value, list) and bool(value) and all(map(_positive, value))
    return known and length in (None, len(value))


def _error_std(table: Any) -> bool:
    if not table:
        return True
    known = isinstance(table, Mapping) and _column(table.get("sigma"))
    return known and _column(table.get("error"), len(table["sigma"]))


def _error_spectrum(table: Any) -> bool:
    if not table:
        return True
    if not isinstance(table, Mapping) or not _column(table.get("sigma")):
        return False
    frequency, ratio = table.get("frequency"), table.get("ratio")
    if not isinstance(frequency, list) or not isinstance(ratio, list) or len(ratio) != len(table["sigma"]):
        return False
    numbers = all(value == 0 or _positive(value) for value in frequency)
    return numbers and all(_column(row, len(frequency)) for row in ratio)
