"""Memory that this process may still use: of the machine, of its container or batch job, and by its own limits."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from recon.control_groups import CGROUP, PROC, folders, text_of

#: Limits of a process (``ulimit -v``, ``-d``), and what counts towards each.
_LIMITS = {"Max address space": "VmSize", "Max data size": "VmData"}


@dataclass(frozen=True)
class Allotment:
    """What a process may have of the memory of its machine.

    Parameters
    ----------
    workers : int
        Processes that draw slices side by side, of which it is one: each has the same part of what is free.
    most : int, optional
        Bytes that it may have in all, as a limit that the system does not know of.
    """

    workers: int = 1
    most: int | None = None


#: That of this process; a worker process gets it when it starts, as it gets its threads.
_allotted = Allotment()


def allot(allotment: Allotment) -> None:
    """Set what this process may have of the memory of its machine."""
    global _allotted
    _allotted = allotment


def available_memory(device: torch.device) -> float | None:
    """Return the memory of a device that this process may still use, in bytes, or None if it is unknown."""
    if device.type == "cuda":
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return float(torch.cuda.mem_get_info(device)[0]) / _allotted.workers + cached
    return host_memory(allotment=_allotted)


def host_memory(proc: Path = PROC, cgroup: Path = CGROUP, allotment: Allotment | None = None) -> float | None:
    """Return the memory in bytes that this process may still allocate, or None if the system does not tell.

    The smallest counts of what is free on the machine, what the control groups of a container or of a job scheduler
    (version 1 or 2, with all groups around them) leave, and what remains of the limits of the process. The first two
    are divided among the workers of an allotment.

    Parameters
    ----------
    proc, cgroup : Path
        Where the process information and the control groups are mounted.
    allotment : Allotment, optional
        By default the process is alone.
    """
    own = allotment or Allotment()
    shared = [*_machine(proc), *_groups(proc, cgroup)]
    found = [*(left / own.workers for left in shared), *_process(proc)]
    if own.most is not None:
        found.append(float(own.most) - 1024.0 * _table(proc / "self" / "status").get("VmRSS", 0))
    return max(min(found), 0.0) if found else None


def _machine(proc: Path) -> Iterator[float]:
    values = _table(proc / "meminfo")
    if "MemAvailable" in values:
        yield 1024.0 * values["MemAvailable"]


def _process(proc: Path) -> Iterator[float]:
    used, limits = _table(proc / "self" / "status"), text_of(proc / "self" / "limits")
    for name, counted in _LIMITS.items():
        soft = re.search(rf"^{name}\s+(\d+)\b", limits, re.MULTILINE)
        if soft and counted in used:
            yield float(soft[1]) - 1024.0 * used[counted]


def _groups(proc: Path, cgroup: Path) -> Iterator[float]:
    """Yield what each control group of this process leaves, from its own up to the root."""
    for version, folder in folders("memory", proc, cgroup):
        yield from (_left_2 if version == 2 else _left_1)(folder)


def _left_2(folder: Path) -> Iterator[float]:
    used = _number(folder / "memory.current")
    limits = [_number(folder / name) for name in ("memory.max", "memory.high")]
    yield from _less_used(limits, used, _table(folder / "memory.stat").get("inactive_file", 0))


def _left_1(folder: Path) -> Iterator[float]:
    counts = _table(folder / "memory.stat")
    limits = [_number(folder / "memory.limit_in_bytes"), counts.get("hierarchical_memory_limit")]
    used = _number(folder / "memory.usage_in_bytes")
    yield from _less_used(limits, used, counts.get("total_inactive_file", 0))


def _less_used(limits: list[int | None], used: int | None, reclaimable: int) -> Iterator[float]:
    """Yield what limits leave; pages of files that are not in use can be reclaimed, and do not count as used."""
    if used is not None:
        yield from (float(limit - max(used - reclaimable, 0)) for limit in limits if limit is not None)


def _number(path: Path) -> int | None:
    """Return the number in a file; None without one ("max", or no such file)."""
    text = text_of(path).strip()
    return int(text) if text.isdigit() else None


def _table(path: Path) -> dict[str, int]:
    """Return the whole numbers of a file of lines ``name value`` or ``name: value kB``."""
    return {name: int(value) for name, value in re.findall(r"^(\w+):?\s+(\d+)\b", text_of(path), re.MULTILINE)}
