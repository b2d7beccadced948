"""What a study says: lines in a log, JSON for programs, or nothing but results of failures."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from recon.study.progress import Bar, Json, Lines, duration
from recon.study.work import Drawn
from samplers import Progress

Run = Callable[..., int]


def state_of(slices: int, done: int = 0, name: str = "scan.h5") -> Any:
    """Return as much of a state as a display looks at."""
    units = tuple((index,) for index in range(slices))
    return SimpleNamespace(job=SimpleNamespace(units=units, name=name), left=set(units[done:]))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that the test sets."""
    now = [1000.0]
    monkeypatch.setattr("recon.study.progress.time.monotonic", lambda: now[0])
    return now


def test_a_line_for_each_slow_slice_and_one_in_half_a_minute_for_fast_ones(clock: list[float]) -> None:
    stream = io.StringIO()
    lines, state = Lines(stream), state_of(100)
    lines.begin([state])
    for index in range(100):
        clock[0] += 40 if index < 2 else 1
        lines.drawn(state, Drawn((index,), 40.0 if index < 2 else 1.0))
    told = stream.getvalue().splitlines()
    assert told[:2] == [
        "recon: scan.h5: slice 0: 40 s; 1 of 100 done, about 66 min left",
        "recon: scan.h5: slice 1: 40 s; 2 of 100 done, about 65 min left",
    ]
    assert told[-1] == "recon: scan.h5: slice 99: 1 s; 100 of 100 done"
    assert len(told) == 2 + 98 // 30 + 1


def test_every_failure_has_its_line(clock: list[float]) -> None:
    stream = io.StringIO()
    lines, state = Lines(stream), state_of(9)
    lines.begin([state])
    for index in range(3):
        lines.drawn(state, Drawn((index,), 0.1, "NaN" if index else ""))
    assert [line.split(";")[0] for line in stream.getvalue().splitlines()] == [
        "recon: scan.h5: slice 0: 0 s",
        "recon: scan.h5: slice 1: failed: NaN",
        "recon: scan.h5: slice 2: failed: NaN",
    ]


def test_slices_that_were_there_do_not_count_as_fast_ones(clock: list[float]) -> None:
    stream = io.StringIO()
    lines, state = Lines(stream), state_of(10, done=6)
    lines.begin([state])
    clock[0] += 20
    lines.drawn(state, Drawn((6,), 20.0))
    assert stream.getvalue().splitlines() == [
        "recon: 6 of 10 slices were done before",
        "recon: scan.h5: slice 6: 20 s; 7 of 10 done, about 60 s left",
    ]


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0 s"), (89, "89 s"), (90, "2 min"), (5400, "1.5 h")])
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_a_bar_counts_slices_that_other_processes_draw(capsys: pytest.CaptureFixture[str]) -> None:
    bar, state = Bar(30, 2, here=False), state_of(3, done=1)
    assert bar.step is None and Bar(30, 2, here=True).step is not None
    bar.begin([state])
    bar.drawn(state, Drawn((1,), 1.0))
    bar.close()


def test_a_bar_learns_from_the_first_step_of_each_batch_how_many_there_are(monkeypatch) -> None:
    """The number of steps may follow from the data: the bar still ends where it is full."""
    bar, shown = Bar(24, 2, here=True), SimpleNamespace(total=0, n=0, close=lambda: None)
    shown.update = lambda: setattr(shown, "n", shown.n + 1)
    monkeypatch.setattr("recon.study.progress.tqdm", lambda total, **_: vars(shown).update(total=total) or shown)
    bar.begin([state_of(1, done=0)])
    assert bar.step is not None and shown.total == 48
    for total in (16, 30):
        for number in range(total):
            bar.step(Progress(number + 1, total, 1.0, None))
    assert shown.n == shown.total == 46


def test_a_log_without_a_terminal(volume, run: Run, capsys) -> None:
    assert run(volume(slices=2)) == 0
    told = capsys.readouterr()
    lines = [line for line in told.err.splitlines() if "warning" not in line]
    assert len(lines) == 2 and "\r" not in told.err and "it/s" not in told.err
    assert ": slice 0: " in lines[0] and "1 of 2 done, about " in lines[0]
    assert lines[1].endswith("2 of 2 done")
    assert "scan.h5" in told.out


def test_quiet_prints_warnings_and_errors_only(volume, run: Run, capsys) -> None:
    assert run(volume(bad=[1], slices=2), "--quiet") == 1
    told = capsys.readouterr()
    assert told.out == ""
    kinds = {line.split(":")[1].strip() for line in told.err.splitlines()}
    assert kinds == {"warning", "error"}


def events(text: str) -> list[dict[str, Any]]:
    """Read lines of JSON as a strict parser does."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    return [json.loads(line, parse_constant=refuse) for line in text.splitlines()]


def test_each_line_of_the_log_is_json(volume, run: Run, capsys, tmp_path: Path) -> None:
    scans = [volume("a.npy", slices=3, bad=[1]), volume("b.npy", slices=1)]
    assert run(*scans, "--log-json") == 1
    found = events(capsys.readouterr().out)
    assert [one["event"] for one in found] == ["begin", "slice", "slice", "slice", "file", "slice", "file"]
    assert found[0]["total"] == 4 and found[0]["done"] == 0 and found[0]["files"] == 2
    slices = [one for one in found if one["event"] == "slice"]
    assert [(one["slice"], one["done"]) for one in slices] == [(0, 1), (1, 2), (2, 3), (0, 4)]
    assert "NaN" in slices[1]["error"] and slices[0]["error"] is None and slices[-1]["seconds_left"] == 0
    first, second = (one for one in found if one["event"] == "file")
    assert first["slices_without_result"] == [1] and first["verdict"] == "doubtful" and first["reasons"]
    assert second["result"] == str(tmp_path / "out" / "b.h5") and second["error"] is None
    assert all(one["time"] > 1e9 for one in found)


def test_json_of_a_file_that_exists_and_of_one_without_a_result(volume, run: Run, capsys) -> None:
    scans = [volume("a.npy", slices=1), volume("b.npy", slices=1, bad=[0])]
    assert run(scans[0]) == 0
    capsys.readouterr()
    assert run(*scans, "--log-json") == 1
    found = {one["file"]: one for one in events(capsys.readouterr().out) if one["event"] == "file"}
    assert found[str(scans[0])]["result"].endswith("a.h5")
    assert found[str(scans[1])]["result"] is None and "NaN" in found[str(scans[1])]["error"]


def test_json_without_matplotlib(volume, run: Run, capsys, monkeypatch) -> None:
    """What is said about the missing report is no JSON."""
    monkeypatch.setattr("recon.commands.reconstruction.importlib.util.find_spec", lambda name: None)
    assert run(volume(slices=1), "--log-json", report=True) == 0
    assert [one["event"] for one in events(capsys.readouterr().out)] == ["begin", "slice", "file"]


def test_numbers_that_json_does_not_know() -> None:
    stream = io.StringIO()
    Json(stream)._say("file", held_out_chi2=float("nan"), seconds=float("inf"), done=1.5)
    (one,) = events(stream.getvalue())
    assert one["held_out_chi2"] is None and one["seconds"] is None and one["done"] == 1.5
