"""What a run notices about one slice, while its data are at hand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from recon.engine.findings import Judged
from recon.engine.part import Part
from recon.estimators import NOTE
from recon.modalities.base import HELD_OUT_LIMIT, FewSteps, Modality
from recon.verdict import Finding

#: A data residual outside this range means that model and data do not fit together; far above it nothing is right.
RESIDUAL_RANGE, RESIDUAL_FAILED = (0.5, 2.0), 10.0
#: Withheld data must not be missed by this multiple of the spread of the samples, beyond doubt (by this many standard
#: errors), nor by the limit of the modality of the expected squared error; above the last multiple nothing is right.
MISSED_SPREAD, BEYOND_DOUBT, MISSED_FAILED = 10.0, 4.0, 50.0
#: Equations with a relative residual above this do not count as solved.
UNSOLVED = 1e-2
#: Fraction of the strongest data that a mean must reproduce, and below which it has failed; a datum is strong above
#: this multiple of its noise.
HELD, HELD_FAILED, STRONG = 0.9, 0.5, 5.0


def judge_slice(part: Part, sampler: Mapping[str, Any], modality: Modality | None) -> list[Judged]:
    """Return what is noticed about one slice.

    Parameters
    ----------
    part : Part
    sampler : mapping
        Name and settings of the sampler, as they are recorded.
    modality : Modality or None
    """
    found: list[Judged] = []
    if part.prepared is not None:
        found += [Judged("note", Finding("ok", note)) for note in part.prepared.notes]
        for doubt in part.prepared.doubts:
            found.append(Judged("doubt", doubt if isinstance(doubt, Finding) else Finding("doubtful", doubt)))
    if part.problem.operator.n_data == 0:
        reason = "nothing was measured: the samples are those of the prior"
        found.append(Judged("doubt", Finding("doubtful", reason)))
    else:
        found += _data_checks(part, modality)
    if sampler.get("name") == "ExactGaussian":
        found += _named("unsolved", _unsolved(part))
    if part.estimator is not None:
        found.append(Judged("note", Finding("ok", NOTE)))
    few = modality.few_steps if modality is not None else None
    found += [] if few is None else [Judged("run", finding) for finding in _few_steps(sampler, few)]
    return found + [Judged("run", finding) for finding in _fewer_steps(sampler, part.steps)]


def _data_checks(part: Part, modality: Modality | None) -> list[Judged]:
    """Compare the samples with the data that they were drawn from, and with those that were withheld."""
    model = modality.doubts if modality is not None else "its geometry"
    limit = HELD_OUT_LIMIT if modality is None else modality.held_out_limit
    if part.estimator is not None:
        residual = _residual(part, model) if part.estimator.fits_data else None
        return _named("residual", residual and (residual[0], Finding("doubtful", residual[1].reason)))
    return [
        *_named("residual", _residual(part, model)),
        *_named("missing", _missing(part)),
        *_named("held-out", _unpredicted(part, model, limit)),
    ]


def _named(kind: str, found: tuple[float, Finding] | None) -> list[Judged]:
    return [] if found is None else [Judged(kind, found[1], found[0])]


def _residual(part: Part, model: str) -> tuple[float, Finding] | None:
    valid = part.drawn.valid.cpu().numpy()
    residual = float(np.median(part.drawn.residual.cpu().numpy()[valid]))
    # The allowance for model errors may be larger than the errors themselves.
    allowed = part.prepared is not None and "model_error" in part.prepared.diagnostics
    if residual <= RESIDUAL_RANGE[1] and (allowed or residual >= RESIDUAL_RANGE[0]):
        return None
    reason = (
        f"the data residual is {residual:.2g} times what the noise level explains (expected about 1): "
        f"the noise level or the model of the measurement ({model}) may be wrong for "
        "these data, or the sampler had too few steps to fit them"
    )
    return residual, Finding("failed" if residual > RESIDUAL_FAILED else "doubtful", reason)


def _missing(part: Part) -> tuple[float, Finding] | None:
    held = held_signal(part)
    if held >= HELD:
        return None
    reason = (
        f"the mean reproduces only {held:.2f} of the signal of the strongest data (expected about 1): part of the "
        "measured signal is missing from the images. Is noise_std too high, or is the prior for other images? If "
        "neither, use more steps or another sampler ('moment-matching', 'pula')"
    )
    return -held, Finding("failed" if held < HELD_FAILED else "doubtful", reason)


def held_signal(part: Part) -> float:
    """Return ``Re<A x, y> / (|y|^2 - noise^2)`` of the mean x, over the data far above their noise; 1 without any."""
    problem = part.problem
    if not bool(part.drawn.valid.any()):
        return 1.0
    noise = torch.as_tensor(problem.noise_std, device=problem.y.device).expand(problem.y.shape)
    strong = problem.y.abs() > STRONG * noise
    data, predicted = problem.y[strong], problem.operator(part.drawn.mean.to(problem.y.device))[strong]
    energy = float((data.abs().square() - noise[strong].square()).sum())
    return float((predicted.conj() * data).real.sum()) / energy if energy > 0 else 1.0


def _unpredicted(part: Part, model: str, limit: float) -> tuple[float, Finding] | None:
    """Report withheld data that the posterior does not predict."""
    test = part.held_out
    if test is None:
        return None
    narrow = test.excess - BEYOND_DOUBT * test.excess_error > MISSED_SPREAD
    if test.chi2 <= limit and not narrow:
        return None
    much = (
        f"{test.chi2:.2g} times what noise and spread explain"
        if test.chi2 > limit
        else f"{test.excess:.2g} times the spread of the samples, beyond the noise"
    )
    reason = (
        f"held-out test: the squared error of the prediction of data that were withheld is {much} (expected about 1): "
        f"the std is too small for what was not measured, or the model of the measurement ({model}) or the prior does "
        "not suit these data"
    )
    return max(test.chi2, test.excess), Finding("failed" if test.chi2 > MISSED_FAILED else "doubtful", reason)


def _unsolved(part: Part) -> tuple[float, Finding] | None:
    left = float(np.max(part.drawn.facts["cg_residual"].cpu().numpy(), initial=0.0))
    if left <= UNSOLVED:
        return None
    reason = (
        f"the equations of the exact sampler are solved only to {left:.2g}: very bright points, low noise and many "
        "data make them ill-conditioned, and the samples are not exact posterior samples"
    )
    return left, Finding("doubtful", reason)


def _few_steps(sampler: Mapping[str, Any], known: FewSteps) -> list[Finding]:
    """Report the known coverage of the interval if the default sampler had few steps."""
    steps = sampler.get("steps")
    if not sampler.get("image_draws") or steps is None or steps >= known.enough:
        return []
    tried = max((n for n in known.coverage if n <= steps), default=min(known.coverage))
    reason = (
        f"{steps} steps: the spread of the samples is smaller than the error of their mean. With {tried} steps the "
        f"90 % interval covered {known.coverage[tried]:.0%} of the pixels with signal {known.measured_on}; "
        f"{known.enough} steps cover about 90 %"
    )
    return [Finding("ok", reason)]


def _fewer_steps(sampler: Mapping[str, Any], made: int) -> list[Finding]:
    """Say where a schedule was clipped to the noise levels that the prior knows."""
    asked = sampler.get("steps")
    if not isinstance(asked, int) or made >= asked:
        return []
    reason = (
        f"{made} of {asked} steps were made: the others have noise levels outside of the range of the prior "
        "(--set spacing=karras keeps their number)"
    )
    return [Finding("ok", reason)]
