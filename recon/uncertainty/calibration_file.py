"""The JSON file of a calibration, written atomically and checked when it is read."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from recon.engine.provenance import release
from recon.errors import InputError
from recon.files.atomic import atomic_path
from recon.files.documents import read_json
from recon.files.plain_values import plain
from recon.options import is_finite, shown
from recon.uncertainty.conformal import check_method, check_smoothing

FORMAT, VERSION = "diffrecon-calibration", 1


def write_calibration(path: str | os.PathLike[str], values: Mapping[str, Any]) -> None:
    """Write the fields of a `Calibration` as JSON, atomically; ``factors`` is called ``lambda`` in the file."""
    named = {"lambda" if key == "factors" else key: value for key, value in values.items()}
    content = {"format": FORMAT, "format_version": VERSION, "diffrecon": release(), **plain(named)}
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def read_calibration(file: str | os.PathLike[str], names: Sequence[str]) -> dict[str, Any]:
    """Return the fields of a `Calibration` from its file; any other file raises an `InputError` that says why."""
    path = Path(file)
    content = read_json(path)
    if content.get("format") != FORMAT:
        raise InputError(f"{path}: not a calibration of diffrecon (expected format = {FORMAT!r})")
    if content.get("format_version") != VERSION:
        version = content.get("format_version")
        raise InputError(f"{path}: has format version {version}, but this release reads {VERSION}; update diffrecon")
    content["factors"] = content.pop("lambda", None)
    values = {name: content.get(name) for name in names}
    values["spreads"] = values["spreads"] or {}
    _check(values, path)
    return {**values, "sources": tuple(values["sources"] or ())}


def _check(values: Mapping[str, Any], path: Path) -> None:
    def positive(value: Any) -> bool:
        return isinstance(value, int | float) and not isinstance(value, bool) and is_finite(value) and value >= 0

    for key in ("factors", "constants", "images", *(["spreads"] if values["spreads"] else [])):
        table = values[key]
        if not isinstance(table, dict) or not table or not all(map(positive, table.values())):
            name = "lambda" if key == "factors" else key
            raise InputError(f"{path}: {name} must map groups to finite numbers >= 0, got {shown(table)}")
        if set(table) != set(values["factors"]):
            raise InputError(f"{path}: {key} has other groups than lambda")
    if not all(positive(values[key]) for key in ("level", "delta", "smoothing", "floor")):
        raise InputError(f"{path}: level, delta, smoothing and floor must be numbers")
    mark = values["fingerprint"]
    if not isinstance(mark, dict) or not isinstance(mark.get("samples"), int) or mark["samples"] < 2:
        raise InputError(f"{path}: fingerprint is missing or incomplete")
    sources = values["sources"]
    if not isinstance(sources, list) or not all(isinstance(source, str) for source in sources):
        raise InputError(f"{path}: sources: expected a list of strings, got {shown(sources)}")
    if values["per"] not in ("file", "slice"):
        raise InputError(f"{path}: per: expected file or slice, got {shown(values['per'])}")
    if not values["floor"] > 0:
        raise InputError(f"{path}: floor: expected a number > 0, got {shown(values['floor'])}")
    check_smoothing(values["smoothing"])
    check_method(values["level"], str(values["method"]), values["delta"])
