"""The processes of one training run, as ``torchrun`` starts them: each has images of its own, all share gradients."""

from __future__ import annotations

import importlib
import os
from collections.abc import Sequence

import torch
from torch import Tensor, distributed

from recon.errors import ConfigError


class Ranks:
    """One process among those of the run; the only one, unless ``torchrun`` started it.

    Parameters
    ----------
    device : torch.device
        What this process computes on: gradients travel by NCCL between GPUs, by Gloo between CPUs.

    Attributes
    ----------
    rank, count : int
        Number of this process, from 0, and how many there are.
    """

    def __init__(self, device: torch.device) -> None:
        try:
            self.count, self.rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
        except ValueError as error:
            raise ConfigError(f"WORLD_SIZE and RANK, as torchrun sets them, must be numbers: {error}") from error
        self._device = device
        self._own = self.count > 1 and not distributed.is_initialized()
        if self._own:
            # Its functions have the group of their first import as default: imported later, as the optimisers do, they
            # would keep the group and its threads alive after `close`, and a thread that still holds a tensor when the
            # interpreter ends aborts the process.
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
        """Wait until all processes are here."""
        self.any(False)

    def close(self) -> None:
        """Leave the others."""
        if self._own:
            distributed.destroy_process_group()


def is_first_process() -> bool:
    """Tell whether this process writes the files, before it has met the others."""
    return os.environ.get("RANK", "0") == "0"


def device_of_this_process(name: str) -> str:
    """Return ``name``, or the GPU of this process where ``torchrun`` gave it a number and ``name`` is "cuda"."""
    local = os.environ.get("LOCAL_RANK")
    return f"cuda:{local}" if name == "cuda" and local is not None else name
