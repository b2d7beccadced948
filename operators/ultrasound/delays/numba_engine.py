"""Delays compiled by numba (an optional library) on a CPU: one pass over the pixels of a row, weights in registers.

The scatter runs in parallel over elements (each writes its own rows, so sums do not collide) and the gather over rows
of the image; both use the same code for positions and weights, and reuse those of an element for all waves.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from operators.errors import InputError
from operators.ultrasound.delays.plan import DelayPlan, carrier

_LOCK = threading.Lock()  # some of numba's thread pools are not re-entrant


class NumbaDelays:
    """Scatter and gather of `plan` in numba.

    Raises
    ------
    InputError
        If numba is missing, or a tensor is not on the CPU.
    """

    def __init__(self, plan: DelayPlan, max_bytes: int = 0) -> None:
        kernels()
        self.plan = plan
        self._arguments = {name: _arguments(plan, name) for name in (np.float32, np.float64)}

    def scatter(self, image: Tensor) -> Tensor:
        """Spread images (batch, z, x) into rows (batch, angle, element, length)."""
        values = _parts(image)
        waves, elements = self.plan.rows
        out = np.empty((len(values), waves, elements, self.plan.length, 2), values.dtype)
        with _threads():
            kernels().scatter(values, out, *self._arguments[values.dtype.type])
        return torch.view_as_complex(torch.from_numpy(out))

    def gather(self, data: Tensor) -> Tensor:
        """Sum rows (batch, angle, element, length) into images (batch, z, x); the adjoint of `scatter`."""
        values = _parts(data)
        out = np.zeros((len(values), len(self.plan.z), len(self.plan.x), 2), values.dtype)
        with _threads():
            kernels().gather(values, out, *self._arguments[values.dtype.type])
        return torch.view_as_complex(torch.from_numpy(out))


def available() -> bool:
    """Tell whether numba can be imported."""
    try:
        kernels()
    except InputError:
        return False
    return True


@functools.cache
def kernels() -> Any:
    """Return the kernels, or raise InputError that names the alternative."""
    try:
        from operators.ultrasound.delays import numba_kernels
    except ImportError as error:
        raise InputError(f"engine='numba' needs numba ({error}); use engine='torch' or 'auto'") from None
    return numba_kernels


def _parts(values: Tensor) -> np.ndarray:
    if values.device.type != "cpu":
        raise InputError(f"engine='numba' needs a tensor on the CPU, got one on {values.device}; use engine='torch'")
    return torch.view_as_real(values.detach().resolve_conj().contiguous()).numpy()


@contextmanager
def _threads() -> Iterator[None]:
    """Run kernels one at a time with as many threads as torch has, and leave torch that number.

    The first kernel makes the OpenMP layer of numba set the number of threads of the whole process.
    """
    import numba

    with _LOCK:
        threads = torch.get_num_threads()
        numba.set_num_threads(max(1, min(threads, getattr(numba.config, "NUMBA_NUM_THREADS", 1))))
        try:
            yield
        finally:
            if torch.get_num_threads() != threads:
                torch.set_num_threads(threads)


def _arguments(plan: DelayPlan, kind: Any) -> tuple[Any, ...]:
    """Cast the plan to the precision of the data; a missing polynomial becomes an empty array."""

    def cast(values: np.ndarray | None) -> np.ndarray:
        return np.ascontiguousarray(np.empty(0) if values is None else values, dtype=kind)

    waves = plan.transmit_weights
    spread = {0.0: 0, 0.5: 1, 1.0: 2}[plan.spreading]
    turns = plan.theta * (plan.first + np.arange(len(plan.taps)))
    cosine, sine = carrier(plan.theta, 1e-8 if kind is np.float32 else 1e-15)
    return (
        *(cast(v) for v in (plan.x, plan.z, plan.elements, plan.element_weights, plan.transmit_x, plan.transmit_z)),
        cast(np.empty((0, 0, 0)) if waves is None else waves),
        *(cast(v) for v in (plan.directivity, plan.window, cosine, sine, plan.taps)),
        *(cast(v) for v in (np.cos(turns), np.sin(turns))),
        plan.first,
        np.array([2 * plan.f_number, plan.reference, plan.attenuation], kind),
        spread,
    )
