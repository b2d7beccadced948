"""The folder of the finished slices of one result, until the result is complete."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from recon.engine.slice_result import FailedSlice, SliceResult
from recon.errors import InputError
from recon.files.atomic import atomic_path
from recon.files.documents import read_json
from recon.files.posterior_file import is_posterior, read_provenance
from recon.study.checksum import read_checksum, write_checksum
from recon.study.job import Job
from recon.study.request import difference, require_same
from recon.study.slice_file import path_of, read_slice
from recon.study.source_state import CHECKSUM, is_same

#: What the slices in a folder were made with.
RECORD = "job.json"
_OTHER_CONTENT = (
    "{}: is not the result of this file, whose content is another one; remove it, use --force to start again, or "
    "another folder"
)


def begin(job: Job, force: bool) -> bool:
    """Make the folder of a job ready, or find that the job is done.

    Returns
    -------
    done : bool
        Whether the result exists and was made with the same settings.

    Raises
    ------
    InputError
        If the result, or the slices that are there, were made with other settings.
    """
    folder, result = job.outputs.parts, job.outputs.result
    whole = {**job.request, "slices": list(job.slices)}
    made_with = {} if force or not result.exists() else _request_in(result)
    if made_with and difference(made_with, whole) is None and is_same(job.content, made_with, whole):
        end(job)
        return True
    known = None if force else record_of(folder)
    replaces = force or (known is not None and known.get("replaces") is True)
    if known is not None:
        require_same(known["request"], job.request, result)
        known = known if _same_source(job, known["request"]) else None
    if made_with and not replaces:
        require_same(made_with, whole, result)
        raise InputError(_OTHER_CONTENT.format(result))
    in_the_way = job.outputs.all() if known is None else [result]
    if not replaces and (existing := [path for path in in_the_way if path.exists()]):
        more = f" and {len(existing) - 1} more" if len(existing) > 1 else ""
        raise InputError(f"{existing[0]}{more} already exists; use --force to overwrite, or another folder")
    if known is None:
        _clear(folder)
    folder.mkdir(parents=True, exist_ok=True)
    content = {
        "request": job.request,
        "result": job.outputs.result.name,
        "source": str(job.source),
        "units": [list(unit) for unit in job.units],
        "replaces": replaces,  # an older result, by --force: so does the run that goes on
    }
    with atomic_path(folder / RECORD) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return False


def record_of(folder: Path) -> dict[str, Any] | None:
    """Return what a folder says about its slices; None if it says nothing that can be read."""
    try:
        content = read_json(folder / RECORD)
    except InputError:
        return None
    return content if isinstance(content.get("request"), dict) else None


def _same_source(job: Job, request: dict[str, Any]) -> bool:
    """Tell whether slices were drawn from this very source; False if there are none, so that nothing is lost.

    Raises
    ------
    InputError
        If there are slices of another source, or of one that had no checksum yet before it was touched.
    """
    folder, result = job.outputs.parts, job.outputs.result
    checksum = read_checksum(folder) or request.get(CHECKSUM)
    if is_same(job.content, {**request, CHECKSUM: checksum}, job.request):
        write_checksum(job, checksum)  # an older release kept it in the record
        return True
    if not any(folder.glob("slice-*.npz")):
        return False
    if checksum is not None:
        raise InputError(_OTHER_CONTENT.format(result))
    raise InputError(
        f"{result}: was begun with this file as it was before its size or time changed, and had no checksum of it yet; "
        "use --force to start again, or another folder"
    )


def pending(job: Job) -> list[tuple[int, ...]]:
    """Return the units that have no finished file yet, or a damaged one."""
    return [unit for unit in job.units if finished(job, unit[0]) is None]


def finished(job: Job, index: int) -> SliceResult | FailedSlice | None:
    """Return the result of a unit; None if there is none, or its file is damaged (which is removed)."""
    found = read_slice(job.outputs.parts, index)
    if found is None:
        path_of(job.outputs.parts, index).unlink(missing_ok=True)
    return found


def end(job: Job) -> None:
    """Remove the slices of a result that is complete."""
    shutil.rmtree(job.outputs.parts, ignore_errors=True)


def _clear(folder: Path) -> None:
    """Remove slices; the record first, without which those that are left are never used."""
    if folder.exists():
        (folder / RECORD).unlink(missing_ok=True)
        shutil.rmtree(folder)


def _request_in(result: Path) -> dict[str, Any]:
    """Return what a result was made with; empty for a file that does not say so."""
    record = read_provenance(result) if is_posterior(result) else {}
    request = record.get("request")
    return {**request, "slices": record.get("slices")} if isinstance(request, dict) else {}
