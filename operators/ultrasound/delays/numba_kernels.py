"""Numba kernels of `operators.ultrasound.delays.numba_engine`; importing this module needs numba.

Complex numbers are pairs of reals on the last axis. Every loop over the pixels of an image row is either pure
arithmetic, which the compiler vectorises, or pure scattered access.
"""

from __future__ import annotations

import numpy as np
from numba import njit, prange

_FAST = {"reassoc", "contract", "arcp", "nsz"}


@njit(inline="always", fastmath=_FAST, error_model="numpy")
def _polynomial(coefficients, at, out):
    """Write a polynomial of ``at`` to ``out``, two powers per pass: one loop over all would not be vectorised."""
    d = coefficients.size - 1
    for i in range(at.size):
        out[i] = coefficients[d]
    if d % 2:
        d -= 1
        for i in range(at.size):
            out[i] = out[i] * at[i] + coefficients[d]
    while d > 0:
        d -= 2
        high, low = coefficients[d + 1], coefficients[d]
        for i in range(at.size):
            out[i] = (out[i] * at[i] + high) * at[i] + low


@njit(inline="always", fastmath=_FAST, error_model="numpy")
def _receive(x, z, across0, down, off2, strength, directivity, window, numbers, spreading, distance, weight, t, u):
    """Distance in samples and receive weight of one row of pixels; ``t`` and ``u`` are scratch space."""
    one, zero = numbers.dtype.type(1), numbers.dtype.type(0)
    ahead = max(down, zero)
    base = down * down + off2
    for i in range(x.size):
        across = x[i] - across0
        distance[i] = np.sqrt(across * across + base)
    if directivity.size:
        for i in range(x.size):
            sine = (x[i] - across0) / max(distance[i], one)
            t[i] = sine * sine
        _polynomial(directivity, t, weight)
        for i in range(x.size):
            weight[i] *= strength * ahead / max(distance[i], one)
    else:
        for i in range(x.size):
            weight[i] = strength
    if spreading == 1:
        for i in range(x.size):
            weight[i] *= np.sqrt(numbers[1] / max(distance[i], one))
    elif spreading == 2:
        for i in range(x.size):
            weight[i] *= numbers[1] / max(distance[i], one)
    if numbers[2] > zero:
        for i in range(x.size):
            weight[i] *= np.exp(-numbers[2] * distance[i])
    if numbers[0] > zero:
        if window.size:
            inverse = numbers[0] / max(ahead, numbers.dtype.type(1e-6))
            for i in range(x.size):
                ratio = (x[i] - across0) * inverse
                t[i] = min(ratio * ratio, one)
            _polynomial(window, t, u)
            for i in range(x.size):
                weight[i] *= u[i]
        edge = ahead * numbers.dtype.type(1 + 1e-5)  # as in torch_engine.EDGE
        for i in range(x.size):
            weight[i] = weight[i] if abs(x[i] - across0) * numbers[0] <= edge else zero


@njit(inline="always", fastmath=_FAST, error_model="numpy")
def _place(distance, weight, tx, tz, waves, cosine, sine, lowest, highest, start, fraction, real, imag):
    """Sample, fraction and complex weight of one row of pixels for one wave."""
    for i in range(distance.size):
        position = distance[i] + tx[i] + tz
        whole = np.floor(position)
        fraction[i] = position - whole
        start[i] = np.int32(min(max(whole, lowest), highest))
    _polynomial(cosine, fraction, real)
    _polynomial(sine, fraction, imag)
    for i in range(distance.size):
        real[i] *= weight[i]
        imag[i] *= weight[i]
    if waves.size:
        for i in range(distance.size):
            real[i] *= waves[i]
            imag[i] *= waves[i]


