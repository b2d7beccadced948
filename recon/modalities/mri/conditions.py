"""Conditions of a calibration of MRI intervals: the kind of sampling, its pattern and its acceleration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from operators.mri.masks import PATTERNS
from recon.modalities.base import Condition, spread

if TYPE_CHECKING:
    from recon.posterior_samples import PosteriorSamples

#: Factor by which the acceleration may lie outside the range of the calibration images.
_TOLERANCE = 1.1


def conditions(posterior: PosteriorSamples) -> dict[str, Condition]:
    """Return the kind of mask, the name of its pattern if the engine generated it, and the acceleration."""
    config: Mapping[str, Any] = posterior.provenance.get("config") or {}
    retrospective = config.get("acceleration") is not None or config.get("mask") in PATTERNS
    pattern = (config.get("mask") or "random") if retrospective else None
    return {
        "sampling": Condition(describe_mask(posterior.images.get("mask"))),
        "pattern": Condition(pattern, optional=True),
        "acceleration": Condition(spread(posterior, "acceleration"), tolerance=_TOLERANCE),
    }


def describe_mask(mask: np.ndarray | None) -> str | None:
    """Classify the sampling of a mask ``([slice,] y, x)``: columns, rows or points, evenly spaced or not.

    Lines count as evenly spaced when, outside the fully sampled centre, all but two of their gaps differ by one at
    most. None without a mask.
    """
    if mask is None:
        return None
    plane = np.atleast_2d(np.asarray(mask).astype(bool))
    plane = plane[(0,) * (plane.ndim - 2)]
    if plane.all():
        return "everything"
    for name, lines in (("columns", plane.any(axis=0)), ("rows", plane.any(axis=1))):
        if (plane == (lines if name == "columns" else lines[:, None])).all():
            return f"{'evenly spaced' if _even(lines) else 'uneven'} {name}"
    return "points"


def _even(lines: np.ndarray) -> bool:
    middle = len(lines) // 2
    if not lines[middle]:
        center = np.zeros(0, int)
    else:
        gaps = np.flatnonzero(~lines)
        below, above = gaps[gaps < middle], gaps[gaps > middle]
        center = np.arange(below[-1] + 1 if len(below) else 0, above[0] if len(above) else len(lines))
    steps = np.sort(np.diff(np.flatnonzero(np.delete(lines, center))))
    return len(steps) > 5 and int(np.ptp(steps[:-2])) <= 1
