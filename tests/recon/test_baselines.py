"""Least squares and total variation against solutions that are known."""

import math

import pytest
import torch

from operators import Diagonal, Matrix, Space
from recon.baselines import divergence, gradient, least_squares, total_variation
from recon.errors import InputError
from samplers import Problem


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def matrix_problem(dtype: torch.dtype, rows: int = 60, side: int = 6) -> tuple[Problem, torch.Tensor]:
    matrix = draw(rows, side**2, dtype=dtype) / 6
    space = Space((side, side), dtype)
    operator = Matrix(matrix, space, Space((rows,), dtype, axes="datum"))
    noise_std = 0.1 + draw(rows, seed=2).abs()
    return Problem(draw(rows, seed=1, dtype=dtype), operator, noise_std), matrix


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
@pytest.mark.slow
def test_least_squares_solves_the_weighted_normal_equations(dtype):
    problem, matrix = matrix_problem(dtype)
    weights = (1 / problem.noise_std).to(dtype)
    expected = torch.linalg.lstsq(weights[:, None] * matrix, weights * problem.y).solution.reshape(6, 6)
    torch.testing.assert_close(least_squares(problem, 200), expected, rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(total_variation(problem, 1e-9, 10, cg_iterations=100), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
@pytest.mark.slow
def test_total_variation_is_a_minimum(dtype):
    problem, _ = matrix_problem(dtype)

    def objective(x: torch.Tensor) -> float:
        fit = ((problem.operator(x) - problem.y) / problem.noise_std).abs().square().sum() / 2
        return float(fit + 2.0 * gradient(x).abs().square().sum(dim=0).sqrt().sum())

    found = total_variation(problem, 2.0, 300)
    best = objective(found)
    for k in range(40):
        assert objective(found + 1e-3 * draw(6, 6, seed=k, dtype=dtype)) > best - 1e-6
    assert best < objective(least_squares(problem, 200)) - 0.1


@pytest.mark.slow
def test_total_variation_of_a_step_has_a_closed_form():
    """Two flat halves of n pixels a side each move towards the other by weight / width, until they meet."""
    width = 8
    y = torch.zeros(6, 2 * width, dtype=torch.float64)
    y[:, width:] = 1.0
    identity = Diagonal(torch.ones_like(y), Space((6, 2 * width), torch.float64))
    found = total_variation(Problem(y, identity, 1.0), 2.0, 150)
    torch.testing.assert_close(
        found[:, :width], torch.full((6, width), 2.0 / width, dtype=torch.float64), atol=1e-3, rtol=0
    )
    torch.testing.assert_close(
        found[:, width:], torch.full((6, width), 1 - 2.0 / width, dtype=torch.float64), atol=1e-3, rtol=0
    )
    flat = total_variation(Problem(y, identity, 1.0), 100.0, 100, edge=1.0)
    torch.testing.assert_close(flat, torch.full_like(y, 0.5), atol=1e-3, rtol=0)
    assert 0 <= float(total_variation(Problem(y - 0.5, identity, 1.0), 0.1, 100, nonnegative=True).min()) < 1e-9


def test_divergence_is_minus_the_adjoint_of_the_gradient():
    x, q = draw(5, 7), draw(2, 5, 7, seed=1)
    left, right = (gradient(x) * q).sum(), -(x * divergence(q)).sum()
    assert math.isclose(float(left), float(right), rel_tol=1e-12)


def test_settings_that_make_no_sense():
    problem, _ = matrix_problem(torch.float64)
    with pytest.raises(InputError, match="weight"):
        total_variation(problem, -1.0)
    with pytest.raises(InputError, match="iterations"):
        least_squares(problem, 0)
