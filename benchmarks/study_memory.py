"""Peak memory of a volume by its number of slices, for `benchmarks/study.py`; each case is a process of its own.

    python benchmarks/study_memory.py draw|memory|finish SLICES COILS SIZE FOLDER

``draw`` is a study, ``memory`` is `recon.reconstruct`, ``finish`` joins and writes copies of one slice. Memory is what
the process has allocated (RssAnon): pages of a file that is mapped belong to the system, which takes them back.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from study_runs import write_volume

_OPTIONS: dict[str, Any] = {"prior": "gaussian", "samples": 2, "steps": 1, "device": "cpu", "acceleration": 4}
_MIB = 2**20


class Peaks:
    """The largest memory within each named phase, watched by a thread."""

    def __init__(self) -> None:
        self.by_phase: dict[str, int] = {}
        self._phase = ["start"]
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        while True:
            phase = self._phase[-1]
            self.by_phase[phase] = max(self.by_phase.get(phase, 0), allocated())
            time.sleep(0.002)

    def name(self, owner: Any, function: str, phase: str) -> None:
        """Call it this phase while a function of a module or class runs."""
        inner = getattr(owner, function, None)
        if inner is None:  # of another version
            return

        @functools.wraps(inner)
        def watched(*arguments: Any, **named: Any) -> Any:
            self._phase.append(phase)
            try:
                return inner(*arguments, **named)
            finally:
                self._phase.pop()

        setattr(owner, function, watched)


def allocated() -> int:
    """Bytes that this process has allocated and touched."""
    with open("/proc/self/status") as stream:
        return next(int(line.split()[1]) * 1024 for line in stream if line.startswith("RssAnon"))


def main() -> None:
    """Run one case and print its peaks as JSON."""
    kind, slices, coils, size = sys.argv[1], *map(int, sys.argv[2:5])
    folder = Path(sys.argv[5])
    folder.mkdir(parents=True, exist_ok=True)
    warnings.simplefilter("ignore")
    import recon
    from recon.engine import reconstruction
    from recon.posterior import Posterior
    from recon.study import work

    scan = write_volume(folder / "scan.npy", slices, coils, size, written=1 if kind == "finish" else None)
    recon.reconstruct(scan, slices=0, progress=False, **_OPTIONS)  # libraries and their buffers are no slices
    peaks = Peaks()
    names = [(reconstruction.Reconstruction, "draw", "draw"), (reconstruction.Reconstruction, "assemble", "join")]
    names += [(Posterior, "save", "write"), (Posterior, "report", "report"), (work, "finish", "finish")]
    for owner, function, phase in names:
        peaks.name(owner, function, phase)
    before = allocated()
    if kind == "memory":
        posterior = recon.reconstruct(scan, progress=False, **_OPTIONS)
        results = held(posterior)
    elif kind == "draw":
        (found,) = recon.reconstruct_many([scan], folder / "out", progress=False, **_OPTIONS)
        assert found.result is not None, found.reasons
        with h5py.File(found.result) as file:
            results = file["samples"].nbytes + sum(image.nbytes for image in file["images"].values())
    else:
        results = finish(scan, folder / "out", slices)
    time.sleep(0.01)
    print(json.dumps({"results": results, "peaks": {name: max(0, p - before) for name, p in peaks.by_phase.items()}}))


def held(posterior: Any) -> int:
    """Bytes of what a posterior consists of: samples, images, and mean, std and interval, which it computes once."""
    arrays = {id(array): array.nbytes for array in map(np.asarray, posterior.images.values())}
    for value in (posterior.samples, posterior.mean, posterior.std, *posterior.interval()):
        arrays[id(value)] = value.nbytes
    return sum(arrays.values())


def finish(scan: Path, output: Path, slices: int) -> int:
    """Join a volume of copies of one slice; return the size of a result."""
    from recon.study import parts, work
    from recon.study.planning import plan_files
    from recon.study.slice_file import write_slice

    (planned,), _ = plan_files([scan], output, lambda modality: _OPTIONS)
    job = planned.job()
    output.mkdir(exist_ok=True)
    parts.begin(job, force=False)
    one = planned.wanted.draw((0,))
    for index in range(slices):
        write_slice(job.outputs.parts, dataclasses.replace(one, index=index))
    results = one.samples.nbytes + sum(np.asarray(image).nbytes for image in one.images.values())
    del one
    work.finish(job)
    return results * slices


def measure(kind: str, counts: tuple[int, int], coils: int, size: int, folder: Path) -> dict[str, Any]:
    """Compare two numbers of slices: MiB a slice in each phase, and of the results themselves."""
    found = []
    for slices in counts:
        case = folder / f"{kind}{slices}"
        command = [sys.executable, __file__, kind, *map(str, (slices, coils, size)), str(case)]
        path = os.pathsep.join([str(Path(__file__).parents[1]), str(Path(__file__).parent)])
        environment = {**os.environ, "PYTHONPATH": path}
        told = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if told.returncode:
            raise RuntimeError(told.stderr[-2000:])
        found.append(json.loads(told.stdout.splitlines()[-1]))
        (case / "scan.npy").unlink()
    few, many = found
    span = (counts[1] - counts[0]) * _MIB
    phases = {
        name: round((many["peaks"][name] - few["peaks"].get(name, 0)) / span, 2)
        for name in many["peaks"]
        if name != "start"
    }
    results = (many["results"] - few["results"]) / span
    row = {
        "what": {"draw": "study", "memory": "recon.reconstruct", "finish": "joining and writing"}[kind],
        "slices": list(counts),
        "peak MiB": [round(max(one["peaks"].values()) / _MIB) for one in found],
        "results, MiB a slice": round(results, 2),
        "growth, MiB a slice": phases,
    }
    return {**row, "beyond results, MiB a slice": round(max(phases.values()) - results, 2)}


if __name__ == "__main__":
    main()
