"""What a worker does: draw one unit of a job, or finish the job; values in, small values out."""

from __future__ import annotations

import dataclasses
import os
import threading
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from recon.engine.meeting import Alone
from recon.engine.reconstruction import Reconstruction, plan
from recon.engine.sampling_run import Step
from recon.engine.slice_result import FailedSlice, SliceResult
from recon.errors import ConfigError, DivergenceError, InputError, ReconError
from recon.files.atomic import make_folder
from recon.posterior import Posterior
from recon.study import parts
from recon.study.checksum import checksum_of, require_unchanged, write_checksum
from recon.study.collected import collected
from recon.study.job import Job
from recon.study.slice_file import write_slice
from recon.study.source_state import CHECKSUM
from recon.verdict import Verdict


class Unwritable(ReconError):
    """A slice cannot be written: the disk is full or gone, so that more slices would be drawn in vain."""


@dataclass(frozen=True)
class Drawn:
    """What became of one unit.

    Attributes
    ----------
    unit : tuple of int
    seconds : float
    reason : str
        Why it has no result; empty if it has one.
    lasting : bool
        Whether the data are the reason, so that it would fail again.
    warnings : tuple of str
    """

    unit: tuple[int, ...]
    seconds: float
    reason: str = ""
    lasting: bool = False
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Finished:
    """A result that is complete.

    Attributes
    ----------
    verdict : Verdict
    notes : tuple of str
    samples : int
        Number of valid samples.
    seconds : float
        Time of all slices together.
    held_out_chi2 : float or None
    failed : tuple of FailedSlice
    warnings : tuple of str
    kept : bool
        Whether it was there before.
    """

    verdict: Verdict
    notes: tuple[str, ...]
    samples: int
    seconds: float
    held_out_chi2: float | None
    failed: tuple[FailedSlice, ...] = ()
    warnings: tuple[str, ...] = ()
    kept: bool = False


def draw(job: Job, unit: tuple[int, ...], step: Step | None = None) -> Drawn:
    """Draw the samples of a unit and write them; errors of this unit are returned, not raised.

    Raises
    ------
    ConfigError
        For settings that suit no slice.
    Unwritable
        If the slice cannot be written.
    """
    started = time.perf_counter()
    reason, lasting = "", False
    with collected() as told:
        try:
            opened = _opened(job)
            if unit == job.units[0]:
                _keep_checksum(job)
            _write_slice(job, opened.draw(unit, step))
        except (ConfigError, Unwritable):
            raise
        except (InputError, DivergenceError) as error:
            reason, lasting = str(error), True
            _write_slice(job, FailedSlice(unit[0], reason, isinstance(error, DivergenceError)))
        except (ReconError, OSError, MemoryError) as error:
            reason = str(error) or type(error).__name__
        except Exception as error:  # a defect; the other slices are not to be lost for it
            if os.environ.get("RECON_DEBUG"):
                traceback.print_exc()
            reason = f"{type(error).__name__}: {error} (this should not happen; run again with --debug and report it)"
    return Drawn(unit, time.perf_counter() - started, reason, lasting, tuple(told))


def _keep_checksum(job: Job) -> None:
    """Hash the source, whose first slice is drawn, so that it is known whatever happens to its times."""
    checksum = checksum_of(job)
    try:
        write_checksum(job, checksum)
    except (OSError, ReconError) as error:
        raise Unwritable(str(error)) from error


def _write_slice(job: Job, result: SliceResult | FailedSlice) -> None:
    try:
        write_slice(job.outputs.parts, result)
    except (OSError, ReconError) as error:
        raise Unwritable(str(error)) from error


