"""What one slice of a run gives: arrays and plain values, independent of order, process, machine and batch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from torch import Tensor

from recon.engine.findings import Judged
from recon.engine.judge import judge_slice
from recon.engine.part import Part
from recon.modalities.base import Modality
from recon.posterior_samples import PosteriorSamples
from recon.verdict import Finding


@dataclass(frozen=True, eq=False, kw_only=True)
class SliceResult:
    """One slice, or the slices that were sampled together, in physical units.

    It holds no operator, no raw data and no network, so that a volume is as large as its images.

    Attributes
    ----------
    index : int
        Number of the slice; of slices that were sampled together, of the first one.
    samples : ndarray
        ``(n, [slice,] y, x)``, those that are kept.
    diagnostics : mapping of ndarray
        ``valid``, ``residual`` and what the sampler reports, ``(n,)`` each.
    images : mapping of ndarray
        Auxiliary images ``([slice,] y, x)``; ``reference`` and ``expectation`` where they are known.
    summary : mapping of ndarray
        Statistics of all samples, where not all are kept; see `recon.posterior_summary`.
    measured : mapping
        What the preparation found in the data.
    judged : tuple of Judged
        What the run noticed about this slice.
    held_out : mapping or None
        Result of the held-out test.
    citations : tuple of str
    network_calls, back_propagations : int
        For each sample.
    operator : str
        Class of the operator.
    prior : mapping
        Name and identity of the prior.
    seconds : float
    """

    index: int
    samples: np.ndarray
    diagnostics: Mapping[str, np.ndarray]
    images: Mapping[str, np.ndarray]
    summary: Mapping[str, np.ndarray] = field(default_factory=dict)
    measured: Mapping[str, Any] | None = None
    judged: tuple[Judged, ...] = ()
    held_out: Mapping[str, Any] | None = None
    citations: tuple[str, ...] = ()
    network_calls: int = 0
    back_propagations: int = 0
    operator: str = ""
    prior: Mapping[str, Any] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def valid(self) -> np.ndarray:
        """Which samples are valid: bool ``(n,)``."""
        return self.diagnostics["valid"]


@dataclass(frozen=True)
class FailedSlice:
    """A slice without a result: its number, and why.

    Attributes
    ----------
    index : int
    reason : str
    diverged : bool
        Whether sampling failed, rather than that the data are unusable.
    """

    index: int
    reason: str
    diverged: bool = False

    def finding(self) -> Finding:
        """Return what it means for the volume."""
        return Finding("doubtful", f"slice {self.index} is left out: {self.reason}")


def reduced(
    part: Part,
    sampler: Mapping[str, Any],
    modality: Modality | None,
    prior: Mapping[str, Any],
    seconds: float,
    keep: int | None = None,
) -> SliceResult:
    """Return what is kept of a sampled slice, which is judged while its data are at hand.

    With ``keep``, the first samples and statistics of all of them.
    """
    drawn, ready = part.drawn, part.prepared
    images = {} if ready is None else {name: _numpy(image) for name, image in ready.images.items()}
    if drawn.expectation is not None:
        # Images of several parts are combined one by one: their phases differ from sample to sample.
        paths = drawn.expectation[drawn.valid.to(drawn.expectation.device)]
        images["expectation"] = part.physical(paths).mean(axis=0)
    images = {name: part.physical(image[None])[0] for name, image in part.others.items()} | images
    if part.reference is not None:
        images["reference"] = part.reference
    samples, valid, summary = part.physical(), _numpy(drawn.valid), None
    if keep is not None and keep < len(samples):
        fewer = PosteriorSamples(samples, diagnostics={"valid": valid}).summarised(keep)
        # Of a slice of its own memory, not of all samples.
        samples, summary = fewer.samples.copy(), fewer.summary
    measured = None if ready is None else dict(ready.diagnostics)
    return SliceResult(
        index=part.index,
        samples=samples,
        summary={} if summary is None else summary.arrays(),
        diagnostics={
            "valid": valid,
            "residual": _numpy(drawn.residual),
            **{name: _numpy(fact) for name, fact in drawn.facts.items()},
        },
        images=images,
        measured=measured,
        judged=tuple(judge_slice(part, sampler, modality)),
        held_out=None if part.held_out is None else asdict(part.held_out),
        citations=() if modality is None or measured is None else tuple(modality.citations(measured)),
        network_calls=part.network_calls,
        back_propagations=part.back_propagations,
        operator=type(part.problem.operator).__name__,
        prior=prior,
        seconds=seconds,
    )


def _numpy(tensor: Tensor) -> np.ndarray:
    return tensor.detach().cpu().numpy()
