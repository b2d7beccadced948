"""The loop of a study: slices and results are handed to workers, and what comes back is noted."""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, CancelledError, Future, wait
from dataclasses import dataclass, field
from typing import Protocol

from recon.engine.sampling_run import Step
from recon.errors import ConfigError, ReconError
from recon.study import parts, work
from recon.study.job import Job
from recon.study.pools import Pool
from recon.study.work import Drawn, Finished

#: Units that wait at the workers, for each of them, so that none is idle.
_AHEAD = 2
#: How often a unit is tried whose worker dies.
_TRIES = 3
_TICK_SECONDS = 1.0


@dataclass
class State:
    """How far a job is.

    Attributes
    ----------
    job : Job
    left : set
        Units that are not done.
    finished : Finished or None
    broken : dict
        Units without a lasting result, and why.
    error : Exception or None
        Why there is no result.
    """

    job: Job
    left: set[tuple[int, ...]]
    finished: Finished | None = None
    broken: dict[tuple[int, ...], str] = field(default_factory=dict)
    error: Exception | None = None


class Listener(Protocol):
    """Receives what happens."""

    #: Called after each step, where the work is done in this process.
    step: Step | None

    def begin(self, states: Sequence[State]) -> None:
        """The work begins; ``left`` of each state is still to be done."""

    def drawn(self, state: State, drawn: Drawn) -> None:
        """A unit is done."""

    def finished(self, state: State) -> None:
        """A job is done: its state has ``finished``, ``error`` or ``broken``."""

    def tick(self) -> None:
        """Time passes."""


def run(states: Sequence[State], pool: Pool, listener: Listener) -> None:
    """Do what is left of all jobs; what became of them is noted in their states."""
    _Loop(states, pool, listener).run()


class _Loop:
    def __init__(self, states: Sequence[State], pool: Pool, listener: Listener) -> None:
        self.pool, self.listener, self.states = pool, listener, states
        self.waiting: deque[tuple[State, tuple[int, ...] | None]] = deque()
        self.running: dict[Future, tuple[State, tuple[int, ...] | None, int]] = {}
        self.tries: dict[tuple[str, tuple[int, ...] | None], int] = {}
        for state in states:
            units = [unit for unit in state.job.units if unit in state.left]
            self.waiting.extend((state, unit) for unit in units)
            if not units and state.finished is None and state.error is None:
                self.waiting.append((state, None))

    def run(self) -> None:
        self.listener.begin(self.states)
        while self.waiting or self.running:
            while self.waiting and self._has_room():
                self._submit(*self.waiting.popleft())
                if self.pool.here:
                    break
            done, _ = wait(self.running, timeout=_TICK_SECONDS, return_when=FIRST_COMPLETED)
            for future in done:
                self._note(future, *self.running.pop(future))
            self.pool.check()
            self.listener.tick()

    def _has_room(self) -> bool:
        """Whether the next unit may be submitted; the last try of a unit is made alone, so that only it is blamed."""
        if any(self._last_try(state, unit) for state, unit, _ in self.running.values()):
            return False
        if self._last_try(*self.waiting[0]):
            return not self.running
        return len(self.running) < _AHEAD * self.pool.workers

    def _last_try(self, state: State, unit: tuple[int, ...] | None) -> bool:
        return self.tries.get((state.job.key, unit), 0) == _TRIES - 1

    def _submit(self, state: State, unit: tuple[int, ...] | None) -> None:
        if unit is None:
            future = self.pool.submit(work.finish, state.job)
        elif self.pool.here:
            future = self.pool.submit(functools.partial(work.draw, step=self.listener.step), state.job, unit)
        else:
            future = self.pool.submit(work.draw, state.job, unit)
        self.running[future] = (state, unit, self.pool.generation)

    def _note(self, future: Future, state: State, unit: tuple[int, ...] | None, generation: int) -> None:
        try:
            result = future.result()
        except (ConfigError, work.Unwritable):
            raise
        except (BrokenExecutor, CancelledError):
            self.pool.restart(generation)
            self._again(state, unit)
        except Exception as error:
            if unit is None:
                state.error = error
                self.listener.finished(state)
            else:
                reason = str(error) if isinstance(error, ReconError) else f"{type(error).__name__}: {error}"
                self._done(state, Drawn(unit, 0.0, reason))
        else:
            if unit is None:
                state.finished = result
                self.listener.finished(state)
            else:
                self._done(state, result)

    def _again(self, state: State, unit: tuple[int, ...] | None) -> None:
        """Try once more what a worker that died did not do; the dead worker's neighbours lose their work, too."""
        count = self.tries[state.job.key, unit] = self.tries.get((state.job.key, unit), 0) + 1
        if count < _TRIES:
            self.waiting.appendleft((state, unit))
            return
        reason = f"its worker process died {_TRIES} times (out of memory?)"
        if unit is None:
            state.error = ReconError(f"{state.job.name}: {reason}")
            self.listener.finished(state)
        else:
            self._done(state, Drawn(unit, 0.0, reason))

    def _done(self, state: State, drawn: Drawn) -> None:
        state.left.discard(drawn.unit)
        if drawn.reason and not drawn.lasting:
            state.broken[drawn.unit] = drawn.reason
        self.listener.drawn(state, drawn)
        if state.left:
            return
        if state.broken:
            self.listener.finished(state)
        else:
            self.waiting.appendleft((state, None))


def state_of(job: Job, force: bool) -> State:
    """Return how far a job is; a result that is complete is described, and its missing files are written."""
    if parts.begin(job, force):
        try:
            return State(job, set(), work.complete(job))
        except (ReconError, OSError) as error:  # its other outputs; the other jobs are done all the same
            return State(job, set(), error=error)
    return State(job, set(parts.pending(job)))
