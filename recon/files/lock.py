"""A folder that belongs to one run at a time."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from recon.errors import ConfigError

if sys.platform != "win32":
    import fcntl

#: The file that is locked; it stays, since removing it would let two runs lock two files of one name.
NAME = ".lock"


@contextmanager
def owned(folder: Path, by: str) -> Iterator[None]:
    """Create and lock a folder; the system releases the lock when the process ends, however it ends.

    Parameters
    ----------
    folder : Path
    by : str
        What owns it, for the message to another run: "training", "run".

    Raises
    ------
    ConfigError
        If another run has locked it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / NAME, "a+") as file:
        if not _locked(file.fileno()):
            owner = (folder / NAME).read_text(errors="replace").strip() or "unknown"
            raise ConfigError(
                f"the output folder {folder} is in use by another {by} (process {owner}); wait for it or stop it, or "
                "choose another folder"
            )
        file.truncate(0)
        file.write(f"{os.getpid()} on {platform.node()}\n")
        file.flush()
        yield


def in_use(folder: Path) -> bool:
    """Tell whether a run has locked the folder."""
    try:
        with open(folder / NAME, "r+") as file:
            return not _locked(file.fileno())
    except OSError:
        return False


def _locked(descriptor: int) -> bool:
    """Lock an open file, and tell whether it could be locked; True where locks do not exist."""
    if sys.platform == "win32":
        return True  # two runs in one folder are not detected there
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        pass  # the file system does not support locks
    return True
