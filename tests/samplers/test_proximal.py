"""Fits of an image to data: the first step towards them."""

from __future__ import annotations

import torch

from operators import CartesianMRI
from operators.mri.masks import make_mask
from samplers import Problem
from samplers.proximal import proximal, proximal_move

SHAPE, VARIANCE = (32, 48), 0.3


def _problem(noise: float) -> Problem:
    generator = torch.Generator().manual_seed(0)
    mask = torch.from_numpy(make_mask(SHAPE, "random", 2))
    operator = CartesianMRI(mask, torch.ones(1, *SHAPE, dtype=torch.complex64))
    data = torch.randn(1, *SHAPE, dtype=torch.complex64, generator=generator) * mask
    return Problem(data, operator, noise)


def test_the_first_step_is_the_fit_of_one_coil_in_white_noise() -> None:
    problem = _problem(0.5)
    anchor = torch.zeros(1, *SHAPE, dtype=torch.complex64)
    exact = proximal(problem, anchor, VARIANCE, 60, preconditioned=True)[0]
    moved = proximal_move(problem, problem.weighted_data[None], torch.tensor(VARIANCE))
    torch.testing.assert_close(moved, exact, rtol=1e-3, atol=1e-3)
