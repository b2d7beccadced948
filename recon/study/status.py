"""How far the study in a folder is, from its files alone; the run itself is not disturbed."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from recon.engine.slice_result import FailedSlice
from recon.errors import InputError
from recon.files.lock import in_use
from recon.files.posterior_file import is_posterior, read_provenance
from recon.study.parts import record_of
from recon.study.slice_file import path_of, read_slice
from recon.verdict import Verdict

#: The file of a slice without a result holds a sentence only.
_FAILED_BYTES = 8192


@dataclass(frozen=True)
class FileStatus:
    """How far one file is.

    Attributes
    ----------
    name : str
    total, done : int
        Slices, or units that are drawn together; of a result that is complete both are the number of its slices.
    failed : tuple of FailedSlice
        Slices without a result.
    verdict : Verdict or None
        None until the result is complete.
    times : tuple of float
        When its slices were done.
    """

    name: str
    total: int
    done: int
    failed: tuple[FailedSlice, ...] = ()
    verdict: Verdict | None = None
    times: tuple[float, ...] = ()


@dataclass(frozen=True)
class StudyStatus:
    """How far a folder is.

    Attributes
    ----------
    files : tuple of FileStatus
    running : bool
    seconds_left : float or None
        Estimated from the slices that are done; None before the second one, or if nothing runs or is left.
    """

    files: tuple[FileStatus, ...]
    running: bool
    seconds_left: float | None


def status_of(folder: Path) -> StudyStatus:
    """Read the status of a folder of results.

    Raises
    ------
    InputError
        If it is no folder, or holds neither results nor unfinished ones.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: expected the folder of a run (recon run -o), got no folder")
    files = [_unfinished(path) for path in sorted(folder.glob(".*.parts")) if record_of(path) is not None]
    begun = {one.name for one in files}
    results = [path for path in sorted(folder.glob("*.h5")) if path.name not in begun and is_posterior(path)]
    files += [_complete(path) for path in results]
    if not files:
        raise InputError(f"{folder}: holds no results and no finished slices")
    running = in_use(folder)
    return StudyStatus(tuple(files), running, _seconds_left(files) if running else None)


def status_lines(folder: Path, status: StudyStatus) -> list[str]:
    """Describe a status: a summary, then one line for each file, unfinished ones first."""
    from recon.study.progress import duration

    complete = sum(one.verdict is not None for one in status.files)
    done, total = (sum(getattr(one, name) for one in status.files) for name in ("done", "total"))
    left = f", about {duration(status.seconds_left)} left" if status.seconds_left is not None else ""
    state = "running" if status.running else "complete" if complete == len(status.files) else "not running"
    lines = [f"{folder}: {state}; {complete} of {len(status.files)} files, {done} of {total} slices{left}"]
    for one in status.files:
        lines.append(f"  {one.name}: " + (f"{one.done} of {one.total} slices" if one.verdict is None else _told(one)))
        lines += [f"    slice {failed.index} has no result: {failed.reason}" for failed in one.failed]
    return lines


def _told(one: FileStatus) -> str:
    verdict = one.verdict or Verdict()
    return verdict.level + (f": {verdict.reasons[0]}" if verdict.reasons else "")


def _unfinished(parts: Path) -> FileStatus:
    record = record_of(parts) or {}
    units = [unit[0] for unit in record.get("units", [])]
    found = [path for index in units if (path := path_of(parts, index)).exists()]
    small = [
        index for index in units if path_of(parts, index) in found and _size(path_of(parts, index)) < _FAILED_BYTES
    ]
    failed = [one for index in small if isinstance(one := read_slice(parts, index), FailedSlice)]
    times = tuple(path.stat().st_mtime for path in found)
    return FileStatus(str(record.get("result", parts.name)), len(units), len(found), tuple(failed), times=times)


def _size(path: Path) -> int:
    return path.stat().st_size


def _complete(path: Path) -> FileStatus:
    record = read_provenance(path)
    count = len(record.get("slices") or [0])
    return FileStatus(path.name, count, count, verdict=Verdict.recorded(record))


def _seconds_left(files: Sequence[FileStatus]) -> float | None:
    """Estimate the rest from the pace since the first slice of those that are not assembled yet."""
    times = sorted(moment for one in files for moment in one.times)
    left = sum(one.total - one.done for one in files)
    if len(times) < 2 or not left:
        return None
    return (time.time() - times[0]) / (len(times) - 1) * left
