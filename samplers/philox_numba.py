"""Numba kernel of `samplers.noise`: the numbers of `samplers.philox`, bit by bit; importing this file needs numba.

It runs on one thread, so that numba starts no thread pool, which would change torch's number of threads.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from samplers import philox

_M0, _M1 = (np.uint64(value) for value in philox.MULTIPLIERS)
_W0, _W1 = (np.uint32(value) for value in philox.WEYL)
_HIGH = np.uint64(32)
_LOG = np.array(philox.LOG, np.float32)
_SINE, _COSINE = np.array(philox.SINE, np.float32), np.array(philox.COSINE, np.float32)
_LOG2, _HALF, _ONE, _TWO = np.float32(philox.LOG2), np.float32(0.5), np.float32(1), np.float32(2)
_UNIT = np.float32(2.0**-30)
_TO_ROOT, _ROOT = np.int32(philox.TO_ROOT), np.int32(philox.ROOT_HALF)
_MANTISSA, _SHIFT, _BIAS = np.int32(0x7FFFFF), np.int32(23), np.int32(127)
_SIGN, _DIRECTION, _MIDDLE = np.uint32(31), np.uint32(0x7FFFFFFF), np.int32(1 << 30)
_WIDTH = 256  # blocks at a time: short loops over arrays in the cache, which the compiler vectorises


@njit(inline="always")
def _words(first, draw, key0, key1, words):
    """Write the four words of the blocks from ``first`` on."""
    for i in range(_WIDTH):
        c0, c1, c2, c3 = np.uint32(first + i), draw, np.uint32(0), np.uint32(0)
        k0, k1 = key0, key1
        for _ in range(10):
            one, two = np.uint64(c0) * _M0, np.uint64(c2) * _M1
            c0, c1 = np.uint32(two >> _HIGH) ^ c1 ^ k0, np.uint32(two)
            c2, c3 = np.uint32(one >> _HIGH) ^ c3 ^ k1, np.uint32(one)
            k0, k1 = np.uint32(k0 + _W0), np.uint32(k1 + _W1)
        words[0, i], words[1, i], words[2, i], words[3, i] = c0, c1, c2, c3


@njit(inline="always")
def _pair(a, b, power, uniform, bits, x, y):
    """Write two normals for each pair of words; ``bits`` are those of ``uniform``."""
    for i in range(_WIDTH):
        uniform[i] = np.float32(a[i]) + _HALF
    for i in range(_WIDTH):
        shifted = np.int32(bits[i] + _TO_ROOT)
        y[i] = np.float32(np.int32(32) - ((shifted >> _SHIFT) - _BIAS))
        bits[i] = (shifted & _MANTISSA) + _ROOT
    for i in range(_WIDTH):
        t = uniform[i] - _ONE
        square = t * t
        p = t * _LOG[0] + _LOG[1]
        for k in range(2, 9):
            p = p * t + _LOG[k]
        log = t + (t * square * p - _HALF * square)
        radius = np.sqrt((y[i] * _LOG2 - log) * power)
        radius = radius * (_ONE - _TWO * np.float32(b[i] >> _SIGN))
        w = np.float32(np.int32(b[i] & _DIRECTION) - _MIDDLE) * _UNIT
        square = w * w
        c = square * _COSINE[0] + _COSINE[1]
        for k in range(2, 6):
            c = c * square + _COSINE[k]
        s = square * _SINE[0] + _SINE[1]
        for k in range(2, 5):
            s = s * square + _SINE[k]
        x[i] = radius * c
        y[i] = radius * (w * s)


@njit("void(uint32, uint32, uint32, float32, float32[:, ::1])", cache=True)  # compiled when it is imported
def normals(key0, key1, draw, power, out):
    """Fill ``out``, shape ``(block, 4)``, with normals of one sample."""
    words = np.empty((4, _WIDTH), np.uint32)
    uniform = np.empty(_WIDTH, np.float32)
    bits = uniform.view(np.int32)
    pairs = np.empty((4, _WIDTH), np.float32)
    for first in range(0, out.shape[0], _WIDTH):
        _words(first, draw, key0, key1, words)
        _pair(words[0], words[1], power, uniform, bits, pairs[0], pairs[1])
        _pair(words[2], words[3], power, uniform, bits, pairs[2], pairs[3])
        for i in range(min(_WIDTH, out.shape[0] - first)):
            for k in range(4):
                out[first + i, k] = pairs[k, i]
