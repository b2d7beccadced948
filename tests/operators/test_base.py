"""Spaces, the algebra of operators and automatic differentiation."""

import pytest
import torch

from operators import CenteredFFT, Diagonal, Identity, InputError, LinearOperator, Matrix, ShapeError, Space


def _random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, dtype=torch.complex128, generator=torch.Generator().manual_seed(seed))


class TestSpace:
    def test_accepts_batches_and_other_precision(self) -> None:
        space = Space((4, 3))
        space.check(torch.zeros(4, 3, dtype=torch.complex64))
        space.check(torch.zeros(5, 2, 4, 3, dtype=torch.complex128))
        assert space.batch_shape(torch.zeros(5, 2, 4, 3)) == (5, 2)
        assert space.ndim == 2

    @pytest.mark.parametrize(
        ("array", "words"),
        [
            (torch.zeros(3, dtype=torch.complex64), ["y=4", "x=3", "(3,)"]),
            (torch.zeros(4, 4, dtype=torch.complex64), ["y=4", "x=3", "(4, 4)"]),
            (torch.zeros(3, 4, dtype=torch.complex64), ["(3, 4)"]),
            (torch.zeros(4, 3), ["complex", "float32"]),
            (torch.zeros(4, 3, dtype=torch.int64), ["complex", "int64"]),
            ([[0j] * 3] * 4, ["tensor", "list"]),
        ],
    )
    def test_refuses_what_does_not_fit(self, array: object, words: list[str]) -> None:
        with pytest.raises(ShapeError) as error:
            Space((4, 3)).check(array, "the image")  # type: ignore[arg-type]
        assert "the image" in str(error.value)
        assert all(word in str(error.value) for word in words)

    def test_real_space_refuses_complex_values(self) -> None:
        with pytest.raises(ShapeError, match="real"):
            Space((3,), torch.float32).check(torch.zeros(3, dtype=torch.complex64))

    def test_names_axes_of_any_rank(self) -> None:
        assert Space((2, 3, 4)).axes == "z y x"
        assert len(Space((1, 2, 3, 4, 5)).axes.split()) == 5
        with pytest.raises(InputError, match="axis names"):
            Space((2, 3), axes="coil y x")

    @pytest.mark.parametrize("shape", [(0, 3), (-1,)])
    def test_refuses_empty_axes(self, shape: tuple[int, ...]) -> None:
        with pytest.raises(InputError, match="positive"):
            Space(shape)

    def test_refuses_integer_type(self) -> None:
        with pytest.raises(InputError, match="complex64"):
            Space((3,), torch.int32)


