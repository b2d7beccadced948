"""A folder that belongs to one run at a time."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from recon.errors import ConfigError

if sys.platform != "win32":
    import fcntl

#: The file that is locked.
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
    new = not folder.exists()
    descriptor = _acquired(folder)
    if descriptor is None:
        owner = "unknown"
        with suppress(OSError):  # it may end just now
            owner = (folder / NAME).read_text(errors="replace").strip() or owner
        raise ConfigError(
            f"the output folder {folder} is in use by another {by} (process {owner}); wait for it or stop it, or "
            "choose another folder"
        )
    try:
        os.truncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()} on {platform.node()}\n".encode())
        yield
    finally:
        (folder / NAME).unlink(missing_ok=True)
        os.close(descriptor)
        if new:
            with suppress(OSError):  # something was written
                folder.rmdir()


def _acquired(folder: Path) -> int | None:
    """Create the folder, open and lock the lock file; None if another run has it.

    Once more where its owner removed the folder, or the file between opening and locking: that lock would keep nobody
    out.
    """
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            descriptor = os.open(folder / NAME, os.O_RDWR | os.O_CREAT, 0o644)
        except FileNotFoundError:
            if (folder / NAME).is_symlink():
                raise
            continue
        if not _locked(descriptor):
            os.close(descriptor)
            return None
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(descriptor), os.stat(folder / NAME)):
                return descriptor
        os.close(descriptor)


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
