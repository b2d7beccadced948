"""Atomic writes: a crash, a full disk or Ctrl-C never leaves a partial file behind."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Provide a temporary file beside `path` for writing; on success it replaces `path` in one step.

    The data are flushed to the disk before the rename, so that after a power cut there is either the old file or the
    complete new one. On any exception, including KeyboardInterrupt, the temporary file is removed and `path` is
    unchanged.

    Parameters
    ----------
    path
        The file to write. Its folder must exist.

    Yields
    ------
    pathlib.Path
        An empty file in the same folder, with the same ending.
    """
    target = Path(path)
    descriptor, name = tempfile.mkstemp(prefix=".", suffix=f"-{target.name}", dir=target.parent)
    os.close(descriptor)
    temporary = Path(name)
    try:
        yield temporary
        _flush(temporary)
        temporary.chmod(0o666 & ~_umask())  # mkstemp creates private files; give results ordinary permissions
        os.replace(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _flush_folder(target.parent)


def _flush(path: Path) -> None:
    with open(path, "rb+") as stream:
        os.fsync(stream.fileno())


def _flush_folder(folder: Path) -> None:
    """Make the rename durable, on systems that can open folders."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask
