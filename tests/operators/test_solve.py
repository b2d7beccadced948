"""Conjugate gradient, power iteration and Gaussian draws against dense linear algebra."""

import math

import pytest
import torch
from torch import Tensor

from operators import (
    CartesianMRI,
    Diagonal,
    Identity,
    InputError,
    Matrix,
    ShapeError,
    Space,
    conjugate_gradient,
    gaussian_draw,
    power_norm,
)


def _random(*shape: int, seed: int = 0, dtype: torch.dtype = torch.complex128) -> Tensor:
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def _positive(n: int, dtype: torch.dtype = torch.complex128) -> Tensor:
    factor = _random(n, n, dtype=dtype)
    return factor @ factor.mH + torch.eye(n, dtype=dtype)


class TestConjugateGradient:
    @pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
    def test_solves_hermitian_systems(self, dtype: torch.dtype) -> None:
        matrix, rhs = _positive(12, dtype), _random(3, 12, seed=1, dtype=dtype)
        x = conjugate_gradient(Matrix(matrix), rhs, iterations=24).x
        torch.testing.assert_close(x, torch.linalg.solve(matrix, rhs.mT).mT, rtol=1e-9, atol=1e-9)

    def test_n_steps_suffice_for_n_eigenvalues(self) -> None:
        diagonal = torch.tensor([1.0, 2.0, 5.0], dtype=torch.float64).repeat(4)
        rhs = _random(12)
        x = conjugate_gradient(lambda v: diagonal * v, rhs, iterations=3).x
        torch.testing.assert_close(x, rhs / diagonal)

    def test_complex_inner_products_are_hermitian(self) -> None:
        # Without conjugation r^T r vanishes here and the first step already divides by zero.
        rhs = torch.tensor([1.0, 1.0j], dtype=torch.complex128)
        matrix = torch.tensor([[2.0, 1.0j], [-1.0j, 3.0]], dtype=torch.complex128)
        x = conjugate_gradient(Matrix(matrix), rhs, iterations=2).x
        torch.testing.assert_close(x, torch.linalg.solve(matrix, rhs))

    def test_samples_do_not_depend_on_their_batch(self) -> None:
        operator, rhs = Matrix(_positive(10)), _random(4, 2, 10, seed=1)
        rhs[1] *= 1e6
        rhs[2] = 0
        together = conjugate_gradient(operator, rhs, iterations=5, tolerance=1e-3).x
        for i in range(4):
            for j in range(2):
                alone = conjugate_gradient(operator, rhs[i, j], iterations=5, tolerance=1e-3).x
                torch.testing.assert_close(together[i, j], alone, rtol=1e-12, atol=1e-12 * float(rhs[i, j].abs().max()))

    def test_start_is_used(self) -> None:
        matrix, rhs = _positive(10), _random(10, seed=1)
        exact = torch.linalg.solve(matrix, rhs)
        assert torch.equal(conjugate_gradient(Matrix(matrix), rhs, exact, iterations=0).x, exact)
        near = exact + 1e-6 * _random(10, seed=2)
        error = (conjugate_gradient(Matrix(matrix), rhs, near, iterations=2).x - exact).abs().max()
        cold = (conjugate_gradient(Matrix(matrix), rhs, iterations=2).x - exact).abs().max()
        assert error < 1e-3 * cold

    def test_tolerance_freezes_each_sample_when_it_has_converged(self) -> None:
        # The first sample is solved in one step, the second needs more.
        operator = Diagonal(torch.tensor([1.0, 4.0, 9.0, 16.0], dtype=torch.float64))
        rhs = torch.tensor([[1.0, 0, 0, 0], [1, 1, 1, 1]], dtype=torch.float64)
        rhs = rhs.to(torch.complex128)
        operator = Diagonal(operator.diagonal, Space((4,), torch.complex128))
        results = [conjugate_gradient(operator, rhs, iterations=n, tolerance=1e-2).x for n in range(7)]
        torch.testing.assert_close(results[1][0], rhs[0])
        assert all(torch.equal(result[0], results[1][0]) for result in results[1:])
        assert not torch.equal(results[2][1], results[1][1])

    def test_residual_is_the_true_one(self) -> None:
        matrix, rhs = _positive(20), _random(2, 3, 20, seed=1)
        x, residual = conjugate_gradient(Matrix(matrix), rhs, iterations=4)
        true = torch.linalg.vector_norm(rhs - x @ matrix.mT, dim=-1) / torch.linalg.vector_norm(rhs, dim=-1)
        assert residual.shape == (2, 3)
        torch.testing.assert_close(residual, true)

    def test_zero_rhs_gives_zero(self) -> None:
        operator = Matrix(_positive(5))
        x, residual = conjugate_gradient(operator, torch.zeros(2, 5, dtype=torch.complex128))
        assert torch.equal(x, torch.zeros_like(x))
        assert torch.equal(residual, torch.zeros(2, dtype=torch.float64))
        x = conjugate_gradient(operator, torch.zeros_like(x), _random(2, 5), iterations=10).x
        assert x.abs().max() < 1e-9

    def test_indefinite_direction_freezes_its_sample_only(self) -> None:
        operator = Diagonal(torch.tensor([1.0, -1.0]), Space((2,), torch.complex128))
        rhs = torch.tensor([[1.0, 0], [0.0, 1], [1, 3]], dtype=torch.complex128)
        x, residual = conjugate_gradient(operator, rhs, iterations=5)
        torch.testing.assert_close(x[0], rhs[0])
        assert torch.equal(x[1:], torch.zeros(2, 2, dtype=torch.complex128))
        torch.testing.assert_close(residual, torch.tensor([0.0, 1, 1], dtype=torch.float64))

    def test_semidefinite_system_converges_in_its_range(self) -> None:
        operator = Diagonal(torch.tensor([2.0, 3.0, 0.0], dtype=torch.float64), Space((3,), torch.complex128))
        x = conjugate_gradient(operator, torch.tensor([2.0, 3, 0], dtype=torch.complex128), iterations=10).x
        torch.testing.assert_close(x, torch.tensor([1.0, 1, 0], dtype=torch.complex128))

    def test_long_runs_in_single_precision_stay_finite(self) -> None:
        matrix = _positive(8, torch.complex64)
        rhs = _random(3, 8, seed=1, dtype=torch.complex64)
        x = conjugate_gradient(Matrix(matrix), rhs, iterations=200).x
        torch.testing.assert_close(x, torch.linalg.solve(matrix, rhs.mT).mT, rtol=1e-3, atol=1e-4)

    @pytest.mark.parametrize("bad", ["rhs", "operator"])
    def test_nan_stays_in_its_sample_and_is_not_hidden(self, bad: str) -> None:
        matrix, rhs = _positive(4), _random(2, 4, seed=1)
        weight = torch.ones(2, 1, dtype=torch.float64)
        (rhs if bad == "rhs" else weight)[1] = float("nan")
        x, residual = conjugate_gradient(lambda v: weight * (v @ matrix.mT), rhs, iterations=9, item_ndim=1)
        torch.testing.assert_close(x[0], torch.linalg.solve(matrix, rhs[0]))
        assert residual[1].isnan()
        assert bad == "rhs" or x[1].isnan().any()

    def test_preconditioner_of_the_inverse_solves_at_once(self) -> None:
        matrix, rhs = _positive(9), _random(2, 9, seed=1)
        inverse = torch.linalg.inv(matrix)
        x = conjugate_gradient(Matrix(matrix), rhs, iterations=1, preconditioner=lambda r: r @ inverse.mT).x
        torch.testing.assert_close(x, rhs @ inverse.mT)

    def test_plain_callables_take_all_axes_as_one_item(self) -> None:
        scale = torch.tensor([[1.0], [50.0]], dtype=torch.float64)
        rhs = _random(2, 6)
        one_item = conjugate_gradient(lambda v: scale * v, rhs, iterations=1).x
        per_row = conjugate_gradient(lambda v: scale * v, rhs, iterations=1, item_ndim=1).x
        torch.testing.assert_close(per_row, rhs / scale)
        assert not torch.allclose(one_item, per_row)

    @pytest.mark.slow
    def test_never_waits_for_a_value(self) -> None:
        # Meta tensors have no values: any .item() or branch on one raises, as it would break a CUDA graph.
        operator = CartesianMRI(torch.ones(6, 8), torch.ones(3, 6, 8) + 0j).to("meta")
        rhs = torch.empty(2, 6, 8, dtype=torch.complex64, device="meta")
        x, residual = conjugate_gradient(operator.H @ operator, rhs, rhs, tolerance=1e-3, preconditioner=lambda r: r)
        assert x.shape == rhs.shape
        assert residual.shape == (2,)

    @pytest.mark.parametrize("scale", [1e-12, 1e12])
    def test_scale_does_not_matter_in_single_precision(self, scale: float) -> None:
        operator, rhs = Matrix(_positive(8, torch.complex64)), _random(3, 8, seed=1, dtype=torch.complex64)
        x = conjugate_gradient(operator, rhs, iterations=6).x
        scaled = conjugate_gradient(operator, rhs * scale, iterations=6).x / scale
        torch.testing.assert_close(scaled, x, rtol=1e-4, atol=1e-5)

    def test_is_differentiable(self) -> None:
        matrix = _positive(3)
        rhs = _random(3, seed=1).requires_grad_()
        x = conjugate_gradient(Matrix(matrix), rhs, iterations=6).x
        weight = _random(3, seed=2)
        (grad,) = torch.autograd.grad(x, rhs, weight)
        torch.testing.assert_close(grad, torch.linalg.solve(matrix, weight), rtol=1e-6, atol=1e-6)

    def test_bad_arguments(self) -> None:
        operator, rhs = Matrix(_positive(3)), _random(3)
        with pytest.raises(InputError, match="iterations"):
            conjugate_gradient(operator, rhs, iterations=-1)
        with pytest.raises(InputError, match="tolerance"):
            conjugate_gradient(operator, rhs, tolerance=math.nan)
        with pytest.raises(ShapeError, match="start"):
            conjugate_gradient(operator, rhs, _random(2))
        with pytest.raises(ShapeError, match="item_ndim"):
            conjugate_gradient(lambda v: v, rhs, item_ndim=2)


