"""Processes and threads of a training run, and the signals that end it.

Each process (as ``torchrun`` starts them) and each thread takes its own part of the batch through forward and backward
pass; the gradients are added at the end. Threads wait for each other once per step, not once per layer. On a shared
CPU, where any thread may be held up at any time, that is more than twice as fast as torch's parallel loops.
"""

from __future__ import annotations

import copy
import importlib
import os
import signal
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor, distributed, nn

from recon.errors import ConfigError


class Ranks:
    """The current process among those of the run; the only one unless ``torchrun`` started several.

    Parameters
    ----------
    device : torch.device
        Device of this process: gradients are exchanged by NCCL between GPUs and by Gloo between CPUs.

    Attributes
    ----------
    rank, count : int
        Index of this process, and number of processes.
    """

    def __init__(self, device: torch.device) -> None:
        try:
            self.count, self.rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
        except ValueError as error:
            raise ConfigError(f"expected whole numbers in WORLD_SIZE and RANK, which torchrun sets: {error}") from error
        self._device = device
        self._own = self.count > 1 and not distributed.is_initialized()
        if self._own:
            # Its functions bind the process group that exists at their first import as a default. Imported later, by
            # the optimisers, they would keep the group and its threads alive after `close`, and a thread that still
            # holds a tensor when the interpreter exits aborts the process.
            importlib.import_module("torch.distributed.nn.functional")
            distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")

    @property
    def first(self) -> bool:
        """Whether this process writes the files."""
        return self.rank == 0

    def average(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by its mean over all processes."""
        if self.count == 1:
            return
        flat = torch.cat([tensor.flatten() for tensor in tensors])
        distributed.all_reduce(flat)
        flat /= self.count
        for tensor, part in zip(tensors, flat.split([t.numel() for t in tensors]), strict=True):
            tensor.copy_(part.view_as(tensor))

    def any(self, flag: bool) -> bool:
        """Tell whether the flag is raised in any process."""
        if self.count == 1:
            return flag
        raised = torch.tensor(float(flag), device=self._device)
        distributed.all_reduce(raised)
        return bool(raised > 0)

    def wait(self) -> None:
        """Wait until all processes get here."""
        self.any(False)

    def close(self) -> None:
        """Leave the process group."""
        if self._own:
            distributed.destroy_process_group()


def is_first_process() -> bool:
    """Tell whether this process writes the files, before the process group exists."""
    return os.environ.get("RANK", "0") == "0"


def device_of_this_process(name: str) -> str:
    """Return ``name``; for "cuda" under ``torchrun``, the GPU with the local rank of this process."""
    local = os.environ.get("LOCAL_RANK")
    return f"cuda:{local}" if name == "cuda" and local is not None else name


class Workers:
    """``count`` threads with one torch thread each; results do not depend on their timing."""

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
    """Copies of a model that share its weights but have their own gradients, one per worker."""

    def __init__(self, model: nn.Module, workers: Workers) -> None:
        self.workers = workers
        self.models = [model] + [copy.deepcopy(model) for _ in range(workers.count - 1)]
        for replica in self.models[1:]:
            for mine, theirs in zip(replica.parameters(), model.parameters(), strict=True):
                mine.data = theirs.data

    def gradients(self, loss: Callable[..., Tensor], *batch: Tensor) -> Tensor:
        """Store the gradient of the mean of ``loss(model, *batch)`` in the model and return the mean."""
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


class StopFlag:
    """Turns SIGTERM and SIGINT into a flag, so that a step is never interrupted."""

    def __init__(self) -> None:
        self.raised = False
        self._previous: dict[int, Any] = {}
        try:
            for number in (signal.SIGTERM, signal.SIGINT):
                self._previous[number] = signal.signal(number, self._raise)
        except ValueError:
            pass  # not in the main thread: stopping is up to the caller

    def _raise(self, *_: Any) -> None:
        self.raised = True

    def restore(self) -> None:
        """Restore the previous handlers."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)
