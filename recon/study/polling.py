"""Executors of other libraries: those of the standard interface, and submitit's, whose jobs have to be asked."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Executor, Future
from typing import Any

from recon.errors import InputError
from recon.study.pools import Pool

#: submitit asks the queue at most once a minute, and looks at files between.
_POLL_SECONDS = 1.0
#: Assumed number of workers where neither the executor nor the caller says it.
_UNKNOWN = 64


def foreign(executor: Any, workers: int) -> Pool:
    """Return the workers behind the executor of a caller, which is not shut down.

    Parameters
    ----------
    executor
        A `concurrent.futures.Executor`, or an object whose ``submit(function, *arguments)`` returns a job with
        ``done()`` and ``result()``, as submitit's.
    workers : int
        How many units it works on at a time, if it does not say so; 1 if that is unknown, too.

    Raises
    ------
    InputError
        If it is neither.
    """
    if not callable(getattr(executor, "submit", None)):
        raise InputError(f"executor: expected an object with submit, got {type(executor).__name__}")
    standard = executor if isinstance(executor, Executor) else Polling(executor)
    width = getattr(executor, "_max_workers", None) or (workers if workers > 1 else _UNKNOWN)
    return Pool(lambda: standard, width, owned=False)


class Polling(Executor):
    """The standard interface for an executor whose jobs are asked whether they are done.

    Parameters
    ----------
    executor
        For example ``submitit.AutoExecutor``.
    seconds : float, optional
        Time between two looks at the jobs.
    """

    def __init__(self, executor: Any, seconds: float | None = None) -> None:
        self._executor, self._seconds = executor, _POLL_SECONDS if seconds is None else seconds
        self._jobs: list[tuple[Any, Future]] = []
        self._lock = threading.Lock()
        self._looking = False

    def submit(self, function: Callable[..., Any], /, *arguments: Any, **named: Any) -> Future:  # noqa: D102
        future: Future = Future()
        job = self._executor.submit(function, *arguments, **named)
        with self._lock:
            self._jobs.append((job, future))
            if not self._looking:
                self._looking = True
                threading.Thread(target=self._look, daemon=True).start()
        return future

    def _look(self) -> None:
        """Look at all jobs again and again, as long as there are any."""
        while True:
            with self._lock:
                jobs = list(self._jobs)
                if not jobs:
                    self._looking = False
                    return
            ended = [one for one in jobs if _is_over(*one)]
            with self._lock:
                self._jobs = [one for one in self._jobs if one not in ended]
            time.sleep(self._seconds)


def _is_over(job: Any, future: Future) -> bool:
    """Tell whether a job is done, and then give its outcome to the future."""
    try:
        if not job.done():
            return False
        result = job.result()
    except Exception as error:
        future.set_exception(_lost(error) or error)
    else:
        future.set_result(result)
    return True


def _lost(error: Exception) -> BrokenExecutor | None:
    """Return the error for a job that ended without an outcome: it is tried again."""
    if type(error).__name__ != "UncompletedJobError":
        return None
    return BrokenExecutor(" ".join(str(error).split()))
