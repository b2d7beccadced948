"""What a study of many volumes asks of a scheduler and a file system, by measurement and by counting.

    python benchmarks/cluster_plan.py [--tasks 2000] [--workers 2] [--output benchmarks/results/cluster_plan.json]

Measured here: tasks per second of a Dask scheduler with two local workers and empty tasks, as a study submits them; the
bytes of a task and of its answer; bytes and seconds of a slice file (8 samples, 320 x 320, complex). From these, for
1,000 volumes of 36 slices on 8, 64 and 512 workers: hours, tasks per second, bytes written, operations on files.
The seconds of a slice are an assumption (``--slice-seconds``); no cluster was at hand.
"""

from __future__ import annotations

import argparse
import json
import pickle
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from recon.engine.slice_result import SliceResult
from recon.study.job import Job, Outputs
from recon.study.slice_file import path_of, read_slice, write_slice
from recon.study.work import Drawn

OUTPUT = Path(__file__).parent / "results" / "cluster_plan.json"
VOLUMES, SLICES, FLEETS = 1000, 36, (8, 64, 512)
#: Files that are opened, written, renamed or removed for a slice: its own once written and read, and part of the
#: source; each volume adds its record, lock, result, and the folder of its slices.
OPERATIONS_A_SLICE, OPERATIONS_A_VOLUME = 6, 20


def main() -> None:
    """Measure, count, and print the table."""
    arguments = _arguments()
    found = {**_messages(), **_slice_file(), "tasks_per_second": _scheduler(arguments.tasks, arguments.workers)}
    rows = [_row(found, workers, arguments.slice_seconds) for workers in FLEETS]
    arguments.output.write_text(json.dumps({"measured": found, "plan": rows}, indent=1) + "\n")
    for name, value in found.items():
        print(f"{name:>24} {value:.4g}")
    print(" workers  hours  tasks/s  scheduler  MB/s written  files/s")
    for row in rows:
        print(
            f"{row['workers']:8d} {row['hours']:6.1f} {row['tasks_per_second']:8.2f} {row['scheduler_load']:9.1%} "
            f"{row['megabytes_per_second']:13.1f} {row['files_per_second']:8.1f}"
        )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=2000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--slice-seconds", type=float, default=60.0, help="time of a slice on one worker")
    parser.add_argument("--output", type=Path, default=OUTPUT)
    return parser.parse_args()


def _messages() -> dict[str, float]:
    """Return the bytes of a task and of its answer."""
    units = tuple((index,) for index in range(SLICES))
    request = {f"option{index}": "value" for index in range(40)}
    job = Job(
        Path("/data/scan.h5"), Outputs(Path("/out/scan.h5")), {"samples": 8}, units, request, tuple(range(SLICES))
    )
    return {
        "bytes_a_task": float(len(pickle.dumps(job))),
        "bytes_an_answer": float(len(pickle.dumps(Drawn((7,), 60.0)))),
    }


def _slice_file() -> dict[str, float]:
    """Return the bytes of the file of a slice, and the seconds to write and to read it here."""
    rng = np.random.default_rng(0)
    samples = rng.standard_normal((8, 320, 320, 2), dtype=np.float32).view(np.complex64)[..., 0]
    images = {name: samples[0] for name in ("expectation", "zero_filled")}
    ones = np.ones(8)
    result = SliceResult(
        index=0, samples=samples, diagnostics={"valid": ones > 0, "residual": ones}, images=images, operator="Operator"
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        started = time.perf_counter()
        write_slice(folder, result)
        written = time.perf_counter()
        read_slice(folder, 0)
        return {
            "bytes_a_slice": float(path_of(folder, 0).stat().st_size),
            "seconds_to_write": written - started,
            "seconds_to_read": time.perf_counter() - written,
        }


def _scheduler(tasks: int, workers: int) -> float:
    """Return how many empty tasks a second go through a scheduler, submitted one by one."""
    from distributed import Client, LocalCluster

    with (
        LocalCluster(n_workers=workers, threads_per_worker=1, processes=True, dashboard_address=None) as cluster,
        Client(cluster) as client,
        client.get_executor(pure=False, retries=2) as executor,
    ):
        executor.submit(time.sleep, 0).result()
        started = time.perf_counter()
        for future in [executor.submit(time.sleep, 0) for _ in range(tasks)]:
            future.result()
        return tasks / (time.perf_counter() - started)


def _row(found: dict[str, float], workers: int, seconds: float) -> dict[str, Any]:
    """Count what so many workers ask for."""
    slices = VOLUMES * SLICES
    total = slices * seconds / workers
    tasks = (slices + VOLUMES) / total
    return {
        "workers": workers,
        "hours": total / 3600,
        "tasks_per_second": tasks,
        "scheduler_load": tasks / found["tasks_per_second"],
        "megabytes_per_second": 2 * slices * found["bytes_a_slice"] / total / 1e6,
        "files_per_second": (slices * OPERATIONS_A_SLICE + VOLUMES * OPERATIONS_A_VOLUME) / total,
    }


if __name__ == "__main__":
    main()
