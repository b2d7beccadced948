"""Fitting a calibration on results whose truth is known."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from recon import metrics
from recon.errors import InputError
from recon.report.layout import centre_crop
from recon.uncertainty.calibration import ALL, Calibration
from recon.uncertainty.conformal import allowed_risk, check_method, smallest_factor, spread_map, white_level
from recon.uncertainty.fingerprint import fingerprint, merge

if TYPE_CHECKING:
    from recon.posterior import Posterior


class Case(NamedTuple):
    """One result whose truth is known: the posterior, its name, its truth ``([slice,] y, x)`` and its group."""

    posterior: Posterior
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
    """Fit lambda on results whose truth is known.

    Only pixels that show signal count (`recon.metrics.foreground` of the reference). The images must be exchangeable
    with those that the calibration is for, and must not have been used to train the prior.

    Parameters
    ----------
    cases : iterable of Case
        Taken one at a time, so that they need not be in memory together. The reference is by default the one that the
        posterior carries.
    level : float
        What the interval shall promise.
    method : "crc" or "rcps"
        Bound the risk in the mean, or with probability 1 - delta (at least 200 images).
    delta : float
    smoothing, floor
        See `recon.uncertainty.spread_map`.
    per : "file" or "slice"
        What counts as an image. Slices of one volume are alike: counting them as images promises more than is known,
        but is what a few volumes allow.

    Raises
    ------
    InputError
        If images are too few, have no reference, or were not all made in one way.
    """
    check_method(level, method, delta)
    if per not in ("file", "slice"):
        raise InputError(f"per must be file or slice, got {per!r}")
    adaptive: dict[str, list[NDArray]] = {}
    constant: dict[str, list[NDArray]] = {}
    found, sources = [], []
    for case in cases:
        found.append((case.name, fingerprint(case.posterior)))
        source = case.posterior.provenance.get("source")
        sources.append(source.get("sha256", "") if isinstance(source, Mapping) else "")
        for by_spread, by_width in _scores(case, smoothing, floor, per):
            adaptive.setdefault(case.group, []).append(by_spread)
            constant.setdefault(case.group, []).append(by_width)
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
        delta=delta,
        smoothing=smoothing,
        floor=floor,
        per=per,
        fingerprint=together,
        sources=tuple(sorted({source for source in sources if source})),
    )


def reference_of(case: Case) -> NDArray[np.float64]:
    """Return the magnitude of the truth of a case, or say that there is none."""
    reference = case.reference if case.reference is not None else case.posterior.images.get("reference")
    if reference is None:
        raise InputError(f"{case.name}: has no reference image; it is there when the data were fully sampled")
    truth = metrics.as_shown(np.asarray(reference)).astype(np.float64)
    shape = case.posterior.samples.shape[1:]
    if truth.ndim != len(shape) or truth.shape[:-2] != shape[:-2] or any(np.subtract(truth.shape, shape) > 0):
        raise InputError(f"{case.name}: the reference has the shape {truth.shape}, the result {shape}")
    if not np.isfinite(truth).all() or not truth.any():
        raise InputError(f"{case.name}: the reference is zero everywhere or not finite")
    return truth


def _scores(case: Case, smoothing: int, floor: float, per: str) -> Iterable[tuple[NDArray, NDArray]]:
    """Yield for each image the scores of the map and those of a constant width, in pixels with signal."""
    if case.posterior.n_valid < 2:
        raise InputError(f"{case.name}: has {case.posterior.n_valid} valid samples; an interval needs 2 or more")
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
            width = error[index][where]
            yield _single(width / spread[index][where]), _single(width / max(white, np.finfo(float).tiny))


def _single(scores: NDArray[np.float64]) -> NDArray[np.float32]:
    """Halve the memory; rounded up, so that an interval never becomes too short."""
    return np.nextafter(scores.astype(np.float32), np.float32(np.inf))


def _risk(group: str, n: int, level: float, method: str, delta: float) -> float:
    try:
        return allowed_risk(n, level, method, delta)
    except InputError as error:
        raise InputError(f"group {group}: {error}" if group != ALL else str(error)) from None
