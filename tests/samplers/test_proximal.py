"""Fits of an image to data: where they may stop, and the first step towards them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

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


def test_a_fit_ends_at_its_tolerance(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = _problem(0.1)
    products, normal = [], Problem.weighted_normal

    def counted(self: Problem, x: Tensor) -> Tensor:
        products.append(len(x))
        return normal(self, x)

    monkeypatch.setattr(Problem, "weighted_normal", counted)
    generator = torch.Generator().manual_seed(1)
    anchor = torch.randn(2, *SHAPE, dtype=torch.complex64, generator=generator)
    weights = torch.rand(2, *SHAPE, generator=generator)
    counts = []
    for tolerance in (0.0, 0.01, 0.3):
        products.clear()
        residual = proximal(problem, anchor, VARIANCE, 40, weights, tolerance=tolerance)[1]
        counts.append(len(products))
        assert float(residual.max()) <= max(tolerance, 1e-3)
    assert counts[0] > counts[1] > counts[2]