class TestPowerNorm:
    def test_finds_the_largest_eigenvalue(self) -> None:
        matrix = _random(7, 5)
        largest = float(torch.linalg.matrix_norm(matrix, 2)) ** 2
        assert power_norm(Matrix(matrix), iterations=300) == pytest.approx(largest, rel=1e-6)
        assert power_norm(Matrix(matrix), iterations=2) <= largest * (1 + 1e-12)

    def test_is_seeded_and_leaves_the_global_generator_alone(self) -> None:
        state = torch.random.get_rng_state()
        operator = Matrix(_random(7, 5))
        assert power_norm(operator, 3, seed=1) == power_norm(operator, 3, seed=1) != power_norm(operator, 3, seed=2)
        assert torch.equal(state, torch.random.get_rng_state())

    def test_zero_operator(self) -> None:
        assert power_norm(Matrix(torch.zeros(3, 3))) == 0.0

    def test_needs_an_iteration(self) -> None:
        with pytest.raises(InputError, match="iteration"):
            power_norm(Identity((3,)), iterations=0)


def _standard_basis(n: int) -> Tensor:
    """All real and imaginary unit vectors, (2 n, n): the draw is linear over the real numbers in its noise."""
    eye = torch.eye(n, dtype=torch.complex128)
    return torch.cat([eye, 1j * eye])


