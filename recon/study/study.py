"""Running a study in a folder that belongs to it, and the same from Python."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recon.device import elsewhere, resolve_device
from recon.errors import InputError, ReconError
from recon.files.lock import owned
from recon.files.space import require_space
from recon.files.temporary import remove_stale
from recon.run_options import RunConfig
from recon.study import cluster, loop
from recon.study.loop import Listener, State, state_of
from recon.study.planning import Planned, plan_files
from recon.study.polling import foreign
from recon.study.pools import Here, Pool, processes
from recon.study.progress import Bar, Silent
from recon.study.work import Unwritable
from recon.study.workers import with_slices_together
from recon.verdict import Verdict

#: Images of a result beside its samples, and bytes of a pixel.
_MAPS, _BYTES = 4, 8


class Interrupted(KeyboardInterrupt):
    """A study that was stopped; says what is kept."""


@dataclass(frozen=True)
class Outcome:
    """What became of one source.

    Attributes
    ----------
    source : Path
    result : Path or None
        The HDF5 file of the posterior (`recon.Posterior.load`); None without a result.
    verdict : Verdict
        "unknown" without a result.
    slices_without_result : tuple of int
    reasons : tuple of str
        Why slices, or the whole source, have no result.
    """

    source: Path
    result: Path | None
    verdict: Verdict
    slices_without_result: tuple[int, ...]
    reasons: tuple[str, ...]


def run_study(planned: Sequence[Planned], output: Path, pool: Pool, listener: Listener, force: bool) -> list[State]:
    """Draw every slice of every file that is not done, and write the results.

    Raises
    ------
    InputError
        If results or slices that exist were made with other settings.
    ConfigError
        If another run has locked the folder.
    ReconError
        If slices cannot be written, as on a full disk; finished slices are kept.
    Interrupted
        On Ctrl-C or a signal that ends the run; finished slices are kept.
    """
    with owned(output, "run"):
        remove_stale(output)
        states = [state_of(one.job(), force) for one in planned]
        require_space(output, sum(map(_bytes_left, planned, states)))
        try:
            loop.run(states, pool, listener)
        except KeyboardInterrupt as error:
            raise Interrupted(_kept(states, force)) from error
        except Unwritable as error:
            raise ReconError(f"{error}; {_kept(states, force)}") from error
        finally:
            pool.close()
    return states


def _bytes_left(planned: Planned, state: State) -> float:
    """Estimate what will be written for a file: its slices twice, before and after they are put together."""
    run, slices = planned.wanted.run, sum(map(len, state.left))
    kept = run.samples if run.keep is None else min(run.keep, run.samples)
    pixels = math.prod(planned.recording.shape[-2:])
    return 2.0 * slices * (kept + _MAPS) * pixels * _BYTES


def _kept(states: Sequence[State], force: bool) -> str:
    total = sum(len(state.job.units) for state in states)
    kept = total - sum(len(state.left) + len(state.broken) for state in states)
    command = "the same command without --force" if force else "the same command"
    return f"{kept} of {total} slices are done and kept; {command} goes on"


def reconstruct_many(
    sources: Sequence[str | os.PathLike[str]],
    output: str | os.PathLike[str],
    *,
    executor: Any = None,
    workers: int = 1,
    slices_together: int | None = None,
    force: bool = False,
    report: bool = False,
    nifti: bool = False,
    dicom: bool = False,
    progress: bool | None = None,
    **arguments: Any,
) -> list[Outcome]:
    """Reconstruct many files into a folder; slices that are done are kept, and the same call goes on where it was.

    Parameters
    ----------
    sources : sequence of path
        Raw-data files or folders of any modality.
    output : path
        Folder of the results: ``NAME.h5`` for each source. It belongs to one call at a time.
    executor : optional
        Draws the slices: that of a Dask client (``client.get_executor()``), of submitit, or any
        `concurrent.futures.Executor`. Its workers must reach the same files. It is not shut down.
    workers : int
        Number of processes of this machine, among which the cores are divided. With an executor that does not say
        how many units it works on at a time: that number, 64 by default.
    slices_together : int, optional
        Number of slices whose samples this process alone (``workers=1``) sends through the network together; by
        default as many as make about 32 images on a GPU, 1 on a CPU.
    force : bool
        Start again instead of going on.
    report, nifti, dicom : bool
        Also write pictures (the extra ``report``), NIfTI files (``nifti``) or DICOM series (``dicom``).
    progress : bool, optional
        Show a bar; by default only on a terminal.
    **arguments
        Those of `recon.reconstruct`, except ``progress``; options of a modality by name.

    Returns
    -------
    list of Outcome
        One for each source, in order. A source or slice that cannot be reconstructed does not stop the others.

    Raises
    ------
    InputError
        If an argument is unusable, no source can be opened, or the folder holds results of other settings.
    """
    paths = [Path(source) for source in sources]
    slices_together = RunConfig(slices_together=slices_together).slices_together
    pool = pool_of(workers, executor)
    with elsewhere() if executor is not None else nullcontext():
        device, precision = (arguments.get(name, "auto") for name in ("device", "precision"))
        arguments["device"], arguments["precision"] = arithmetic_of(pool, device, precision)
        exports = ("dicom",) if dicom else ()
        planned, refused = plan_files(paths, Path(output), lambda modality: arguments, report, nifti, exports)
    if not planned:
        raise next(iter(refused.values())) if refused else InputError("sources: expected at least one, got none")
    pool = with_slices_together(pool, planned, slices_together)
    listener = Silent() if progress is False else bar_of(planned, pool)
    try:
        states = run_study(planned, Path(output), pool, listener, force)
    finally:
        listener.close()
    outcomes = {state.job.source: outcome_of(state) for state in states}
    for path, error in refused.items():
        outcomes[path] = Outcome(path, None, Verdict(), (), (str(error),))
    return [outcomes[path] for path in paths]


def pool_of(workers: int, executor: Any = None) -> Pool:
    """Return who does the work."""
    if executor is None:
        return Here() if workers == 1 else processes(workers)
    if (pool := cluster.of_executor(executor)) is not None:
        return pool
    return foreign(executor, workers)


def arithmetic_of(pool: Pool, device: str, precision: str) -> tuple[str, str]:
    """Return device and network precision of all workers.

    "auto" is decided once, because samples of a CPU and a GPU differ, and those of float32 and bfloat16: by the first
    worker of a scheduler, or else by this machine, where the precision depends on the prior, too (`job_of`).
    """
    if isinstance(pool, cluster.DaskPool) and "auto" in (device, precision):
        return cluster.first_choice(pool, device, precision)
    return str(resolve_device(device)) if device == "auto" else device, precision


def bar_of(planned: Sequence[Planned], pool: Pool) -> Bar:
    """Return a progress bar for these files."""
    run = planned[0].wanted.run
    batches = -(-run.samples // run.batch_size) if run.batch_size else 1
    return Bar(run.sampler.usual_steps, batches, pool.here)


def outcome_of(state: State) -> Outcome:
    """Return what became of a job."""
    found = state.finished
    failed = {one.index: one.reason for one in found.failed} if found else {}
    failed |= {unit[0]: reason for unit, reason in state.broken.items()}
    reasons = tuple(dict.fromkeys([*([str(state.error)] if state.error else []), *failed.values()]))
    result = state.job.outputs.result if found else None
    return Outcome(state.job.source, result, found.verdict if found else Verdict(), tuple(sorted(failed)), reasons)
