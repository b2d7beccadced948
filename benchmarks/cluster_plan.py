"""What a study of many volumes asks of a scheduler and a file system, by measurement and by counting.

    python benchmarks/cluster_plan.py [--tasks 2000] [--workers 2] [--output benchmarks/results/cluster_plan.json]

Measured here: tasks per second of a Dask scheduler with two local workers and empty tasks, as a study submits them, and
the processor seconds of each; the bytes of a task and of its answer; bytes and seconds of a slice file (8 samples,
320 x 320, complex); bytes hashed a second, seconds to open a source, to note that it is begun, and to load a network.
From these, for 1,000 volumes of 36 slices on 8, 64 and 512 workers: hours, tasks per second, bytes, operations on
files, by counting; and the time that workers spend on slices, by a simulated queue: one client opens all sources, then
hands out slices; the worker that draws the first slice of a volume hashes its source.
Assumed are the seconds of a slice (``--slice-seconds``: a core, a GPU) and the speed of the file system
(``--megabytes-per-second`` for one reader). No cluster was at hand.
"""

from __future__ import annotations

import argparse
import heapq
import json
import pickle
import random
import tempfile
import time
from collections import deque
from pathlib import Path
from typing import Any

import numpy as np

from recon.engine.provenance import sha256
from recon.engine.slice_result import SliceResult
from recon.priors import load_prior
from recon.study.job import Job, Outputs
from recon.study.loop import state_of
from recon.study.planning import plan_files
from recon.study.slice_file import path_of, read_slice, write_slice
from recon.study.work import Drawn

OUTPUT = Path(__file__).parent / "results" / "cluster_plan.json"
VOLUMES, SLICES, FLEETS = 1000, 36, (8, 64, 512)
COILS, SIDE = 15, 320
SOURCE = SLICES * COILS * SIDE * SIDE * 8
#: Files that are opened, written, renamed or removed for a slice: its own once written and read, and part of the
#: source; each volume adds its record, lock, result, and the folder of its slices.
OPERATIONS_A_SLICE, OPERATIONS_A_VOLUME = 6, 20


def main() -> None:
    """Measure, count, and print the table."""
    arguments = _arguments()
    found = {**_messages(), **_slice_file(), **_source(), **_scheduler(arguments.tasks, arguments.workers)}
    speed = min(found["hashed_per_second"], arguments.megabytes_per_second * 1e6)
    rows = [
        _row(found, workers, seconds) | _queue(found, workers, seconds, SOURCE / speed)
        for seconds in arguments.slice_seconds
        for workers in FLEETS
    ]
    arguments.output.write_text(json.dumps({"measured": found, "plan": rows}, indent=1) + "\n")
    for name, value in found.items():
        print(f"{name:>24} {value:.4g}")
    print("s/slice workers  hours  tasks/s  scheduler  MB/s written  files/s | begins after  simulated  on slices")
    for row in rows:
        print(
            f"{row['slice_seconds']:7.1f} {row['workers']:7d} {row['hours']:6.2f} {row['tasks_per_second']:8.2f} "
            f"{row['scheduler_load']:9.1%} {row['megabytes_per_second']:13.1f} {row['files_per_second']:8.1f} | "
            f"{row['hours_before']:10.2f} h {row['hours_simulated']:8.2f} h {row['on_slices']:9.1%}"
        )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=2000)
    parser.add_argument("--workers", type=int, default=2)
    text = "time of a slice on one worker"
    parser.add_argument("--slice-seconds", type=float, nargs="+", default=[60.0, 2.0], help=text)
    parser.add_argument("--megabytes-per-second", type=float, default=500.0, help="of one reader of the file system")
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


