"""Temporary files beside results: who writes one is in its name, and those of dead processes are removed.

A name is ``.recon-<host>-<process>-<random>`` and the ending of the result: short whatever the name of the result is,
unpredictable, and hidden, so that no reader of a folder takes it for data.
"""

import functools
import hashlib
import os
import re
import secrets
import shutil
import socket
import time
from pathlib import Path

_NAME = re.compile(r"\.recon-([0-9a-f]{8})-([0-9]{1,10})-[0-9a-f]{16}(\.[A-Za-z0-9.]*)?")
#: Libraries choose a format by the ending.
_ENDING = re.compile(r"(\.nii)?\.[A-Za-z0-9]{1,12}$")
#: A folder is searched for leftovers at most this often, as a series of files is written one by one.
_EVERY_S = 60.0
_searched: dict[str, float] = {}


def temporary_beside(target: Path) -> Path:
    """Return an unused name in the folder of a file, with the same ending."""
    ending = _ENDING.search(target.name)
    random = secrets.token_hex(8)
    return target.with_name(f".recon-{_host()}-{os.getpid()}-{random}{ending.group() if ending else ''}")


def create(path: Path) -> int:
    """Create an empty file and return its permissions; fails if there is anything of that name, also a link."""
    flags = os.O_CREAT | os.O_EXCL | os.O_RDWR | getattr(os, "O_NOFOLLOW", 0)
    descriptor = os.open(path, flags, 0o666)  # less the umask, as results are ordinary files
    try:
        return os.fstat(descriptor).st_mode & 0o7777
    finally:
        os.close(descriptor)


def remove_stale_now_and_then(folder: Path) -> None:
    """Remove leftovers in a folder, unless this process has searched it a moment ago."""
    name, now = os.path.abspath(folder), time.monotonic()
    if now - _searched.get(name, -_EVERY_S) >= _EVERY_S:
        _searched[name] = now
        remove_stale(folder)


def remove_stale(folder: Path) -> None:
    """Remove the temporary files and folders whose process, on this host, has ended; errors are ignored."""
    try:
        with os.scandir(folder) as entries:
            stale = [entry for entry in entries if _is_stale(entry.name)]
    except OSError:
        return
    for entry in stale:
        try:
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path, ignore_errors=True)
            else:
                os.unlink(entry.path)
        except OSError:  # another process was faster, or it belongs to another user
            continue


def _is_stale(name: str) -> bool:
    found = _NAME.fullmatch(name)
    return found is not None and found.group(1) == _host() and not _runs(int(found.group(2)))


def _runs(process: int) -> bool:
    if os.name != "posix":
        return True  # os.kill would end the process there
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True


@functools.cache
def _host() -> str:
    """Return a token of this host, or of this container if it counts its processes by itself."""
    parts = [socket.gethostname()]
    for read in (lambda: os.readlink("/proc/self/ns/pid"), lambda: Path("/etc/machine-id").read_text("ascii")):
        try:
            parts.append(read())
        except (OSError, ValueError):
            continue
    return hashlib.sha256("\n".join(parts).encode("utf-8", "surrogateescape")).hexdigest()[:8]
