"""Slices that are sampled by threads of this process, and go through the network together.

A GPU is not busy with the few images of one slice. So each thread draws one slice as it would alone, and waits with its
images at the network until all threads that are sampling have some; the last one calls the network for all of them. The
next slice is prepared meanwhile. Images differ from those of slices drawn one by one by the rounding of batches.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from recon.errors import ReconError
from samplers import Denoiser
from samplers.memory import is_out_of_memory, release


class Closed(ReconError):
    """The run ends, and with it the slices that are being drawn."""


class Alone:
    """A slice that meets no other."""

    def preparing(self) -> AbstractContextManager[None]:
        """Surrounds the preparation of a slice."""
        return nullcontext()

    def sampling(self) -> AbstractContextManager[None]:
        """Surrounds everything that calls the network."""
        return nullcontext()

    def prior(self, name: Hashable, load: Callable[[], Denoiser]) -> Denoiser:
        """Return the prior of this name."""
        return load()


class Meeting(Alone):
    """Where the threads of this process meet; each of its methods may be called by any of them.

    Parameters
    ----------
    places : int
        How many slices are sampled at a time.
    """

    def __init__(self, places: int) -> None:
        self._places, self._sampling = places, 0
        self._changed = threading.Condition()
        self._calls: list[_Call] = []
        self._merging, self._closed = True, False
        self._network, self._preparation, self._loading = threading.Lock(), threading.Lock(), threading.Lock()
        self._priors: dict[Hashable, Denoiser] = {}

    @contextmanager
    def preparing(self) -> Iterator[None]:
        """Prepare one slice at a time, which bounds the memory, while others are sampled."""
        with self._preparation:
            self._require_open()
            yield

    @contextmanager
    def sampling(self) -> Iterator[None]:
        """Wait for a place, and take part in the calls of the network from now on; the others wait for this thread."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._sampling < self._places)
            self._require_open()
            self._sampling += 1
        try:
            yield
        finally:
            with self._changed:
                self._sampling -= 1
                self._changed.notify_all()

    def prior(self, name: Hashable, load: Callable[[], Denoiser]) -> Denoiser:
        """Return the prior of this name, loaded once for all threads, whose images meet."""
        with self._loading:
            if name not in self._priors:
                self._priors[name] = _Met(load(), self)
            return self._priors[name]

    def close(self) -> None:
        """End all slices where they call the network next, or wait for it."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def denoise(self, denoiser: Denoiser, x: Tensor, sigma: float | Tensor) -> Tensor:
        """Denoise the images of a thread that is sampling, together with those of the others if no gradients are taken.

        Raises
        ------
        Closed
        """
        self._require_open()
        if torch.is_grad_enabled() or not self._merging:
            return self._alone(denoiser, x, sigma)
        call = _Call(denoiser, x, sigma)
        calls: list[_Call] = []
        with self._changed:
            self._calls.append(call)
            self._changed.notify_all()
            self._changed.wait_for(lambda: call.done or self._is_time())
            self._require_open()
            if not call.done:
                calls, self._calls = self._calls, calls
        if calls:
            self._answer(calls)
        return self._alone(denoiser, x, sigma) if call.denoised is None else call.denoised

    def _is_time(self) -> bool:
        return len(self._calls) >= self._sampling or self._closed or not self._merging

    def _require_open(self) -> None:
        if self._closed:
            raise Closed("the run was ended")

    def _alone(self, denoiser: Denoiser, x: Tensor, sigma: float | Tensor) -> Tensor:
        with self._network:  # networks set the arithmetic of the whole process
            return denoiser.denoise(x, sigma)

    def _answer(self, calls: Sequence[_Call]) -> None:
        """Call the network for each kind of images. Calls without an answer then go on alone, each to its own error."""
        kinds: dict[Hashable, list[_Call]] = {}
        for call in calls:
            kinds.setdefault(call.kind, []).append(call)
        try:
            for found in kinds.values():
                if len(found) > 1 and self._merging:
                    self._merge(found)
        finally:
            with self._changed:
                for call in calls:
                    call.done = True
                self._changed.notify_all()

    def _merge(self, calls: Sequence[_Call]) -> None:
        try:
            found = self._alone(calls[0].denoiser, torch.cat([call.x for call in calls]), _levels(calls))
        except Exception as error:
            if is_out_of_memory(error):
                release(error)
                self._merging = False
                said = f"out of memory with the images of {len(calls)} slices: each goes through the network alone"
                warnings.warn(said, UserWarning, stacklevel=4)
            return
        for call, denoised in zip(calls, found.split([len(call.x) for call in calls]), strict=True):
            call.denoised = denoised


@dataclass(frozen=True, eq=False)
class _Met:
    """A denoiser behind a meeting; everything else it knows is that of the denoiser."""

    _denoiser: Denoiser
    _meeting: Meeting

    def __getattr__(self, name: str) -> Any:
        return getattr(self._denoiser, name)

    def denoise(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        """Return ``E[x0 | x0 + sigma n = x]``."""
        return self._meeting.denoise(self._denoiser, x, sigma)


@dataclass(eq=False)
class _Call:
    """Images that wait at the network, and then their answer; None where each thread calls for itself."""

    denoiser: Denoiser
    x: Tensor
    sigma: float | Tensor
    denoised: Tensor | None = None
    done: bool = False

    @property
    def kind(self) -> Hashable:
        """What calls have in common that can be made as one."""
        return id(self.denoiser), tuple(self.x.shape[1:]), self.x.dtype, self.x.device


def _levels(calls: Sequence[_Call]) -> float | Tensor:
    """Return the noise level of all images, or of each, made by fills where a copy would wait for a GPU."""
    first = calls[0].sigma
    if not any(isinstance(call.sigma, Tensor) for call in calls) and all(call.sigma == first for call in calls):
        return first
    rows = []
    for call in calls:
        like = call.x.real
        if isinstance(call.sigma, Tensor):
            rows.append(call.sigma.to(like).expand(len(like)))
        else:
            rows.append(torch.full((len(like),), call.sigma, dtype=like.dtype, device=like.device))
    return torch.cat(rows)
