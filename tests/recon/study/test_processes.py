"""Real processes that are stopped and killed: one line, nothing half-written, nothing left running, the same bits."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[3]
SLICES = 12
LIMIT = 240.0
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc").is_dir(), reason="processes are looked up in /proc"),
]


class Command:
    """`recon run` in a process group of its own; what it prints is in files, so that no pipe can fill.

    Parameters
    ----------
    folder : Path
        Of the printed text.
    words : sequence of str
    """

    def __init__(self, folder: Path, words: list[str]) -> None:
        self.texts = [folder / "stdout.txt", folder / "stderr.txt"]
        with self.texts[0].open("w") as out, self.texts[1].open("w") as err:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "recon.cli", "run", *words],
                cwd=ROOT,
                stdout=out,
                stderr=err,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
                env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
            )

    def until(self, condition: Callable[[], bool]) -> None:
        """Wait while the command runs."""
        end = time.monotonic() + LIMIT
        while not condition():
            assert self.process.poll() is None, f"ended with {self.process.returncode}: {self.errors()}"
            assert time.monotonic() < end, self.errors()
            time.sleep(0.01)

    def end(self) -> int:
        """Wait for the end; return the exit status."""
        return self.process.wait(LIMIT)

    def errors(self) -> list[str]:
        """Lines on stderr, without progress and warnings."""
        lines = self.texts[1].read_text().splitlines()
        return [line for line in lines if not line.startswith("recon: warning") and ": slice " not in line]

    def group(self) -> list[int]:
        """Processes of the group that are alive."""
        return [pid for pid in processes() if _group(pid) == self.process.pid]

    def is_gone(self) -> bool:
        """Whether all processes end within seconds; the one that tracks the resources of workers ends last."""
        end = time.monotonic() + 20
        while self.group() and time.monotonic() < end:
            time.sleep(0.05)
        return not self.group()

    def workers(self) -> list[int]:
        """Worker processes."""
        return [pid for pid in self.group() if b"spawn_main" in _bytes(pid, "cmdline")]


def processes() -> list[int]:
    return [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]


def _bytes(pid: int, name: str) -> bytes:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/{name}").read_bytes()
    return b""


def _group(pid: int) -> int:
    words = _bytes(pid, "stat").rpartition(b")")[2].split()
    return int(words[2]) if len(words) > 2 and words[0] != b"Z" else 0


@pytest.fixture
def study(volume, flags, tmp_path) -> Iterator[Callable[..., Command]]:
    """Start commands on one volume of many slices; all that is left is killed at the end."""
    scan, started = volume(slices=SLICES), list[Command]()

    def start(*words: str, out: str = "out", workers: int = 1) -> Command:
        folder = tmp_path / f"text{len(started)}"
        folder.mkdir()
        fixed = [str(scan), "-o", str(tmp_path / out), *flags, "--no-report", "--workers", str(workers)]
        started.append(Command(folder, [*fixed, *words]))
        return started[-1]

    yield start
    for command in started:
        for pid in command.group():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        command.process.wait()


@pytest.fixture
def kept(tmp_path) -> Callable[[], set[int]]:
    """Slices that are on the disk."""
    return lambda: {int(path.stem[-5:]) for path in (tmp_path / "out" / ".scan.parts").glob("slice-*.npz")}


def drawn(command: Command) -> list[int]:
    """The slices that a command with --log-json has drawn."""
    lines = [json.loads(line) for line in command.texts[0].read_text().splitlines()]
    return [one["slice"] for one in lines if one["event"] == "slice"]


def is_tidy(folder: Path) -> bool:
    """Whether there is nothing but the record, the checksum and slices that can be read."""
    names = {path.name for path in folder.rglob("*") if path.is_file()}
    return all(name in ("job.json", "source.sha256") or name.startswith("slice-") for name in names)


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize(
    ("number", "status", "word"), [(signal.SIGTERM, 143, "terminated"), (signal.SIGINT, 130, "interrupted")]
)
def test_a_signal_ends_a_study_in_one_line(
    workers: int, number: signal.Signals, status: int, word: str, study, kept, same, run, tmp_path, volume
) -> None:
    command = study("--log-json", workers=workers)
    command.until(lambda: len(kept()) >= 3)
    # Ctrl-C on a terminal reaches the workers, too
    os.killpg(command.process.pid, number) if number == signal.SIGINT else command.process.send_signal(number)
    assert command.end() == status
    (line,) = command.errors()
    assert line.startswith(f"recon: {word}") and f" of {SLICES} slices are done and kept; the same command goes" in line
    assert command.is_gone(), "nothing goes on working"
    before = kept()
    assert before and is_tidy(tmp_path / "out")
    assert int(line.split(": ")[2].split()[0]) <= len(before)
    again = study("--log-json", workers=workers)
    assert again.end() == 0
    assert set(drawn(again)) == set(range(SLICES)) - before
    assert run(tmp_path / "scan.npy", out="straight") == 0
    same(tmp_path / "out" / "scan.h5", tmp_path / "straight" / "scan.h5")


def test_a_signal_ends_slices_that_wait_for_one_another(study, kept, tmp_path) -> None:
    command = study("--log-json", "--prior", "auto", "--slices-together", "3")
    command.until(lambda: len(kept()) >= 1)
    command.process.send_signal(signal.SIGTERM)
    assert command.end() == 143
    (line,) = command.errors()
    assert line.startswith("recon: terminated: ") and f" of {SLICES} slices are done and kept" in line
    assert command.is_gone() and is_tidy(tmp_path / "out")


def test_ctrl_c_while_workers_start_prints_one_line(study) -> None:
    command = study(workers=2)
    command.until(lambda: len(command.workers()) == 2)
    os.killpg(command.process.pid, signal.SIGINT)
    assert command.end() == 130 and command.is_gone()
    assert command.errors() == [f"recon: interrupted: 0 of {SLICES} slices are done and kept; the same command goes on"]


def test_workers_give_the_same_bits(study, run, same, files, tmp_path) -> None:
    command = study(workers=2)
    assert command.end() == 0 and command.is_gone()
    assert files(tmp_path / "out") == {"scan.h5"}
    assert run(tmp_path / "scan.npy", out="straight") == 0
    same(tmp_path / "out" / "scan.h5", tmp_path / "straight" / "scan.h5")


def test_a_worker_that_is_killed_costs_its_slice_only(study, kept, run, same, tmp_path) -> None:
    command = study("--log-json", workers=2)
    command.until(lambda: len(kept()) >= 2)
    written = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out" / ".scan.parts").glob("slice-*")}
    os.kill(command.workers()[0], signal.SIGKILL)
    command.until(lambda: len(kept()) >= SLICES - 1)
    now = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out" / ".scan.parts").glob("slice-*")}
    redrawn = [name for name in written if now.get(name, written[name]) != written[name]]
    assert len(redrawn) <= 2, "at most one slice of each worker"
    assert command.end() == 0 and not command.errors()
    assert sorted(drawn(command)) == list(range(SLICES))
    assert run(tmp_path / "scan.npy", out="straight") == 0
    same(tmp_path / "out" / "scan.h5", tmp_path / "straight" / "scan.h5")


def test_workers_end_with_a_parent_that_is_killed(study, kept) -> None:
    command = study(workers=2)
    command.until(lambda: len(kept()) >= 2)
    assert len(command.workers()) == 2
    command.process.kill()
    assert command.is_gone()


def test_a_second_run_is_refused_and_the_first_is_undisturbed(study, kept, run, same, tmp_path, errors) -> None:
    first = study("--log-json")
    first.until(lambda: bool(kept()))
    assert run(tmp_path / "scan.npy") == 2
    (line,) = errors()
    assert f"out is in use by another run (process {first.process.pid} on " in line
    assert run(tmp_path / "scan.npy", "--force") == 2, "not even --force may disturb it"
    assert first.end() == 0 and drawn(first) == list(range(SLICES))
    assert run(tmp_path / "scan.npy", out="straight") == 0
    same(tmp_path / "out" / "scan.h5", tmp_path / "straight" / "scan.h5")


def test_a_kill_of_everything_releases_the_folder(study, kept, run, same, files, tmp_path: Path) -> None:
    command = study()
    command.until(lambda: len(kept()) >= 2)
    os.killpg(command.process.pid, signal.SIGKILL)
    command.end()
    before: Any = kept()
    again = study("--log-json")
    assert again.end() == 0
    assert set(drawn(again)) == set(range(SLICES)) - before
    assert files(tmp_path / "out") == {"scan.h5"}
    assert run(tmp_path / "scan.npy", out="straight") == 0
    same(tmp_path / "out" / "scan.h5", tmp_path / "straight" / "scan.h5")
