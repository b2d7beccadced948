"""Studies that are killed, or whose disk is full, and go on: what `benchmarks/study.py` runs and counts.

As a script it is `recon` itself, which appends a line to the file in ``STUDY_DRAWS`` for each slice that is begun, in
this process and in its workers.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

_DRAWS = "STUDY_DRAWS"
#: Enough for a comparison of bits, and fast.
FAST = ("--prior", "gaussian", "--samples", "2", "--steps", "2", "--acceleration", "2", "--center-fraction", "0.3")
_LIMIT = 3600.0


def _count_draws(log: str) -> None:
    from recon.engine.reconstruction import Reconstruction

    draw = Reconstruction.draw

    def counted(self: Reconstruction, unit: Sequence[int], *more: Any) -> Any:
        with open(log, "a") as stream:
            stream.write(f"{unit[0]}\n")
        return draw(self, unit, *more)

    Reconstruction.draw = counted  # type: ignore[method-assign]


if _DRAWS in os.environ:  # worker processes import this module, too
    _count_draws(os.environ[_DRAWS])


def write_volume(path: Path, slices: int, coils: int, size: int, written: int | None = None) -> Path:
    """Write a fully sampled scan of textured discs with noise, slice by slice; the rest are holes of the file."""
    y, x = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
    angles = 2 * np.pi * np.arange(coils)[:, None, None] / coils
    maps = np.exp(-((y - np.sin(angles)) ** 2 + (x - np.cos(angles)) ** 2) / 2 + 0.5j * angles)
    kspace = np.lib.format.open_memmap(path, "w+", np.complex64, (slices, coils, size, size))
    for index in range(slices if written is None else written):
        rng = np.random.default_rng(index)
        image = np.where(y**2 / 0.6 + x**2 / 0.4 < 1, 1 + 0.5 * np.cos((3 + index % 7) * y) * np.cos(4 * x), 0)
        centred = np.fft.ifftshift(maps * image, axes=(1, 2))
        noise = rng.normal(size=maps.shape) + 1j * rng.normal(size=maps.shape)
        kspace[index] = np.fft.fftshift(np.fft.fft2(centred, norm="ortho"), axes=(1, 2)) + 0.01 * noise
    kspace.flush()
    return path


class Run:
    """One `recon run` in a process group of its own.

    Parameters
    ----------
    scan, output : Path
    workers : int
    words : sequence of str
        Options.
    draws : Path, optional
        Receives a line for each slice that is begun.
    threads : int, optional
        Of one process; those of workers are set by the product.
    scheduler : str, optional
        Address of a Dask scheduler, whose workers draw.
    """

    def __init__(
        self,
        scan: Path,
        output: Path,
        workers: int = 1,
        words: Sequence[str] = FAST,
        draws: Path | None = None,
        threads: int | None = 1,
        scheduler: str | None = None,
    ) -> None:
        environment = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
        environment["PYTHONPATH"] = str(Path(__file__).parents[1])
        if threads is not None:
            environment["OMP_NUM_THREADS"] = str(threads)
        if draws is not None:
            environment[_DRAWS] = str(draws)
        where = ["--workers", str(workers)] if scheduler is None else ["--scheduler", scheduler]
        fixed = ["-o", str(output), *where, "--no-report", "--device", "cpu", "--log-json"]
        self._before, self._started = _cpu(), time.monotonic()
        self.process = subprocess.Popen(
            [sys.executable, __file__, "run", str(scan), *fixed, *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
            start_new_session=True,
        )

    def end(self) -> dict[str, Any]:
        """Wait; return status, events, lines of errors, wall and processor seconds."""
        out, err = self.process.communicate(timeout=_LIMIT)
        wall, cpu = time.monotonic() - self._started, _cpu() - self._before
        events = [json.loads(line) for line in out.splitlines()]
        errors = [line for line in err.splitlines() if not line.startswith("recon: warning")]
        return {"status": self.process.returncode, "events": events, "errors": errors, "wall": wall, "cpu": cpu}

    def kill(self) -> None:
        """End all of its processes at once."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.communicate()


