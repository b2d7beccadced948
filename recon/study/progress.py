"""What a study says while it runs: a bar on a terminal, lines in a log, JSON for programs, or nothing."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from math import isfinite
from typing import Any, TextIO

from tqdm import tqdm

from recon.study.loop import State
from recon.study.work import Drawn
from samplers import Progress

#: A log has a line a slice, but not more often than this.
_SECONDS = 30.0


class Silent:
    """Says nothing."""

    step: Callable[[Progress], None] | None = None

    def begin(self, states: Sequence[State]) -> None:
        """Note how much is to be done."""

    def drawn(self, state: State, drawn: Drawn) -> None:
        """Note a unit."""

    def finished(self, state: State) -> None:
        """Note a job."""

    def tick(self) -> None:
        """Note that time passes."""

    def close(self) -> None:
        """End."""


class Counting(Silent):
    """Counts units and time.

    Time left is that of the units drawn in this run; those that were there before took none.
    """

    def __init__(self) -> None:
        self.total = self.done = self.drawn_now = 0
        self.started = time.monotonic()

    def begin(self, states: Sequence[State]) -> None:  # noqa: D102
        self.total = sum(len(state.job.units) for state in states)
        self.done = self.total - sum(len(state.left) for state in states)

    def drawn(self, state: State, drawn: Drawn) -> None:  # noqa: D102
        self.done += 1
        self.drawn_now += 1

    @property
    def seconds_left(self) -> float | None:
        """Estimated time until the last unit is done; None before the first."""
        if not self.drawn_now:
            return None
        return (time.monotonic() - self.started) / self.drawn_now * (self.total - self.done)


class Lines(Counting):
    """A line for each slice, or every half minute where they are faster."""

    def __init__(self, stream: TextIO | None = None) -> None:
        super().__init__()
        self._stream = stream or sys.stderr
        self._last = -_SECONDS

    def begin(self, states: Sequence[State]) -> None:  # noqa: D102
        super().begin(states)
        if self.done and self.done < self.total:
            self._say(f"{self.done} of {self.total} slices were done before")

    def drawn(self, state: State, drawn: Drawn) -> None:  # noqa: D102
        super().drawn(state, drawn)
        now = time.monotonic()
        if self.total == 1 or (now - self._last < _SECONDS and self.done < self.total and not drawn.reason):
            return
        self._last = now
        left = self.seconds_left
        rest = f", about {duration(left)} left" if left else ""
        what = f"failed: {drawn.reason}" if drawn.reason else f"{drawn.seconds:.0f} s"
        where = f"{state.job.name}: slice {drawn.unit[0]}"
        self._say(f"{where}: {what}; {self.done} of {self.total} done{rest}")

    def _say(self, text: str) -> None:
        print(f"recon: {text}", file=self._stream, flush=True)


class Bar(Silent):
    """A bar on a terminal, over steps where they are made in this process, over slices elsewhere."""

    def __init__(self, steps: int, batches: int, here: bool) -> None:
        self._steps, self._per_unit = steps, steps * batches if here else 1
        self._unit = "step" if here else "slice"
        self._bar: tqdm | None = None
        self.step = self._stepped if here else None

    def begin(self, states: Sequence[State]) -> None:  # noqa: D102
        total = sum(len(state.job.units) for state in states)
        left = sum(len(state.left) for state in states)
        self._bar = tqdm(
            total=total * self._per_unit, initial=(total - left) * self._per_unit, unit=self._unit, disable=None
        )

    def drawn(self, state: State, drawn: Drawn) -> None:  # noqa: D102
        if self._bar is not None and self.step is None:
            self._bar.update()

    def close(self) -> None:  # noqa: D102
        if self._bar is not None:
            self._bar.close()

    def _stepped(self, step: Progress) -> None:
        if self._bar is not None:
            if step.step == 1 and self._bar.total is not None:  # the number of steps may follow from the data
                self._bar.total += step.total - self._steps
            self._bar.update()


class Json(Counting):
    """One JSON object a line."""

    def __init__(self, stream: TextIO | None = None) -> None:
        super().__init__()
        self._stream = stream or sys.stdout

    def begin(self, states: Sequence[State]) -> None:  # noqa: D102
        super().begin(states)
        self._say("begin", total=self.total, done=self.done, files=len(states))

    def drawn(self, state: State, drawn: Drawn) -> None:  # noqa: D102
        super().drawn(state, drawn)
        self._say(
            "slice",
            file=state.job.name,
            slice=drawn.unit[0],
            seconds=round(drawn.seconds, 3),
            error=drawn.reason or None,
            done=self.done,
            total=self.total,
            seconds_left=self.seconds_left,
        )

    def finished(self, state: State) -> None:  # noqa: D102
        found = state.finished
        self._say(
            "file",
            file=state.job.name,
            result=str(state.job.outputs.result) if found else None,
            verdict=found.verdict.level if found else None,
            reasons=list(found.verdict.reasons) if found else [],
            held_out_chi2=found.held_out_chi2 if found else None,
            error=str(state.error) if state.error else None,
            slices_without_result=[one.index for one in found.failed] if found else [unit[0] for unit in state.broken],
        )

    def _say(self, event: str, **values: Any) -> None:
        known = {name: None if isinstance(one, float) and not isfinite(one) else one for name, one in values.items()}
        print(json.dumps({"event": event, "time": time.time(), **known}), file=self._stream, flush=True)


def duration(seconds: float) -> str:
    """Return a time in words: "40 s", "12 min", "3.5 h"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
