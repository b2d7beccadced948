"""Signals that end a training run, between two steps."""

from __future__ import annotations

import signal
from typing import Any


class StopFlag:
    """Turns SIGTERM and SIGINT into a flag, so that a step is never cut in half."""

    def __init__(self) -> None:
        self.raised = False
        self._previous: dict[int, Any] = {}
        try:
            for number in (signal.SIGTERM, signal.SIGINT):
                self._previous[number] = signal.signal(number, self._raise)
        except ValueError:
            pass  # not in the main thread: the caller decides how to stop

    def _raise(self, *_: Any) -> None:
        self.raised = True

    def restore(self) -> None:
        """Put the previous handlers back."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)
