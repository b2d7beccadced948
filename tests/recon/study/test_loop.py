"""The loop of a study, with executors and work that the test makes up: what is tried again, and who is blamed."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Executor, Future
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

from recon.errors import ConfigError, ReconError
from recon.study import loop, work
from recon.study.job import Job, Outputs
from recon.study.loop import State
from recon.study.pools import Pool
from recon.study.progress import Silent
from recon.study.work import Drawn, Finished, Unwritable
from recon.verdict import Verdict

FINISHED = Finished(Verdict(), (), 2, 0.0, None)


class Crowd(Executor):
    """Takes up to `width` pieces of work before it does them; one of a deadly slice ends all of them.

    Parameters
    ----------
    width : int
    deadly : set of int
        Slices whose worker dies.
    log : list
        Receives what is done together.
    """

    def __init__(self, width: int, deadly: set[int], log: list[list[Any]]) -> None:
        self.width, self.deadly, self.log = width, deadly, log
        self.waiting: list[tuple[Future, Callable[..., Any], tuple[Any, ...]]] = []
        self.broken = False

    def submit(self, call: Callable[..., Any], /, *arguments: Any, **named: Any) -> Future:
        if self.broken:
            raise BrokenExecutor("dead")
        future: Future = Future()
        self.waiting.append((future, call, arguments))
        return future

    def work(self) -> None:
        together, self.waiting = self.waiting, []
        if not together:
            return
        units = [arguments[1][0] if len(arguments) > 1 else "finish" for _, _, arguments in together]
        self.log.append(units)
        self.broken = bool(self.deadly & set(units))
        for future, call, arguments in together:
            if self.broken:
                future.set_exception(BrokenExecutor("dead"))
            else:
                try:
                    future.set_result(call(*arguments))
                except Exception as error:
                    future.set_exception(error)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        self.waiting = []


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[State, list[list[Any]]]]:
    """Run a job of some slices by a crowd of two workers; `draw(unit)` is what a worker does."""

    def run(slices: int, deadly: set[int] = frozenset(), draw: Any = None, owned: bool = True):  # type: ignore[assignment]
        log: list[list[Any]] = []
        made: list[Crowd] = []

        def make() -> Executor:
            made.append(Crowd(2, set(deadly), log))
            return made[-1]

        monkeypatch.setattr(work, "draw", lambda job, unit: draw(unit) if draw else Drawn(unit, 0.1))
        monkeypatch.setattr(work, "finish", lambda job: FINISHED)
        monkeypatch.setattr(loop, "wait", lambda *_, **__: (made[-1].work(), _done(state_loop))[1])
        units = tuple((index,) for index in range(slices))
        outputs = Outputs(tmp_path / "a.h5", (), {})
        state = State(Job(tmp_path / "a", outputs, {}, units, {}, tuple(range(slices))), set(units))
        state_loop = loop._Loop([state], Pool(make, 2, owned), Silent())
        state_loop.run()
        return state, log

    return run


def _done(of: Any) -> tuple[set[Future], set[Future]]:
    return {future for future in of.running if future.done()}, set()


def test_all_slices_are_drawn_once_and_then_joined(study) -> None:
    state, log = study(5)
    assert list(chain(*log)) == [0, 1, 2, 3, 4, "finish"]
    assert state.finished is FINISHED and not state.left and not state.broken


def test_a_slice_that_kills_its_workers_is_given_up_and_its_neighbours_are_not(study) -> None:
    state, log = study(6, deadly={1})
    assert state.broken == {(1,): "its worker process died 3 times (out of memory?)"}
    assert [units for units in log if 1 in units][-1] == [1], "the last try is made alone"
    assert sum(1 in units for units in log) == 3
    assert not state.left and state.finished is None and state.error is None


def test_two_deadly_slices_are_both_named(study) -> None:
    state, _ = study(8, deadly={2, 3})
    assert state.broken.keys() == {(2,), (3,)} and not state.left


def test_an_executor_of_the_user_is_not_started_again(study) -> None:
    with pytest.raises(ReconError, match="the executor takes no more work"):
        study(4, deadly={0}, owned=False)


@pytest.mark.parametrize("error", [ConfigError("option"), Unwritable("disk full")])
def test_what_concerns_all_slices_stops_the_study(study, error: Exception) -> None:
    tried = []

    def draw(unit: tuple[int, ...]) -> Drawn:
        tried.append(unit)
        raise error

    with pytest.raises(type(error), match=str(error)):
        study(9, draw=draw)
    assert len(tried) <= 4


def test_what_concerns_one_slice_does_not_stop_the_others(study) -> None:
    def draw(unit: tuple[int, ...]) -> Drawn:
        if unit == (1,):
            raise ZeroDivisionError("1 / 0")
        return Drawn(unit, 0.1, "out of memory" if unit == (3,) else "")

    state, log = study(5, draw=draw)
    assert state.broken == {(1,): "ZeroDivisionError: 1 / 0", (3,): "out of memory"}
    assert sorted(chain(*log)) == [0, 1, 2, 3, 4], "there is no result as long as slices are missing"


def test_a_slice_whose_data_are_unusable_is_no_obstacle(study) -> None:
    state, _ = study(3, draw=lambda unit: Drawn(unit, 0.1, "NaN" if unit == (0,) else "", lasting=unit == (0,)))
    assert not state.broken and state.finished is FINISHED
