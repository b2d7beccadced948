"""Threads that share the work of a training step.

Each thread takes its own part of the batch through forward and backward pass, and the gradients are added at the end:
the threads wait for each other once a step, not once in every layer. On a shared processor, where any thread may be
held up at any time, that is more than twice as fast as torch's parallel loops.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor, nn


class Workers:
    """``count`` threads with one torch thread each; results never depend on their timing."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._pool = ThreadPoolExecutor(count, initializer=torch.set_num_threads, initargs=(1,))

    def map(self, function: Callable[..., Any], *arguments: Iterable[Any]) -> list[Any]:
        """Return ``[function(a) for a in arguments]``; exceptions reach the caller."""
        return list(self._pool.map(function, *arguments))

    def close(self) -> None:
        """End the threads."""
        self._pool.shutdown()


class Replicas:
    """Copies of a model that share its weights but have their own gradients, one for each worker."""

    def __init__(self, model: nn.Module, workers: Workers) -> None:
        self.workers = workers
        self.models = [model] + [copy.deepcopy(model) for _ in range(workers.count - 1)]
        for replica in self.models[1:]:
            for mine, theirs in zip(replica.parameters(), model.parameters(), strict=True):
                mine.data = theirs.data

    def gradients(self, loss: Callable[..., Tensor], *batch: Tensor) -> Tensor:
        """Leave the gradient of the mean of ``loss(model, *batch)`` in the model and return that mean."""
        parts = list(zip(*(t.tensor_split(self.workers.count) for t in batch), strict=True))
        parts = [part for part in parts if len(part[0])]

        def run(model: nn.Module, part: Sequence[Tensor]) -> Tensor:
            model.zero_grad()
            value = loss(model, *part) * (len(part[0]) / len(batch[0]))
            value.backward()
            return value.detach()

        values = self.workers.map(run, self.models[: len(parts)], parts)
        total = _gradients(self.models[0])
        for replica in self.models[1 : len(parts)]:
            torch._foreach_add_(total, _gradients(replica))
        return torch.stack(values).sum()


def _gradients(model: nn.Module) -> list[Tensor]:
    return [p.grad for p in model.parameters() if p.grad is not None]
