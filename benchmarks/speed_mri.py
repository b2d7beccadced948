"""Speed of MRI: operators against rivals, side by side in one process, and what a whole DDS run spends where.

    python benchmarks/speed_mri.py [--data BRAIN] [--json FILE] [--repeats N] [--quick]

BRAIN is the base name of a BART file of 8 coils, 230 x 180 (without it, data are simulated). Every pair of rivals is
timed in turns (ABAB ...), and the median of the ratios of neighbours is reported, so that a busy machine disturbs both.
The peak memory of ESPIRiT is that of a child process. With a GPU, conjugate gradient in a CUDA graph is compared with
the same loop that asks for its residual by ``.item()``, and with the bare FFT pair.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from operators import CartesianMRI, conjugate_gradient, espirit_maps, fftc, make_mask

CASES = {"8 x 230 x 180": (8, 230, 180), "15 x 320 x 320": (15, 320, 320)}
_PEAK = """
import torch
from pathlib import Path
from operators import espirit_maps

def peak():  # of this process alone; ru_maxrss starts from its parent's
    return next(int(line.split()[1]) for line in Path("/proc/self/status").open() if line.startswith("VmHWM"))

kspace = torch.randn({shape}, dtype=torch.complex64)
espirit_maps(kspace[:2, :48, :48])
before = peak()
espirit_maps(kspace)
print((peak() - before) / 1024)
"""


def main() -> None:
    """Run all comparisons, print a table and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="base name of a measured BART file (8 coils, 230 x 180)")
    parser.add_argument("--json", type=Path, help="where to write the results")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--quick", action="store_true", help="only 8 x 230 x 180, three repeats")
    arguments = parser.parse_args()
    cases = dict(list(CASES.items())[:1]) if arguments.quick else CASES
    repeats = 3 if arguments.quick else arguments.repeats
    rows: list[dict[str, Any]] = []
    for name, shape in cases.items():
        kspace = simulate(shape)
        if arguments.data and shape == CASES["8 x 230 x 180"]:
            kspace = read_cfl(arguments.data).reshape(shape)
        rows += shown(compare_espirit(name, kspace, min(repeats, 3)))
        rows += shown(compare_normal(name, kspace, repeats))
        rows += shown(compare_gradient(name, kspace, repeats))
        rows += shown([{"case": name, "what": "ESPIRiT, peak memory above its input", "MiB": peak_memory(shape)}])
    for pattern in () if arguments.quick else ("random", "poisson"):
        rows += shown([share_of_network(pattern)])
    rows += shown(compare_cuda() if torch.cuda.is_available() else [{"what": "CUDA", "skipped": "no GPU here"}])
    if arguments.json:
        load = os.getloadavg() if hasattr(os, "getloadavg") else ()
        result = {"threads": torch.get_num_threads(), "load_average": load, "torch": torch.__version__, "rows": rows}
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")


def shown(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Print rows as soon as they are known, and pass them on."""
    for row in rows:
        print(describe(row), flush=True)
    return rows


def describe(row: dict[str, Any]) -> str:
    """One line of the table."""
    values = [f"{key} {value:.3g}" if isinstance(value, float) else f"{key} {value}" for key, value in row.items()]
    return "  ".join(value.removeprefix("case ").removeprefix("what ") for value in values)


def simulate(shape: tuple[int, int, int]) -> Tensor:
    """k-space of a textured disc seen by coils on a ring, with a little noise."""
    coils, ny, nx = shape
    y, x = torch.linspace(-1, 1, ny)[:, None], torch.linspace(-1, 1, nx)
    image = (y**2 / 0.7 + x**2 / 0.5 < 1) * (1 + 0.3 * torch.cos(17 * x) * torch.sin(13 * y))
    angle = 2 * torch.pi * torch.arange(coils)[:, None, None] / coils
    maps = torch.exp(-((y - 1.2 * angle.sin()) ** 2 + (x - 1.2 * angle.cos()) ** 2)) * torch.exp(1j * angle)
    noise = torch.randn(shape, dtype=torch.complex64, generator=torch.Generator().manual_seed(0))
    return fftc(maps * image) + 1e-3 * noise


def read_cfl(path: Path) -> Tensor:
    """Coils, readout and phase encodes of a BART file."""
    lengths = [int(n) for n in path.with_suffix(".hdr").read_text().splitlines()[1].split()]
    array = np.fromfile(path.with_suffix(".cfl"), np.complex64).reshape([n for n in lengths[::-1] if n > 1])
    return torch.from_numpy(np.ascontiguousarray(array.transpose(0, 2, 1)))


def in_turns(first: Callable[[], object], second: Callable[[], object], repeats: int) -> tuple[float, float, float]:
    """Median seconds of both, and the median of the ratio first / second of neighbouring runs."""
    first(), second()
    times = np.array([[clock(first), clock(second)] for _ in range(repeats)])
    return float(np.median(times[:, 0])), float(np.median(times[:, 1])), float(np.median(times[:, 0] / times[:, 1]))


def clock(function: Callable[[], object]) -> float:
    """Seconds that one call takes."""
    start = time.perf_counter()
    function()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def pair(case: str, what: str, slow: Callable[[], object], fast: Callable[[], object], repeats: int) -> dict[str, Any]:
    """Time two rivals and make a row."""
    a, b, ratio = in_turns(slow, fast, repeats)
    return {"case": case, "what": what, "ms": 1e3 * a, "against ms": 1e3 * b, "ratio": ratio}


def compare_espirit(case: str, kspace: Tensor, repeats: int) -> list[dict[str, Any]]:
    """Time our maps and sigpy's, and see that they agree."""
    from sigpy.mri.app import EspiritCalib

    array = kspace.numpy()
    row = pair(
        case,
        "ESPIRiT: sigpy / ours",
        lambda: EspiritCalib(array, show_pbar=False).run(),
        lambda: espirit_maps(kspace),
        repeats,
    )
    ours, theirs = espirit_maps(kspace), torch.from_numpy(EspiritCalib(array, show_pbar=False).run())
    support = (ours.abs().sum(0) > 0) & (theirs.abs().sum(0) > 0)
    row["agreement"] = float((ours.conj() * theirs).sum(0).abs()[support].mean())
    return [row]


def compare_normal(case: str, kspace: Tensor, repeats: int) -> list[dict[str, Any]]:
    """Time A^H A of a column mask and of a point mask against forward + adjoint."""
    maps, rows = espirit_maps(kspace), []
    shape = (kspace.shape[1], kspace.shape[2])
    for kind in ("random", "poisson"):
        operator = CartesianMRI(make_mask(shape, kind, 4), maps)
        for batch in (1, 8):
            x = torch.randn(batch, *shape, dtype=torch.complex64, generator=torch.Generator().manual_seed(0))
            what = f"(forward + adjoint) / normal, {kind}, batch {batch}"
            rows.append(
                pair(
                    case,
                    what,
                    lambda A=operator, x=x: A.H(A(x)),  # type: ignore[misc]
                    lambda A=operator, x=x: A.normal(x),  # type: ignore[misc]
                    repeats,
                )
            )
    return rows


def compare_gradient(case: str, kspace: Tensor, repeats: int) -> list[dict[str, Any]]:
    """Time one CG iteration of a point mask against the bare pair of FFTs of all coil images."""
    maps = espirit_maps(kspace)
    shape = (kspace.shape[1], kspace.shape[2])
    operator = CartesianMRI(make_mask(shape, "poisson", 4), maps)
    rhs = operator.H(kspace * operator.mask)
    images = maps * rhs
    what = "CG iteration / bare FFT pair, poisson"
    row = pair(
        case,
        what,
        lambda: conjugate_gradient(operator.H @ operator, rhs, iterations=10).x,
        lambda: pairs(images, 10),
        repeats,
    )
    row["ms"], row["against ms"] = row["ms"] / 10, row["against ms"] / 10
    return [row]


def pairs(images: Tensor, count: int) -> Tensor:
    """Transform forth and back, the floor of every CG iteration."""
    for _ in range(count):
        result = torch.fft.ifft2(torch.fft.fft2(images))
    return result


def peak_memory(shape: tuple[int, int, int]) -> float:
    """MiB that ESPIRiT adds to the peak of a process that holds the data already."""
    root = str(Path(__file__).resolve().parents[1])
    code = f"import sys; sys.path.insert(0, {root!r})" + _PEAK.format(shape=shape)
    return float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)


