"""From samples in the scale of the prior to a Posterior in physical units, with provenance."""

from __future__ import annotations

import dataclasses
import time
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from recon.engine import provenance
from recon.engine.judge import judge
from recon.engine.part import Part
from recon.errors import DivergenceError
from recon.modalities.base import Modality
from recon.posterior import Posterior
from recon.verdict import Finding, Verdict


def assemble(
    parts: list[Part],
    record: dict[str, Any],
    geometry: dict[str, Any],
    modality: Modality | None,
    *,
    single: bool,
    started: float,
    left_out: Sequence[str] = (),
) -> Posterior:
    """Join the slices of a run into one Posterior; ``left_out`` says which slices are missing, and why.

    Warns about what the user should know; the same lines are kept in ``provenance["notes"]``, and what they mean for
    the result in ``provenance["verdict"]``.

    Raises
    ------
    DivergenceError
        If no sample is valid in every slice.
    """

    def joined(arrays: list[np.ndarray], axis: int = 0) -> np.ndarray:
        return arrays[0] if single else np.stack(arrays, axis=axis)

    valid = torch.stack([part.drawn.valid.cpu() for part in parts]).all(dim=0).numpy()
    if not valid.any():
        raise DivergenceError(
            f"each of the {len(valid)} samples is invalid in some slice; draw more, or reconstruct slices separately"
        )
    diagnostics: dict[str, Any] = {
        "valid": valid,
        "residual": joined([_numpy(part.drawn.residual) for part in parts], axis=1),
        "seconds": time.perf_counter() - started,
    }
    for name in parts[0].drawn.facts:
        diagnostics[name] = joined([_numpy(part.drawn.facts[name]) for part in parts], axis=1)
    images: dict[str, np.ndarray] = {}
    prepared = [part.prepared for part in parts if part.prepared is not None]
    for name in prepared[0].images if prepared else ():
        images[name] = joined([_numpy(ready.images[name]) for ready in prepared])
    if all(part.drawn.expectation is not None for part in parts):
        images["expectation"] = joined([_expectation(part, valid) for part in parts])
    references = [part.reference for part in parts if part.reference is not None]
    if len(references) == len(parts):
        images["reference"] = joined(references)
    findings = [Finding("doubtful", note) for note in left_out]
    findings += judge(parts, record.get("sampler", {}), modality)
    notes = [finding.reason for finding in findings]
    for note in notes:
        warnings.warn(note, UserWarning, stacklevel=3)
    found = [ready.diagnostics for ready in prepared]
    if modality is not None:
        used = [key for diagnosed in found for key in modality.citations(diagnosed)]
        record = {**record, "citations": [*record["citations"], *used]}
    return Posterior(
        samples=joined([part.physical() for part in parts], axis=1),
        geometry=geometry,
        provenance=provenance.collect(
            **record,
            network_calls=max(part.network_calls for part in parts),
            back_propagations=max(part.back_propagations for part in parts),
            operator=type(parts[0].problem.operator).__name__,
            measured=found,
            held_out=[None if part.held_out is None else dataclasses.asdict(part.held_out) for part in parts],
            notes=notes,
            verdict=dataclasses.asdict(Verdict.of(findings)),
        ),
        diagnostics=diagnostics,
        images=images,
    )


def _expectation(part: Part, valid: np.ndarray) -> np.ndarray:
    """Return the mean of the conditional expectations of the samples that are valid in every slice."""
    drawn = part.drawn
    paths = drawn.expectation if drawn.expectation is not None else drawn.samples
    paths = paths[torch.from_numpy(valid).to(paths.device)]
    # Images of several parts are combined one by one: their phases differ from sample to sample.
    return part.physical(paths).mean(axis=0)


def _numpy(tensor: Tensor) -> np.ndarray:
    return tensor.detach().cpu().numpy()