class TestAlgebra:
    def test_adjoint_of_adjoint_is_the_operator(self) -> None:
        operator = CenteredFFT((4,))
        assert operator.H.H is operator

    def test_expressions_compute_what_they_say(self) -> None:
        first, second = Matrix(_random(3, 4)), Matrix(_random(3, 4, seed=1))
        left, x = Matrix(_random(2, 3, seed=2)), _random(5, 4, seed=3)
        dense = left.matrix @ (first.matrix + (2 - 1j) * second.matrix)
        operator = left @ (first + second * (2 - 1j))
        torch.testing.assert_close(operator(x), x @ dense.mT)
        torch.testing.assert_close(operator.H(operator(x)), x @ (dense.mH @ dense).mT)
        torch.testing.assert_close((first - second)(x), first(x) - second(x))
        torch.testing.assert_close((-first)(x), -first(x))

    def test_adjoint_times_operator_uses_the_fused_normal(self) -> None:
        class Fused(Identity):
            def _normal(self, x: torch.Tensor) -> torch.Tensor:
                return 7 * x

        operator, x = Fused((3,)), _random(3)
        for product in (operator.H @ operator, (operator.H @ operator).to(torch.float64)):
            torch.testing.assert_close(product(x), 7 * x)
            torch.testing.assert_close(product.H(x), 7 * x)
        torch.testing.assert_close((operator.H @ Fused((3,)))(x), x)

    def test_mismatched_spaces_are_refused(self) -> None:
        with pytest.raises(ShapeError, match="Matrix @ Matrix"):
            _ = Matrix(_random(3, 4)) @ Matrix(_random(3, 4))
        with pytest.raises(ShapeError, match="cannot add"):
            _ = Matrix(_random(3, 4)) + Matrix(_random(4, 4))
        with pytest.raises(TypeError):
            _ = Matrix(_random(3, 4)) @ _random(4)  # type: ignore[operator]

    @pytest.mark.parametrize("factor", [float("nan"), float("inf")])
    def test_factor_must_be_finite(self, factor: float) -> None:
        with pytest.raises(InputError, match="finite"):
            _ = factor * Identity((3,))

    def test_complex_factor_needs_complex_spaces(self) -> None:
        with pytest.raises(InputError, match="complex"):
            _ = 1j * Identity(Space((3,), torch.float32))

    def test_wrong_input_names_the_operator(self) -> None:
        with pytest.raises(ShapeError, match=r"CenteredFFT\(x\).*y=4, x=3"):
            CenteredFFT((4, 3))(torch.zeros(4, 4, dtype=torch.complex64))
        with pytest.raises(ShapeError, match=r"CenteredFFT\.H"):
            CenteredFFT((4, 3)).H(torch.zeros(3, dtype=torch.complex64))

    def test_moves_to_another_precision_without_changing_the_original(self) -> None:
        operator = Matrix(_random(3, 3)) @ Diagonal(_random(3).real)
        single = operator.to(torch.float32)
        assert single.domain.dtype is torch.complex64
        assert single(torch.zeros(3, dtype=torch.complex64)).dtype is torch.complex64
        assert operator.domain.dtype is torch.complex128
        assert operator(torch.zeros(3, dtype=torch.complex128)).dtype is torch.complex128
        assert operator.to("cpu").domain == operator.domain
        with pytest.raises(InputError, match="float16"):
            operator.to(torch.float16)

    @pytest.mark.parametrize("bad", [torch.zeros(3, dtype=torch.int64), torch.zeros(2, 2, 2)])
    def test_matrix_refuses_what_is_no_matrix(self, bad: torch.Tensor) -> None:
        with pytest.raises(ShapeError, match="Matrix"):
            Matrix(bad)

    def test_matrix_needs_spaces_of_its_size(self) -> None:
        with pytest.raises(ShapeError, match="columns"):
            Matrix(_random(3, 4), domain=Space((3,)))
        with pytest.raises(ShapeError, match="rows"):
            Matrix(_random(3, 4), codomain=Space((4,)))

    def test_diagonal_refuses_bad_values(self) -> None:
        with pytest.raises(InputError, match="finite"):
            Diagonal(torch.tensor([1.0, float("nan")]))
        with pytest.raises(ShapeError, match="broadcast"):
            Diagonal(torch.ones(3), Space((2, 4)))
        with pytest.raises(InputError, match="complex space"):
            Diagonal(_random(3), Space((3,), torch.float64))


class _Opaque(LinearOperator):
    """A kernel that autograd cannot see."""

    def __init__(self) -> None:
        super().__init__(Space((3,), torch.float64), Space((3,), torch.complex128))

    def _forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(x.detach().numpy() * (1 + 2j))

    def _adjoint(self, y: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(y.detach().numpy() * (1 - 2j))


class TestAutograd:
    @pytest.mark.parametrize("operator", [_Opaque(), Matrix(_random(4, 3)), CenteredFFT(Space((3,), torch.complex128))])
    def test_first_and_second_derivative(self, operator: LinearOperator) -> None:
        x = torch.randn(2, 3, dtype=operator.domain.dtype, generator=torch.Generator().manual_seed(0))
        x.requires_grad_()
        assert torch.autograd.gradcheck(operator, x)
        assert torch.autograd.gradcheck(operator.normal, x)
        assert torch.autograd.gradgradcheck(lambda v: operator(v).abs().square(), x)

    def test_real_domain_has_a_real_adjoint(self) -> None:
        y = _random(3)
        assert _Opaque().H(y).dtype is torch.float64
        torch.testing.assert_close(_Opaque().H(y), ((1 - 2j) * y).real)

    def test_works_under_vmap(self) -> None:
        operator, x = Matrix(_random(4, 3)), _random(5, 3, seed=1)
        torch.testing.assert_close(torch.func.vmap(operator)(x), operator(x))
        torch.testing.assert_close(torch.func.vmap(operator, in_dims=1)(x.mT), operator(x))

    def test_identity_does_not_alias_its_gradient(self) -> None:
        x = _random(3).requires_grad_()
        value = Identity(Space((3,), torch.complex128))(x)
        assert value.grad_fn is not None
        value.abs().square().sum().backward()
        torch.testing.assert_close(x.grad, 2 * x.detach())
