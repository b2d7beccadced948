"""The parts of `benchmarks/gpu.py` about MRI and sampling."""

from __future__ import annotations

import json
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gpu_table import Table, relative

import recon
from operators import CartesianMRI, conjugate_gradient, espirit_maps, fftc, make_mask
from recon.engine.samplers import resolve_sampler
from recon.priors.network import load_network_prior
from samplers import Noise, Problem, sample

#: Arithmetic of the network, and whether it is compiled.
PLAIN: tuple[tuple[str, Any], ...] = (("float32", False), ("tf32", False), ("bfloat16", False))
COMPILED: tuple[tuple[str, Any], ...] = (("bfloat16", True), ("bfloat16", "cuda-graphs"))


def sizes(table: Table) -> tuple[int, int, int, int]:
    """Return the numbers of coils, pixels along an axis, samples and steps."""
    return (4, 32, 2, 3) if table.tiny else (15, 320, 8, 30)


def scan(coils: int, n: int, pattern: str) -> tuple[Problem, torch.Tensor]:
    """Return the problem of an ellipse with texture, undersampled four times, and its whole k-space."""
    y, x = np.meshgrid(np.linspace(-1, 1, n), np.linspace(-1, 1, n), indexing="ij")
    image = ((y / 0.8) ** 2 + (x / 0.65) ** 2 < 1) * (0.7 + 0.3 * np.sin(9 * x) * np.cos(7 * y))
    turns = np.arange(coils) * 2 * np.pi / coils
    near = [
        np.exp(-((y - np.sin(a)) ** 2 + (x - np.cos(a)) ** 2) / 1.2) * np.exp(1j * (a + x * np.cos(a))) for a in turns
    ]
    maps = torch.from_numpy((np.stack(near) / np.sqrt(sum(abs(one) ** 2 for one in near))).astype(np.complex64))
    full = fftc(maps * torch.from_numpy(image.astype(np.complex64)))
    full = full + 0.02 * torch.randn(full.shape, dtype=full.dtype, generator=torch.Generator().manual_seed(0))
    acceleration, centre = (4.0, 0.08) if n > 64 else (2.0, 0.3)
    mask = torch.as_tensor(make_mask((n, n), pattern, acceleration, centre, seed=0))
    return Problem(full * mask, CartesianMRI(mask, maps), 0.02), full


def exact(table: Table) -> None:
    """Compare A, A^H A and conjugate gradients with double precision on a CPU."""
    coils, n, *_ = sizes(table)
    n = min(n, 128)
    for pattern in ("random", "poisson"):
        operator = scan(coils, n, pattern)[0].operator
        x = torch.randn(2, n, n, dtype=torch.complex64, generator=torch.Generator().manual_seed(1))
        there, wide = operator.to(table.device), operator.to(torch.complex128)
        pairs = {"A": (there(x.to(table.device)), wide(x.to(torch.complex128)))}
        pairs["A^H A"] = there.normal(x.to(table.device)), wide.normal(x.to(torch.complex128))
        pairs["20 conjugate gradients"] = (_solve(there, x.to(table.device)), _solve(wide, x.to(torch.complex128)))
        for name, (found, truth) in pairs.items():
            table.add("exact", f"MRI {pattern}, {coils} x {n} x {n}: {name}", f"{relative(found, truth):.1e}")


def _solve(operator: Any, rhs: torch.Tensor) -> torch.Tensor:
    return conjugate_gradient(lambda v: 0.1 * v + operator.normal(v), rhs, iterations=20, item_ndim=2).x


def mri(table: Table) -> None:
    """Time ESPIRiT, the random numbers, A^H A, conjugate gradients, and runs of the default sampler."""
    coils, n, samples, steps = sizes(table)
    for pattern in ("random", "poisson"):
        problem, full = scan(coils, n, pattern)
        problem, full = problem.to(table.device), full.to(table.device)
        x = torch.randn(samples, n, n, dtype=torch.complex64, generator=torch.Generator().manual_seed(2)).to(
            table.device
        )
        noise, size = Noise(0, range(samples), problem.y), f"{samples} x {n} x {n}"
        calls: dict[str, Callable[[], Any]] = {
            f"A^H A, {size}, {coils} coils": lambda p=problem, v=x: p.operator.normal(v),
            f"20 conjugate gradients, {size}": lambda p=problem, v=x: _solve(p.operator, v),
        }
        if pattern == "random":
            calls[f"ESPIRiT, {coils} x {n} x {n}"] = lambda k=full: espirit_maps(k)
            calls[f"random numbers of a step, {size}"] = lambda z=noise, p=problem: z.normal(p.operator.domain)
        for name, call in calls.items():
            table.add("mri", f"{name}, {pattern}", table.milliseconds(call), "ms")
        _runs(table, problem, f"{size} x {steps} steps, {pattern}", PLAIN if pattern == "random" else PLAIN[2:])


def compiled(table: Table) -> None:
    """Time the runs with compiled networks."""
    if table.cuda:
        coils, n, samples, steps = sizes(table)
        problem = scan(coils, n, "random")[0].to(table.device)
        _runs(table, problem, f"{samples} x {n} x {n} x {steps} steps, random", PLAIN[:1] + COMPILED)


