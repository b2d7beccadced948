"""The checksum of a source: computed by the worker that draws its first slice, and kept beside the slices."""

from __future__ import annotations

from pathlib import Path

from recon.engine.provenance import sha256
from recon.errors import ReconError
from recon.files.atomic import atomic_path
from recon.study.job import Job
from recon.study.source_state import STAMP, stamps_of

#: The file that holds it, as `sha256sum` writes it.
_FILE = "source.sha256"


def read_checksum(folder: Path) -> str | None:
    """Return the checksum that is kept in a folder of slices; None if there is none yet."""
    try:
        words = (folder / _FILE).read_text(encoding="utf-8").split()
    except (OSError, UnicodeDecodeError):
        return None
    return words[0] if words else None


def write_checksum(job: Job, checksum: str | None) -> None:
    """Keep a checksum beside the slices of a job; None where it depends on no file."""
    if checksum is not None and job.content is not None:
        with atomic_path(job.outputs.parts / _FILE) as temporary:
            temporary.write_text(f"{checksum}  {job.content.name}\n", encoding="utf-8", errors="replace")


def checksum_of(job: Job) -> str | None:
    """Return the checksum of a source: the one that is kept, or that of its content; None where there is no file.

    Raises
    ------
    ReconError
        If the source is not as it was when the run began.
    """
    if job.content is None:
        return None
    require_unchanged(job)
    known = read_checksum(job.outputs.parts)
    if known is None:
        known = sha256(job.content)
        require_unchanged(job)  # while it was read
    return known


def require_unchanged(job: Job) -> None:
    """Make sure that a source has the stamp, or at least the content, that it had when the run began.

    Raises
    ------
    ReconError
    """
    if job.content is None or stamps_of(job.content)["stamp"] == job.request[STAMP]:
        return
    known = read_checksum(job.outputs.parts)
    if known is None or known != sha256(job.content):
        raise ReconError(f"{job.name}: was changed while it was reconstructed; start again with --force")
