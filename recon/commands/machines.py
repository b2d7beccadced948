"""Where `recon run` does its work: --workers, --scheduler or --cluster."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from recon.device import elsewhere
from recon.settings import Settings
from recon.study import cluster, queue_jobs
from recon.study.cluster_file import ClusterFile, read_cluster_file
from recon.study.planning import Planned
from recon.study.pools import Pool
from recon.study.study import arithmetic_of, pool_of
from recon.study.workers import with_slices_together, worker_count


class Machines:
    """The workers that the command line asks for; a scheduler is connected at once, the rest starts with `pool`.

    Parameters
    ----------
    workers : str
    scheduler : str or None
    file : Path or None
    quiet : bool
        Whether nothing is said about waiting.
    """

    def __init__(self, workers: str, scheduler: str | None, file: Path | None, quiet: bool) -> None:
        self._workers, self._quiet = workers, quiet
        self._file: ClusterFile | None = None if file is None else read_cluster_file(file)
        self._pool: cluster.DaskPool | None = None if scheduler is None else cluster.connect(scheduler)

    @contextmanager
    def planning(self, settings: Settings) -> Iterator[Settings]:
        """Provide the settings with device and precision of the workers, which this machine need not have."""
        if self._pool is None and self._file is None:
            yield settings
            return
        try:
            device, precision = self._arithmetic(settings.run.device, settings.run.precision)
            with elsewhere():
                yield settings.updated({"device": device, "precision": precision}, "command line")
        except BaseException:
            self._leave()
            raise

    def _arithmetic(self, device: str, precision: str) -> tuple[str, str]:
        """Return device and precision of the workers; of jobs that are not there yet nobody knows the processors."""
        if self._pool is not None:
            if "auto" in (device, precision) and not self._pool.present:
                self._say("no workers yet; waiting for the first, which decides (or give --device and --precision)")
            return arithmetic_of(self._pool, device, precision)
        assert self._file is not None
        known = "cuda" if self._file.gpus else "cpu"
        return known if device == "auto" else device, "float32" if precision == "auto" else precision

    def describe(self) -> None:
        """Print the script of a job of the queue, and leave the workers."""
        if self._file is not None:
            print(f"script of a job:\n{queue_jobs.script(self._file)}", end="")
        self._leave()

    def pool(self, planned: Sequence[Planned], slices_together: int | None) -> Pool:
        """Return the workers; jobs of a queue are submitted now."""
        if self._file is not None:
            self._pool = queue_jobs.start(self._file)
            low, high = self._file.workers
            self._say(f"asked {self._file.kind} for {low if low == high else f'{low} to {high}'} workers")
        elif self._pool is not None:
            self._say(f"workers at {self._pool.address}: {self._pool.present}")
        if self._pool is not None:
            return self._pool
        threads = planned[0].wanted.threads
        alone = pool_of(worker_count(self._workers, planned, slices_together, threads))
        return with_slices_together(alone, planned, slices_together)

    def _leave(self) -> None:
        if self._pool is not None:
            self._pool.close()

    def _say(self, text: str) -> None:
        if not self._quiet:
            print(f"recon: {text}", file=sys.stderr, flush=True)
