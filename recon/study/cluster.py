"""Workers on other machines, through a scheduler of Dask."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import logging
import time
import weakref
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import TYPE_CHECKING, Any

from recon.errors import ConfigError, InputError, ReconError
from recon.study.pools import Pool
from recon.study.remote import on_worker, packed, site

if TYPE_CHECKING:
    from distributed import Client

#: How long a scheduler may take to answer, and to come back when its connection is lost.
_CONNECT_SECONDS, _LOST_SECONDS = 5.0, 10.0
_REFRESH_SECONDS = 1.0
#: A task is tried again after an error, beside the deaths of workers that the scheduler allows.
_RETRIES = 2
#: Units that the scheduler sees also without workers, so that an adaptive one starts some.
_LEAST = 16


class DaskPool(Pool):
    """Workers of a Dask scheduler; each process does one unit at a time.

    Parameters
    ----------
    client : distributed.Client
    least : int
        Number of workers that are given work even if they are not there yet.
    threads : int, optional
        Threads of a worker; by default those that it was started with.
    executor : Executor, optional
        That of the client, with the caller's settings; it is then not closed.
    ends : sequence of callable
        What is closed after the client.
    watch : callable, optional
        Is given the number of workers about once a second, and may raise.
    """

    def __init__(
        self,
        client: Client,
        least: int = _LEAST,
        threads: int | None = None,
        executor: Executor | None = None,
        ends: tuple[Callable[[], Any], ...] = (),
        watch: Callable[[int], None] | None = None,
    ) -> None:
        self._client, self._least, self._ends, self._owned = client, least, ends, executor is None
        self._watch = watch
        self._executor = client.get_executor(pure=False, retries=_RETRIES) if executor is None else executor
        self._task = functools.partial(on_worker, site(threads))
        self._open: weakref.WeakSet[Future] = weakref.WeakSet()
        self._present, self._asked = 0, float("-inf")
        self.address = str(client.scheduler.address) if client.scheduler else "Dask"
        self.generation = 0

    @property
    def present(self) -> int:
        """How many workers there are now."""
        now = time.monotonic()
        if now - self._asked > _REFRESH_SECONDS and self._client.status == "running":
            self._asked = now
            with contextlib.suppress(OSError, TimeoutError):  # lost; the futures will say so
                self._present = len(self._client.nthreads())
        return self._present

    @property
    def workers(self) -> int:
        """How many units are worked on at a time: the workers that are there, or are expected."""
        return max(self.present, self._least)

    def submit(self, work: Callable[..., Any], *arguments: Any) -> Future:
        """Hand work to a worker."""
        try:
            inner = self._executor.submit(self._task, packed(work, *arguments))
        except Exception as error:
            if self._client.status != "running":
                raise self._lost() from error
            raise
        self._open.add(inner)
        outer: Future = Future()
        inner.add_done_callback(lambda done: _pass_on(done, outer))
        return outer

    def restart(self, generation: int) -> None:
        """Wait for a scheduler that is lost to come back; there is nothing to restart.

        Raises
        ------
        ReconError
            If it does not.
        """
        deadline = time.monotonic() + _LOST_SECONDS
        while self._client.status == "connecting" and time.monotonic() < deadline:
            time.sleep(0.1)
        if self._client.status != "running":
            raise self._lost()

    def check(self) -> None:
        """See whether workers arrive."""
        if self._watch is not None:
            self._watch(self.present)

    def close(self) -> None:
        """Give up what is not done; workers finish the slice that they draw."""
        for future in list(self._open):
            future.cancel()
        if self._owned:
            self._client.close(timeout=_CONNECT_SECONDS)
        for end in self._ends:
            end()

    def _lost(self) -> ReconError:
        return ReconError(
            f"{self.address}: the connection to the scheduler is lost; finished slices are kept, and the same command "
            "goes on"
        )


def connect(address: str) -> DaskPool:
    """Return the workers of a scheduler that runs.

    Raises
    ------
    ConfigError
        If it does not answer.
    """
    require_library("distributed", "--scheduler")
    from distributed import Client

    quiet_libraries()
    try:
        client = Client(address, timeout=_CONNECT_SECONDS, set_as_default=False)
    except (OSError, ValueError, TimeoutError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ConfigError(f"--scheduler {address}: no Dask scheduler answers there ({reason})") from error
    return DaskPool(client)


def of_executor(executor: Executor) -> DaskPool | None:
    """Return the workers behind ``Client.get_executor()``; None for any other executor."""
    if not type(executor).__module__.startswith("distributed."):
        return None
    return DaskPool(executor._client, executor=executor)  # type: ignore[attr-defined]


def first_choice(pool: DaskPool, device: str, precision: str) -> tuple[str, str]:
    """Let a worker, as soon as there is one, decide what is left to it ("auto")."""
    found: tuple[str, str] = pool.submit(_choice, device, precision).result()
    return found


def _choice(device: str, precision: str) -> tuple[str, str]:
    """Return the device and the network precision that are best on this machine, where they are "auto"."""
    from recon.device import elsewhere, resolve_device
    from recon.priors.precision import resolve_precision

    with elsewhere():  # a device that this worker lacks is complained of where slices are drawn
        where = resolve_device(device)
    return str(where), resolve_precision(precision, where)


def _pass_on(inner: Future, outer: Future) -> None:
    """Give the outcome of one future to another, with errors of Dask in words."""
    if inner.cancelled():
        outer.cancel()
        outer.set_running_or_notify_cancel()
    elif (error := inner.exception()) is not None:
        outer.set_exception(_in_words(error))
    else:
        outer.set_result(inner.result())


def _in_words(error: BaseException) -> BaseException:
    if type(error).__name__ == "KilledWorker":
        return ReconError("its workers died, one after the other (out of memory?)")
    if isinstance(error, ModuleNotFoundError) or str(error).startswith("Error during deserialization"):
        return ConfigError(f"scheduler or worker: needs the same packages and versions as here ({error})")
    return error


def require_library(module: str, option: str) -> None:
    """Raise InputError if a library of the extra is missing."""
    if importlib.util.find_spec(module) is None:
        raise InputError(f"{option} needs Dask: pip install 'diffrecon[cluster]'")


def quiet_libraries() -> None:
    """Let errors be told once, in one line, and not by the logs of the libraries, too."""
    for name in ("distributed", "dask_jobqueue", "asyncio", "tornado.application"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
