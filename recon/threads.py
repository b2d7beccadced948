"""Cores that this process may use, and the threads of the libraries that compute.

Nothing here loads torch when it is imported, so that libraries find their threads when they are loaded.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from recon.control_groups import CGROUP, PROC, processors

#: Libraries read these when they are loaded: the number of threads.
THREAD_SETTINGS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")
#: What tells libgomp how its threads wait for work: by default busily, which takes the processor from other processes.
_WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")


def cores(proc: Path = PROC, cgroup: Path = CGROUP) -> int:
    """Return how many cores this process may use: those it may run on, or fewer by the quota of its control groups."""
    present = _present()
    quota = processors(proc, cgroup)
    return present if quota is None else max(1, min(present, math.ceil(quota)))


def prepare(proc: Path = PROC, cgroup: Path = CGROUP) -> None:
    """Set, before libraries are loaded, how they use the processors; what the user has set stays.

    Threads do not wait busily. Where a quota gives fewer cores than the machine has, of which libraries do not know,
    there are no more threads than that.
    """
    if not any(name in os.environ for name in _WAITING):
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
    count = cores(proc, cgroup)
    if count < _present() and "OMP_NUM_THREADS" not in os.environ:
        for name in THREAD_SETTINGS:
            os.environ.setdefault(name, str(count))


def limit_threads(threads: int) -> None:
    """Limit the threads of this process, if possible before the libraries are loaded."""
    for name in THREAD_SETTINGS:
        os.environ[name] = str(threads)
    if not any(name in os.environ for name in _WAITING):
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
    import torch

    torch.set_num_threads(threads)


@contextmanager
def threads_of_torch(count: int | None) -> Iterator[None]:
    """Compute with this number of threads meanwhile; None for those that there are."""
    if count is None:
        yield
        return
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _present() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