@contextlib.contextmanager
def dask_scheduler(workers: int) -> Iterator[str]:
    """Start a Dask scheduler with workers of one thread each on this machine; yield its address."""
    from distributed import LocalCluster

    environment = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[1])}
    with LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address=None, env=environment) as cluster:
        yield cluster.scheduler_address


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def same_bits(first: Path, second: Path) -> bool:
    """Tell whether all arrays of two results are the same, but for the time they took."""
    from recon.posterior import Posterior

    a, b = Posterior.load(first), Posterior.load(second)
    pairs = [({"samples": a.samples}, {"samples": b.samples}), (a.images, b.images), (a.diagnostics, b.diagnostics)]
    return all(
        one.keys() == other.keys()
        and all(np.array_equal(one[name], other[name], equal_nan=True) for name in one if name != "seconds")
        for one, other in pairs
    )


def killed(folder: Path, slices: int, kills: int, workers: int, size: int = 24, seed: int = 0) -> dict[str, Any]:
    """Kill a study at random moments, let it go on each time, and compare the result with that of a straight run."""
    chance = random.Random(seed)
    folder.mkdir(parents=True, exist_ok=True)
    scan, draws = write_volume(folder / "scan.npy", slices, 2, size), folder / "draws.txt"
    straight = Run(scan, folder / "straight").end()
    assert straight["status"] == 0, straight["errors"]
    per_slice = float(np.median([one["seconds"] for one in straight["events"] if one["event"] == "slice"]))
    done = 0
    for turn in range(kills):
        left = slices - len(list((folder / "out" / ".scan.parts").glob("slice-*.npz")))
        begun, more = lines_in(draws), chance.randint(1, max(1, 2 * left // (kills - turn + 2)))
        run = Run(scan, folder / "out", workers, draws=draws)
        while run.process.poll() is None and lines_in(draws) < begun + more:
            time.sleep(0.005)
        time.sleep(chance.uniform(0, per_slice))
        done += run.process.poll() is None
        run.kill()
    last = Run(scan, folder / "out", workers, draws=draws).end()
    return {
        "what": f"{slices} slices, {workers} worker(s), SIGKILL of all",
        "kills": done,
        "status": last["status"],
        "same bits": last["status"] == 0 and same_bits(folder / "straight" / "scan.h5", folder / "out" / "scan.h5"),
        "drawn again": lines_in(draws) - slices,
        "allowed": done * workers,
        "left over": sorted(path.name for path in (folder / "out").iterdir() if path.name != "scan.h5"),
    }


def lines_in(path: Path) -> int:
    """Number of lines of a file; 0 without one."""
    return path.read_bytes().count(b"\n") if path.exists() else 0


@contextlib.contextmanager
def small_disk(folder: Path, mebibytes: int) -> Iterator[Path]:
    """Mount a file system in memory; needs root."""
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={mebibytes}m", "none", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def full_disk(folder: Path, slices: int, workers: int, room: float, size: int = 24) -> dict[str, Any]:
    """Let a disk fill up when `room` times the size of the result is written; empty it, and go on.

    Free space is looked at before a study starts, so another program takes it while slices are drawn.
    """
    folder.mkdir(parents=True, exist_ok=True)
    scan, draws = write_volume(folder / "scan.npy", slices, 2, size), folder / "draws.txt"
    straight = Run(scan, folder / "straight").end()
    assert straight["status"] == 0, straight["errors"]
    needed = (folder / "straight" / "scan.h5").stat().st_size
    with small_disk(folder / "disk", 64 + 8 * -(-needed // 2**20)) as disk:
        run = Run(scan, disk / "out", workers, draws=draws)
        while run.process.poll() is None and not lines_in(draws):
            time.sleep(0.005)
        free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
        (disk / "filler").write_bytes(bytes(int(free - room * needed)))
        full = run.end()
        (disk / "filler").unlink()
        rest = Run(scan, disk / "out", workers, draws=draws).end()
        same = rest["status"] == 0 and same_bits(folder / "straight" / "scan.h5", disk / "out" / "scan.h5")
    return {
        "what": f"{slices} slices, {workers} worker(s), disk full at {room:g} x the result",
        "statuses": [full["status"], rest["status"]],
        "lines": [line.replace(f"{disk}/", "") for line in full["errors"]],
        "same bits": same,
        "drawn again": lines_in(draws) - slices,
        "allowed": 2 * workers,  # those in work, and those that the workers begin before they are stopped
    }


if __name__ == "__main__":
    from recon.cli import main

    sys.exit(main(sys.argv[1:]))
