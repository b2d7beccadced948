"""How much memory is left: the machine, the limits of the process, and every control group around it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from recon import memory
from recon.memory import Allotment, allot, available_memory, host_memory

GIB = 2**30
MEMINFO = "MemTotal:       16777216 kB\nMemFree:         1048576 kB\nMemAvailable:    8388608 kB\n"  # 8 GiB
STATUS = "Name:\tpython\nVmPeak:\t 9999999 kB\nVmSize:\t 1048576 kB\nVmRSS:\t  524288 kB\nVmData:\t  262144 kB\n"
LIMITS = """Limit                     Soft Limit           Hard Limit           Units
Max cpu time              unlimited            unlimited            seconds
Max data size             {data:<20} unlimited            bytes
Max stack size            8388608              unlimited            bytes
Max address space         {space:<20} unlimited            bytes
"""
UNLIMITED_1 = 0x7FFFFFFFFFFFF000


class Machine:
    """Fake trees of /proc and /sys/fs/cgroup."""

    def __init__(self, folder: Path, groups: str = "", data: object = "unlimited", space: object = "unlimited") -> None:
        self.proc, self.cgroup = folder / "proc", folder / "cgroup"
        self.cgroup.mkdir()
        self.write(self.proc / "meminfo", MEMINFO)
        self.write(self.proc / "self" / "status", STATUS)
        self.write(self.proc / "self" / "limits", LIMITS.format(data=data, space=space))
        self.write(self.proc / "self" / "cgroup", groups)

    @staticmethod
    def write(path: Path, value: object) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{value}\n")

    def group(self, path: str, **values: object) -> None:
        """Write the files of a control group; ``memory_max`` is memory.max."""
        for name, value in values.items():
            self.write(self.cgroup / path / name.replace("_", ".", 1), value)

    @property
    def left(self) -> float | None:
        return host_memory(self.proc, self.cgroup)


def test_without_limits_it_is_what_the_machine_has(tmp_path: Path) -> None:
    machine = Machine(tmp_path, "0::/user.slice/session.scope\n")
    machine.group("user.slice/session.scope", memory_max="max", memory_high="max", memory_current=3 * GIB)
    assert machine.left == 8 * GIB


def test_workers_divide_what_they_share_and_not_their_own_limits(tmp_path: Path) -> None:
    machine = Machine(tmp_path, "0::/job\n", space=4 * GIB)
    assert host_memory(machine.proc, machine.cgroup, Allotment(2)) == 3 * GIB  # its own limit, of which it used 1 GiB
    assert host_memory(machine.proc, machine.cgroup, Allotment(4)) == 2 * GIB
    machine.group("job", memory_max=4 * GIB, memory_current=0)
    assert host_memory(machine.proc, machine.cgroup, Allotment(4)) == GIB


def test_a_limit_that_the_system_does_not_know_counts_what_is_resident(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    assert host_memory(machine.proc, machine.cgroup, Allotment(most=2 * GIB)) == 1.5 * GIB
    assert host_memory(machine.proc, machine.cgroup, Allotment(most=GIB // 4)) == 0
    assert host_memory(machine.proc, machine.cgroup, Allotment(most=64 * GIB)) == 8 * GIB


def test_a_process_is_allotted_its_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_machine", lambda proc: [8.0 * GIB])
    monkeypatch.setattr(memory, "_groups", lambda proc, cgroup: [])
    monkeypatch.setattr(memory, "_process", lambda proc: [])
    monkeypatch.setattr(memory, "_allotted", Allotment())
    assert available_memory(torch.device("cpu")) == 8 * GIB
    allot(Allotment(4))
    assert available_memory(torch.device("cpu")) == 2 * GIB


def test_nothing_known_is_none(tmp_path: Path) -> None:
    assert host_memory(tmp_path / "none", tmp_path / "neither") is None


def test_limits_of_the_process_count_what_it_uses_already(tmp_path: Path) -> None:
    for name, options, expected in [
        ("space", {"space": 3 * GIB}, 2 * GIB),  # 1 GiB of addresses in use
        ("data", {"data": GIB}, 0.75 * GIB),
        ("both", {"space": 3 * GIB, "data": GIB}, 0.75 * GIB),
        ("wide", {"space": 2**45, "data": 2**45}, 8 * GIB),
        ("spent", {"space": GIB // 2}, 0),
    ]:
        (tmp_path / name).mkdir()
        assert Machine(tmp_path / name, **options).left == expected, name


def test_version_2_does_not_count_files_that_can_be_reclaimed(tmp_path: Path) -> None:
    machine = Machine(tmp_path, "0::/job_7/step_0\n")
    stat = f"anon {GIB}\nfile {3 * GIB}\ninactive_file {2 * GIB}\nactive_file {GIB}"
    machine.group("job_7/step_0", memory_max=5 * GIB, memory_current=4 * GIB, memory_stat=stat)
    assert machine.left == 3 * GIB
    machine.group("job_7/step_0", memory_stat=f"inactive_file {9 * GIB}")
    assert machine.left == 5 * GIB


def test_version_2_groups_around_count_too(tmp_path: Path) -> None:
    machine = Machine(tmp_path, "0::/job_7/step_0/task_1\n")
    machine.group("job_7/step_0/task_1", memory_max="max", memory_current=GIB)
    machine.group("job_7/step_0", memory_max=6 * GIB, memory_current=2 * GIB)
    assert machine.left == 4 * GIB
    machine.group("job_7", memory_max=7 * GIB, memory_current=6 * GIB)
    assert machine.left == GIB
    machine.group("job_7/step_0/task_1", memory_high=1.5 * GIB // 1)  # not a whole number: not a limit
    assert machine.left == GIB
    machine.group("job_7/step_0/task_1", memory_high=GIB + 1000)  # beyond it the process is slowed down
    assert machine.left == 1000


@pytest.mark.parametrize("path", ["/", "/docker/0123abc", "/../../system.slice"])
def test_a_container_sees_its_own_group_as_the_root(path: str, tmp_path: Path) -> None:
    machine = Machine(tmp_path, f"0::{path}\n")
    machine.group(".", memory_max=2 * GIB, memory_current=GIB // 2)
    assert machine.left == 1.5 * GIB


def test_version_1(tmp_path: Path) -> None:
    machine = Machine(tmp_path, "12:pids:/slurm\n9:cpuacct,memory:/slurm/job_7\n1:name=systemd:/init.scope\n0::/\n")
    machine.group("memory/slurm/job_7", memory_limit_in_bytes=UNLIMITED_1, memory_usage_in_bytes=GIB)
    assert machine.left == 8 * GIB
    stat = f"inactive_file 0\nhierarchical_memory_limit {4 * GIB}\ntotal_inactive_file {GIB // 2}"
    machine.group("memory/slurm/job_7", memory_stat=stat)
    assert machine.left == 3.5 * GIB
    machine.group("memory/slurm/job_7", memory_limit_in_bytes=3 * GIB)
    assert machine.left == 2.5 * GIB
    machine.group("memory", memory_limit_in_bytes=2 * GIB, memory_usage_in_bytes=2 * GIB + 5)
    assert machine.left == 0


def test_both_versions_side_by_side(tmp_path: Path) -> None:
    machine = Machine(tmp_path, "9:memory:/box\n0::/box\n")
    machine.group("memory/box", memory_limit_in_bytes=4 * GIB, memory_usage_in_bytes=GIB)
    machine.group("unified/box", memory_max=2 * GIB, memory_current=GIB)
    assert machine.left == GIB


def test_damaged_files_are_no_limits(tmp_path: Path) -> None:
    machine = Machine(tmp_path, "0::/box\nnonsense\n", space="")
    machine.group("box", memory_max="-5", memory_current="?", memory_stat="inactive_file\n\xff")
    assert machine.left == 8 * GIB


@pytest.mark.skipif(not Path("/proc/self/limits").exists(), reason="needs /proc")
@pytest.mark.slow
def test_a_limit_of_this_process_is_seen() -> None:
    code = (
        "import resource, torch\n"
        "from recon.memory import available_memory\n"
        "size = 1024 * int([line.split()[1] for line in open('/proc/self/status') if line.startswith('VmSize')][0])\n"
        "resource.setrlimit(resource.RLIMIT_AS, (size + 2**28, -1))\n"
        "print(available_memory(torch.device('cpu')))"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert 0 < float(told.stdout) <= 2**28


def test_memory_is_known_where_the_system_tells() -> None:
    found = available_memory(torch.device("cpu"))
    assert found is None or 2**20 < found < 2**60
