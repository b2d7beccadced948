"""One run at a time writes into a folder."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from recon.errors import ConfigError

if sys.platform != "win32":
    import fcntl


@contextmanager
def folder_of_one_run(folder: Path) -> Iterator[None]:
    """Hold a folder, which is made; the system lets go of it when the process ends, however it ends.

    Raises
    ------
    ConfigError
        If another run holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "a+") as file:
        _hold(file.fileno(), folder)
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield


def _hold(descriptor: int, folder: Path) -> None:
    if sys.platform == "win32":
        return  # two runs in one folder are then not noticed
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        owner = (folder / ".lock").read_text().strip() or "unknown"
        raise ConfigError(f"output {folder} is in use by another training (process {owner}); stop it first") from error
    except OSError:
        return  # a file system without locks
