"""Whole studies: killed and resumed, on a full disk, memory by the number of slices, workers, and the cost of keeping.

    python benchmarks/study.py [--json FILE] [--only PART ...] [--quick]

Parts: ``kills`` (104 slices killed ten times by SIGKILL, with 1 and 2 workers), ``disk`` (a tmpfs that fills up and is
emptied; needs root), ``memory`` (peaks of drawing, joining and writing; Linux), ``workers`` (``--workers 2`` against
one process with two threads and with one, and against two workers of Dask, in turns) and ``keeping`` (drawing and
writing against drawing). The ratios of ``workers`` mean something on an idle machine only; the load is recorded.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from study_memory import measure
from study_runs import Run, dask_scheduler, full_disk, killed, write_volume

#: Who draws: number of workers, threads of one process, whether the workers are those of Dask.
ARMS = {
    "2 workers": (2, None, False),
    "1 process, 2 threads": (1, 2, False),
    "1 process, 1 thread": (1, 1, False),
    "2 Dask workers": (2, None, True),
}


def main() -> None:
    """Run the parts, print a table and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="where to write the results; parts that are not run stay in it")
    parser.add_argument("--only", nargs="+", choices=list(PARTS), default=list(PARTS), metavar="PART")
    parser.add_argument("--quick", action="store_true", help="few and small slices: whether it works, not how fast")
    parser.add_argument("--folder", type=Path, help="where to work (default: a temporary folder)")
    arguments = parser.parse_args()
    found: dict[str, Any] = {}
    if arguments.json and arguments.json.exists():
        found = json.loads(arguments.json.read_text())
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        for name in arguments.only:
            rows = PARTS[name](Path(folder) / name, arguments.quick)
            found[name] = {"load_average": os.getloadavg(), "cores": os.cpu_count(), "quick": arguments.quick}
            found[name] |= {"torch": torch.__version__, "rows": rows}
            if arguments.json:
                arguments.json.write_text(json.dumps(found, indent=1) + "\n")


def shown(row: dict[str, Any]) -> dict[str, Any]:
    """Print a row as soon as it is known, and pass it on."""
    rest = "  ".join(f"{name} {value}" for name, value in row.items() if name != "what")
    print(f"{row['what']}: {rest}", flush=True)
    return row


def kills(folder: Path, quick: bool) -> list[dict[str, Any]]:
    """Kill studies of 1 and 2 workers."""
    slices, times, size = (12, 3, 16) if quick else (104, 10, 24)
    return [shown(killed(folder / str(workers), slices, times, workers, size)) for workers in (1, 2)]


def disk(folder: Path, quick: bool) -> list[dict[str, Any]]:
    """Fill the disk while slices are written, and while the result is."""
    if not sys.platform.startswith("linux") or os.geteuid() != 0:
        return [shown({"what": "full disk", "skipped": "needs root, to mount a small file system"})]
    slices, size = (12, 16) if quick else (104, 24)
    cases = (
        [(1, 0.3), (1, 1.2), (2, 0.3)] if quick else [(w, r) for w in (1, 2) for r in (0.0, 0.1, 0.5, 0.9, 1.2, 1.6)]
    )
    return [shown(full_disk(folder / f"{w}-{r}", slices, w, r, size)) for w, r in cases]


def memory(folder: Path, quick: bool) -> list[dict[str, Any]]:
    """Compare peaks of few and many slices: 2 samples of 320 x 320, 15 coils."""
    coils, size = (4, 64) if quick else (15, 320)
    counts = {"finish": (8, 16), "draw": (2, 4), "memory": (2, 4)} if quick else {}
    counts = counts or {"finish": (50, 200), "draw": (20, 200), "memory": (10, 50)}
    return [shown(measure(kind, few_many, coils, size, folder)) for kind, few_many in counts.items()]


def workers(folder: Path, quick: bool) -> list[dict[str, Any]]:
    """Time the same study by each arm in turns, with the shipped network."""
    slices, size, steps, repeats = (4, 32, 2, 1) if quick else (8, 192, 10, 3)
    folder.mkdir(parents=True)
    scan = write_volume(folder / "scan.npy", slices, 4, size)
    words = ["--samples", "2", "--steps", str(steps), "--acceleration", "4"]
    seconds: dict[str, list[dict[str, float]]] = {name: [] for name in ARMS}
    for turn in range(repeats):
        for name, (count, threads, dask) in ARMS.items():
            with dask_scheduler(count) if dask else nullcontext() as address:
                done = Run(scan, folder / f"{name}{turn}", count, words, threads=threads, scheduler=address).end()
            assert done["status"] == 0, done["errors"]
            seconds[name].append({"wall": done["wall"], "cpu": done["cpu"], "steady": steady(done["events"], count)})
    rows = []
    for name, runs in seconds.items():
        row: dict[str, Any] = {"what": f"{slices} slices of {size} x {size}, {steps} steps: {name}"}
        row |= {kind: round(float(np.median([run[kind] for run in runs])), 3) for kind in ("wall", "cpu", "steady")}
        for kind in ("wall", "steady"):  # neighbours in time are compared, so that a busy machine disturbs both
            pairs = [ours[kind] / run[kind] for ours, run in zip(seconds["2 workers"], runs, strict=True)]
            row[f"{kind}, 2 workers / this"] = round(float(np.median(pairs)), 3)
        rows.append(shown(row))
    return rows


def steady(events: list[dict[str, Any]], count: int) -> float:
    """Seconds a slice once all workers are at work: after the first slice of each."""
    times = [event["time"] for event in events if event["event"] == "slice"]
    return (times[-1] - times[count - 1]) / (len(times) - count)


def keeping(folder: Path, quick: bool) -> list[dict[str, Any]]:
    """Time drawing, and writing what was drawn, slice by slice."""
    from recon.engine.reconstruction import plan
    from recon.study.slice_file import path_of, write_slice

    slices, size, steps = (2, 32, 2) if quick else (6, 320, 30)
    folder.mkdir(parents=True)
    scan = write_volume(folder / "scan.npy", slices + 1, 4 if quick else 15, size)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wanted = plan(scan, samples=2, steps=steps, device="cpu", acceleration=4)
        wanted.draw((slices,))  # loads the network
        drawing, writing, written = [], [], 0
        for index in range(slices):
            result, spent = clocked(lambda index=index: wanted.draw((index,)))
            drawing.append(spent)
            writing.append(clocked(lambda result=result: write_slice(folder, result))[1])
            written += path_of(folder, index).stat().st_size
    row = {"what": f"keeping slices of 2 samples of {size} x {size}, {steps} steps"}
    row |= {"draw, s": round(float(np.median(drawing)), 3), "write, s": round(float(np.median(writing)), 4)}
    return [
        shown({**row, "MiB": round(written / slices / 2**20, 2), "overhead": round(sum(writing) / sum(drawing), 5)})
    ]


def clocked(function: Callable[[], Any]) -> tuple[Any, float]:
    """Return what a call gives, and its seconds."""
    started = time.perf_counter()
    result = function()
    return result, time.perf_counter() - started


PARTS = {"kills": kills, "disk": disk, "memory": memory, "workers": workers, "keeping": keeping}

if __name__ == "__main__":
    main()
