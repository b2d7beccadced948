"""Workers on other machines, through Dask: a scheduler that runs, or jobs of a queue; the only file that imports it."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import logging
import shutil
import signal
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from typing import TYPE_CHECKING, Any

from recon.errors import ConfigError, InputError, ReconError
from recon.study.cluster_file import ClusterFile
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
    """

    def __init__(
        self,
        client: Client,
        least: int = _LEAST,
        threads: int | None = None,
        executor: Executor | None = None,
        ends: tuple[Callable[[], Any], ...] = (),
    ) -> None:
        self._client, self._least, self._ends, self._owned = client, least, ends, executor is None
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
    _require("distributed", "--scheduler")
    from distributed import Client

    _quiet()
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


def memory_of_worker() -> int | None:
    """Return the bytes beyond which Dask ends this worker, of which the system does not know; None without a limit."""
    from distributed import get_worker

    try:
        return get_worker().memory_manager.memory_limit
    except ValueError:  # not on a worker
        return None


def on_gpus(pool: DaskPool) -> bool:
    """Ask a worker, as soon as there is one, whether it has a GPU."""
    return bool(pool.submit(_has_gpu).result())


def start(file: ClusterFile) -> DaskPool:
    """Submit jobs to a queue, which are workers; they end with this process, and are replaced when they die.

    Raises
    ------
    ConfigError
        If this machine cannot submit jobs.
    ReconError
        If the queue refuses a job.
    """
    kind, keywords = _class_of(file), _keywords(file)
    command = kind.job_cls.submit_command
    if shutil.which(command) is None:
        raise ConfigError(f"{file.path}: this machine has no {command!r}; start the run where jobs are submitted")
    from distributed import Client

    _quiet()
    cluster = kind(scheduler_options={"dashboard_address": ":0"}, silence_logs="critical", **keywords)
    low, high = file.workers
    try:
        cluster.worker_spec.update(cluster.new_worker_spec())
        cluster.sync(cluster._correct_state)  # submits a first job here, where an error can be raised
    except RuntimeError as error:
        _end(cluster)
        said = str(error).partition("stderr:")[2] or str(error)
        raise ReconError(f"{file.path}: {command} failed: {' '.join(said.split())}") from error
    cluster.adapt(minimum=low, maximum=high)  # also replaces jobs whose time is over
    client = Client(cluster, set_as_default=False)
    return DaskPool(client, least=high, threads=file.threads, ends=(functools.partial(_end, cluster),))


def _end(cluster: Any) -> None:
    """Cancel the jobs and end the scheduler."""
    cluster._created.clear()  # of jobs that the queue refused it would assert that they are closed
    cluster.close()


def script(file: ClusterFile) -> str:
    """Return the job script of a worker."""
    kind = _class_of(file)
    return str(kind.job_cls("tcp://SCHEDULER:PORT", name="WORKER", **_keywords(file)).job_script())


def _class_of(file: ClusterFile) -> Any:
    _require("dask_jobqueue", "--cluster")
    with _ctrl_c_kept():
        import dask_jobqueue

    return {"slurm": dask_jobqueue.SLURMCluster, "pbs": dask_jobqueue.PBSCluster, "lsf": dask_jobqueue.LSFCluster}[
        file.kind
    ]


@contextlib.contextmanager
def _ctrl_c_kept() -> Iterator[None]:
    """Put the handler of Ctrl-C back: dask-jobqueue makes it an exit without a word when it is imported."""
    before = signal.getsignal(signal.SIGINT)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGINT) is not before:
            signal.signal(signal.SIGINT, before)


def _keywords(file: ClusterFile) -> dict[str, Any]:
    """Return the arguments of dask-jobqueue: workers of one thread for Dask, which have several cores for torch."""
    found = dict(file.passed)
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")
    prologue = [*found.pop("job_script_prologue", []), *(f"export {name}={file.threads}" for name in names)]
    directives = list(found.pop("job_extra_directives", []))
    if file.kind == "slurm":
        found["job_cpu"] = file.cores
        directives += ["--gres=gpu:1"] if file.gpus else []
    elif file.kind == "pbs":
        found.setdefault("resource_spec", _resources(file))
    else:
        found["ncpus"] = file.cores
        directives += ['-gpu "num=1"'] if file.gpus else []
    return {
        "cores": file.processes,
        "processes": file.processes,
        "memory": file.memory,
        "job_name": "diffrecon",
        **found,
        "job_script_prologue": prologue,
        "job_extra_directives": directives,
    }


def _resources(file: ClusterFile) -> str:
    from dask.utils import parse_bytes
    from dask_jobqueue.pbs import pbs_format_bytes_ceil

    memory = pbs_format_bytes_ceil(parse_bytes(file.memory))
    return f"select=1:ncpus={file.cores}:mem={memory}" + (":ngpus=1" if file.gpus else "")


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


def _has_gpu() -> bool:
    import torch

    return bool(torch.cuda.is_available())


def _require(module: str, option: str) -> None:
    if importlib.util.find_spec(module) is None:
        raise InputError(f"{option} needs Dask: pip install 'diffrecon[cluster]'")


def _quiet() -> None:
    """Let errors be told once, in one line, and not by the logs of the libraries, too."""
    for name in ("distributed", "dask_jobqueue", "asyncio", "tornado.application"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
