"""Warnings of one piece of work, where threads of one process work side by side."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

# `warnings.catch_warnings` changes the whole process, and threads that enter and leave it in any order would leave it
# changed. So the first one enters it, the last one leaves it, and each thread has a list of its own.
_lock = threading.Lock()
_lists: dict[int, list[str]] = {}
_caught: list[warnings.catch_warnings] = []


@contextmanager
def collected() -> Iterator[list[str]]:
    """Collect the texts of the UserWarnings of this thread, each once, in place of showing them."""
    thread, found = threading.get_ident(), list[str]()
    with _lock:
        if not _lists:
            _begin()
        outer = _lists.get(thread)
        _lists[thread] = found
    try:
        yield found
    finally:
        with _lock:
            if outer is None:
                del _lists[thread]
            else:
                _lists[thread] = outer
            if not _lists:
                _caught.pop().__exit__(None, None, None)


def _begin() -> None:
    caught = warnings.catch_warnings()
    caught.__enter__()
    _caught.append(caught)
    warnings.simplefilter("always", UserWarning)
    before = warnings.showwarning

    def show(message: Warning | str, category: type[Warning], *where: object, **more: object) -> None:
        known = _lists.get(threading.get_ident())
        if known is None or not issubclass(category, UserWarning):
            before(message, category, *where, **more)  # type: ignore[arg-type]
        elif str(message) not in known:
            known.append(str(message))

    warnings.showwarning = show
