"""Everything that a first run on a GPU has to tell, in one table and JSON: at most six minutes, no network.

    python benchmarks/gpu.py [--out FOLDER] [--only PART ...] [--budget 330] [--tiny]

Run in the root of a checkout, of which nothing has to be installed; wheels of missing packages (torch, triton, numpy,
scipy, h5py, safetensors, tqdm; for the tests pytest, pytest-xdist and hypothesis) are taken from the folder ``.whl``:
``pip download --no-deps -d .whl NAME``. Parts: floors of the card, the tests marked ``cuda``, accuracy against double
precision, CT, MRI with the default sampler in each arithmetic, CUDA graphs, memory by the number of slices, slices
together in the network, and the compiled networks, which take a minute each to begin and come last. ``--tiny`` is for a
CPU: it shows that the script works. On a slow card the last parts are left out, and say so.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]

from gpu_table import Table, relative, use_wheels  # noqa: E402

use_wheels(ROOT / ".whl")
os.environ["RECON_CACHE"] = "off"

import gpu_sampling  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402

from operators import CT, FanBeam, ParallelBeam  # noqa: E402

TESTS = ("tests/test_gpu.py", "tests/recon/training/test_training_gpu.py", "tests/operators/test_ct_engines.py")


def main(given: list[str] | None = None) -> Table:
    """Run the parts, print a table and write ``gpu.json``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(os.environ.get("OUT", ".")))
    parser.add_argument("--only", nargs="+", choices=list(PARTS), default=list(PARTS), metavar="PART")
    parser.add_argument("--budget", type=float, default=330.0, help="seconds after which no part begins")
    parser.add_argument("--tiny", action="store_true", help="small sizes, also on a CPU")
    arguments = parser.parse_args(given)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cpu" and not arguments.tiny:
        parser.error("there is no GPU here; --tiny tries the script on a CPU")
    arguments.out.mkdir(parents=True, exist_ok=True)
    table = Table(arguments.out / "gpu.json", device, arguments.tiny, arguments.budget)
    for name in arguments.only:
        table.part(name, PARTS[name])
    print(f"\n{len(table.rows)} rows: {table.path}")
    return table


def floors(table: Table) -> None:
    """Measure what the card can do at best."""
    name = torch.cuda.get_device_name() if table.cuda else "CPU"
    table.add("floors", f"{name}, torch {torch.__version__}", "-")
    n, m = (1 << 16, 256) if table.tiny else (1 << 28, 8192)
    a, b = torch.empty(n, device=table.device), torch.ones(n, device=table.device)
    table.bandwidth = 8 * n / (1e-3 * table.milliseconds(lambda: a.copy_(b)))
    table.add("floors", "copy, bytes read and written", table.bandwidth / 1e9, "GB/s")
    x, y = (torch.ones(m, m, device=table.device, dtype=torch.bfloat16) for _ in range(2))
    table.peak = 2 * m**3 / (1e-3 * table.milliseconds(lambda: x @ y))
    table.add("floors", "bfloat16 product", table.peak / 1e12, "TFLOP/s")


def tests(table: Table) -> None:
    """Run the tests marked ``cuda``."""
    chosen = TESTS[1:2] if table.tiny else TESTS
    command = [sys.executable, "-m", "pytest", "-q", "-m", "cuda", "-p", "no:cacheprovider", *chosen]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    environment |= {} if table.cuda else {"DIFFRECON_GPU": "cpu"}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=150, env=environment)
    said = (done.stdout + done.stderr).strip()
    table.path.with_name("gpu_tests.txt").write_text(said + "\n")
    table.add(
        "tests", "pytest -m cuda", "passed" if done.returncode == 0 else "FAILED", note=said[-120:].split("\n")[-1]
    )


def geometries() -> dict[str, ParallelBeam | FanBeam]:
    """Return scanners of each kind."""
    turn = 2 * np.pi
    half, whole = np.arange(60) * np.pi / 60 + 0.01, np.arange(60) * turn / 60
    flying = {"source_angle_offset": np.tile([1e-3, -1e-3], 30)}
    return {
        "parallel": ParallelBeam(half, 187, 1.0),
        "fan": FanBeam(whole, 192, 2.6, 595.0, 1085.6),
        "curved, flying focal spot": FanBeam(whole, 192, 2.6, 595.0, 1085.6, True, 0.7, **flying),
        "short fan, coarse": FanBeam(whole, 40, 8.0, 200.0, 400.0),
    }


def exact(table: Table) -> None:
    """Compare the engines of CT, and the operators of MRI, with double precision."""
    shape = (24, 20) if table.tiny else (128, 120)
    generator = torch.Generator().manual_seed(0)
    for name, geometry in list(geometries().items())[: 1 if table.tiny else None]:
        x, y = (torch.rand(3, *size, generator=generator) for size in (shape, geometry.shape))
        truth = CT(geometry, shape, 1.1, "sparse").to(torch.float64)
        forward, adjoint = truth(x.double()), truth.H(y.double())
        for engine in ("auto", "sparse", "onthefly"):
            there = CT(geometry, shape, 1.1, engine).to(table.device)
            value, back = there(x.to(table.device)), there.H(y.to(table.device))
            kind = type(there.projector).__name__  # type: ignore[attr-defined]
            errors = f"{relative(value, forward):.1e}", f"{relative(back, adjoint):.1e}"
            table.add("exact", f"CT {engine} ({kind}), {name}: A", errors[0], floor="bar 1e-5", note=f"A^H {errors[1]}")
    gpu_sampling.exact(table)


def ct(table: Table) -> None:
    """Time 16 images of 512 x 512 in 720 views."""
    n, views, batch = (32, 12, 2) if table.tiny else (512, 720, 16)
    bins = 2 * int(np.ceil(n / np.sqrt(2))) + 3
    geometry = ParallelBeam(np.arange(views) * np.pi / views, bins, 1.0)
    x, y = torch.rand(batch, n, n, device=table.device), torch.rand(batch, views, bins, device=table.device)
    moved = f"memory {1e3 * 4 * (x.numel() + y.numel()) / table.bandwidth:.3f} ms"
    for engine in ("auto", "sparse", "onthefly"):
        if table.spent() or (table.tiny and engine == "onthefly"):
            continue
        operator = CT(geometry, (n, n), 1.0, engine if engine == "auto" else _large(engine)).to(table.device)
        kind = type(operator.projector).__name__  # type: ignore[attr-defined]
        for name, call in (("A", lambda o=operator: o(x)), ("A^H", lambda o=operator: o.H(y))):
            ms = table.milliseconds(call, 3, 1)
            table.add("ct", f"{engine} ({kind}) {name}, {n}^2 x {views} x {batch}", ms, "ms", moved, "goal 4 ms")


def _large(engine: str) -> object:
    """Return an engine by name, without the limit on the size of a matrix."""
    from operators.ct.projectors.onthefly import OnTheFlyProjector
    from operators.ct.projectors.sparse import SparseProjector

    if engine == "onthefly":
        return OnTheFlyProjector
    return lambda geometry, shape, size: SparseProjector(geometry, shape, size, max_bytes=1 << 34, use_cache=False)


PARTS = {
    "floors": floors,
    "tests": tests,
    "exact": exact,
    "mri": gpu_sampling.mri,
    "ct": ct,
    "graph": gpu_sampling.graph,
    "memory": gpu_sampling.memory,
    "together": gpu_sampling.together,
    "compiled": gpu_sampling.compiled,
}

if __name__ == "__main__":
    main()
