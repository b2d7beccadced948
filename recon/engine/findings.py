"""Findings about slices, and how those of all slices become the findings of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from recon.verdict import LEVELS, Finding


@dataclass(frozen=True)
class Judged:
    """A finding about one slice.

    Attributes
    ----------
    kind : str
        "note" and "doubt" of the preparation and "run" are reported as they are; of any other kind the worst slice is
        reported, with the number of the others.
    finding : Finding
    severity : float
        Orders findings of one kind and level.
    """

    kind: str
    finding: Finding
    severity: float = 0.0


def judge_run(slices: Mapping[int, Sequence[Judged]], valid: np.ndarray) -> list[Finding]:
    """Return all findings of a run, in the order in which they are reported.

    Parameters
    ----------
    slices : mapping
        What was noticed, by the number of the slice.
    valid : ndarray
        Which samples are valid in every slice.
    """
    of_kind: dict[str, dict[int, Judged]] = {kind: {} for kind in ("residual", "missing", "held-out", "unsolved")}
    as_it_is: dict[str, list[Finding]] = {"note": [], "doubt": [], "run": []}
    for index, found in slices.items():
        for one in found:
            if one.kind in as_it_is:
                as_it_is[one.kind].append(one.finding)
            else:
                of_kind[one.kind][index] = one
    worst = [finding for found in of_kind.values() for finding in _worst(found, len(slices))]
    return list(dict.fromkeys(as_it_is["note"] + as_it_is["doubt"] + _invalid(valid) + worst + as_it_is["run"]))


def _worst(found: Mapping[int, Judged], n_slices: int) -> list[Finding]:
    """Return the worst finding of one kind, which names the number of other slices that it concerns."""
    if not found:
        return []
    index = max(found, key=lambda k: (LEVELS.index(found[k].finding.level), found[k].severity))
    finding = found[index].finding
    if n_slices == 1:
        return [finding]
    others = len(found) - 1
    also = f"; also in {others} other slice{'s' if others > 1 else ''}" if others else ""
    return [Finding(finding.level, f"slice {index}: {finding.reason}{also}")]


def _invalid(valid: np.ndarray) -> list[Finding]:
    count = int((~valid).sum())
    if not count:
        return []
    reason = f"{count} of {len(valid)} samples are not finite or grew without bound, and are excluded from mean and std"
    return [Finding("failed" if 2 * count > len(valid) else "doubtful", reason)]
