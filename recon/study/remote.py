"""What runs on a worker of another machine: it finds the files of the client and does one thing at a time.

Nothing here loads torch, so that a scheduler, which reads each task, stays small.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import platform
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recon.threads import limit_threads

#: A worker may have several threads, but warnings and the number of threads belong to the process.
_ONE_AT_A_TIME = threading.Lock()


@dataclass(frozen=True)
class Site:
    """What a worker has to know of the client.

    Attributes
    ----------
    folder : str
        The client's working folder, against which relative paths are meant.
    release : str
    threads : int or None
        Threads of a worker; None: those that it was started with.
    """

    folder: str
    release: str
    threads: int | None = None


def site(threads: int | None = None) -> Site:
    """Return the site of this process."""
    return Site(os.getcwd(), sys.modules["recon"].__version__, threads)


def packed(work: Callable[..., Any], *arguments: Any) -> bytes:
    """Return a task as bytes, which only the worker reads."""
    return pickle.dumps((work, arguments))


def on_worker(site: Site, task: bytes) -> Any:
    """Do a task of the client on this machine.

    Raises
    ------
    ConfigError
        If this machine has another release or does not see the client's files.
    """
    from recon.errors import ConfigError
    from recon.memory import Allotment, allot

    with _ONE_AT_A_TIME, _folder_of(site):
        own = sys.modules["recon"].__version__
        if own != site.release:
            raise ConfigError(f"worker {platform.node()}: has diffrecon {own}, expected {site.release} as here")
        if site.threads is not None:
            limit_threads(site.threads)
        allot(Allotment(most=_memory_of_worker()))
        work, arguments = pickle.loads(task)
        known = _known(work, arguments)
        return work(*arguments) if known is None else known


def _memory_of_worker() -> int | None:
    """Return the bytes beyond which Dask ends this worker, of which the system does not know; None without a limit."""
    from distributed import get_worker

    try:
        return get_worker().memory_manager.memory_limit
    except ValueError:  # not on a worker
        return None


def _known(work: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    """Return the outcome of a task that was done before, by a worker that died or for a client that left; or None.

    Raises
    ------
    ConfigError
        If the files of the task are not here.
    """
    from recon.study import parts
    from recon.study import work as works

    if work not in (works.draw, works.finish):
        return None
    job = arguments[0]
    _require(job.source)
    if work is works.finish:
        return works.complete(job) if job.outputs.result.exists() and not job.outputs.parts.exists() else None
    _require(job.outputs.parts)
    unit = arguments[1]
    found = parts.finished(job, unit[0])
    if found is None:
        return None
    reason = getattr(found, "reason", "")
    return works.Drawn(unit, getattr(found, "seconds", 0.0), reason, lasting=bool(reason))


def _require(path: Path) -> None:
    from recon.errors import ConfigError

    if not path.exists():
        raise ConfigError(
            f"worker {platform.node()}: does not see {path.absolute()}; sources and results must be on a file system "
            "that all workers share"
        )


@contextlib.contextmanager
def _folder_of(site: Site) -> Iterator[None]:
    """Work in the client's folder."""
    before = os.getcwd()
    try:
        os.chdir(site.folder)
    except OSError:
        _require(Path(site.folder))
        raise
    try:
        yield
    finally:
        os.chdir(before)