@njit(parallel=True, cache=True, fastmath=_FAST, error_model="numpy")
def scatter(
    image, out, x, z, elements, strengths, tx, tz, waves, directivity, window, cosine, sine, taps, tap_cos, tap_sin,
    first, numbers, spreading,
):  # fmt: skip
    """Spread image (batch, z, x, 2) into out (batch, angle, element, sample, 2)."""
    kind = image.dtype
    length, count = out.shape[3], taps.shape[0]
    group = tx.shape[0] if elements.shape[0] >= 16 else 1
    groups = -(-tx.shape[0] // group)
    lowest, highest = kind.type(-count - 2), kind.type(length + 2)
    pad = count + 2
    for item in prange(elements.shape[0] * groups):
        e, k0 = item % elements.shape[0], (item // elements.shape[0]) * group
        k1 = min(k0 + group, tx.shape[0])
        sums = np.zeros((image.shape[0], k1 - k0, length + 2 * pad + 1, count, 2), kind)
        rows = np.empty((6, x.size), kind)
        distance, weight, spare, fraction, real, imag = rows[0], rows[1], rows[2], rows[3], rows[4], rows[5]
        start = np.empty(x.size, np.int32)
        for j in range(z.size):
            _receive(
                x, z, elements[e, 0], z[j] - elements[e, 1], elements[e, 2] * elements[e, 2], strengths[e],
                directivity, window, numbers, spreading, distance, weight, spare, real,
            )  # fmt: skip
            for k in range(k0, k1):
                wave = waves[k, j] if waves.size else waves.reshape(-1)
                _place(distance, weight, tx[k], tz[k, j], wave, cosine, sine, lowest, highest, start, fraction, real,
                       imag)  # fmt: skip
                for b in range(image.shape[0]):
                    row, target = image[b, j], sums[b, k - k0]
                    if count == 2:
                        for i in range(x.size):
                            vr = row[i, 0] * real[i] - row[i, 1] * imag[i]
                            vi = row[i, 0] * imag[i] + row[i, 1] * real[i]
                            right = fraction[i]
                            left = 1 - right
                            n = start[i] + pad
                            target[n, 0, 0] += vr * left
                            target[n, 0, 1] += vi * left
                            target[n, 1, 0] += vr * right
                            target[n, 1, 1] += vi * right
                    else:
                        for i in range(x.size):
                            vr = row[i, 0] * real[i] - row[i, 1] * imag[i]
                            vi = row[i, 0] * imag[i] + row[i, 1] * real[i]
                            n, f = start[i] + pad, fraction[i]
                            for m in range(count):
                                tap = taps[m, taps.shape[1] - 1]
                                for d in range(taps.shape[1] - 2, -1, -1):
                                    tap = tap * f + taps[m, d]
                                target[n, m, 0] += vr * tap
                                target[n, m, 1] += vi * tap
        for b in range(image.shape[0]):
            for k in range(k0, k1):
                for n in range(length):
                    re, im = kind.type(0), kind.type(0)
                    for m in range(count):
                        source = n + pad - first - m
                        u, v = sums[b, k - k0, source, m, 0], sums[b, k - k0, source, m, 1]
                        re += u * tap_cos[m] - v * tap_sin[m]
                        im += u * tap_sin[m] + v * tap_cos[m]
                    out[b, k, e, n, 0], out[b, k, e, n, 1] = re, im


@njit(parallel=True, cache=True, fastmath=_FAST, error_model="numpy")
def _turn(data, first, tap_cos, tap_sin, pad, table):
    """Table (row, sample, tap, 2) of the samples that each tap reads, without the carrier between them."""
    length, count = data.shape[1], tap_cos.size
    for r in prange(data.shape[0]):
        table[r] = 0
        for m in range(count):
            for n in range(length):
                source = n + pad - first - m
                u, v = data[r, n, 0], data[r, n, 1]
                table[r, source, m, 0] = u * tap_cos[m] + v * tap_sin[m]
                table[r, source, m, 1] = v * tap_cos[m] - u * tap_sin[m]


@njit(parallel=True, cache=True, fastmath=_FAST, error_model="numpy")
def _gather(
    table, out, x, z, elements, strengths, tx, tz, waves, directivity, window, cosine, sine, taps, length, numbers,
    spreading, pad,
):  # fmt: skip
    kind = out.dtype
    count = taps.shape[0]
    lowest, highest = kind.type(-count - 2), kind.type(length + 2)
    for j in prange(z.size):
        rows = np.empty((6, x.size), kind)
        distance, weight, spare, fraction, real, imag = rows[0], rows[1], rows[2], rows[3], rows[4], rows[5]
        start = np.empty(x.size, np.int32)
        for e in range(elements.shape[0]):
            _receive(
                x, z, elements[e, 0], z[j] - elements[e, 1], elements[e, 2] * elements[e, 2], strengths[e],
                directivity, window, numbers, spreading, distance, weight, spare, real,
            )  # fmt: skip
            for k in range(tx.shape[0]):
                wave = waves[k, j] if waves.size else waves.reshape(-1)
                _place(distance, weight, tx[k], tz[k, j], wave, cosine, sine, lowest, highest, start, fraction, real,
                       imag)  # fmt: skip
                for b in range(out.shape[0]):
                    row, source = out[b, j], table[b, k, e]
                    if count == 2:
                        for i in range(x.size):
                            right = fraction[i]
                            left = 1 - right
                            n = start[i] + pad
                            vr = source[n, 0, 0] * left + source[n, 1, 0] * right
                            vi = source[n, 0, 1] * left + source[n, 1, 1] * right
                            row[i, 0] += vr * real[i] + vi * imag[i]
                            row[i, 1] += vi * real[i] - vr * imag[i]
                    else:
                        for i in range(x.size):
                            n, f = start[i] + pad, fraction[i]
                            vr, vi = kind.type(0), kind.type(0)
                            for m in range(count):
                                tap = taps[m, taps.shape[1] - 1]
                                for d in range(taps.shape[1] - 2, -1, -1):
                                    tap = tap * f + taps[m, d]
                                vr += source[n, m, 0] * tap
                                vi += source[n, m, 1] * tap
                            row[i, 0] += vr * real[i] + vi * imag[i]
                            row[i, 1] += vi * real[i] - vr * imag[i]


def gather(
    data, out, x, z, elements, strengths, tx, tz, waves, directivity, window, cosine, sine, taps, tap_cos, tap_sin,
    first, numbers, spreading,
):  # fmt: skip
    """Sum data (batch, angle, element, sample, 2) into out (batch, z, x, 2); the adjoint of `scatter`."""
    length, pad = data.shape[3], taps.shape[0] + 2
    table = np.empty((*data.shape[:3], length + 2 * pad + 1, taps.shape[0], 2), data.dtype)
    rows = data.shape[0] * data.shape[1] * data.shape[2]
    _turn(data.reshape(rows, length, 2), first, tap_cos, tap_sin, pad, table.reshape(rows, *table.shape[3:]))
    _gather(
        table, out, x, z, elements, strengths, tx, tz, waves, directivity, window, cosine, sine, taps, length, numbers,
        spreading, pad,
    )  # fmt: skip
