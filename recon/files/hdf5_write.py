"""Writing HDF5 files so that no error is lost: the disk, Ctrl-C and SIGTERM."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import FrameType

import h5py

from recon.files.atomic import atomic_path
from recon.files.checked import checked_file


@contextmanager
def write_hdf5(path: str | os.PathLike[str]) -> Iterator[h5py.File]:
    """Provide an empty HDF5 file; at the end it is complete on the disk and replaces `path` in one step.

    Data are streamed to the disk as they are assigned. After a write that failed the block may go on, but nothing more
    is written. A signal that Python handles (Ctrl-C, SIGTERM) waits until the file is complete, as libhdf5 would
    swallow it: compute before the block, not in it.

    Parameters
    ----------
    path
        The file to write. Its folder must exist.

    Yields
    ------
    h5py.File
        The file; its `filename` means nothing.

    Raises
    ------
    StorageError
        If the file cannot be written; `path` is unchanged.
    """
    with (
        signals_held(),
        atomic_path(path) as temporary,
        checked_file(temporary) as stream,
        h5py.File(stream, "w") as file,
    ):
        yield file


@contextmanager
def signals_held() -> Iterator[None]:
    """Hold back the signals that Python code handles, and handle them at the end of the block."""
    if threading.current_thread() is not threading.main_thread():  # Python handles signals in the main thread only
        yield
        return
    held: list[int] = []

    def hold(number: int, _: FrameType | None) -> None:
        held.append(number)

    # Whatever a handler raises, all handlers are put back first.
    with ExitStack() as last:
        last.callback(_raise_all, held)
        with ExitStack() as stack:
            for number in signal.valid_signals():
                handler = signal.getsignal(number)
                if callable(handler):
                    stack.callback(signal.signal, number, handler)
                    signal.signal(number, hold)
            yield


def _raise_all(held: list[int]) -> None:
    for number in dict.fromkeys(held):
        signal.raise_signal(number)
