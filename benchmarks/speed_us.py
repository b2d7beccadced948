"""Speed of plane-wave ultrasound: A, A^H and DAS against rivals, side by side in one process.

    python benchmarks/speed_us.py [--json FILE] [--repeats N] [--quick]

387 x 609 pixels, 128 elements, 1 and 11 waves. Rivals are timed in turns with ours (ABAB ...), and the median of the
ratios of neighbours is reported, so that a busy machine disturbs both. Peers (deepinv, ultraspy) are compared where
they can be imported; they belong in an environment of their own. Memory is that of tensors and arrays beside input
and output, and the growth of the process.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from operators import Grid, PlaneWaveGeometry, PlaneWaveUltrasound, beamform
from operators.ultrasound.delays import numba_engine

PITCH, CENTER, RATE, SPEED = 0.3e-3, 5.208e6, 20.832e6, 1540.0


def main() -> None:
    """Run all comparisons, print a table and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="where to write the results")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--quick", action="store_true", help="one wave only, two repeats")
    arguments = parser.parse_args()
    repeats = 2 if arguments.quick else arguments.repeats
    rows: list[dict[str, Any]] = []
    for waves in (1,) if arguments.quick else (1, 11):
        for row in compare(waves, repeats):
            print("  ".join(f"{k} {v:.3g}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items()), flush=True)
            rows.append(row)
    if arguments.json:
        result = {"threads": torch.get_num_threads(), "torch": torch.__version__, "rows": rows}
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")


def acquisition(waves: int) -> tuple[PlaneWaveGeometry, Grid]:
    """A probe like that of PICMUS, and its grid."""
    x = (np.arange(128) - 63.5) * PITCH
    angles = np.deg2rad(np.linspace(-16, 16, waves)) if waves > 1 else [0.0]
    geometry = PlaneWaveGeometry(np.stack([x, 0 * x], 1), angles, RATE, CENTER, SPEED, 1600, element_width=0.9 * PITCH)
    return geometry, Grid(np.linspace(x[0], x[-1], 387), np.linspace(5e-3, 50e-3, 609))


def compare(waves: int, repeats: int) -> Iterator[dict[str, Any]]:
    """Compare engines, and then peers, for a number of waves."""
    geometry, grid = acquisition(waves)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(grid.shape, dtype=torch.complex64, generator=generator)
    full, plain = {}, {"directivity": False, "spreading": "none", "transmit_mask": False}
    engine = "numba" if numba_engine.available() else "torch"
    ours = PlaneWaveUltrasound(geometry, grid, engine=engine, **full)  # type: ignore[arg-type]
    bare = PlaneWaveUltrasound(geometry, grid, engine=engine, **plain)  # type: ignore[arg-type]
    y = ours(x)
    plan = ours.engine.plan
    table = plan.rows[0] * plan.rows[1] * plan.length * len(plan.taps) * 8
    weights = 0 if plan.transmit_weights is None else plan.transmit_weights.nbytes
    before = peak()
    ours.H(ours(x))
    yield {"waves": waves, "what": f"memory, {engine}", "tables MiB": table / 2**20, "plan MiB": weights / 2**20} | {
        "growth of the peak MiB": (peak() - before) / 2**10
    }
    yield row(waves, "weights / no weights, A", lambda: ours(x), lambda: bare(x), repeats)
    yield row(waves, "weights / no weights, A^H", lambda: ours.H(y), lambda: bare.H(y), repeats)
    if engine == "numba":
        slow = PlaneWaveUltrasound(geometry, grid, engine="torch")
        yield row(waves, "torch / numba, A", lambda: slow(x), lambda: ours(x), repeats)
        yield row(waves, "torch / numba, A^H", lambda: slow.H(y), lambda: ours.H(y), repeats)
    yield row(
        waves, "A^H / DAS", lambda: ours.H(y), lambda: beamform(y, grid, geometry=geometry, engine=engine), repeats
    )
    yield from compare_deepinv(waves, geometry, grid, bare, repeats)
    yield from compare_ultraspy(waves, geometry, grid, engine, repeats)


def compare_deepinv(
    waves: int, geometry: PlaneWaveGeometry, grid: Grid, ours: PlaneWaveUltrasound, repeats: int
) -> Iterator[dict[str, Any]]:
    """Compare with deepinv's real operator: no weights there or here, but ours is complex and has a pulse besides."""
    try:
        from deepinv.physics import UltrasoundPlaneWave  # type: ignore[import-not-found]
    except ImportError as error:
        yield {"waves": waves, "what": "deepinv", "skipped": str(error)}
        return
    pixels = np.stack(np.meshgrid(grid.x, grid.z), -1)
    rival = UltrasoundPlaneWave(
        img_size=grid.shape,
        angles=torch.as_tensor(np.array(geometry.angles), dtype=torch.float32),
        element_positions=torch.as_tensor(np.array(geometry.element_positions), dtype=torch.float32),
        n_samples=geometry.sample_count,
        sampling_frequency=geometry.sampling_frequency,
        sound_speed=geometry.sound_speed,
        pixel_grid=torch.as_tensor(pixels, dtype=torch.float32),
    )
    image = torch.randn(1, 1, *grid.shape)
    data = rival.A(image)
    x, y = image[0, 0] + 0j, torch.randn(geometry.shape)
    yield row(waves, "deepinv / ours, A", lambda: rival.A(image), lambda: ours(x), repeats)
    yield row(waves, "deepinv / ours, A^H", lambda: rival.A_adjoint(data), lambda: ours.H(y), repeats)


def compare_ultraspy(
    waves: int, geometry: PlaneWaveGeometry, grid: Grid, engine: str, repeats: int
) -> Iterator[dict[str, Any]]:
    """Compare DAS of RF and base-band data with the compiled loop of ultraspy: same f-number, window, interpolation."""
    try:
        from ultraspy.cpu.kernels.numba_cores.das import delay_and_sum  # type: ignore[import-not-found]
    except ImportError as error:
        yield {"waves": waves, "what": "ultraspy", "skipped": str(error)}
        return
    f, base_band = np.float64, replace(geometry, demodulation_frequency=CENTER, is_complex=True)
    z, x = (np.ascontiguousarray(part.ravel(), f) for part in np.meshgrid(grid.z, grid.x, indexing="ij"))
    places = np.asarray(geometry.elements, f)  # (element, 3)
    probe = np.ascontiguousarray(np.broadcast_to(places.T[:, None], (3, waves, len(places))))
    # What a wave is late by at each element, so that it passes the origin at time 0.
    delays = (places[:, 0] * np.sin(np.array(geometry.angles))[:, None] / geometry.sound_speed).astype(f)
    level = np.zeros((waves, len(places)), f)
    for name, kind, dtype in (("RF", geometry, torch.float32), ("IQ", base_band, torch.complex64)):
        data = torch.randn(kind.shape, dtype=dtype, generator=torch.Generator().manual_seed(1))
        arguments = (kind.is_complex, probe, probe, level, level, delays, 0, f(RATE), f(CENTER), f(0), f(SPEED))
        options = (np.array([1.75, 1.75], f), x, np.zeros_like(x), z, 1, 0, 0, f(0), 0, 1, 1, True)
        theirs = partial(delay_and_sum, data.numpy(), *arguments, *options)
        mine = partial(beamform, data, grid, geometry=kind, engine=engine)
        # Ours is a base-band image, theirs has the carrier; of RF it is real.
        a, b = theirs(), mine().numpy().ravel() * np.exp(4j * np.pi * CENTER * z / SPEED)
        b = b if kind.is_complex else b.real
        alike = float(abs(np.vdot(a, b)) / np.linalg.norm(a) / np.linalg.norm(b))
        yield row(waves, f"ultraspy / ours, DAS of {name}", theirs, mine, repeats) | {"images correlate by": alike}


def row(
    waves: int, what: str, first: Callable[[], object], second: Callable[[], object], repeats: int
) -> dict[str, Any]:
    """Time two rivals in turns and make a row."""
    first(), second()
    times = np.array([[clock(first), clock(second)] for _ in range(repeats)])
    a, b = np.median(times, axis=0)
    ratio = float(np.median(times[:, 0] / times[:, 1]))
    return {"waves": waves, "what": what, "ms": 1e3 * float(a), "against ms": 1e3 * float(b), "ratio": ratio}


def clock(function: Callable[[], object]) -> float:
    """Seconds that one call takes."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def peak() -> float:
    """Largest memory of this process so far, KiB."""
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


if __name__ == "__main__":
    main()
