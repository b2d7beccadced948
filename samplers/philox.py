"""Philox4x32-10 and standard normals from it: numbers that are a function of a key and a place in the stream.

The counter is ``(block, draw, 0, 0)``: block number b of draw number d holds the numbers 4 b to 4 b + 3. Nothing is
carried from one number to the next, so any device computes any part of a stream, in any order, to the same integers.
In single precision normals are also the same bits everywhere: the three implementations (torch, numba, Triton) do the
same additions, products and roots in the same order, and none of them may fuse a product with an addition.

References
----------
Salmon, Moraes, Dror & Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

ROUNDS = 10
MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
WEYL = (0x9E3779B9, 0xBB67AE85)
_LOW = 0xFFFFFFFF
#: ``log(1 + t) = t - t^2 / 2 + t^3 P(t)`` between the roots of 1/2 and of 2 (Cephes, logf), highest power first.
LOG = (
    *(7.0376836292e-2, -1.1514610310e-1, 1.1676998740e-1, -1.2420140846e-1, 1.4249322787e-1),
    *(-1.6668057665e-1, 2.0000714765e-1, -2.4999993993e-1, 3.3333331174e-1),
)
#: Least-maximum fits of ``sin(pi w / 2) / w`` (to 3e-9) and ``cos(pi w / 2)`` (2e-10) in w^2 for ``|w| <= 1``.
SINE = (1.5082262935e-4, -4.6722329002e-3, 7.9688484656e-2, -6.4596336120e-1, 1.5707962902)
COSINE = (-2.3824918519e-5, 9.1772484018e-4, -2.0862688387e-2, 2.5366932277e-1, -1.2337005343, 9.9999999978e-1)
LOG2 = math.log(2)
#: Bits of the root of 1/2 in single precision, and of 1 minus those.
ROOT_HALF, TO_ROOT = 0x3F3504F3, 0x3F800000 - 0x3F3504F3
_CHUNK = 1 << 16  # blocks at a time on a CPU


class Stream(NamedTuple):
    """What a draw takes: the keys of its samples, two 32-bit words each, and its number.

    ``placed`` are the keys on the device of the numbers, if that is not the CPU (`place_keys`).
    """

    keys: Sequence[tuple[int, int]]
    draw: int
    placed: tuple[Tensor, Tensor] | None = None


def philox(counter: Sequence[Any], key: Sequence[Any]) -> list[Any]:
    """Return four random 32-bit words for each counter (four words) and key (two).

    All are int64, tensors or numpy arrays, and broadcast; of at least one element, since a product must wrap around.
    """
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(ROUNDS):
        # A product of 64 bits wraps around, which keeps its bits; what is above the low 32 is dropped when it matters.
        first, second = c0 * MULTIPLIERS[0], c2 * MULTIPLIERS[1]
        c0, c1 = ((second >> 32) ^ (c1 ^ k0)) & _LOW, second
        c2, c3 = ((first >> 32) ^ (c3 ^ k1)) & _LOW, first
        k0, k1 = (k0 + WEYL[0]) & _LOW, (k1 + WEYL[1]) & _LOW
    return [c0, c1 & _LOW, c2, c3 & _LOW]


def normals(stream: Stream, out: Tensor, power: float) -> None:
    """Fill ``out`` with normals, on any device.

    Parameters
    ----------
    stream : Stream
    out : Tensor, float32 or float64, shape ``(sample, 4 n)``
    power : float
        Sum of the mean squares of two numbers: 2 for standard normals, 1 for the parts of complex ones.
    """
    blocks = out.shape[1] // 4
    step = max(_CHUNK // len(out), 1) if out.device.type == "cpu" else max(blocks, 1)
    for begin in range(0, blocks, step):
        end = min(begin + step, blocks)
        a, b, c, d = _words(stream, begin, end, out.device)
        pair = _pair if out.dtype == torch.float32 else _wide_pair
        x, y = pair(torch.stack([a, c], dim=-1), torch.stack([b, d], dim=-1), power)
        here = out[:, 4 * begin : 4 * end].unflatten(1, (-1, 2, 2))
        here[..., 0], here[..., 1] = x, y


def _words(stream: Stream, begin: int, end: int, device: torch.device) -> list[Tensor]:
    """Return the words of some blocks, each ``(sample, block)``; on a CPU by numpy, whose integers are faster."""
    if device.type == "cpu":
        rest = [np.array([value], np.int64) for value in (stream.draw, 0, 0)]
        keys = np.array(stream.keys, np.int64).reshape(-1, 2).T[..., None]
        return [torch.from_numpy(word) for word in philox([np.arange(begin, end), *rest], keys)]
    block = torch.arange(begin, end, device=device)
    fixed = [torch.full((1,), value, dtype=torch.int64, device=device) for value in (stream.draw, 0, 0)]
    return philox([block, *fixed], stream.placed or place_keys(stream.keys, device))


def place_keys(keys: Sequence[tuple[int, int]], device: torch.device) -> tuple[Tensor, Tensor]:
    """Return the first and second words of the keys, each ``(sample, 1)``; by fills: a copy would wait for a GPU."""
    words = [[torch.full((1,), word, dtype=torch.int64, device=device) for word in key] for key in keys]
    first, second = zip(*words, strict=True)
    return torch.stack(first), torch.stack(second)


def _pair(a: Tensor, b: Tensor, power: float) -> tuple[Tensor, Tensor]:
    """Return two independent normals from two words (Box & Muller): radius from a, direction from b."""
    uniform = a.float() + 0.5  # 2^32 times a uniform number
    bits = uniform.view(torch.int32) + TO_ROOT
    exponent = (bits >> 23) - 127
    t = ((bits & 0x7FFFFF) + ROOT_HALF).view(torch.float32) - 1.0
    square = t * t
    log = t + (t * square * _polynomial(LOG, t) - 0.5 * square)
    radius = _root(((32 - exponent).float() * LOG2 - log) * power)
    radius = radius * (1.0 - 2.0 * (b >> 31).float())
    w = ((b & 0x7FFFFFFF) - (1 << 30)).float() * 2.0**-30
    square = w * w
    return radius * _polynomial(COSINE, square), radius * (w * _polynomial(SINE, square))


def _root(x: Tensor) -> Tensor:
    """Return the correctly rounded root, which torch's own is not on a CPU."""
    return x.sqrt() if x.device.type == "mps" else x.double().sqrt().float()


def _polynomial(coefficients: Sequence[float], at: Tensor) -> Tensor:
    value = at * coefficients[0] + coefficients[1]
    for coefficient in coefficients[2:]:
        value = value * at + coefficient
    return value


def _wide_pair(a: Tensor, b: Tensor, power: float) -> tuple[Tensor, Tensor]:
    """Return the same in double precision: the normals of `_pair` without their rounding."""
    radius = (((32 * LOG2) - (a.double() + 0.5).log()) * power).sqrt() * (1.0 - 2.0 * (b >> 31).double())
    angle = ((b & 0x7FFFFFFF) - (1 << 30)).double() * (math.pi / 2 * 2.0**-30)
    return radius * angle.cos(), radius * angle.sin()
