"""One sampled slice, before it becomes part of a posterior."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
from torch import Tensor

from recon.engine.holdout import HeldOut
from recon.estimators import Estimator
from recon.modalities.prepared import Prepared
from samplers import Problem, Samples


@dataclasses.dataclass(frozen=True, eq=False)
class Part:
    """One slice: its samples, the problem they solve, and for files how it was prepared and a reference.

    ``network_calls`` and ``back_propagations`` were made for each sample; ``steps`` is what the schedule of the sampler
    has for this prior; ``index`` is the number of the slice; ``held_out`` is the result of the held-out test.
    ``estimator``: what the samples are estimates of, where there is no prior. ``others``: images to compare with.
    """

    drawn: Samples
    problem: Problem
    prepared: Prepared | None = None
    reference: np.ndarray | None = None
    network_calls: int = 0
    back_propagations: int = 0
    steps: int = 0
    index: int = 0
    held_out: HeldOut | None = None
    estimator: Estimator | None = None
    others: Mapping[str, Tensor] = dataclasses.field(default_factory=dict)

    def physical(self, images: Tensor | None = None) -> np.ndarray:
        """Return the samples, or other images in the scale of the prior, in physical units."""
        images = (self.drawn.samples if images is None else images) * self.problem.scale + self.problem.offset
        return (images if self.prepared is None else self.prepared.combine(images)).cpu().numpy()
