"""Triton kernel of `samplers.noise`: the numbers of `samplers.philox` on a GPU; importing this file needs Triton.

Launched with ``enable_fp_fusion=False``: a fused product and sum would round differently from the other devices.
"""

# mypy: ignore-errors
import importlib

import torch

from samplers import philox

triton = importlib.import_module("triton")
tl = importlib.import_module("triton.language")

BLOCK = 256
M0, M1 = (tl.constexpr(value) for value in philox.MULTIPLIERS)
W0, W1 = (tl.constexpr(value) for value in philox.WEYL)
L0, L1, L2, L3, L4, L5, L6, L7, L8 = (tl.constexpr(value) for value in philox.LOG)
S0, S1, S2, S3, S4 = (tl.constexpr(value) for value in philox.SINE)
C0, C1, C2, C3, C4, C5 = (tl.constexpr(value) for value in philox.COSINE)
LOG2, UNIT = tl.constexpr(philox.LOG2), tl.constexpr(2.0**-30)
TO_ROOT, ROOT_HALF = tl.constexpr(philox.TO_ROOT), tl.constexpr(philox.ROOT_HALF)


@triton.jit
def words(block, draw, key0, key1):
    """Return the four words of each block."""
    c0 = block.to(tl.uint32)
    c1 = tl.zeros_like(c0) + draw.to(tl.uint32)
    c2, c3 = tl.zeros_like(c0), tl.zeros_like(c0)
    k0, k1 = key0.to(tl.uint32), key1.to(tl.uint32)
    for _ in tl.static_range(10):
        first, second = c0.to(tl.uint64) * M0, c2.to(tl.uint64) * M1
        c0, c1 = (second >> 32).to(tl.uint32) ^ c1 ^ k0, second.to(tl.uint32)
        c2, c3 = (first >> 32).to(tl.uint32) ^ c3 ^ k1, first.to(tl.uint32)
        k0, k1 = (k0 + W0).to(tl.uint32), (k1 + W1).to(tl.uint32)
    return c0, c1, c2, c3


@triton.jit
def pair(a, b, power):
    """Return two normals of two words, as `samplers.philox` does."""
    uniform = a.to(tl.float32) + 0.5
    bits = uniform.to(tl.int32, bitcast=True) + TO_ROOT
    exponent = (bits >> 23) - 127
    t = ((bits & 0x7FFFFF) + ROOT_HALF).to(tl.float32, bitcast=True) - 1.0
    square = t * t
    p = (((((((t * L0 + L1) * t + L2) * t + L3) * t + L4) * t + L5) * t + L6) * t + L7) * t + L8
    log = t + (t * square * p - 0.5 * square)
    radius = tl.sqrt_rn(((32 - exponent).to(tl.float32) * LOG2 - log) * power)
    radius = radius * (1.0 - 2.0 * (b >> 31).to(tl.float32))
    w = ((b & 0x7FFFFFFF).to(tl.int32) - 0x40000000).to(tl.float32) * UNIT
    square = w * w
    c = ((((square * C0 + C1) * square + C2) * square + C3) * square + C4) * square + C5
    s = (((square * S0 + S1) * square + S2) * square + S3) * square + S4
    return radius * c, radius * (w * s)


@triton.jit(do_not_specialize=["draw"])  # as a constant, 1 would have no type
def normals(out, keys0, keys1, draw, blocks, power, SIZE: tl.constexpr):
    """Fill ``out (sample, 4 blocks)``; one program for a sample and SIZE blocks."""
    sample = tl.program_id(1).to(tl.int64)
    block = tl.program_id(0) * SIZE + tl.arange(0, SIZE)
    live = block < blocks
    a, b, c, d = words(block, draw, tl.load(keys0 + sample), tl.load(keys1 + sample))
    x0, y0 = pair(a, b, power)
    x1, y1 = pair(c, d, power)
    place = out + sample * 4 * blocks + 4 * block.to(tl.int64)
    tl.store(place, x0, mask=live)
    tl.store(place + 1, y0, mask=live)
    tl.store(place + 2, x1, mask=live)
    tl.store(place + 3, y1, mask=live)


def launch(stream, out, power):
    """Fill a tensor on a GPU, see `samplers.philox.normals`."""
    blocks = out.shape[1] // 4
    keys = stream.placed or philox.place_keys(stream.keys, out.device)
    grid = (-(-blocks // BLOCK), len(out))
    with torch.cuda.device_of(out):  # Triton launches on the current GPU, which need not be that of the tensor
        normals[grid](out, *keys, stream.draw, blocks, power, BLOCK, enable_fp_fusion=False)
