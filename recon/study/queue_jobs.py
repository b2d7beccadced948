"""Jobs of a queue as workers, through dask-jobqueue."""

from __future__ import annotations

import contextlib
import functools
import shutil
import signal
import threading
from collections.abc import Iterator
from typing import Any

from recon.errors import ConfigError, ReconError
from recon.study.arrivals import Arrivals, in_words
from recon.study.cluster import DaskPool, quiet_libraries, require_library
from recon.study.cluster_file import ClusterFile
from recon.threads import THREAD_SETTINGS


def start(file: ClusterFile) -> DaskPool:
    """Submit jobs to a queue, which are workers; they end with this process, and are replaced when they die.

    Raises
    ------
    ConfigError
        If this machine cannot submit jobs.
    ReconError
        If the queue refuses the first job.
    """
    kind, keywords = _class_of(file), _keywords(file)
    command = kind.job_cls.submit_command
    if shutil.which(command) is None:
        raise ConfigError(f"{file.path}: this machine has no {command!r}; start the run where jobs are submitted")
    from distributed import Client

    quiet_libraries()
    arrivals = Arrivals(file.path, command, 60 * file.wait_minutes)
    cluster = kind(
        scheduler_options={"dashboard_address": ":0"},
        silence_logs="critical",
        job_cls=_telling(kind.job_cls, arrivals),
        **keywords,
    )
    low, high = file.workers
    try:
        cluster.worker_spec.update(cluster.new_worker_spec())
        cluster.sync(cluster._correct_state)  # submits a first job here, where an error can be raised
    except (RuntimeError, ValueError, OSError) as error:
        _end(cluster)
        raise ReconError(f"{file.path}: {command} failed: {in_words(error)}") from error
    cluster.adapt(minimum=low, maximum=high)  # also replaces jobs whose time is over
    client = Client(cluster, set_as_default=False)
    ends, watch = (functools.partial(_end, cluster),), functools.partial(_watch, cluster, arrivals)
    return DaskPool(client, least=high, threads=file.threads, ends=ends, watch=watch)


def _telling(job: Any, arrivals: Arrivals) -> Any:
    """Return a kind of job that tells where the queue refuses it, of which dask-jobqueue only writes a log line."""

    class Telling(job):
        async def start(self) -> None:
            try:
                await super().start()
            except (RuntimeError, ValueError, OSError) as error:
                arrivals.refused(error)
                raise

    return Telling


def _watch(cluster: Any, arrivals: Arrivals, present: int) -> None:
    """Look at what became of the jobs, and ask again for those that the queue refused."""
    if arrivals.check(present):
        cluster.loop.add_callback(_forget_refused, cluster)


def _forget_refused(cluster: Any) -> None:
    """Take jobs that the queue refused from those that are asked for, so that others are submitted in their place."""
    from distributed.core import Status

    for name in [name for name, job in cluster.workers.items() if job.status == Status.created]:
        del cluster.workers[name]
        cluster.worker_spec.pop(name, None)


def _end(cluster: Any) -> None:
    """Cancel the jobs and end the scheduler."""
    cluster._created.clear()  # of jobs that the queue refused it would assert that they are closed
    cluster.close()


def script(file: ClusterFile) -> str:
    """Return the job script of a worker."""
    kind = _class_of(file)
    return str(kind.job_cls("tcp://SCHEDULER:PORT", name="WORKER", **_keywords(file)).job_script())


def _class_of(file: ClusterFile) -> Any:
    require_library("dask_jobqueue", "--cluster")
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
    exports = (f"export {name}={file.threads}" for name in THREAD_SETTINGS)
    prologue = [*found.pop("job_script_prologue", []), *exports]
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
