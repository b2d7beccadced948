"""Atomic writes: a crash, a full disk or Ctrl-C never leaves a partial file behind."""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from recon.errors import InputError, StorageError
from recon.files.temporary import create, remove_stale_now_and_then, temporary_beside
from recon.printable import printable

#: What a disk reports without naming a file; errors of other kinds are those of the caller.
_OF_THE_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS, errno.ESTALE, errno.ENXIO}
_FULL = {errno.ENOSPC, errno.EDQUOT}
#: What a folder answers that cannot be opened or flushed by itself; the file in it is there all the same.
_NO_FLUSH = {errno.EACCES, errno.EINVAL, errno.ENOTSUP, errno.EBADF, errno.EISDIR}


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Provide a temporary file beside `path` for writing; on success it replaces `path` in one step.

    The data are flushed to the disk before the rename, so that after a power cut there is either the old file or the
    complete new one. On any exception, including KeyboardInterrupt, the temporary file is removed and `path` is
    unchanged. What processes of this host that were killed have left in the folder is removed, too.

    Parameters
    ----------
    path
        The file to write. Its folder must exist.

    Yields
    ------
    pathlib.Path
        An empty file in the same folder, with the same ending.

    Raises
    ------
    StorageError
        If the disk is full or read-only, or the folder is missing or closed to this user.
    """
    target = Path(path)
    remove_stale_now_and_then(target.parent)
    temporary = temporary_beside(target)
    with _storage_errors(target, temporary):
        mode = create(temporary)
        try:
            yield temporary
            _flush(temporary)
            temporary.chmod(mode)  # a library may have replaced the file by a private one
            os.replace(temporary, target)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        _flush_folder(target.parent)


@contextmanager
def atomic_folder(path: str | os.PathLike[str], replace: bool = False) -> Iterator[Path]:
    """Provide a temporary folder beside `path` for writing; on success it gets the name `path` in one step.

    Files in it are written plainly: all of them are flushed to the disk before the rename.

    Parameters
    ----------
    path
        The folder to write; it must not exist, or be empty, unless it is replaced. Its parent must exist.
    replace
        Whether a folder of that name makes way once the new one is complete; until then it is unchanged.

    Yields
    ------
    pathlib.Path
        An empty folder.

    Raises
    ------
    StorageError
        As in `atomic_path`, or if `path` has come into being meanwhile.
    """
    target = Path(path)
    remove_stale_now_and_then(target.parent)
    temporary = temporary_beside(target)
    with _storage_errors(target, temporary):
        os.mkdir(temporary)
        try:
            yield temporary
            for path in (*temporary.rglob("*"), temporary):
                (_flush_folder if path.is_dir() else _flush)(path)
            _put_folder(temporary, target, replace)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        _flush_folder(target.parent)


def _put_folder(new: Path, target: Path, replace: bool) -> None:
    """Give a folder its name; one that is in the way is moved aside first, since a full folder cannot be replaced."""
    if not (replace and target.is_dir()):
        os.replace(new, target)
        return
    old = temporary_beside(target)
    os.replace(target, old)
    try:
        os.replace(new, target)
    except BaseException:
        os.replace(old, target)
        raise
    shutil.rmtree(old, ignore_errors=True)


def make_folder(folder: Path) -> None:
    """Create a folder and its parents, unless it exists.

    Raises
    ------
    InputError
        If it, or a parent, is a file.
    StorageError
        If it cannot be created for another reason.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise InputError(f"{printable(folder)}: cannot be written to, a file is there ({error.strerror})") from error
    except OSError as error:
        raise StorageError(f"{printable(folder)}: cannot be created ({error.strerror or error})") from error


@contextmanager
def _storage_errors(target: Path, temporary: Path) -> Iterator[None]:
    """Turn what the system says about writing `target` into a `StorageError` of one line."""
    try:
        yield
    except OSError as error:
        if not _concerns(error, target, temporary):
            raise
        advice = "; free some space or choose another folder" if error.errno in _FULL else ""
        kept = "; what was there is unchanged" if os.path.lexists(target) else ""
        reason = error.strerror or str(error)
        raise StorageError(f"{printable(target)}: cannot be written ({reason}){advice}{kept}") from error


def _concerns(error: OSError, target: Path, temporary: Path) -> bool:
    if not isinstance(error.filename, str | bytes):
        return error.errno in _OF_THE_DISK
    named = Path(os.fsdecode(error.filename))
    return named in (target, target.parent) or temporary in (named, *named.parents)


def _flush(path: Path) -> None:
    # Not followed if it is a link by now; opened for writing, without which some systems do not flush.
    descriptor = os.open(path, os.O_RDWR | getattr(os, "O_NOFOLLOW", 0))
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _flush_folder(folder: Path) -> None:
    """Make the names in a folder durable, on systems that can open folders."""
    if os.name != "posix":
        return
    try:
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno not in _NO_FLUSH:
            raise
