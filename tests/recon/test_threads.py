"""Cores by affinity and by the quotas of control groups, and what libraries are told before they are loaded."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import recon
from recon.cli import main
from recon.control_groups import processors
from recon.engine.reconstruction import Reconstruction, plan
from recon.errors import InputError
from recon.settings import Settings
from recon.study import workers
from recon.study.job import Outputs, job_of
from recon.study.planning import Planned
from recon.study.workers import worker_count
from recon.threads import THREAD_SETTINGS, cores, limit_threads, prepare

Machine = Callable[..., tuple[Path, Path]]


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """A machine of eight cores with these control groups and files; returns its /proc and /sys/fs/cgroup."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)

    def make(groups: str, **files: str) -> tuple[Path, Path]:
        for name, content in {"proc/self/cgroup": groups, **{f"cgroup/{n}": c for n, c in files.items()}}.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content + "\n")
        return tmp_path / "proc", tmp_path / "cgroup"

    return make


@pytest.fixture(autouse=True)
def settings_of_libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Begin without settings, and put back those that there were."""
    for name in (*THREAD_SETTINGS, "OMP_WAIT_POLICY", "GOMP_SPINCOUNT"):
        monkeypatch.setenv(name, "")  # so that it is restored
        monkeypatch.delenv(name)


def test_without_a_quota_all_cores_count(machine: Machine, tmp_path: Path) -> None:
    assert cores(tmp_path / "absent", tmp_path / "absent") == 8
    assert cores(*machine("0::/job", **{"job/cpu.max": "max 100000", "cpu.max": "max 100000"})) == 8


@pytest.mark.parametrize(
    ("quota", "expected"), [("400000 100000", 4), ("250000 100000", 3), ("5000 100000", 1), ("9900000 100000", 8)]
)
def test_the_quota_of_version_2(machine: Machine, quota: str, expected: int) -> None:
    assert cores(*machine("0::/job", **{"job/cpu.max": quota})) == expected


def test_the_smallest_quota_of_all_groups_around_counts(machine: Machine) -> None:
    found = machine(
        "0::/a/b", **{"a/b/cpu.max": "max 100000", "a/cpu.max": "300000 100000", "cpu.max": "600000 100000"}
    )
    assert processors(*found) == 3.0 and cores(*found) == 3


def test_a_container_that_sees_the_path_of_its_host(machine: Machine) -> None:
    assert cores(*machine("0::/kubepods/pod1/abc", **{"cpu.max": "200000 100000"})) == 2


def test_the_quota_of_version_1(machine: Machine) -> None:
    files = {"cpu/job/cpu.cfs_quota_us": "150000", "cpu/job/cpu.cfs_period_us": "50000"}
    groups = "4:memory:/other\n3:cpu,cpuacct:/job\n0::/"
    assert cores(*machine(groups, **files)) == 3
    assert cores(*machine(groups, **{**files, "cpu/job/cpu.cfs_quota_us": "-1"})) == 8


@pytest.mark.parametrize("content", ["", "nonsense", "0 100000", "100000 0", "100000"])
def test_a_damaged_quota_is_none(machine: Machine, content: str) -> None:
    assert processors(*machine("0::/", **{"cpu.max": content})) is None


def test_libraries_are_told_of_a_quota_and_to_wait_quietly(machine: Machine) -> None:
    prepare(*machine("0::/", **{"cpu.max": "200000 100000"}))
    assert {os.environ[name] for name in THREAD_SETTINGS} == {"2"} and os.environ["OMP_WAIT_POLICY"] == "PASSIVE"


def test_without_a_quota_libraries_choose_their_threads(machine: Machine) -> None:
    prepare(*machine("0::/"))
    assert not set(THREAD_SETTINGS) & set(os.environ)


def test_what_the_user_has_set_stays(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    monkeypatch.setenv("GOMP_SPINCOUNT", "1000")
    prepare(*machine("0::/", **{"cpu.max": "200000 100000"}))
    assert os.environ["OMP_NUM_THREADS"] == "5" and "MKL_NUM_THREADS" not in os.environ
    assert "OMP_WAIT_POLICY" not in os.environ
    monkeypatch.setattr(torch, "set_num_threads", lambda count: None)
    limit_threads(3)  # of a worker, by its parent
    assert os.environ["OMP_NUM_THREADS"] == "3" and "OMP_WAIT_POLICY" not in os.environ


def test_a_command_prepares_before_torch_is_loaded() -> None:
    code = """
