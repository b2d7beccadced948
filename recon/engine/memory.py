"""Out of memory outside of the batches, in the preparation or when slices are joined: an error in one line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from samplers.memory import is_out_of_memory, release, typed


@contextmanager
def told_out_of_memory() -> Iterator[None]:
    """Turn the errors of all libraries that mean "out of memory" into one; also as a decorator of a function.

    Raises
    ------
    OutOfMemoryError
    """
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        release(error)
        told = typed(error)
        if told is error:
            raise
        raise told from error
