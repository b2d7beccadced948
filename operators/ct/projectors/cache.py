"""Cache of matrices on disk, in ``RECON_CACHE`` or ``~/.cache/diffrecon``; skipped where it cannot be written.

``RECON_CACHE=off`` disables it. Files are written under a temporary name and renamed when complete; a matrix whose
file cannot be read is built again. The oldest files are deleted when the folder grows beyond `LIMIT` bytes.
"""

from __future__ import annotations

import os
import tempfile
import zipfile
from pathlib import Path

import numpy as np

LEAST = 1 << 24  # bytes; smaller matrices are built as fast as they are read
LIMIT = 4 << 30


def folder() -> Path | None:
    """Return the folder, or None if the cache is disabled."""
    name = os.environ.get("RECON_CACHE", "")
    if name.lower() in ("off", "0", "none"):
        return None
    try:
        return Path(name) if name else Path.home() / ".cache" / "diffrecon"
    except RuntimeError:  # there is no home directory
        return None


def load(key: str) -> dict[str, np.ndarray] | None:
    """Return the arrays stored under a key, or None."""
    place = folder()
    if place is None:
        return None
    try:
        with open(place / f"{key}.npz", "rb") as raw, np.load(raw, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    return arrays


def save(key: str, arrays: dict[str, np.ndarray]) -> None:
    """Store arrays under a key, atomically; skip small ones, and do nothing where writing is not possible."""
    place, size = folder(), sum(array.nbytes for array in arrays.values())
    if place is None or not LEAST <= size <= LIMIT:
        return
    partial = None
    try:
        place.mkdir(parents=True, exist_ok=True)
        _make_room(place, size)
        with tempfile.NamedTemporaryFile(dir=place, prefix=".partial-", delete=False) as file:
            partial = Path(file.name)
            np.savez(file, **arrays)  # type: ignore[arg-type]
            file.flush()
            os.fsync(file.fileno())
        partial.replace(place / f"{key}.npz")
    except OSError:  # read-only or full: the matrix is still in memory
        if partial is not None:
            partial.unlink(missing_ok=True)


def _make_room(place: Path, size: int) -> None:
    files = sorted(place.glob("*.npz"), key=lambda path: path.stat().st_mtime)
    total = size + sum(path.stat().st_size for path in files)
    for path in files:
        if total <= LIMIT:
            break
        total -= path.stat().st_size
        path.unlink(missing_ok=True)
