"""Images as text in a page: whole numbers, each as its difference from its neighbours, deflated, in base64.

A browser inflates them by itself (`DecompressionStream`) and `planes.js` undoes the rest. Pictures on a canvas would be
shorter to write, but they hold 8 bits, and browsers that resist fingerprinting change the pixels that a script reads.
"""

from __future__ import annotations

import base64
import itertools
import zlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

#: With fewer bits this fraction of the numbers is for the values that matter most.
DENSE_BELOW_BITS, DENSE = 12, 0.6


@dataclass(frozen=True)
class Scale:
    """Whole numbers for values: 1 to ``2**bits - 1``, evenly spaced between knots ``(number, value)``; 0 is none."""

    bits: int
    knots: tuple[tuple[int, float], ...]

    def codes(self, image: NDArray) -> NDArray[np.uint16]:
        """Return the nearest whole numbers, 0 where the image is not finite."""
        numbers, values = zip(*self.knots, strict=True)
        known = np.isfinite(image)
        return np.where(known, np.rint(np.interp(np.where(known, image, values[0]), values, numbers)), 0).astype(
            np.uint16
        )

    def steps(self) -> list[float]:
        """Return the difference of neighbouring values between the knots; a value is off by half of it at most."""
        pairs = itertools.pairwise(self.knots)
        return [(high - low) / (end - start) for (start, low), (end, high) in pairs]


def make_scale(low: float, high: float, dense: tuple[float, float], bits: int) -> Scale:
    """Return a scale from ``low`` to ``high`` which, with few bits, is finer inside ``dense``."""
    high = high if high > low else low + (abs(low) or 1.0)
    start, end = (min(max(value, low), high) for value in dense)
    last, outside = 2**bits - 1, (high - low) - (end - start)
    if bits >= DENSE_BELOW_BITS or end <= start or outside < (1 - DENSE) * (high - low):
        return Scale(bits, ((1, low), (last, high)))
    free = round((1 - DENSE) * (last - 1))
    below = min(max(round(free * (start - low) / outside), int(start > low)), free - int(end < high))
    knots = ((1, low), (1 + below, start), (last - free + below, end), (last, high))
    return Scale(bits, tuple(knot for k, knot in enumerate(knots) if k == 0 or knot[0] > knots[k - 1][0]))


def encode(image: NDArray, scale: Scale) -> str:
    """Return an image ``(y, x)`` as text.

    A number is predicted as the mean of its left and upper neighbour; the error of the prediction is folded (0, -1, 1,
    -2, ... become 0, 1, 2, 3, ...), and all low bytes precede all high bytes, if any.
    """
    codes = scale.codes(image).astype(np.int32)
    left, upper = np.zeros_like(codes), np.zeros_like(codes)
    left[:, 1:], upper[1:] = codes[:, :-1], codes[:-1]
    left[:, 0] = upper[:, 0]
    upper[0] = left[0]
    width = 8 if scale.bits <= 8 else 16
    error = codes - (left + upper) // 2
    error = (error + 2 ** (width - 1)) % 2**width - 2 ** (width - 1)
    folded = np.where(error < 0, -2 * error - 1, 2 * error).astype(np.uint16)
    content = (folded & 255).astype(np.uint8).tobytes()
    if width == 16:
        content += (folded >> 8).astype(np.uint8).tobytes()
    # Of noise only the frequency of the numbers can be used: run lengths and Huffman's code alone are as small as all
    # that zlib can do, in a tenth of the time.
    deflate = zlib.compressobj(6, zlib.DEFLATED, zlib.MAX_WBITS, zlib.DEF_MEM_LEVEL, zlib.Z_RLE)
    return base64.b64encode(deflate.compress(content) + deflate.flush()).decode("ascii")
