"""A file object for libraries that lose errors: the first failed write is kept, and raised when the file is closed.

HDF5 does not survive a write that fails while it closes a file: h5py drops the error, so that a file with holes looks
like a success, or libhdf5 ends the process. `CheckedFile` therefore tells its user that every write succeeded. Nothing
is held in memory: what it reads back after a failure is zero, over which it may stumble, but before the end.
"""

import errno
import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

#: Read at most this much at a time.
_PIECE = 2**20


class CheckedFile(io.RawIOBase):
    """An existing file, opened for writing and reading, that hides errors from its user; see `checked_file`.

    Parameters
    ----------
    path
        The file; its content is discarded. A link is not followed.

    Attributes
    ----------
    failure
        The first error, or None. Nothing is written after it.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.failure: BaseException | None = None
        self._path = path
        self._position = self._size = 0
        flags = os.O_RDWR | os.O_TRUNC | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
        self._descriptor = os.open(path, flags)

    def readable(self) -> bool:
        """Return True."""
        return True

    def writable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to a position and return it."""
        self._position = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        return self._position

    def write(self, data: Any) -> int:
        """Write all of a buffer; after a failure, only say so."""
        start, length = self._position, memoryview(data).nbytes
        self._position += length
        self._size = max(self._size, self._position)
        self._attempt(self._put, memoryview(data).cast("B"), start)
        return length

    def truncate(self, size: int | None = None) -> int:
        """Set the size of the file, by default to the position."""
        self._size = self._position if size is None else size
        self._attempt(os.ftruncate, self._descriptor, self._size)
        return self._size

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer from the position on; what was never written, and all after a failure, is zero."""
        view, start = memoryview(buffer).cast("B"), self._position
        view[:] = bytes(len(view))
        self._attempt(self._get, view, start)
        length = min(len(view), max(self._size - start, 0))
        self._position += length
        return length

    def finish(self) -> None:
        """Flush the data to the disk, close the file, and raise the first error if there was one."""
        self._attempt(os.fsync, self._descriptor)
        self.close()
        if isinstance(self.failure, OSError) and self.failure.filename is None:
            raise OSError(self.failure.errno, self.failure.strerror, str(self._path)) from self.failure
        if self.failure is not None:
            raise self.failure

    def close(self) -> None:
        """Close the file; an error is kept for `finish`."""
        if not self.closed:
            super().close()
            try:
                os.close(self._descriptor)
            except OSError as error:
                self.failure = self.failure or error

    def _attempt(self, action: Callable[..., object], *arguments: object) -> None:
        """Do something unless an earlier attempt failed, and remember a failure."""
        if self.failure is None:
            try:
                action(*arguments)
            except BaseException as error:
                self.failure = error.with_traceback(None)  # whose frames would hold on to the library's buffer

    def _put(self, data: memoryview, start: int) -> None:
        os.lseek(self._descriptor, start, os.SEEK_SET)
        while data:
            written = os.write(self._descriptor, data)
            if written == 0:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            data = data[written:]

    def _get(self, view: memoryview, start: int) -> None:
        os.lseek(self._descriptor, start, os.SEEK_SET)
        while view and (content := os.read(self._descriptor, min(len(view), _PIECE))):
            view[: len(content)] = content
            view = view[len(content) :]


@contextmanager
def checked_file(path: Path) -> Iterator[CheckedFile]:
    """Open a file for a library that may lose errors; at the end they are raised, and the data are on the disk.

    Parameters
    ----------
    path
        An existing file, as `recon.files.atomic.atomic_path` gives it.

    Raises
    ------
    OSError
        The first error of writing, whatever the library made of it.
    """
    file = CheckedFile(path)
    try:
        try:
            yield file
        except Exception:
            # After a write that failed, the library may stumble over what it cannot read back: a consequence.
            if file.failure is None:
                raise
        file.finish()
    finally:
        file.close()