import os, sys
from recon import threads
from recon.cli import main
def told(prepare=threads.prepare):
    print("torch" in sys.modules)
    prepare()
    print(os.environ["OMP_WAIT_POLICY"])
threads.prepare = told
main(["samplers"])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.splitlines()[:2] == ["False", "PASSIVE"]


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    kspace = rng.normal(size=(2, 32, 32)) + 1j * rng.normal(size=(2, 32, 32))
    np.save(tmp_path / "scan.npy", kspace.astype(np.complex64))
    return tmp_path / "scan.npy"


FAST = {"prior": "gaussian", "samples": 2, "steps": 2, "holdout": False}


@pytest.fixture
def drawn_with(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of threads of torch in each slice that is drawn."""
    found: list[int] = []
    whole = recon.engine.sampling_run.SamplingRun.slices

    def slices(self, *arguments):
        found.append(torch.get_num_threads())
        return whole(self, *arguments)

    monkeypatch.setattr(recon.engine.sampling_run.SamplingRun, "slices", slices)
    return found


@pytest.mark.filterwarnings("ignore::UserWarning")  # noise in two steps
def test_threads_are_those_asked_for_meanwhile(scan: Path, drawn_with: list[int], tmp_path: Path) -> None:
    before = torch.get_num_threads()
    posterior = recon.reconstruct(scan, **FAST, threads=before + 1, device="cpu", progress=False)
    recon.reconstruct_many([scan], tmp_path / "many", **FAST, threads=before + 2, device="cpu", progress=False)
    assert drawn_with == [before + 1, before + 2] and torch.get_num_threads() == before
    assert "threads" not in posterior.provenance["config"]


def test_threads_on_the_command_line_and_in_a_file(scan: Path, drawn_with: list[int], tmp_path: Path, capsys) -> None:
    (tmp_path / "a.toml").write_text("threads = 2\n")
    fast = "--prior gaussian --samples 2 --steps 2 --no-holdout --device cpu --workers 1 --no-report --quiet"
    words = ["run", str(scan), "-o", str(tmp_path / "out"), "--config", str(tmp_path / "a.toml"), *fast.split()]
    assert main([*words, "--threads", "3"]) == 0 and main([*words, "--force"]) == 0
    assert drawn_with == [3, 2]
    assert main(words) == 0 and len(drawn_with) == 2  # another number of threads does not make another study
    assert main([*words, "--threads", "0"]) == 2
    assert "threads: expected an integer from 1 to 100000, got 0" in capsys.readouterr().err


def test_threads_of_a_job_travel_to_its_worker(scan: Path, tmp_path: Path) -> None:
    arguments = {**Settings().updated({"threads": 3, "prior": "gaussian", "device": "cpu"}, "here").arguments("mri")}
    job = job_of(scan, Outputs(tmp_path / "scan.h5"), arguments, plan(scan, **arguments))
    assert plan(job.source, **job.arguments).threads == 3
    assert not any("threads" in name for name in job.request)
    with pytest.raises(InputError, match="threads: expected an integer, got 'x'"):
        plan(scan, threads="x")


def test_workers_are_fewer_where_each_has_several_threads(scan: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "cores", lambda: 8)
    monkeypatch.setattr(workers, "available_memory", lambda device: None)
    monkeypatch.setattr(workers, "_work", lambda planned: 1e9)
    monkeypatch.setattr(Reconstruction, "units", property(lambda self: [(k,) for k in range(20)]))
    wanted = plan(scan, device="cpu")
    planned = [Planned(scan, Outputs(Path("scan.h5")), {}, wanted)]
    assert worker_count("auto", planned) == 8
    assert worker_count("auto", planned, threads=3) == 2 and worker_count("auto", planned, threads=16) == 1
    assert worker_count("5", planned, 3) == 5