def _runs(table: Table, problem: Problem, what: str, variants: tuple[tuple[str, Any], ...]) -> None:
    """Time whole runs, and say which part of them is the network."""
    *_, samples, steps = sizes(table)
    sampler, truth = resolve_sampler("dds", steps), None
    for precision, how in variants if table.cuda else variants[:1]:
        if table.spent():
            return
        started = time.perf_counter()
        prior = load_network_prior(device=table.device, precision=precision, compiled=how)
        first = sample(sampler, problem, prior, samples, 0).samples
        table.wait()
        begin, _ = time.perf_counter() - started, table.peak_gib()
        ms = table.milliseconds(lambda p=prior: sample(sampler, problem, p, samples, 0), 3, 0)
        peak = table.peak_gib()
        network = steps * table.milliseconds(lambda p=prior, v=first: p.denoise(v, 0.5), 5, 1)
        truth = first if truth is None else truth
        name = f"DDS {what}, {precision}{', ' + ('compiled' if how is True else how) if how else ''}"
        note = f"first {begin:.1f} s, {peak:.2f} GiB, to {variants[0][0]} {relative(first, truth):.1e}"
        table.add("mri", name, ms, "ms", f"network {network:.0f} ms, {100 * network / ms:.0f} %", note)
        if table.cuda and (precision, how) == ("bfloat16", False):
            _watched(table, lambda p=prior: sample(sampler, problem, p, samples, 0), what, ms)
        del prior


def _watched(table: Table, run: Callable[[], Any], what: str, ms: float) -> None:
    """Say in which lines a run waits for the GPU, and how long the GPU is busy."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            run()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    lines = Counter(f"{Path(one.filename).name}:{one.lineno}" for one in told if "synchroniz" in str(one.message))
    table.add("mri", f"host waits, {what}", lines.total(), note=json.dumps(dict(lines.most_common(8))))
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as seen:
        run()
        table.wait()
    kernels = [event for event in seen.events() if event.device_type == torch.autograd.DeviceType.CUDA]
    busy = sum(event.device_time for event in kernels) / 1e3
    table.add("mri", f"GPU busy, {what}", busy, "ms", f"of {ms:.0f} ms", f"{len(kernels)} kernels")


def graph(table: Table) -> None:
    """Capture conjugate gradients in a CUDA graph, which fails where anything waits."""
    if not table.cuda:
        return
    coils, n, samples, _ = sizes(table)
    problem = scan(coils, n, "poisson")[0].to(table.device)
    rhs = problem.operator.H(problem.y).expand(samples, n, n).contiguous()
    with torch.no_grad():
        eager = table.milliseconds(lambda: _solve(problem.operator, rhs))
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                expected = _solve(problem.operator, rhs)
        torch.cuda.current_stream().wait_stream(stream)
        captured = torch.cuda.CUDAGraph()
        with torch.cuda.graph(captured):
            found = _solve(problem.operator, rhs)
        replay = table.milliseconds(captured.replay)
    table.add("graph", f"20 conjugate gradients x {samples}, launched one by one", eager, "ms")
    table.add("graph", "the same as a CUDA graph", replay, "ms", note=f"difference {relative(found, expected):.1e}")


def memory(table: Table) -> None:
    """Reconstruct volumes of 1, 4 and 8 slices from k-space: time a slice, and whether memory grows with slices."""
    coils, n, samples, steps = sizes(table)
    full = scan(coils, n, "random")[1].numpy()
    options: dict[str, Any] = {"acceleration": 4, "center_fraction": 0.08, "mask": "random", "samples": samples}
    options |= {"steps": steps, "precision": "bfloat16" if table.cuda else "float32", "progress": False}
    if table.tiny:
        options |= {"acceleration": 2, "center_fraction": 0.3, "steps": 2}
    for slices in (1, 2) if table.tiny else (1, 4, 8):
        if table.spent():
            return
        table.peak_gib()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the data of the phantom are few, and say so
            started = time.perf_counter()
            recon.reconstruct(full if slices == 1 else np.stack([full] * slices), device=str(table.device), **options)
        seconds = (time.perf_counter() - started) / slices
        table.add(
            "memory",
            f"reconstruct, {slices} of {coils} x {n} x {n}",
            seconds,
            "s/slice",
            note=f"peak {table.peak_gib():.2f} GiB",
        )


def together(table: Table) -> None:
    """Reconstruct a volume whose slices go through the network one by one, and several together: time a slice."""
    coils, n, samples, steps = sizes(table)
    count = 2 if table.tiny else 8
    options: dict[str, Any] = {"acceleration": 4, "center_fraction": 0.08, "samples": samples, "steps": steps}
    if table.tiny:
        options |= {"acceleration": 2, "center_fraction": 0.3, "steps": 2}
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        file = Path(folder) / "scan.npy"
        np.save(file, np.stack([scan(coils, n, "random")[1].numpy()] * count))
        options |= {"precision": "bfloat16" if table.cuda else "float32", "device": str(table.device)}
        options |= {"mask": "random", "progress": False}
        recon.reconstruct_many([file], Path(folder) / "first", slices=0, **options)
        for number in (1, 2) if table.tiny else (1, 4):
            if table.spent():
                return
            table.peak_gib()
            started = time.perf_counter()
            where = Path(folder) / str(number)
            recon.reconstruct_many([file], where, slices_together=number, **options)
            seconds = (time.perf_counter() - started) / count
            what = f"reconstruct_many, {count} of {coils} x {n} x {n}, {number} together"
            table.add("together", what, seconds, "s/slice", note=f"peak {table.peak_gib():.2f} GiB")
