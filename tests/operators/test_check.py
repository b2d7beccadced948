"""The checker accepts good operators (see test_laws.py) and names what is wrong with bad ones."""

import pytest
import torch
from torch import Tensor

from operators import Identity, LawError, check_operator


class _Scaled(Identity):
    def _adjoint(self, y: Tensor) -> Tensor:
        return 0.25 * y


class _Rotated(Identity):
    def _adjoint(self, y: Tensor) -> Tensor:
        return 1j * y


class _WrongAdjoint(Identity):
    def _forward(self, x: Tensor) -> Tensor:
        return x.roll(1, -1)


class _WrongNormal(Identity):
    def _normal(self, x: Tensor) -> Tensor:
        return 3 * x


class _Affine(Identity):
    def _forward(self, x: Tensor) -> Tensor:
        return x + 1


class _Conjugating(Identity):
    def _forward(self, x: Tensor) -> Tensor:
        return x.conj()

    def _adjoint(self, y: Tensor) -> Tensor:
        return y.conj()


class _MixesBatch(Identity):
    def _forward(self, x: Tensor) -> Tensor:
        return x - x.flatten(0, -2).mean(0) if x.ndim > 1 else x


class _DropsBatch(Identity):
    def _forward(self, x: Tensor) -> Tensor:
        return x[0] if x.ndim > 1 else x


class _Nan(Identity):
    def _forward(self, x: Tensor) -> Tensor:
        return x * float("nan")


class _WrongShape(Identity):
    def _forward(self, x: Tensor) -> Tensor:
        return x[..., :2]


class _NanNormal(Identity):
    def _normal(self, x: Tensor) -> Tensor:
        return x * float("nan")


@pytest.mark.parametrize(
    ("operator", "message"),
    [
        (_Scaled, r"off by a factor 0\.25 in every trial: a scale is missing"),
        (_Rotated, "off by a factor .*1j"),
        (_WrongAdjoint, "<A x, y> differs"),
        (_WrongNormal, "normal.*off by a factor 3 in every trial"),
        (_Affine, "not linear"),
        (_Conjugating, "not linear"),
        (_MixesBatch, "of a batch"),
        (_DropsBatch, "batch axes"),
        (_Nan, "not finite"),
        (_NanNormal, "normal"),
        (_WrongShape, "not in the operator's space.*x=5"),
    ],
)
def test_names_the_broken_law(operator: type[Identity], message: str) -> None:
    with pytest.raises(LawError, match=message):
        check_operator(operator((5,)))


def test_a_wrong_adjoint_is_not_called_a_scale() -> None:
    with pytest.raises(LawError) as error:
        check_operator(_WrongAdjoint((5,)))
    assert "factor" not in str(error.value)


def test_compares_the_whole_vector_with_autograd() -> None:
    class Bypass(Identity):
        """Its call is right, but what it lets autograd see is not."""

        def __call__(self, x: Tensor) -> Tensor:
            return x + 1e-3 * (x - x.detach()).flip(-1)

    with pytest.raises(LawError, match="vector-Jacobian"):
        check_operator(Bypass((5,)))


def test_leaves_the_global_generator_alone() -> None:
    before = torch.random.get_rng_state()
    check_operator(Identity((5,)))
    assert torch.equal(before, torch.random.get_rng_state())


def test_tolerance_can_be_set() -> None:
    class Slightly(Identity):
        def _adjoint(self, y: Tensor) -> Tensor:
            return (1 + 1e-3) * y

    with pytest.raises(LawError):
        check_operator(Slightly((5,)))
    check_operator(Slightly((5,)), tolerance=1e-2)
