"""Free space on the disk, looked at before there is anything to lose."""

import math
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from recon.errors import StorageError
from recon.printable import printable


def require_space(folder: str | os.PathLike[str], n_bytes: float, what: str = "the run") -> None:
    """Refuse to start what the disk cannot hold.

    Parameters
    ----------
    folder
        Where the results go; it need not exist yet.
    n_bytes
        An estimate of what will be written.
    what
        What needs the space, for the message.

    Raises
    ------
    StorageError
        If fewer bytes are free for this user.
    """
    present = next((parent for parent in _upwards(Path(folder)) if parent.exists()), None)
    if present is None:
        return
    try:
        free = shutil.disk_usage(present).free
    except OSError:  # a file system that does not say
        return
    if free < n_bytes:
        needed, left = _size(n_bytes, math.ceil), _size(free, math.floor)
        raise StorageError(
            f"{what} needs about {needed}, but only {left} are free in {printable(present)}; "
            "free some space or choose another folder"
        )


def _upwards(folder: Path) -> tuple[Path, ...]:
    absolute = Path(os.path.abspath(folder))
    return (absolute, *absolute.parents)


def _size(n_bytes: float, to_whole: Callable[[float], int]) -> str:
    unit, name = (1e9, "GB") if n_bytes >= 1e9 else (1e6, "MB")
    return f"{to_whole(10 * n_bytes / unit) / 10:g} {name}"