def _source() -> dict[str, float]:
    """Return what it takes to open, begin and hash a source, and to load a network."""
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "scan.npy"
        np.save(path, rng.standard_normal((4, COILS, SIDE, SIDE, 2), dtype=np.float32).view(np.complex64)[..., 0])
        load_prior("brain-mri")  # the libraries
        plan_files([path], Path(name) / "out", lambda modality: {"device": "cpu"})
        started = time.perf_counter()
        (planned,), _ = plan_files([path], Path(name) / "out", lambda modality: {"device": "cpu"})
        opened = time.perf_counter()
        state_of(planned.job(), force=False)
        begun = time.perf_counter()
        sha256(path)
        hashed = time.perf_counter()
        load_prior("brain-mri")
        return {
            "seconds_to_open": opened - started,
            "seconds_to_begin": begun - opened,
            "hashed_per_second": path.stat().st_size / (hashed - begun),
            "seconds_to_load": time.perf_counter() - hashed,
        }


def _scheduler(tasks: int, workers: int) -> dict[str, float]:
    """Return how many empty tasks a second go through a scheduler, submitted one by one, and their processor time.

    The scheduler and the client are threads of this process; on a cluster the client may have its own.
    """
    from distributed import Client, LocalCluster

    with (
        LocalCluster(n_workers=workers, threads_per_worker=1, processes=True, dashboard_address=None) as cluster,
        Client(cluster) as client,
        client.get_executor(pure=False, retries=2) as executor,
    ):
        executor.submit(time.sleep, 0).result()
        started, used = time.perf_counter(), time.process_time()
        for future in [executor.submit(time.sleep, 0) for _ in range(tasks)]:
            future.result()
        return {
            "tasks_per_second": tasks / (time.perf_counter() - started),
            "processor_seconds_a_task": (time.process_time() - used) / tasks,
        }


def _row(found: dict[str, float], workers: int, seconds: float) -> dict[str, Any]:
    """Count what this number of workers asks for."""
    slices = VOLUMES * SLICES
    total = slices * seconds / workers
    tasks = (slices + VOLUMES) / total
    return {
        "slice_seconds": seconds,
        "workers": workers,
        "hours": total / 3600,
        "tasks_per_second": tasks,
        "scheduler_load": tasks / found["tasks_per_second"],
        "megabytes_per_second": 2 * slices * found["bytes_a_slice"] / total / 1e6,
        "files_per_second": (slices * OPERATIONS_A_SLICE + VOLUMES * OPERATIONS_A_VOLUME) / total,
    }


def _queue(found: dict[str, float], workers: int, seconds: float, hashing: float) -> dict[str, float]:
    """Simulate the queue: a free worker gets the next slice, or first the result of a volume that is drawn.

    Each task passes one server, the client with its scheduler. A worker that gets another volume opens it and loads the
    network again. The first slice of a volume waits for its hash. A result reads the slices of its volume and writes
    them once more.
    """
    rng = random.Random(0)
    joining = SLICES * (found["seconds_to_read"] + found["seconds_to_write"])
    opening = found["seconds_to_open"] + found["seconds_to_load"]
    waiting = deque((volume, slice_) for volume in range(VOLUMES) for slice_ in range(SLICES))
    left, last = [SLICES] * VOLUMES, [-1] * workers
    free = [(0.0, worker) for worker in range(workers)]
    running: list[tuple[float, int]] = []  # when a slice will be done, and of which volume it is
    server = end = useful = 0.0
    while waiting or running:
        now, worker = heapq.heappop(free)
        while running and (running[0][0] <= now or not waiting):
            done, volume = heapq.heappop(running)
            now = max(now, done)
            left[volume] -= 1
            if not left[volume]:
                waiting.appendleft((volume, -1))
        if not waiting:
            break
        volume, slice_ = waiting.popleft()
        server = max(now, server) + 1 / found["tasks_per_second"]
        drawing = 0.0 if slice_ < 0 else seconds * rng.uniform(0.8, 1.2)
        until = server + (joining if slice_ < 0 else drawing + found["seconds_to_write"])
        until += (opening if last[worker] != volume else 0.0) + (hashing if slice_ == 0 else 0.0)
        last[worker], end, useful = volume, max(end, until), useful + drawing
        heapq.heappush(free, (until, worker))
        if slice_ >= 0:
            heapq.heappush(running, (until, volume))
    return {
        "hours_before": VOLUMES * (found["seconds_to_open"] + found["seconds_to_begin"]) / 3600,
        "hours_simulated": end / 3600,
        "on_slices": useful / (workers * end),
    }


if __name__ == "__main__":
    main()
