"""Whether a source is the one that slices were drawn from: by sizes and times, and by its content where these differ.

Hashing reads the whole file, so a study does not begin with it (`recon.study.checksum`).
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from recon.engine.provenance import sha256

#: What a request says of its source beside the name. The checksum of the content decides where the others differ.
STAMP, INODE, CHECKSUM = "source.stamp", "source.inode", "source.sha256"


def stamps_of(path: Path) -> dict[str, str]:
    """Return what tells whether a file, or the files of a folder, may have changed, without reading them.

    Returns
    -------
    dict
        ``stamp``: of names, sizes and times. ``inode``: of the numbers on the disk, which copying changes, and which
        some network file systems do not give to all machines alike.
    """
    files = sorted(entry for entry in path.iterdir() if entry.is_file()) if path.is_dir() else [path]
    known = [(file.name, os.stat(file)) for file in files]
    return {
        "stamp": _digest([(name, one.st_size, one.st_mtime_ns) for name, one in known]),
        "inode": _digest([one.st_ino for _, one in known]),
    }


def _digest(values: list[Any]) -> str:
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()[:16]


def is_same(path: Path | None, known: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Tell whether a source is that of an earlier request; it is hashed only if its stamps differ.

    Parameters
    ----------
    path : Path or None
        Where its content is.
    known : mapping
        The earlier request; one of an older release has a checksum only.
    now : mapping
        The request of today.
    """
    if all(known.get(name) == now.get(name) for name in (STAMP, INODE)):
        return True
    return path is not None and known.get(CHECKSUM) is not None and known[CHECKSUM] == sha256(path)
