"""Validation of the uncertainty: diagnostics against a known truth, and conformal calibration of intervals."""

from recon.metrics import coverage, foreground, spread_skill
from recon.uncertainty.calibration import Calibration
from recon.uncertainty.conformal import allowed_risk, smallest_factor, spread_map, white_level
from recon.uncertainty.distances import Split, r_hat, row_null_split, row_part, sliced_wasserstein
from recon.uncertainty.fingerprint import fingerprint
from recon.uncertainty.fitting import Case, calibrate
from recon.uncertainty.scores import (
    Bins,
    Expected,
    Ranks,
    coverage_curve,
    ence,
    fair_crps,
    rank_histogram,
    spread_skill_bins,
    tarp,
)

__all__ = [
    "Bins",
    "Calibration",
    "Case",
    "Expected",
    "Ranks",
    "Split",
    "allowed_risk",
    "calibrate",
    "coverage",
    "coverage_curve",
    "ence",
    "fair_crps",
    "fingerprint",
    "foreground",
    "r_hat",
    "rank_histogram",
    "row_null_split",
    "row_part",
    "sliced_wasserstein",
    "smallest_factor",
    "spread_map",
    "spread_skill",
    "spread_skill_bins",
    "tarp",
    "white_level",
]
