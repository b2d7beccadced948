"""What the parts of `benchmarks/gpu.py` share: the table, the clock, and the packages of a bare machine."""

from __future__ import annotations

import json
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple


class Row(NamedTuple):
    """One result: a number or a word, what would be the least time or error possible, and a remark."""

    part: str
    what: str
    value: Any
    unit: str = ""
    floor: str = ""
    note: str = ""


class Table:
    """Rows, printed and written to a JSON file as they come, so that a run that is cut short leaves what it found.

    Parameters
    ----------
    path : Path
    device : torch.device
    tiny : bool
        Whether to run small sizes, which show that the script works and nothing else.
    budget : float
        Seconds after which no part begins.
    """

    def __init__(self, path: Path, device: Any, tiny: bool, budget: float) -> None:
        self.path, self.device, self.tiny, self.budget = path, device, tiny, budget
        self.rows: list[Row] = []
        self.began = time.perf_counter()
        #: Measured by the first part: bytes per second of a copy, and products per second in bfloat16.
        self.bandwidth, self.peak = float("nan"), float("nan")

    @property
    def cuda(self) -> bool:
        """Whether there is a GPU to measure."""
        return self.device.type == "cuda"

    def add(self, *values: Any, **named: Any) -> None:
        """Add, print and write a row."""
        row = Row(*values, **named)
        self.rows.append(row)
        shown = f"{row.value:.4g}" if isinstance(row.value, float) else str(row.value)
        print(f"{row.part:9s} | {row.what:62s} | {shown:>10s} {row.unit:7s} | {row.floor:22s} | {row.note}", flush=True)
        self.path.write_text(json.dumps([entry._asdict() for entry in self.rows], indent=1) + "\n")

    def spent(self) -> bool:
        """Whether the budget is used up."""
        return time.perf_counter() - self.began > self.budget

    def part(self, name: str, run: Callable[[Table], None]) -> None:
        """Run one part; whatever goes wrong is a row, and costs no other part."""
        if self.spent():
            self.add(name, "not run: the budget is spent", "-")
            return
        try:
            run(self)
        except Exception as error:
            where = error.__traceback__
            while where is not None and where.tb_next:
                where = where.tb_next
            place = "" if where is None else f"{Path(where.tb_frame.f_code.co_filename).name}:{where.tb_lineno}"
            self.add(name, f"FAILED: {type(error).__name__} at {place}", "-", note=" ".join(str(error).split())[:300])

    def wait(self) -> None:
        """Wait until the GPU has done everything."""
        import torch

        if self.cuda:
            torch.cuda.synchronize()

    def milliseconds(self, function: Callable[[], Any], repeats: int = 5, warm: int = 2) -> float:
        """Return the median time of a call, with nothing left to do before or after."""
        for _ in range(warm):
            function()
        times = []
        for _ in range(repeats):
            self.wait()
            started = time.perf_counter()
            function()
            self.wait()
            times.append(time.perf_counter() - started)
        return 1e3 * sorted(times)[len(times) // 2]

    def peak_gib(self) -> float:
        """Return the largest memory since the last call, in GiB; NaN on a CPU."""
        import torch

        if not self.cuda:
            return float("nan")
        found = torch.cuda.max_memory_allocated() / 2**30
        torch.cuda.reset_peak_memory_stats()
        return found


def relative(found: Any, truth: Any) -> float:
    """Return the relative error of a tensor."""
    import torch

    kind = torch.complex128 if truth.is_complex() else torch.float64
    found, truth = found.cpu().to(kind), truth.cpu().to(kind)
    return float(torch.linalg.vector_norm(found - truth) / torch.linalg.vector_norm(truth))


def use_wheels(folder: Path) -> None:
    """Put the wheels of a folder on the path, for a machine on which nothing can be installed."""
    for wheel in sorted(folder.glob("*.whl")):
        if wheel.name.endswith("none-any.whl"):
            sys.path.insert(0, str(wheel))
        else:
            zipfile.ZipFile(wheel).extractall(folder / "unpacked")
            sys.path.insert(0, str(folder / "unpacked"))
