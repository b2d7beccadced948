"""Which samples of k-space the held-out test may withhold: each by itself, outside the centre."""

from __future__ import annotations

import torch
from torch import Tensor

from operators import CartesianMRI
from operators.mri.autocalibration import calibration_region
from samplers import Problem

#: Longest side of the centre that is never withheld, since coil maps and scale come from it.
_CENTRE = 24


def points_outside_centre(problem: Problem) -> Tensor:
    """Return a number for each sample, ``(..., y, x)`` as the mask; -1 in the centre and where nothing was measured.

    Without whole lines the gap between those that remain would be twice as wide, which makes another problem, and a
    harder one: on right data of equispaced lines the test then shows up to 4, and 1 for points.
    """
    operator = problem.operator
    assert isinstance(operator, CartesianMRI)
    mask = operator.mask
    if any(n > 1 for n in mask.shape[:-2]):
        return torch.where(mask, torch.arange(mask.numel(), device=mask.device).reshape(mask.shape), -1)
    shape = tuple(operator.codomain.shape[-2:])
    sampled = mask.reshape(mask.shape[-2:]).expand(shape).cpu()
    numbers = torch.where(sampled, torch.arange(sampled.numel()).reshape(shape), -1)
    region = calibration_region(sampled, _CENTRE)
    if region is not None:
        numbers[region] = -1
    return numbers.to(problem.y.device)
