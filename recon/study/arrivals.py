"""Workers that a queue was asked for: a line where it refuses jobs or none arrives, and an end of the waiting."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from pathlib import Path

from recon.errors import ReconError

#: When the waiting is told first, how often then, and after how long a queue is asked again that refused a job.
_FIRST_SECONDS, _OFTEN_SECONDS, _PAUSE_SECONDS = 300.0, 3600.0, 60.0


class Arrivals:
    """Knows what the queue said of jobs, and for how long there has been no worker.

    Parameters
    ----------
    file : Path
        The description of the cluster, for messages.
    command : str
        What submits jobs.
    limit : float
        Seconds without any worker after which the run ends.
    clock : callable, optional
    """

    def __init__(self, file: Path, command: str, limit: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._file, self._command, self._limit, self._clock = file, command, limit, clock
        self._since = clock()
        self._next_line = self._since + _FIRST_SECONDS
        self._said, self._told_at = "", float("-inf")
        self._refused_at: float | None = None

    def refused(self, error: Exception) -> None:
        """Note that the queue refused a job."""
        self._said, self._refused_at = in_words(error), self._clock()

    def check(self, present: int) -> bool:
        """Warn of what is new, if anything.

        Parameters
        ----------
        present : int
            Number of workers now.

        Returns
        -------
        bool
            Whether the queue should be asked again for the jobs that it refused.

        Raises
        ------
        ReconError
            If there has been no worker for too long.
        """
        now, refused_at = self._clock(), self._refused_at
        if present:
            self._since, self._next_line = now, now + _FIRST_SECONDS
        waited = now - self._since
        if waited > self._limit:
            raise ReconError(f"{self._file}: {self._waiting(waited)}; finished slices are kept (limit: wait_minutes)")
        if refused_at is not None and now - self._told_at > _OFTEN_SECONDS:
            self._told_at = now
            others = "the run goes on with the others" if present else "others may still start"
            self._warn(f"{self._command} refused a job, and is asked again every minute; {others}: {self._said}")
        elif now > self._next_line:
            self._next_line = now + _OFTEN_SECONDS
            self._warn(self._waiting(waited))
        if refused_at is None or now - refused_at < _PAUSE_SECONDS:
            return False
        self._refused_at = None
        return True

    def _waiting(self, waited: float) -> str:
        refusal = f"; {self._command} refused some: {self._said}" if self._said else ""
        return (
            f"no worker for {waited / 60:.0f} min: jobs wait in the queue, or end as soon as they start (look at the "
            f"queue, and at what a job prints, see log_directory){refusal}"
        )

    def _warn(self, text: str) -> None:
        warnings.warn(f"{self._file}: {text}", UserWarning, stacklevel=4)


def in_words(error: Exception) -> str:
    """Return what a command said that failed."""
    return " ".join((str(error).partition("stderr:")[2] or str(error)).split())