def share_of_network(pattern: str) -> dict[str, Any]:
    """Run DDS on 15 x 320 x 320, 8 samples, in a child process: share outside the network, peak memory."""
    script = Path(__file__).with_name("network_share.py")
    environment = {**os.environ, "PYTHONPATH": str(script.resolve().parents[1])}
    command = [sys.executable, str(script), "--pattern", pattern]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return json.loads(done.stdout.splitlines()[-1])


def compare_cuda(repeats: int = 11, iterations: int = 20, batch: int = 8) -> list[dict[str, Any]]:
    """Time CG on a GPU: captured in a CUDA graph, eager, and with a check of the residual by the host."""
    rows = []
    for case, shape in CASES.items():
        kspace = simulate(shape).cuda()
        maps = espirit_maps(kspace)
        operator = CartesianMRI(make_mask(shape[1:], "poisson", 4), maps)
        rhs = operator.H(kspace * operator.mask).expand(batch, *shape[1:]).contiguous()
        images = maps * rhs[:, None]
        replay = captured(lambda A=operator, b=rhs: conjugate_gradient(A.H @ A, b, iterations=iterations).x)  # type: ignore[misc]
        rivals: dict[str, Callable[[], object]] = {
            "loop with .item()": lambda A=operator, b=rhs: checked_gradient(A, b, iterations),  # type: ignore[misc]
            "eager loop": lambda A=operator, b=rhs: conjugate_gradient(A.H @ A, b, iterations=iterations).x,  # type: ignore[misc]
        }
        label = f"CUDA, batch {batch}, {iterations} CG iterations"
        for name, rival in rivals.items():
            rows.append(pair(case, f"{label}: {name} / graph", rival, replay, repeats))
        floor = captured(lambda z=images: pairs(z, iterations))  # type: ignore[misc]
        rows.append(pair(case, f"{label}: graph / bare FFT pairs in a graph", replay, floor, repeats))
    return rows


def captured(function: Callable[[], Tensor]) -> Callable[[], object]:
    """Record a function in a CUDA graph after a warm-up on a side stream, and return its replay."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream), torch.no_grad():
        expected = [function() for _ in range(3)][-1]
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph), torch.no_grad():
        result = function()
    graph.replay()
    torch.cuda.synchronize()
    torch.testing.assert_close(result, expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max()))
    return graph.replay


def checked_gradient(operator: CartesianMRI, rhs: Tensor, iterations: int) -> Tensor:
    """Conjugate gradient as it is often written: the host reads the residual at every step."""
    x, r = torch.zeros_like(rhs), rhs
    p, rr = r, (r.conj() * r).real.sum((-2, -1), keepdim=True)
    for _ in range(iterations):
        q = operator.normal(p)
        alpha = rr / (p.conj() * q).real.sum((-2, -1), keepdim=True)
        x, r = x + alpha * p, r - alpha * q
        following = (r.conj() * r).real.sum((-2, -1), keepdim=True)
        if following.max().item() < 1e-30:
            break
        p, rr = r + following / rr * p, following
    return x


if __name__ == "__main__":
    main()
