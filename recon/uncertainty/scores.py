"""Samples against a truth: coverage, spread, CRPS, ranks, TARP.

Every function takes samples ``(n, ...)`` and a truth ``(...)``. Complex arrays are compared by magnitude, as in
`recon.metrics`. Numbers over the pixels of one image are correlated: compare them between methods, and take p-values
seriously only for independent items.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import chdtrc, stdtrit

from recon.checks import finite, same_shape, support_of
from recon.errors import InputError, ShapeError

#: Levels at which a coverage curve is drawn.
LEVELS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
Array = NDArray[np.float64]


class Bins(NamedTuple):
    """Spread and error of the pixels, grouped by their predicted spread; each array has one value per bin.

    ``spread`` is the root mean of ``(1 + 1/n) std^2``, ``error`` the root mean of ``|mean - truth|^2``, ``pixels``
    their number; calibrated samples have ``spread = error`` in every bin.
    """

    spread: Array
    error: Array
    pixels: NDArray[np.int64]


class Ranks(NamedTuple):
    """How often each rank of the truth among n samples occurred, ``counts`` ``(n + 1,)``, and a uniformity test."""

    counts: NDArray[np.int64]
    chi2: float
    p_value: float


class Expected(NamedTuple):
    """Coverage ``covered`` observed at credibility ``levels``; calibrated samples have ``covered = levels``."""

    levels: Array
    covered: Array


def coverage_curve(
    samples: ArrayLike,
    truth: ArrayLike,
    levels: Sequence[float] = LEVELS,
    support: ArrayLike | None = None,
    mean: ArrayLike | None = None,
) -> Expected:
    """Coverage of the central Student intervals (`Posterior.interval`) at several levels.

    The fraction of pixels with ``|truth - m| <= t_{n-1, (1+level)/2} sqrt(1 + 1/n) s``.

    Parameters
    ----------
    samples : array_like, ``(n, ...)``, n >= 2
    truth : array_like, ``(...)``
    levels : sequence of float
        Between 0 and 1.
    support : array_like of bool, optional
        Count only where true.
    mean : array_like, ``(...)``, optional
        ``m``, if a better estimate than the average of the samples is known (`Posterior.mean`).
    """
    wanted = np.asarray(levels, dtype=float)
    if wanted.size == 0 or not ((wanted > 0) & (wanted < 1)).all():
        raise InputError(f"coverage_curve: levels must be between 0 and 1, got {list(levels)}")
    drawn, target = pairs(samples, truth, support)
    n = len(drawn)
    error, spread = (
        np.abs(_centre(drawn, mean, truth, support) - target),
        np.sqrt(1 + 1 / n) * drawn.std(axis=0, ddof=1),
    )
    inside = [np.mean(error <= stdtrit(n - 1, (1 + level) / 2) * spread) for level in wanted]
    return Expected(wanted, np.array(inside))


def spread_skill_bins(
    samples: ArrayLike,
    truth: ArrayLike,
    bins: int = 10,
    support: ArrayLike | None = None,
    mean: ArrayLike | None = None,
) -> Bins:
    """Predicted spread against the actual error, in bins of equally many pixels sorted by their spread.

    The error is that of ``mean``, by default of the average of the samples. The single number over all
    pixels is `recon.metrics.spread_skill`. Source: Fortin et al., "Why should ensemble spread match the RMSE of the
    ensemble mean?", J. Hydrometeorol. 15 (2014), equation 15 (the factor 1 + 1/n).
    """
    if bins < 1:
        raise InputError(f"spread_skill_bins: expected bins >= 1, got {bins}")
    drawn, target = pairs(samples, truth, support)
    variance = (1 + 1 / len(drawn)) * drawn.var(axis=0, ddof=1)
    squared = np.square(_centre(drawn, mean, truth, support) - target)
    groups = [part for part in np.array_split(np.argsort(variance, kind="stable"), bins) if len(part)]
    return Bins(
        np.sqrt([variance[part].mean() for part in groups]),
        np.sqrt([squared[part].mean() for part in groups]),
        np.array([len(part) for part in groups]),
    )


def ence(
    samples: ArrayLike,
    truth: ArrayLike,
    bins: int = 10,
    support: ArrayLike | None = None,
    mean: ArrayLike | None = None,
) -> float:
    """Expected normalised calibration error: the mean over bins of ``|spread - error| / spread``; 0 is calibrated.

    Bins without spread count as infinitely wrong unless they have no error either. Source: Levi, Gispan, Giladi &
    Fetaya, "Evaluating and calibrating uncertainty prediction in regression tasks", Sensors 22 (2022), equation 8.
    """
    found = spread_skill_bins(samples, truth, bins, support, mean)
    gap = np.abs(found.spread - found.error)
    relative = np.divide(gap, found.spread, out=np.where(gap > 0, np.inf, 0.0), where=found.spread > 0)
    return float(relative.mean())


def fair_crps(samples: ArrayLike, truth: ArrayLike, support: ArrayLike | None = None) -> float:
    """Continuous ranked probability score, mean over pixels, in the units of the image; smaller is better.

    ``mean_k |x_k - y| - sum_{j<k} |x_j - x_k| / (n (n - 1))``: unbiased for the score of the distribution that the
    samples come from, so that different numbers of samples can be compared. Source: Ferro, "Fair scores for ensemble
    forecasts", Q. J. R. Meteorol. Soc. 140 (2014), section 4.
    """
    drawn, target = pairs(samples, truth, support)
    n = len(drawn)
    ordered = np.sort(drawn, axis=0)
    weights = 2.0 * np.arange(n) - (n - 1)  # in sorted order, sum_{j<k} |x_j - x_k| is linear
    differences = np.tensordot(weights, ordered, axes=1)
    return float(np.mean(np.abs(drawn - target).mean(axis=0) - differences / (n * (n - 1))))


def rank_histogram(samples: ArrayLike, truth: ArrayLike, support: ArrayLike | None = None, *, seed: int = 0) -> Ranks:
    """How often the truth has each rank among the samples; flat if they come from the same distribution.

    A U shape means under-dispersion, a hump over-dispersion, a slope a bias. Ties are broken by a seeded draw. With one
    scalar statistic for each of many simulated measurements, samples ``(n, simulation)`` and truth ``(simulation,)``,
    this is simulation-based calibration, and the p-value of the chi^2 test (n degrees of freedom) holds; neighbouring
    pixels are correlated and make it too small. Source: Talts et al., "Validating Bayesian inference algorithms with
    simulation-based calibration", arXiv:1804.06788, algorithm 1.
    """
    drawn, target = pairs(samples, truth, support)
    n = len(drawn)
    below, ties = (drawn < target).sum(axis=0), (drawn == target).sum(axis=0)
    ranks = below + np.random.default_rng(seed).integers(0, ties + 1)
    counts = np.bincount(ranks, minlength=n + 1)
    expected = target.size / (n + 1)
    chi2 = float(np.sum(np.square(counts - expected)) / expected)
    return Ranks(counts, chi2, float(chdtrc(n, chi2)))


def tarp(
    samples: ArrayLike,
    truth: ArrayLike,
    references: ArrayLike | None = None,
    *,
    levels: Sequence[float] = LEVELS,
    seed: int = 0,
) -> Expected:
    """Test accuracy with random points: expected coverage of whole images, not of pixels.

    For each measurement a random point is drawn; the truth's credibility level is the fraction of samples that lie
    nearer to that point than the truth does, and the expected coverage at a level is how often it falls below it.
    Source: Lemos, Coogan, Hezaveh & Perreault-Levasseur, "Sampling-based accuracy testing of posterior estimators",
    ICML 2023, algorithm 2.

    Parameters
    ----------
    samples : array_like, ``(n, measurement, ...)``
    truth : array_like, ``(measurement, ...)``
    references : array_like, ``(measurement, ...)``, optional
        Points; by default uniform in the box between the smallest and the largest truth of each pixel. They may
        depend on the measurement (a zero-filled image plus noise finds more faults), never on the truth.
    levels : sequence of float
    seed : int
        Seed of the points.
    """
    drawn, target = _magnitudes(samples, truth)
    if target.ndim < 2:
        raise ShapeError(
            f"tarp: expected a truth (measurement, ...), got shape {target.shape}; add an axis of measurements"
        )
    if references is None:
        low, high = target.min(axis=0), target.max(axis=0)
        points = np.random.default_rng(seed).uniform(low, high, target.shape)
    else:
        given = finite(references, "references")
        points = np.asarray(np.abs(given) if np.iscomplexobj(given) else given, dtype=np.float64)
        same_shape(points, target, "references", "truth")
    axes = tuple(range(1, target.ndim))
    own = np.square(target - points).sum(axis=axes)
    credibility = np.mean([np.square(sample - points).sum(axis=axes) < own for sample in drawn], axis=0)
    wanted = np.asarray(levels, dtype=float)
    # A level that the n samples can resolve is reached by credibilities up to it; ranks k / n stand for (k + 1/2) / n.
    middle = (credibility * len(drawn) + 0.5) / (len(drawn) + 1)
    return Expected(wanted, np.array([np.mean(middle < level) for level in wanted]))


def pairs(samples: ArrayLike, truth: ArrayLike, support: ArrayLike | None = None) -> tuple[Array, Array]:
    """Return samples ``(n, pixel)`` and truth ``(pixel,)`` as real numbers, of the pixels in the support.

    Raises
    ------
    InputError, ShapeError
        When shapes do not fit, values are not finite, there are fewer than two samples, or the support is empty.
    """
    drawn, target = _magnitudes(samples, truth)
    where = support_of(support, target.shape)
    return drawn[:, where], target[where]


def _centre(drawn: Array, mean: ArrayLike | None, truth: ArrayLike, support: ArrayLike | None) -> Array:
    """Return the mean ``(pixel,)`` that errors refer to: the one given, or the average of the samples."""
    if mean is None:
        return drawn.mean(axis=0)
    given = finite(mean, "mean")
    same_shape(given, np.asarray(truth), "mean", "truth")
    magnitudes = np.abs(given) if np.iscomplexobj(given) or np.iscomplexobj(np.asarray(truth)) else given
    return np.asarray(magnitudes, dtype=np.float64)[support_of(support, given.shape)]


def _magnitudes(samples: ArrayLike, truth: ArrayLike) -> tuple[Array, Array]:
    drawn, target = finite(samples, "samples"), finite(truth, "truth")
    if np.iscomplexobj(drawn) or np.iscomplexobj(target):
        drawn, target = np.abs(drawn), np.abs(target)
    if drawn.ndim == 0 or drawn.shape[1:] != target.shape:
        raise ShapeError(f"expected samples (n, ...) and a truth (...), got shapes {drawn.shape} and {target.shape}")
    if len(drawn) < 2:
        raise InputError(f"expected at least 2 samples, got {len(drawn)}")
    return drawn.astype(np.float64), target.astype(np.float64)
