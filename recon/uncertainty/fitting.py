"""Fitting a calibration on results with a known truth."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from recon import metrics
from recon.errors import InputError
from recon.posterior_samples import PosteriorSamples
from recon.report.layout import centre_crop
from recon.uncertainty.calibration import ALL, Calibration
from recon.uncertainty.conformal import allowed_risk, check_method, smallest_factor, spread_map, white_level
from recon.uncertainty.fingerprint import fingerprint, merge


class Case(NamedTuple):
    """One result with a known truth: the posterior, its name, its truth ``([slice,] y, x)`` and its group."""

    posterior: PosteriorSamples
    name: str
    reference: NDArray | None = None
    group: str = ALL


def calibrate(
    cases: Iterable[Case],
    level: float = 0.9,
    method: str = "crc",
    *,
    delta: float = 0.1,
    smoothing: int = 1,
    floor: float = 1e-3,
    per: str = "file",
) -> Calibration:
    """Fit lambda on results with a known truth.

    Only pixels with signal count (`recon.metrics.foreground` of the reference). The images must be exchangeable with
    those that the calibration is meant for, and must not have been used to train the prior.

    Parameters
    ----------
    cases : iterable of Case
        Loaded one at a time, so that they need not be in memory together. The default reference is the one stored in
        the posterior.
    level : float
        Nominal coverage of the interval.
    method : "crc" or "rcps"
        Bound the mean risk, or the risk with probability 1 - delta (at least 200 images).
    delta : float
    smoothing, floor
        See `recon.uncertainty.spread_map`.
    per : "file" or "slice"
        The unit that counts as one image. Slices of one volume are similar: counting them as images overstates the
        guarantee, but may be all that a few volumes allow.

    Raises
    ------
    InputError
        If there are too few images, one has no reference, or they were made with different settings.
    """
    check_method(level, method, delta)
    if per not in ("file", "slice"):
        raise InputError(f"per must be file or slice, got {per!r}")
    adaptive: dict[str, list[NDArray]] = {}
    constant: dict[str, list[NDArray]] = {}
    spreads: dict[str, list[float]] = {}
    found, sources = [], []
    for case in cases:
        found.append((case.name, fingerprint(case.posterior)))
        source = case.posterior.provenance.get("source")
        sources.append(source.get("sha256", "") if isinstance(source, Mapping) else "")
        for by_spread, by_width, mean_spread in _scores(case, smoothing, floor, per):
            adaptive.setdefault(case.group, []).append(by_spread)
            constant.setdefault(case.group, []).append(by_width)
            spreads.setdefault(case.group, []).append(mean_spread)
    if not found:
        raise InputError("calibrate: there are no results to calibrate on")
    together = merge(found)
    risks = {group: _risk(group, len(scores), level, method, delta) for group, scores in adaptive.items()}
    return Calibration(
        level=level,
        method=method,
        factors={group: smallest_factor(adaptive[group], risk) for group, risk in risks.items()},
        constants={group: smallest_factor(constant[group], risk) for group, risk in risks.items()},
        images={group: len(scores) for group, scores in adaptive.items()},
        spreads={group: float(np.mean(found)) for group, found in spreads.items()},
        delta=delta,
        smoothing=smoothing,
        floor=floor,
        per=per,
        fingerprint=together,
        sources=tuple(sorted({source for source in sources if source})),
    )


def reference_of(case: Case) -> NDArray[np.float64]:
    """Return the magnitude of the truth of a case; raise InputError if there is none."""
    reference = case.reference if case.reference is not None else case.posterior.images.get("reference")
    if reference is None:
        raise InputError(
            f"{case.name}: has no reference image; calibration needs fully sampled data or a given reference"
        )
    truth = metrics.as_shown(np.asarray(reference)).astype(np.float64)
    shape = case.posterior.samples.shape[1:]
    if truth.ndim != len(shape) or truth.shape[:-2] != shape[:-2] or any(np.subtract(truth.shape, shape) > 0):
        raise InputError(f"{case.name}: expected a reference of shape {shape} like the result, got {truth.shape}")
    if not np.isfinite(truth).all() or not truth.any():
        raise InputError(f"{case.name}: the reference is zero everywhere or not finite")
    return truth


def _scores(case: Case, smoothing: int, floor: float, per: str) -> Iterable[tuple[NDArray, NDArray, float]]:
    """Yield for each image the scores of the spread map and of a constant width, in pixels with signal, and mean s."""
    if case.posterior.n_valid < 2:
        raise InputError(f"{case.name}: expected at least 2 valid samples, got {case.posterior.n_valid}")
    truth = reference_of(case)
    magnitude = case.posterior.magnitude
    white = white_level(magnitude.mean)
    spread = centre_crop(spread_map(magnitude.std, white, smoothing, floor), truth.shape)
    error = np.abs(centre_crop(magnitude.mean, truth.shape).astype(np.float64) - truth)
    signal = metrics.foreground(truth)
    whole = per == "file" or truth.ndim == 2
    for index in [...] if whole else range(len(truth)):
        where = signal[index]
        if where.any():
            width, unit = error[index][where], max(white, np.finfo(float).tiny)
            by_spread, by_width = width / spread[index][where], width / unit
            yield _single(by_spread), _single(by_width), float(np.mean(spread[index][where])) / unit


def _single(scores: NDArray[np.float64]) -> NDArray[np.float32]:
    """Convert to half the memory, rounded up so that an interval never becomes too short."""
    return np.nextafter(scores.astype(np.float32), np.float32(np.inf))


def _risk(group: str, n: int, level: float, method: str, delta: float) -> float:
    try:
        return allowed_risk(n, level, method, delta)
    except InputError as error:
        raise InputError(f"group {group}: {error}" if group != ALL else str(error)) from None
