"""Evaluation of results against their references: one row of numbers per image, and curves over all images."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recon import metrics
from recon.errors import InputError
from recon.metrics.images import SSIM_WINDOW
from recon.report.layout import centre_crop
from recon.uncertainty.calibration import Calibration
from recon.uncertainty.conformal import white_level
from recon.uncertainty.fitting import Case, reference_of
from recon.uncertainty.scores import LEVELS, coverage_curve, ence, fair_crps, rank_histogram, spread_skill_bins

#: Number of groups of equally many pixels, ordered by their predicted spread.
DECILES = 10
_TEXT = ("name", "group")


@dataclass
class Evaluation:
    """Results of an evaluation.

    Attributes
    ----------
    level : float
        Nominal coverage of the intervals.
    rows : list of dict
        Metrics of each image. Lengths, CRPS and spreads are relative to the brightness of the reference (its .99
        quantile); coverage counts pixels with signal.
    levels, curves : ``(level,)``, ``(image, level)``
        Coverage of raw intervals at several levels.
    spread, error : ``(image, decile)``
        See `recon.uncertainty.spread_skill_bins`; also relative to the brightness.
    deciles : dict of array ``(image, decile)``
        Coverage of each kind of interval by deciles of the predicted spread.
    ranks : list of array
        Rank histogram of each image.
    """

    level: float
    rows: list[dict[str, Any]] = field(default_factory=list)
    levels: NDArray = field(default_factory=lambda: np.array(LEVELS))
    curves: list[NDArray] = field(default_factory=list)
    spread: list[NDArray] = field(default_factory=list)
    error: list[NDArray] = field(default_factory=list)
    deciles: dict[str, list[NDArray]] = field(default_factory=dict)
    ranks: list[NDArray] = field(default_factory=list)

    def summary(self) -> dict[str, float]:
        """Return the mean of each metric over the images (excluding calibration images, if any others exist)."""
        counted = [row for row in self.rows if not row.get("in_calibration")] or self.rows
        names = [name for name in counted[0] if name not in (*_TEXT, "in_calibration")]
        return {name: float(np.mean([row[name] for row in counted])) for name in names}


def evaluate(cases: Iterable[Case], level: float | None = None, calibration: Calibration | None = None) -> Evaluation:
    """Compare results with their references.

    Parameters
    ----------
    cases : iterable of Case
        Loaded one at a time.
    level : float, optional
        Nominal coverage of the intervals; by default that of the calibration, or .9.
    calibration : Calibration, optional
        Also evaluate its intervals, and those of constant width with the same guarantee.

    Raises
    ------
    InputError
        If there is nothing to evaluate, a reference is missing, or the calibration does not belong to a result.
    """
    if calibration is not None and level is not None and abs(level - calibration.level) > 1e-9:
        raise InputError(f"calibration is for level {calibration.level:g}, but level {level:g} was requested")
    chosen = level if level is not None else calibration.level if calibration is not None else 0.9
    found = Evaluation(chosen)
    for case in cases:
        _add(found, case, calibration)
    if not found.rows:
        raise InputError("evaluate: there are no results to evaluate")
    return found


def _add(found: Evaluation, case: Case, calibration: Calibration | None) -> None:
    posterior = case.posterior
    if posterior.n_valid < 2:
        raise InputError(f"{case.name}: expected at least 2 valid samples, got {posterior.n_valid}")
    if posterior.summary is not None:
        raise InputError(f"{case.name}: not all samples are kept, which an evaluation needs; run it with --keep all")
    truth = reference_of(case)
    signal, white = metrics.foreground(truth), white_level(truth)
    magnitude = posterior.magnitude
    samples = centre_crop(magnitude.samples[magnitude.valid], truth.shape)
    mean, std = (centre_crop(image, truth.shape) for image in (magnitude.mean, magnitude.std))
    bins = spread_skill_bins(samples, truth, DECILES, signal, mean)
    found.curves.append(coverage_curve(samples, truth, support=signal, mean=mean).covered)
    found.spread.append(bins.spread / white)
    found.error.append(bins.error / white)
    found.ranks.append(rank_histogram(samples, truth, signal).counts)
    residual = posterior.diagnostics.get("residual")
    row = {
        "name": case.name,
        "group": case.group,
        "samples": posterior.n_valid,
        "psnr": metrics.psnr(centre_crop(posterior.mean, truth.shape), truth),
        "psnr_sample": float(np.mean([metrics.psnr(sample, truth) for sample in samples])),
        "ssim": _ssim(centre_crop(posterior.mean, truth.shape), truth),
        "chi2": float(np.nanmedian(residual)) if residual is not None and np.size(residual) else float("nan"),
        "crps": fair_crps(samples, truth, signal) / white,
        "spread_skill": metrics.spread_skill(mean, std, truth, signal, n_samples=posterior.n_valid),
        "ence": ence(samples, truth, DECILES, signal, mean),
    }
    order = np.array_split(np.argsort(std[signal], kind="stable"), DECILES)
    for kind, bounds in _intervals(case, found.level, calibration).items():
        lower, upper = (centre_crop(bound, truth.shape) for bound in bounds)
        row[f"{kind}_coverage"] = metrics.coverage(lower, upper, truth, signal)
        row[f"{kind}_length"] = float(np.mean((upper - lower)[signal])) / white
        inside = ((lower <= truth) & (truth <= upper))[signal]
        shares = [inside[part].mean() if len(part) else np.nan for part in order]
        found.deciles.setdefault(kind, []).append(np.array(shares))
    if calibration is not None:
        source = posterior.provenance.get("source")
        row["in_calibration"] = isinstance(source, dict) and source.get("sha256") in calibration.sources
    found.rows.append(row)


def _intervals(case: Case, level: float, calibration: Calibration | None) -> dict[str, tuple[NDArray, NDArray]]:
    """Return the intervals by kind: raw and, with a calibration, calibrated and constant."""
    kinds = {"raw": case.posterior.interval(level)}
    if calibration is None:
        return kinds
    group = case.group if case.group in calibration.factors else None
    try:
        kinds["calibrated"] = calibration.apply(case.posterior, group)
        kinds["constant"] = calibration.constant_interval(case.posterior, group)
    except InputError as error:
        raise InputError(f"{case.name}: {error}") from error
    return kinds


def _ssim(image: NDArray, truth: NDArray) -> float:
    """Return the SSIM, or NaN for images smaller than its window."""
    return metrics.ssim(image, truth) if min(truth.shape[-2:]) >= SSIM_WINDOW else float("nan")
