"""The kernels for GPUs without one: run by Triton's interpreter on the CPU, and compiled for two generations of cards.

Each test is a process of its own, since Triton chooses between interpreter and compiler when a kernel is defined.
"""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("triton") is None,
        reason="Triton is not installed: 250 MB, pip install '.[gpu]' on Linux",
    ),
]
ROOT = Path(__file__).resolve().parents[1]

PROJECTIONS = """
import math
import numpy as np
import torch
from operators import CT, FanBeam, InputError, ParallelBeam
from operators.ct.projectors.triton import TritonProjector

def on_cpu(self, x, space):
    return x.detach().reshape(-1, *space.shape).to(torch.float32).contiguous()

TritonProjector._on_device = on_cpu
turn = 2 * math.pi
flying = {"source_angle_offset": np.tile([1e-3, -1e-3], 4)}
cases = [
    (ParallelBeam(np.arange(8) * math.pi / 8 + 0.03, 23, 1.3), (16, 16)),
    (ParallelBeam([math.pi / 4], 31, 1.3), (13, 18)),
    (FanBeam(np.arange(8) * turn / 8 + 0.03, 25, 2.1, 50.0, 90.0), (13, 18)),
    (FanBeam(np.arange(8) * turn / 8, 25, 2.1, 50.0, 90.0, True, 0.7, **flying), (16, 16)),
    (FanBeam(np.arange(8) * turn / 8, 7, 8.0, 50.0, 90.0), (1, 9)),
]

def error(found, truth):
    return float((found.double() - truth).norm() / truth.norm())

for geometry, shape in cases:
    g = torch.Generator().manual_seed(0)
    x, y = torch.rand(2, *shape, generator=g), torch.randn(2, *geometry.shape, generator=g)
    truth, kernel = CT(geometry, shape, 1.1, "sparse").to(torch.float64), CT(geometry, shape, 1.1, "triton")
    ax, ahy = kernel(x), kernel.H(y)
    dot = abs(float((ax.double() * y).sum() - (x.double() * ahy).sum())) / float(ax.norm() * y.norm())
    assert error(ax, truth(x.double())) < 2e-6, (geometry, shape, error(ax, truth(x.double())))
    assert error(ahy, truth.H(y.double())) < 2e-6, (geometry, shape, error(ahy, truth.H(y.double())))
    assert dot < 1e-6, dot

try:
    kernel.to(torch.float64)
except InputError as refusal:
    assert "float32" in str(refusal)
else:
    raise AssertionError("double precision was accepted")
"""

NORMALS = """
import torch
from samplers import philox, philox_triton

stream = philox.Stream([(1, 2), (3, 0xFFFFFFFF), (0x89ABCDEF, 5)], 7)
for blocks in (1, 300):
    plain = torch.empty(3, 4 * blocks)
    philox.normals(stream, plain, 2.0)
    kernel = torch.full_like(plain, float("nan"))
    philox_triton.launch(stream, kernel, 2.0)
    assert torch.equal(plain, kernel), (plain - kernel).abs().max()
"""

COMPILED = """
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from operators.ct.projectors import triton_kernels
from samplers import philox_triton

real, byte, word = "*fp32", "*u8", "*i32"
kernels = [
    (triton_kernels.project, [real, real, byte, real, real, real, "i32", "i32", "i32"], {"BLOCK": 128}, {}),
    (triton_kernels.gather, [real] * 5 + [word] + ["i32"] * 6, {"BLOCK": 128}, {}),
    (philox_triton.normals, [real, "*i64", "*i64", "i32", "i32", "fp32"], {"SIZE": 256}, {"enable_fp_fusion": False}),
]
for capability in (80, 90):
    for kernel, types, fixed, options in kernels:
        signature = dict(zip(kernel.arg_names, types + ["constexpr"] * len(fixed), strict=True))
        places = {(kernel.arg_names.index(name),): value for name, value in fixed.items()}
        source = ASTSource(kernel, signature, constexprs=places)
        made = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
        assert f".target sm_{capability}" in made.asm["ptx"]
        assert len(made.asm["cubin"]) > 1000
        assert ".f64" not in made.asm["ptx"], kernel
        if options:  # rounded as on a CPU
            assert "fma." not in made.asm["ptx"] and "sqrt.rn" in made.asm["ptx"]
"""


def run(script: str, tmp_path: Path, interpret: bool) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "RECON_CACHE": "off", "TRITON_CACHE_DIR": str(tmp_path)}
    environment |= {"TRITON_INTERPRET": "1"} if interpret else {}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]


def test_projections_are_those_of_the_matrix(tmp_path: Path) -> None:
    run(PROJECTIONS, tmp_path, interpret=True)


def test_normals_are_the_same_bits(tmp_path: Path) -> None:
    run(NORMALS, tmp_path, interpret=True)


def test_kernels_compile_for_two_generations_of_cards(tmp_path: Path) -> None:
    run(COMPILED, tmp_path, interpret=False)
