"""Conformal risk control: how much an interval must be stretched to reach its nominal coverage.

With mean m and standard deviation s of the magnitudes of the samples, ``z = |x - m| / max(s, floor)`` of the pixels of
images whose truth x is known decides the factor lambda of the interval ``m -+ lambda s``. The risk of an image is the
fraction of its pixels that lie outside. Nothing is assumed about prior and sampler: the guarantee holds even if both
are wrong, for images exchangeable with those of the calibration, on average over images and pixels; neither for each
pixel nor for each patient.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter
from scipy.special import bdtr

from recon.errors import InputError
from recon.metrics import brightness

METHODS = ("crc", "rcps")
RCPS_LEAST = 200


def spread_map(std: NDArray, white: float, smoothing: int = 1, floor: float = 1e-3) -> NDArray[np.float64]:
    """Return the spread that scales an interval: ``max(sqrt(mean of std^2 over k x k), floor * white)``.

    Parameters
    ----------
    std : array, ``([slice,] y, x)``
        Standard deviation of the magnitudes.
    white : float
        Brightness of the image (see `white_level`); the floor is relative to it, so that units do not matter.
    smoothing : int
        Odd side k of the window, in the plane of a slice. The variance of few samples is noisy; the mean over 5 x 5
        pixels is less so, at the price of resolution. 1 does not average.
    floor : float
        Least width of an interval (times lambda), where the samples agree perfectly.
    """
    check_smoothing(smoothing)
    if not (math.isfinite(floor) and floor > 0):
        raise InputError(f"floor must be finite and above 0, got {floor}")
    variance = np.square(np.asarray(std, dtype=np.float64))
    if smoothing > 1:
        size = (1,) * (variance.ndim - 2) + (smoothing, smoothing)
        variance = uniform_filter(variance, size, mode="nearest").clip(min=0)
    return np.maximum(np.sqrt(variance), max(floor * white, np.finfo(np.float64).tiny))


def white_level(mean: NDArray) -> float:
    """Return the brightness of an image: the .99 quantile of its mean above the air. No reference is needed."""
    return brightness(mean)


def allowed_risk(n: int, level: float, method: str = "crc", delta: float = 0.1) -> float:
    """Return the largest mean risk over n calibration images for which the guarantee still holds.

    "crc": ``n/(n+1) R + 1/(n+1) <= alpha`` with ``alpha = 1 - level`` bounds the expected risk of a new image.
    "rcps": the Hoeffding-Bentkus upper bound of the risk at confidence ``1 - delta`` stays below alpha, so that with
    probability ``1 - delta`` over the calibration images the risk is bounded.

    Raises
    ------
    InputError
        If n images are too few for the level, or for "rcps" (at least 200), or an argument is out of range.

    Source: Angelopoulos, Bates, Fisch, Lei & Schuster, "Conformal risk control", ICLR 2024, theorem 1; Bates,
    Angelopoulos, Lei, Malik & Jordan, "Distribution-free, risk-controlling prediction sets", J. ACM 68 (2021),
    theorem 1 and proposition 6.
    """
    check_method(level, method, delta)
    alpha = 1 - level
    if method == "crc":
        risk = ((n + 1) * alpha - 1) / n if n else -1.0
        if risk < -1e-12:
            raise InputError(
                f"level {level:g} needs at least {least_images(level, method)} calibration images, got {n}"
            )
        return max(risk, 0.0)
    if n < RCPS_LEAST:
        raise InputError(f"rcps needs at least {RCPS_LEAST} calibration images, got {n}; use crc, or more images")
    return _hoeffding_bentkus(n, alpha, delta)


def least_images(level: float, method: str = "crc") -> int:
    """Return how many calibration images a level needs: ``1 / alpha - 1`` for "crc", 200 for "rcps"."""
    return RCPS_LEAST if method == "rcps" else max(1, math.ceil(1 / (1 - level) - 1 - 1e-9))


def smallest_factor(scores: Sequence[NDArray], risk: float) -> float:
    """Return the smallest lambda whose risk, the mean over images of the fraction with ``z > lambda``, is allowed.

    Parameters
    ----------
    scores : sequence of array
        z of each image; every image counts the same, whatever its number of pixels.
    risk : float
        Allowed mean risk, from `allowed_risk`.
    """
    pooled = np.concatenate([np.ravel(image) for image in scores])
    weights = np.concatenate([np.full(np.size(image), 1 / (len(scores) * np.size(image))) for image in scores])
    order = np.argsort(pooled)[::-1]
    outside = np.cumsum(weights[order])
    # With lambda = the k-th largest score (from 0), the k larger ones are outside; equal scores are inside together.
    k = int(np.searchsorted(outside, risk + 1e-12, side="right"))
    return float(pooled[order[k]]) if k < len(order) else 0.0


def check_method(level: float, method: str, delta: float) -> None:
    """Refuse an invalid level, method or delta."""
    if not 0 < level < 1:
        raise InputError(f"level must be between 0 and 1, got {level}")
    if method not in METHODS:
        raise InputError(f"method must be one of {', '.join(METHODS)}, got {method!r}")
    if not 0 < delta < 1:
        raise InputError(f"delta must be between 0 and 1, got {delta}")


def check_smoothing(smoothing: int) -> None:
    """Refuse an even or empty window."""
    if smoothing < 1 or smoothing % 2 == 0:
        raise InputError(f"smoothing must be an odd number of pixels (1 for none), got {smoothing}")


def _hoeffding_bentkus(n: int, alpha: float, delta: float) -> float:
    """Return the largest mean risk R with ``min(exp(-n h(R, alpha)), e P(Bin(n, alpha) <= ceil(n R))) <= delta``."""
    goal = math.log(1 / delta) / n
    if _divergence(0.0, alpha) < goal:
        hoeffding = -1.0
    else:
        low, high = 0.0, alpha  # the divergence falls from R = 0 to 0 at R = alpha
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (middle, high) if _divergence(middle, alpha) >= goal else (low, middle)
        hoeffding = low
    counts = np.arange(n + 1)
    passed = counts[math.e * bdtr(counts, n, alpha) <= delta]
    bentkus = passed[-1] / n if len(passed) else -1.0
    risk = max(hoeffding, bentkus)
    if risk < 0:
        raise InputError(f"{n} calibration images are too few for level {1 - alpha:g} with delta {delta:g}; use more")
    return float(risk)


def _divergence(a: float, b: float) -> float:
    """Return the relative entropy of Bernoulli(a) from Bernoulli(b)."""
    first = a * math.log(a / b) if a > 0 else 0.0
    second = (1 - a) * math.log((1 - a) / (1 - b)) if a < 1 else 0.0
    return first + second
