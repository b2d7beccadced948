"""The file of one slice of an unfinished result: arrays and JSON in one .npz, with checksums."""

from __future__ import annotations

import dataclasses
import io
import json
from pathlib import Path
from typing import Any

import numpy as np

from recon.engine.findings import Judged
from recon.engine.slice_result import FailedSlice, SliceResult
from recon.files import npy
from recon.files.atomic import atomic_path
from recon.files.plain_values import plain
from recon.verdict import Finding

_META = "meta"
_GROUPS = ("diagnostics", "images", "summary")


def path_of(folder: Path, index: int) -> Path:
    """Return the file of a slice."""
    return folder / f"slice-{index:05d}.npz"


def write_slice(folder: Path, result: SliceResult | FailedSlice) -> None:
    """Write a result, or the reason why there is none, atomically."""
    if isinstance(result, SliceResult):
        arrays, meta = _taken_apart(result)
    else:
        arrays, meta = {}, {"failed": dataclasses.asdict(result)}
    arrays[_META] = np.frombuffer(json.dumps(plain(meta)).encode(), np.uint8)
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    with atomic_path(path_of(folder, result.index)) as temporary:
        temporary.write_bytes(buffer.getbuffer())


def read_slice(folder: Path, index: int) -> SliceResult | FailedSlice | None:
    """Read what `write_slice` wrote; None if there is no file, or a damaged one."""
    try:
        # numpy leaves a file open that it cannot read
        with (
            npy.PARSING,
            open(path_of(folder, index), "rb") as stream,
            np.load(stream, allow_pickle=False) as file,
        ):
            arrays = {name: file[name] for name in file.files}
        meta = json.loads(arrays.pop(_META).tobytes())
        return FailedSlice(**meta["failed"]) if "failed" in meta else _put_together(arrays, meta)
    except Exception:  # damage shows as anything, such as an unknown compression; the slice is drawn again
        return None


def _taken_apart(result: SliceResult) -> tuple[dict[str, Any], dict[str, Any]]:
    meta = {known.name: getattr(result, known.name) for known in dataclasses.fields(result)}
    arrays: dict[str, Any] = {"samples": meta.pop("samples")}
    for group in _GROUPS:
        arrays |= {f"{group}/{name}": np.asarray(values) for name, values in meta.pop(group).items()}
    meta["judged"] = [(one.kind, one.finding.level, one.finding.reason, one.severity) for one in result.judged]
    return arrays, meta


def _put_together(arrays: dict[str, np.ndarray], meta: dict[str, Any]) -> SliceResult:
    groups: dict[str, dict[str, np.ndarray]] = {group: {} for group in _GROUPS}
    samples = arrays.pop("samples")
    for name, values in arrays.items():
        group, _, rest = name.partition("/")
        groups[group][rest] = values
    judged = [Judged(kind, Finding(level, reason), severity) for kind, level, reason, severity in meta.pop("judged")]
    citations = tuple(meta.pop("citations"))
    return SliceResult(
        samples=samples,
        diagnostics=groups["diagnostics"],
        images=groups["images"],
        summary=groups["summary"],
        judged=tuple(judged),
        citations=citations,
        **meta,
    )
