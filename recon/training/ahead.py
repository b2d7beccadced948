"""Batches are drawn while the steps before them are computed, so that no processor waits for data."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import torch

from recon.training.batches import Batch

#: Number of a step, and of a piece of it.
Key = tuple[int, int]


class Ahead:
    """Draws the batches that follow the one that is asked for.

    Parameters
    ----------
    draw : callable
        ``(step, piece) -> Batch``; nothing but its arguments may decide what it returns, so that it does not matter
        when, or in which thread, a batch is drawn.
    following : callable
        ``(step, piece) -> (step, piece)``: what will be asked for next. A wrong guess costs time only.
    threads : int
        That draw, each at most one batch that nobody has asked for.
    """

    def __init__(self, draw: Callable[[int, int], Batch], following: Callable[[int, int], Key], threads: int) -> None:
        self._draw, self._following, self._threads = draw, following, threads
        self._pool = ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,))
        self._waiting: dict[Key, Future[Batch]] = {}

    def take(self, step: int, piece: int) -> Batch:
        """Return a batch, and let those that follow be drawn; what drawing raised is raised here."""
        keys = [(step, piece)]
        for _ in range(self._threads):
            keys.append(self._following(*keys[-1]))
        for key in self._waiting.keys() - set(keys):
            self._waiting.pop(key).cancel()
        for key in keys:
            if key not in self._waiting:
                self._waiting[key] = self._pool.submit(self._draw, *key)
        return self._waiting.pop(keys[0]).result()

    def close(self) -> None:
        """Forget what was drawn and end the threads."""
        self._pool.shutdown(cancel_futures=True)


def drawing_threads(device: torch.device) -> int:
    """Return how many threads draw: one beside the workers of a CPU; what a GPU leaves idle, at most eight."""
    if device.type == "cpu":
        return 1
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return max(1, min(8, (os.cpu_count() or 1) // processes - 1))
