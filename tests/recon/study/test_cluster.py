"""Workers through Dask: the same bits, none of it lost with a worker, and errors in one line."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

import recon
from recon.cli import main
from recon.study import cluster, remote
from recon.study.planning import plan_files
from recon.study.progress import Silent
from recon.study.study import run_study

distributed = pytest.importorskip("distributed")
pytestmark = [
    # Dask leaves sockets and processes to the garbage collector
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

FAST: dict[str, Any] = {"prior": "gaussian", "samples": 2, "steps": 3, "holdout": False}
FLAGS = ("--prior", "gaussian", "--samples", "2", "--steps", "3", "--no-holdout", "--no-report")
SLICES = 5


@pytest.fixture(scope="module")
def scan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Slices of noise, which are as good as any for comparing bits."""
    rng = np.random.default_rng(0)
    kspace = rng.normal(size=(SLICES, 1, 32, 32)) + 1j * rng.normal(size=(SLICES, 1, 32, 32))
    path = tmp_path_factory.mktemp("data") / "scan.npy"
    np.save(path, kspace.astype(np.complex64))
    return path


@pytest.fixture(scope="module")
def alone(scan: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What one process gives."""
    folder = tmp_path_factory.mktemp("alone")
    (outcome,) = recon.reconstruct_many([scan], folder, workers=1, progress=False, device="cpu", **FAST)
    assert outcome.result is not None
    return content(outcome.result)


@pytest.fixture(scope="module")
def two_workers() -> Iterator[Any]:
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, silence_logs=50
    ) as found:
        yield found


@pytest.fixture
def client(two_workers: Any) -> Iterator[Any]:
    with distributed.Client(two_workers, set_as_default=False) as found:
        found.wait_for_workers(2, timeout=120)
        yield found


def content(path: Path) -> dict[str, Any]:
    """All arrays of a result but times and the text that holds them."""
    found: dict[str, Any] = {}

    def note(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset) and not name.endswith(("seconds", "provenance")):
            found[name] = item[()]

    with h5py.File(path) as file:
        file.visititems(note)
    return found


def same(first: dict[str, Any], second: dict[str, Any]) -> bool:
    return set(first) == set(second) and all(np.array_equal(first[name], second[name]) for name in first)


@pytest.mark.slow
def test_two_workers_give_the_same_bits(client: Any, scan: Path, alone: dict[str, Any], tmp_path: Path) -> None:
    (outcome,) = recon.reconstruct_many([scan], tmp_path, executor=client.get_executor(), progress=False, **FAST)
    assert outcome.result is not None and not outcome.slices_without_result
    assert same(content(outcome.result), alone)
    assert client.submit(int, 1).result() == 1  # the executor of the caller goes on


@pytest.mark.slow
def test_a_worker_keeps_to_the_memory_at_which_dask_ends_it(client: Any) -> None:
    pool = cluster.DaskPool(client, executor=client.get_executor())
    told = pool.submit(eval, "__import__('recon.memory').memory._allotted").result(timeout=120)
    limits = {one["memory_limit"] for one in client.scheduler_info()["workers"].values()}
    assert told.workers == 1 and {told.most} == limits and told.most > 0


class Killing(Silent):
    """Kills a worker at the first slice."""

    def __init__(self, client: Any) -> None:
        self.pids = client.run(os.getpid)
        self.done = 0

    def drawn(self, state: Any, drawn: Any) -> None:
        assert not drawn.reason, drawn.reason
        self.done += 1
        if self.done == 1:
            os.kill(next(iter(self.pids.values())), signal.SIGKILL)


@pytest.mark.slow
def test_a_worker_that_is_killed_loses_nothing(client: Any, scan: Path, alone: dict[str, Any], tmp_path: Path) -> None:
    planned, _ = plan_files([scan], tmp_path, lambda modality: {**FAST, "device": "cpu"})
    killing = Killing(client)
    (state,) = run_study(planned, tmp_path, cluster.DaskPool(client, executor=client.get_executor()), killing, False)
    assert killing.done == SLICES and state.finished is not None and not state.broken
    assert same(content(state.job.outputs.result), alone)
    client.wait_for_workers(2, timeout=120)
    assert client.run(os.getpid) != killing.pids


@pytest.mark.slow
def test_scheduler_by_its_address(
    two_workers: Any, scan: Path, alone: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["run", str(scan), "-o", str(tmp_path), *FLAGS, "--scheduler", two_workers.scheduler_address]
    assert main(command) == 0
    assert same(content(tmp_path / "scan.h5"), alone)
    assert f"workers at {two_workers.scheduler_address}: 2" in capsys.readouterr().err


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:9", "nonsense://there:1", "tcp://"])
def test_no_scheduler_is_one_line(address: str, scan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    began = time.monotonic()
    assert main(["run", str(scan), "-o", str(tmp_path / "out"), *FLAGS, "--scheduler", address]) == 2
    assert time.monotonic() - began < 8
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"recon: error: --scheduler {address}: no Dask scheduler answers there")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_relative_paths_are_those_of_the_client(
    client: Any, scan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("scan.npy").write_bytes(scan.read_bytes())
    (outcome,) = recon.reconstruct_many(
        ["scan.npy"], "out", executor=client.get_executor(), progress=False, slices="0:2", **FAST
    )
    assert outcome.result == Path("out/scan.h5") and outcome.result.exists()
    assert set(client.run(os.getcwd).values()) != {str(tmp_path)}  # workers are left as they were


def draw_of(scan: Path, folder: Path) -> tuple[Any, Any]:
    """The job of a scan, ready to be drawn."""
    planned, _ = plan_files([scan], folder, lambda modality: {**FAST, "device": "cpu"})
    job = planned[0].job()
    job.outputs.parts.mkdir(parents=True)
    return job, job.units[0]


def test_what_a_worker_did_before_is_not_done_again(scan: Path, tmp_path: Path, monkeypatch: Any) -> None:
    from recon.study import work

    job, unit = draw_of(scan, tmp_path)
    first = remote.on_worker(remote.site(), remote.packed(work.draw, job, unit))
    file = next(job.outputs.parts.glob("slice-*"))
    written = file.stat().st_mtime_ns
    again = remote.on_worker(remote.site(), remote.packed(work.draw, job, unit))
    assert again.unit == first.unit and again.seconds > 0 and not again.reason
    assert file.stat().st_mtime_ns == written


def test_a_worker_without_the_files_is_an_error_that_says_so(scan: Path, tmp_path: Path) -> None:
    from recon.study import work

    job, unit = draw_of(scan, tmp_path)
    task = remote.packed(work.draw, job, unit)
    with pytest.raises(recon.errors.ConfigError, match=r"does not see /no/such/folder; .* that all workers share"):
        remote.on_worker(remote.Site("/no/such/folder", recon.__version__), task)
    job.outputs.parts.rmdir()
    with pytest.raises(recon.errors.ConfigError, match=rf"does not see {job.outputs.parts}"):
        remote.on_worker(remote.site(), task)
    with pytest.raises(recon.errors.ConfigError, match=r"has diffrecon .*, expected 0\.0\.9 as here"):
        remote.on_worker(remote.Site(str(tmp_path), "0.0.9"), task)


def test_a_task_that_kills_its_workers_is_given_up_in_words() -> None:
    outer: Future = Future()
    inner: Future = Future()
    inner.set_exception(distributed.scheduler.KilledWorker("draw-1", None, 3))
    cluster._pass_on(inner, outer)
    with pytest.raises(recon.errors.ReconError, match="workers died"):
        outer.result()


@pytest.mark.slow
def test_a_scheduler_that_is_lost_ends_the_run_in_one_line(
    scan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cluster, "_LOST_SECONDS", 1.0)
    monkeypatch.setattr(cluster, "_CONNECT_SECONDS", 2.0)
    code = "import sys; from distributed.cli.dask_scheduler import main; main(sys.argv[1:])"
    options = ["--port", "0", "--no-dashboard", "--scheduler-file", str(tmp_path / "scheduler.json")]
    process = subprocess.Popen([sys.executable, "-c", code, *options], stderr=subprocess.DEVNULL)
    try:
        address = _when(lambda: _address(tmp_path / "scheduler.json"))
        pool = cluster.connect(address)
        planned, _ = plan_files([scan], tmp_path / "out", lambda modality: {**FAST, "device": "cpu"})

        class Ending(Silent):
            def tick(self) -> None:
                process.kill()

        with pytest.raises(recon.errors.ReconError, match="connection to the scheduler is lost; finished slices are"):
            run_study(planned, tmp_path / "out", pool, Ending(), False)
    finally:
        process.kill()
        process.wait()
    assert not capsys.readouterr().err


def _address(file: Path) -> str:
    import json

    return str(json.loads(file.read_text())["address"])


def _when(found: Callable[[], str], seconds: float = 30.0) -> str:
    deadline = time.monotonic() + seconds
    while True:
        try:
            return found()
        except (OSError, ValueError):
            assert time.monotonic() < deadline
            time.sleep(0.1)
