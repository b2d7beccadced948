"""Who does the work: this process, threads of it, several processes of this machine, or any executor.

Nothing here loads torch when it is imported, so that a worker knows its threads before.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from typing import Any

from recon.threads import cores, limit_threads

_POLL_SECONDS = 1.0


class Pool:
    """An executor that is started again when its processes die.

    Parameters
    ----------
    make : callable
        Returns a new executor.
    workers : int
        How many units it works on at a time.
    owned : bool
        Whether the executor is shut down at the end.
    """

    #: Whether work is done in this process, while `submit` runs.
    here = False

    def __init__(self, make: Callable[[], Executor], workers: int, owned: bool = True) -> None:
        self._make, self._workers, self._owned = make, workers, owned
        self._executor = make()
        #: Grows with each restart, to tell futures of executors that are gone.
        self.generation = 0

    @property
    def workers(self) -> int:
        """How many units are worked on at a time, now."""
        return self._workers

    def submit(self, work: Callable[..., Any], *arguments: Any) -> Future:
        """Hand work to a worker.

        Raises
        ------
        ReconError
            If the executor is broken and not ours to start again.
        """
        try:
            return self._submit(work, *arguments)
        except BrokenExecutor as error:
            if not self._owned:
                from recon.errors import ReconError

                raise ReconError(
                    f"the executor takes no more work ({error}); give a new one, and the same call goes on"
                ) from error
            self.restart(self.generation)
            return self._submit(work, *arguments)

    def _submit(self, work: Callable[..., Any], *arguments: Any) -> Future:
        """Submit while Ctrl-C waits: a process that is started meanwhile never sees it, and prints no traceback."""
        if not hasattr(signal, "pthread_sigmask"):
            return self._executor.submit(work, *arguments)
        before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT,))
        try:
            return self._executor.submit(work, *arguments)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def restart(self, generation: int) -> None:
        """Replace the executor of that generation after its processes have died, unless this was done already."""
        if self._owned and generation == self.generation:
            self._executor.shutdown(wait=False, cancel_futures=True)
            self._executor = self._make()
            self.generation += 1

    def check(self) -> None:
        """Called about once a second while work is done.

        Raises
        ------
        ReconError
            If there is nobody to do it, and nobody will come.
        """

    def close(self) -> None:
        """Wait for nothing, and end the processes."""
        if not self._owned:
            return
        processes = list((getattr(self._executor, "_processes", None) or {}).values())
        self._executor.shutdown(wait=False, cancel_futures=True)
        for process in processes:
            process.terminate()
        for process in processes:
            process.join()


class Here(Pool):
    """Work in this process, one unit after the other."""

    here = True

    def __init__(self) -> None:
        self._workers, self.generation = 1, 0

    def submit(self, work: Callable[..., Any], *arguments: Any) -> Future:
        """Work at once."""
        future: Future = Future()
        try:
            future.set_result(work(*arguments))
        except Exception as error:
            future.set_exception(error)
        return future

    def restart(self, generation: int) -> None:
        """Nothing to restart."""

    def close(self) -> None:
        """Nothing to end."""


class Together(Pool):
    """Threads of this process, whose slices go through the network together; one more prepares the next slice."""

    def __init__(self, slices: int) -> None:
        from recon.engine.meeting import Meeting  # loads torch
        from recon.study.work import meet

        meeting = self._meeting = Meeting(slices)
        super().__init__(lambda: ThreadPoolExecutor(slices + 1, "slice", meet, (meeting,)), slices + 1)

    def close(self) -> None:
        """End the slices where they meet next, and wait for that."""
        self._meeting.close()
        self._executor.shutdown(cancel_futures=True)


def processes(workers: int) -> Pool:
    """Return a pool of processes, among which the cores and the memory of this machine are divided."""
    threads = max(1, cores() // workers)

    def make() -> Executor:
        return ProcessPoolExecutor(
            workers,
            mp_context=multiprocessing.get_context("spawn"),
            initializer=start_worker,
            initargs=(threads, workers, os.getpid()),
        )

    return Pool(make, workers)


def start_worker(threads: int, workers: int, parent: int) -> None:
    """Prepare a worker process: its threads and memory, signals, and its end when the parent dies."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; the parent ends the workers
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    limit_threads(threads)
    from recon.memory import Allotment, allot  # loads torch, whose threads are limited before

    allot(Allotment(workers))


def _end_with(parent: int) -> None:
    """End this process when the one that started it is gone, however that ended."""
    while os.getppid() == parent:
        time.sleep(_POLL_SECONDS)
    os._exit(1)