def finish(job: Job) -> Finished:
    """Join the slices of a job into its result, write everything, and remove the slices.

    Raises
    ------
    InputError, DivergenceError
        If no slice has a result, for the reason of the first one.
    ReconError, OSError
        If something cannot be written; the slices are kept.
    """
    failed: list[FailedSlice] = []

    def results() -> Iterator[SliceResult]:
        for unit in job.units:
            found = parts.finished(job, unit[0])
            if found is None:
                raise ReconError(f"{job.name}: the file of slice {unit[0]} is damaged; run the same command again")
            if isinstance(found, FailedSlice):
                failed.append(found)
            else:
                yield found

    with collected() as told:
        posterior = _joined(job, results(), failed)
        _write(job, posterior)
    parts.end(job)
    return _described(posterior, tuple(failed), tuple(told))


def complete(job: Job) -> Finished:
    """Describe a result that exists, and write those of its other outputs that are missing."""
    posterior = Posterior.load(job.outputs.result)
    _write_others(job, posterior, {path for path in job.outputs.all() if not path.exists()})
    slices = posterior.provenance.get("slices") or [0]
    bad = [index for index, valid in zip(slices, posterior.slice_valid, strict=False) if not valid]
    failed = tuple(FailedSlice(index, "see the notes of the result") for index in bad)
    return dataclasses.replace(_described(posterior, failed, ()), kept=True)


def _joined(job: Job, results: Iterator[SliceResult], failed: list[FailedSlice]) -> Posterior:
    first = next(results, None)
    if first is None:
        parts.end(job)
        raise (DivergenceError if failed[0].diverged else InputError)(failed[0].reason)

    def every() -> Iterator[SliceResult]:
        yield first
        yield from results

    checksum = checksum_of(job)
    known = None if checksum is None or job.content is None else {"name": job.content.name, "sha256": checksum}
    posterior = _opened(job).assemble(every(), failed, known)
    posterior.provenance["request"] = {**job.request, **({} if checksum is None else {CHECKSUM: checksum})}
    return posterior


def _write(job: Job, posterior: Posterior) -> None:
    make_folder(job.outputs.result.parent)
    posterior.save(job.outputs.result)
    _write_others(job, posterior, set(job.outputs.all()))


def _write_others(job: Job, posterior: Posterior, wanted: set[Path]) -> None:
    """Write exports, NIfTI and pictures, as far as they are wanted."""
    outputs = job.outputs
    for folder in {path.parent for path in wanted}:
        make_folder(folder)
    wanted_exports = {name: path for name, path in outputs.exports.items() if path in wanted}
    if wanted_exports:
        opened = _opened(job)
        assert opened.source is not None and opened.run.modality is not None
        for name, path in wanted_exports.items():
            opened.run.modality.exports[name].write(posterior, path, opened.source.recording)
    if wanted & set(outputs.nifti):
        posterior.to_nifti(outputs.result.with_name(f"{outputs.result.stem}.nii.gz"))
    if wanted & set(outputs.pictures):
        posterior.report(outputs.result.with_suffix(""))


def _described(posterior: Posterior, failed: tuple[FailedSlice, ...], told: tuple[str, ...]) -> Finished:
    return Finished(
        verdict=posterior.verdict,
        notes=tuple(posterior.provenance.get("notes") or ()),
        samples=posterior.n_valid,
        seconds=float(posterior.diagnostics.get("seconds", 0.0)),
        held_out_chi2=posterior.held_out_chi2,
        failed=failed,
        warnings=told,
    )


#: What each thread has opened last: slices of one source may set the prior of a `Reconstruction`, which threads of one
#: process must not do to each other.
_last = threading.local()


def meet(meeting: Alone) -> None:
    """Let the slices that this thread draws meet those of other threads at the network."""
    _last.meeting = meeting


def _opened(job: Job) -> Reconstruction:
    """Open the source of a job, if it is unchanged; that of the last job stays open, with its network."""
    key = (job.key, job.slices, job.arguments.get("threads"))
    if getattr(_last, "key", None) != key:
        require_unchanged(job)
        wanted = plan(job.source, **job.arguments)
        run = dataclasses.replace(wanted.run, meeting=getattr(_last, "meeting", wanted.run.meeting))
        _last.wanted, _last.key = dataclasses.replace(wanted, run=run), key
    return _last.wanted
