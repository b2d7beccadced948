"""Control groups of this process, in which a container or a batch system limits memory and processors.

Nothing here loads torch, so that the threads of libraries are known before they are loaded.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

#: Where the process information and the control groups are mounted.
PROC, CGROUP = Path("/proc"), Path("/sys/fs/cgroup")


def folders(controller: str, proc: Path = PROC, cgroup: Path = CGROUP) -> Iterator[tuple[int, Path]]:
    """Yield version (1 or 2) and folder of the groups that may limit this process, each from its own up to the root.

    Parameters
    ----------
    controller : str
        "memory" or "cpu".
    proc, cgroup : Path
        Where the process information and the control groups are mounted.
    """
    for controllers, path in re.findall(r"^\d+:(.*?):(.*)$", text_of(proc / "self" / "cgroup"), re.MULTILINE):
        if not controllers:
            unified = cgroup / "unified"
            version, root = 2, unified if unified.is_dir() else cgroup
        elif controller in controllers.split(","):
            version, root = 1, cgroup / controller
        else:
            continue
        # A container may see the path of its host, which does not exist here: its own group is then the root.
        names = [name for name in path.split("/") if name not in ("", "..")]
        for depth in range(len(names), -1, -1):
            yield version, root.joinpath(*names[:depth])


def processors(proc: Path = PROC, cgroup: Path = CGROUP) -> float | None:
    """Return how many processors the smallest quota around this process is worth; None without one."""
    found = [_quota(version, folder) for version, folder in folders("cpu", proc, cgroup)]
    return min((quota for quota in found if quota is not None), default=None)


def _quota(version: int, folder: Path) -> float | None:
    if version == 2:
        limit, _, period = text_of(folder / "cpu.max").strip().partition(" ")
    else:  # -1 is no limit
        limit, period = (text_of(folder / f"cpu.cfs_{name}_us").strip() for name in ("quota", "period"))
    known = limit.isdigit() and period.isdigit() and int(limit) > 0 and int(period) > 0
    return int(limit) / int(period) if known else None


def text_of(path: Path) -> str:
    """Return the content of a small file; empty if it cannot be read."""
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
