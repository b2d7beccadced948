"""Triton kernels of `operators.ct.projectors.triton`; importing this file needs Triton."""

# mypy: ignore-errors
import importlib

triton = importlib.import_module("triton")
tl = importlib.import_module("triton.language")


@triton.jit
def project(image, out, by_row, start, slope, weight, rays, ny, nx, BLOCK: tl.constexpr):
    """Sum one image along a block of rays."""
    item = tl.program_id(1).to(tl.int64)
    ray = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    live = ray < rays
    rows = tl.load(by_row + ray, mask=live, other=1) != 0
    first = tl.load(start + ray, mask=live, other=0.0)
    tilt = tl.load(slope + ray, mask=live, other=0.0)
    length = tl.load(weight + ray, mask=live, other=0.0)
    steps, width = tl.where(rows, ny, nx), tl.where(rows, nx, ny)
    stride, across = tl.where(rows, nx, 1), tl.where(rows, 1, nx)
    middle, offset = (steps - 1) * 0.5, (width - 1) * 0.5
    total = tl.zeros((BLOCK,), tl.float32)
    base = image + item * ny * nx
    for k in range(0, tl.maximum(ny, nx)):
        position = first + tilt * (k - middle) + offset
        position = tl.minimum(tl.maximum(position, -2.0), width + 1.0)
        lower = tl.floor(position)
        fraction = position - lower
        left = lower.to(tl.int32)
        inside = live & (k < steps)
        a = tl.load(base + k * stride + left * across, mask=inside & (left >= 0) & (left < width), other=0.0)
        right = left + 1
        b = tl.load(base + k * stride + right * across, mask=inside & (right >= 0) & (right < width), other=0.0)
        total += a + fraction * (b - a)
    tl.store(out + item * rays + ray, total * length, mask=live)


@triton.jit
def gather(data, out, start, slope, weight, runs, n_runs, rays, ny, nx, reach, bisections, BLOCK: tl.constexpr):
    """Collect, for a block of pixels of one image, the rays within one pixel."""
    item = tl.program_id(1).to(tl.int64)
    pixel = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    live = pixel < ny * nx
    row = (pixel // nx) - (ny - 1) * 0.5
    column = (pixel % nx) - (nx - 1) * 0.5
    total = tl.zeros((BLOCK,), tl.float32)
    base = data + item * rays
    for run in range(0, n_runs):
        first, last = tl.load(runs + 4 * run), tl.load(runs + 4 * run + 1)
        rows, rising = tl.load(runs + 4 * run + 2) != 0, tl.load(runs + 4 * run + 3) != 0
        step, place = tl.where(rows, row, column), tl.where(rows, column, row)
        low, high = tl.zeros((BLOCK,), tl.int32) + first, tl.zeros((BLOCK,), tl.int32) + last
        for _ in range(0, bisections):
            middle = tl.minimum((low + high) // 2, last - 1)
            position = tl.load(start + middle) + tl.load(slope + middle) * step
            before = tl.where(rising, position <= place - 1, position >= place + 1)
            unfinished = low < high
            low = tl.where(unfinished & before, middle + 1, low)
            high = tl.where(unfinished & (before == 0), middle, high)
        for k in range(0, reach):
            ray = tl.minimum(low + k, last - 1)
            distance = tl.load(start + ray) + tl.load(slope + ray) * step - place
            hat = tl.maximum(1.0 - tl.abs(distance), 0.0) * tl.load(weight + ray)
            total += tl.where(low + k < last, hat * tl.load(base + ray), 0.0)
    tl.store(out + item * ny * nx + pixel, total, mask=live)
