"""Weighted normal operators of MRI and their Fourier gains, against dense algebra."""

import math

import pytest
import torch

from operators import CartesianMRI, Matrix, Space


def _operator(shape: tuple[int, int], maps: int | None) -> CartesianMRI:
    generator = torch.Generator().manual_seed(0)
    mask = torch.rand(shape, generator=generator) > 0.4
    if maps is None:
        return CartesianMRI(mask)
    size = (3, *shape) if maps == 1 else (maps, 3, *shape)
    return CartesianMRI(mask, torch.randn(size, dtype=torch.complex128, generator=generator))


@pytest.mark.parametrize("shape", [(8, 6), (7, 5)])
@pytest.mark.parametrize("maps", [None, 1, 2])
@pytest.mark.parametrize("by_coil", [False, True])
def test_weights_and_gains(shape: tuple[int, int], maps: int | None, by_coil: bool) -> None:
    operator = _operator(shape, maps)
    if by_coil and maps is None:
        return
    real = torch.float64 if maps else torch.float32
    size = (3, *shape) if by_coil else ((1, *shape) if maps else shape)
    weight = torch.rand(size, dtype=real, generator=torch.Generator().manual_seed(1))
    count = math.prod(operator.domain.shape)
    basis = torch.eye(count, dtype=operator.domain.dtype).reshape(count, *operator.domain.shape)
    waves = torch.fft.ifftn(basis, dim=(-2, -1), norm="ortho")
    found = operator.weighted_normal(waves, weight)
    torch.testing.assert_close(found, operator.H(operator(waves) * weight), rtol=1e-5, atol=1e-6)
    dense = torch.fft.fftn(found, dim=(-2, -1), norm="ortho").reshape(count, count).diagonal().real
    gains, axes = operator.fourier_gains(weight)
    assert axes == (-2, -1)
    torch.testing.assert_close(gains.flatten(), dense, rtol=1e-4, atol=1e-5)


def test_gradients_go_through_the_weighted_normal() -> None:
    operator = _operator((8, 6), 1)
    x = torch.randn(operator.domain.shape, dtype=torch.complex128, requires_grad=True)
    weight = torch.rand(1, 8, 6, dtype=torch.float64)
    operator.weighted_normal(x, weight).abs().square().sum().backward()
    assert x.grad is not None and bool(torch.isfinite(torch.view_as_real(x.grad)).all())


def test_an_operator_without_fourier_gains_says_so() -> None:
    operator = Matrix(torch.randn(3, 4), Space((4,), torch.float32), Space((3,), torch.float32))
    assert operator.fourier_gains(1.0) is None
    weight = torch.tensor([1.0, 2.0, 0.0])
    x = torch.randn(2, 4)
    torch.testing.assert_close(operator.weighted_normal(x, weight), operator.H(operator(x) * weight))
