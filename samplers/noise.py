"""Random numbers: one stream for each sample, so that a sample never depends on the rest of its batch."""

from __future__ import annotations

import functools
import importlib
import math
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from operators.base import Space
from samplers import philox

#: Seconds that a process spends on its random numbers before it loads numba, which takes .5 s, and 3 where it compiles.
_WORTH_NUMBA = 1.0
_spent = 0.0


class Noise:
    """Standard normal draws for a batch of samples, each from a separate stream.

    The numbers are made where they are used (`samplers.philox`) and are the same on every device. In double precision
    they are those of single precision, without their rounding. No global generator is touched.

    Parameters
    ----------
    seed : int
        Seed of the whole run.
    numbers : sequence of int
        The numbers of the samples of this batch; stream ``k`` depends on ``(seed, k)`` only.
    like : Tensor
        Gives the device and the precision of the draws.
    """

    def __init__(self, seed: int, numbers: Sequence[int], like: Tensor) -> None:
        self.device = like.device
        self.precision = like.real.dtype
        self._keys = [_key(seed, number) for number in numbers]
        self._placed = philox.place_keys(self._keys, self.device) if self.device.type != "cpu" and self._keys else None
        self._draws = 0

    def __len__(self) -> int:
        return len(self._keys)

    def normal(self, space: Space) -> Tensor:
        """Return standard normal draws of shape ``(batch, *space)``; complex ones have ``E|n|^2 = 1``."""
        shape = (*space.shape, 2) if space.dtype.is_complex else tuple(space.shape)
        count = math.prod(shape)
        out = torch.empty(len(self), -(-count // 4) * 4, dtype=self.precision, device=self.device)
        _fill(philox.Stream(self._keys, self._draws, self._placed), out, 1.0 if space.dtype.is_complex else 2.0)
        self._draws += 1
        numbers = out[:, :count].reshape(len(self), *shape)
        return torch.view_as_complex(numbers.contiguous()) if space.dtype.is_complex else numbers


def _fill(stream: philox.Stream, out: Tensor, power: float) -> None:
    """Fill ``out``, shape ``(sample, 4 n)``, by the fastest implementation; all give the same bits."""
    single, on_cpu = out.dtype == torch.float32, out.device.type == "cpu"
    if single and on_cpu and _spent > _WORTH_NUMBA and (compiled := _kernels("numba")) is not None:
        for (key0, key1), row in zip(stream.keys, out.numpy(), strict=True):
            place = np.uint32(key0), np.uint32(key1), np.uint32(stream.draw)
            compiled.normals(*place, np.float32(power), row.reshape(-1, 4))
    elif single and out.is_cuda and (compiled := _kernels("triton")) is not None:
        compiled.launch(stream, out, power)
    else:
        _fill_plainly(stream, out, power)


def _fill_plainly(stream: philox.Stream, out: Tensor, power: float) -> None:
    """Fill ``out`` without a compiler, and add up the time."""
    global _spent
    started = time.perf_counter()
    philox.normals(stream, out, power)
    _spent += time.perf_counter() - started


@functools.cache
def _kernels(library: str) -> Any:
    """Return the kernels written for an optional library, or None without it."""
    if library == "numba" and _memory_is_limited():
        return None  # its compiler ends the process where memory is out
    try:
        return importlib.import_module(f"samplers.philox_{library}")
    except Exception:  # not installed, not made for this machine, no room for a compiler, or nowhere to keep its code
        return None


def _memory_is_limited() -> bool:
    """Tell whether the memory of this process is limited (``ulimit -v``, ``-d``)."""
    try:
        import resource
    except ImportError:  # Windows
        return False
    kinds = (resource.RLIMIT_AS, resource.RLIMIT_DATA)
    return any(resource.getrlimit(kind)[0] != resource.RLIM_INFINITY for kind in kinds)


def _key(seed: int, number: int) -> tuple[int, int]:
    """Turn (seed, sample number) into a well-spread key of two words."""
    state = np.random.SeedSequence(entropy=seed, spawn_key=(number,)).generate_state(2, np.uint32)
    return int(state[0]), int(state[1])
