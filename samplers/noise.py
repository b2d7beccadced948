"""Random numbers: one stream for each sample, so that a sample never depends on the rest of its batch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from operators.base import Space


class Noise:
    """Standard normal draws for a batch of samples, each from a separate stream.

    The streams are drawn on the CPU and moved, so a GPU gives the same samples. No global generator is touched.

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
        self._streams = [torch.Generator().manual_seed(_mix(seed, number)) for number in numbers]

    def __len__(self) -> int:
        return len(self._streams)

    def normal(self, space: Space) -> Tensor:
        """Return standard normal draws of shape ``(batch, *space)``; complex ones have ``E|n|^2 = 1``."""
        dtype = _complex_of(self.precision) if space.dtype.is_complex else self.precision
        draws = [torch.randn(space.shape, generator=stream, dtype=dtype) for stream in self._streams]
        return torch.stack(draws).to(self.device)


def _mix(seed: int, number: int) -> int:
    """Turn (seed, sample number) into one well-spread 63-bit seed."""
    state = np.random.SeedSequence(entropy=seed, spawn_key=(number,)).generate_state(1, np.uint64)
    return int(state[0] >> np.uint64(1))


def _complex_of(real: torch.dtype) -> torch.dtype:
    return torch.complex128 if real == torch.float64 else torch.complex64