class TestGaussianDraw:
    """The draw is affine in its noises: with unit vectors for the noise, mean and covariance are exact."""

    def setup_method(self) -> None:
        self.forward = _random(5, 4)
        root = _random(4, 4, seed=1)
        self.precision, self.root = root @ root.mH + torch.eye(4), torch.linalg.cholesky(root @ root.mH + torch.eye(4))
        self.y, self.mean = _random(5, seed=2), _random(4, seed=3)

    def _posterior(self, noise_std: Tensor) -> tuple[Tensor, Tensor]:
        weight = torch.diag(noise_std**-2).to(torch.complex128)
        inverse = torch.linalg.inv(self.forward.mH @ weight @ self.forward + self.precision)
        return inverse @ (self.forward.mH @ weight @ self.y + self.precision @ self.mean), inverse

    @pytest.mark.parametrize(
        "noise_std",
        [0.3, torch.tensor(0.3), torch.tensor([0.1, 0.3, 1.0, 2.0, math.inf])],
        ids=["float", "0d", "datum"],
    )
    def test_mean_and_covariance_are_exact(self, noise_std: float | Tensor) -> None:
        per_datum = torch.as_tensor(noise_std, dtype=torch.float64).expand(5)
        mean, covariance = self._posterior(per_datum)

        def draw(data_noise: Tensor, white: Tensor) -> Tensor:
            return gaussian_draw(
                Matrix(self.forward),
                self.y.expand(len(white), 5),
                noise_std,
                Matrix(self.precision),
                data_noise=data_noise,
                prior_noise=white @ self.root.mT,
                prior_mean=self.mean.expand(len(white), 4),
                iterations=30,
            ).x

        zero = draw(torch.zeros(1, 5, dtype=torch.complex128), torch.zeros(1, 4, dtype=torch.complex128))
        torch.testing.assert_close(zero[0], mean)
        data, prior = _standard_basis(5), _standard_basis(4)
        columns = torch.cat(
            [draw(data, torch.zeros(10, 4, dtype=data.dtype)), draw(torch.zeros(8, 5).to(prior), prior)]
        )
        columns = columns - mean
        # Each of the two parts of a standard complex normal has variance 1/2.
        torch.testing.assert_close(columns.mT @ columns.conj() / 2, covariance)
        torch.testing.assert_close(columns.mT @ columns, torch.zeros_like(covariance), atol=1e-9, rtol=0)

    def test_a_number_is_an_isotropic_precision(self) -> None:
        zeros = {"data_noise": torch.zeros_like(self.y), "prior_noise": torch.zeros_like(self.mean)}
        number = gaussian_draw(Matrix(self.forward), self.y, 0.5, 4.0, **zeros).x
        matrix = gaussian_draw(Matrix(self.forward), self.y, 0.5, Matrix(4.0 * torch.eye(4).to(self.y)), **zeros).x
        torch.testing.assert_close(number, matrix)

    def test_noise_std_per_sample(self) -> None:
        mask = torch.rand(6, 6, generator=torch.Generator().manual_seed(0)) < 0.5
        operator = CartesianMRI(mask, _random(2, 6, 6))
        y, levels = operator(_random(3, 6, 6, seed=1)), torch.tensor([0.1, 0.5, 2.0], dtype=torch.float64)
        noises = {"data_noise": _random(3, 2, 6, 6, seed=2), "prior_noise": _random(3, 6, 6, seed=3)}
        together = gaussian_draw(operator, y, levels.reshape(3, 1, 1, 1), 1.0, iterations=60, **noises).x
        for k, level in enumerate(levels.tolist()):
            alone = gaussian_draw(operator, y[k], level, 1.0, iterations=60, **{n: v[k] for n, v in noises.items()}).x
            torch.testing.assert_close(together[k], alone)

    @pytest.mark.parametrize("noise_std", [0.0, -1.0, math.nan])
    def test_noise_std_must_be_positive(self, noise_std: float) -> None:
        with pytest.raises(InputError, match="noise_std"):
            gaussian_draw(Matrix(self.forward), self.y, noise_std, 1.0, data_noise=self.y, prior_noise=self.mean)

    def test_shapes_are_checked(self) -> None:
        with pytest.raises(ShapeError, match="data_noise"):
            gaussian_draw(Matrix(self.forward), self.y, 1.0, 1.0, data_noise=self.mean, prior_noise=self.mean)
        with pytest.raises(ShapeError, match="prior_noise"):
            gaussian_draw(Matrix(self.forward), self.y, 1.0, 1.0, data_noise=self.y, prior_noise=self.y)
