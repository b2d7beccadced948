"""Which samples of k-space are read out together: whole lines, or single points."""

from __future__ import annotations

import torch
from torch import Tensor

from operators import CartesianMRI
from operators.mri.autocalibration import calibration_region
from samplers import Problem

#: Half the width of the centre that belongs to no readout, since coil maps and scale come from it.
_HALF_CENTRE = 12


def readouts(problem: Problem) -> Tensor:
    """Return the number of the readout of each sample, ``(y, x)``; -1 in the centre and where nothing was measured.

    A readout is a line if every measured line is complete, else a point (a line in the third direction of a scan). Of a
    mask of more than two dimensions each point is a readout, ``(..., y, x)``.
    """
    operator = problem.operator
    assert isinstance(operator, CartesianMRI)
    if any(n > 1 for n in operator.mask.shape[:-2]):
        mask = operator.mask
        return torch.where(mask, torch.arange(mask.numel(), device=mask.device).reshape(mask.shape), -1)
    shape = tuple(operator.codomain.shape[-2:])
    sampled = operator.mask.reshape(operator.mask.shape[-2:]).expand(shape).cpu()
    numbers = torch.arange(sampled.numel()).reshape(shape)
    along = [axis for axis in (0, 1) if bool((sampled == sampled.any(dim=axis, keepdim=True)).all())]
    centre = torch.zeros_like(sampled)
    region = calibration_region(sampled, 2 * _HALF_CENTRE)
    if region is not None:
        centre[region] = True
    if along:
        axis = along[0]
        numbers = torch.arange(shape[1 - axis]).unsqueeze(axis).expand(shape)
        centre = centre.any(dim=axis, keepdim=True).expand(shape)
    return torch.where(sampled & ~centre, numbers, -1).to(problem.y.device)
