"""Executors of a caller: the standard interface, and jobs that are asked whether they are done, as submitit's."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import BrokenExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import recon
from recon.errors import InputError
from recon.study.polling import Polling, foreign

FAST: dict[str, Any] = {"prior": "gaussian", "samples": 2, "steps": 3, "holdout": False, "progress": False}


class UncompletedJobError(RuntimeError):
    """As submitit's, of a job that the queue has ended."""


class FakeJob:
    """The part of `submitit.Job` that is used: not done at once, and without callbacks."""

    def __init__(self, work: Callable[[], Any], lost: bool) -> None:
        self.work, self.lost, self.asked = work, lost, 0

    def done(self, force_check: bool = False) -> bool:
        self.asked += 1
        return self.asked > 2

    def result(self) -> Any:
        if self.lost:
            raise UncompletedJobError("Job 7 (task: 0)\nhas not produced any output (state: NODE_FAIL)")
        return self.work()


class FakeSubmitit:
    """The part of `submitit.AutoExecutor` that is used; the first jobs are lost."""

    def __init__(self, lose: int = 0) -> None:
        self.lose, self.submitted = lose, 0

    def submit(self, function: Callable[..., Any], *arguments: Any, **named: Any) -> FakeJob:
        self.submitted += 1
        return FakeJob(lambda: function(*arguments, **named), self.submitted <= self.lose)


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    path = tmp_path / "scan.npy"
    np.save(path, (rng.normal(size=(3, 1, 32, 32)) + 1j * rng.normal(size=(3, 1, 32, 32))).astype(np.complex64))
    return path


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recon.study.polling._POLL_SECONDS", 0.01)


@pytest.mark.parametrize("lose", [0, 2])
def test_jobs_that_are_asked(lose: int, scan: Path, tmp_path: Path) -> None:
    executor = FakeSubmitit(lose)
    here, there = (
        recon.reconstruct_many([scan], tmp_path / name, executor=given, **FAST)[0]
        for name, given in (("here", None), ("there", executor))
    )
    assert executor.submitted == 3 + 1 + lose  # slices, the result, and what was lost
    assert here.result is not None and there.result is not None and not there.slices_without_result
    one, two = (recon.Posterior.load(outcome.result).samples for outcome in (here, there))
    np.testing.assert_array_equal(one, two)


@pytest.mark.slow
def test_a_job_that_is_always_lost_is_reported(scan: Path, tmp_path: Path) -> None:
    (outcome,) = recon.reconstruct_many([scan], tmp_path / "out", executor=FakeSubmitit(lose=99), **FAST)
    assert outcome.result is None and outcome.slices_without_result == (0, 1, 2)
    assert "died 3 times" in outcome.reasons[0]


def test_errors_of_the_work_are_those_of_the_future() -> None:
    polling = Polling(FakeSubmitit(), 0.01)
    with pytest.raises(ZeroDivisionError):
        polling.submit(lambda: 1 / 0).result(timeout=20)
    with pytest.raises(BrokenExecutor, match=r"^Job 7 \(task: 0\) has not produced"):
        Polling(FakeSubmitit(lose=1), 0.01).submit(int).result(timeout=20)


def test_any_standard_executor(scan: Path, tmp_path: Path) -> None:
    with ThreadPoolExecutor(2) as executor:
        assert foreign(executor, 1).workers == 2
        (outcome,) = recon.reconstruct_many([scan], tmp_path / "out", executor=executor, **FAST)
        assert executor.submit(int).result() == 0
    assert outcome.result is not None


def test_what_is_not_an_executor(scan: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="executor: expected an object with submit, got int"):
        recon.reconstruct_many([scan], tmp_path / "out", executor=3, **FAST)
