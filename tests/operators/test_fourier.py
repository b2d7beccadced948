"""The centred orthonormal FFT against numpy and against a closed form."""

import math

import numpy as np
import pytest
import torch

from operators import CenteredFFT, InputError, ShapeError, Space, fftc, ifftc


@pytest.mark.parametrize(
    "shape", [(8,), (6,), (7,), (1,), (2,), (4, 6), (5, 6), (10, 7), (5, 9), (6, 1), (2, 3, 4), (6, 4, 10)]
)
def test_agrees_with_shifted_numpy_transforms(shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(3, *shape)) + 1j * rng.normal(size=(3, *shape))
    axes = tuple(range(-len(shape), 0))
    expected = np.fft.fftshift(np.fft.fftn(np.fft.ifftshift(x, axes), axes=axes, norm="ortho"), axes)
    np.testing.assert_allclose(fftc(torch.from_numpy(x), axes).numpy(), expected, atol=1e-13)
    expected = np.fft.fftshift(np.fft.ifftn(np.fft.ifftshift(x, axes), axes=axes, norm="ortho"), axes)
    np.testing.assert_allclose(ifftc(torch.from_numpy(x), axes).numpy(), expected, atol=1e-13)


@pytest.mark.parametrize("axes", [(0,), (-2,), (1, -1), (0, 2)])
def test_any_axes(axes: tuple[int, ...]) -> None:
    x = torch.randn(4, 5, 6, dtype=torch.complex128, generator=torch.Generator().manual_seed(0))
    expected = np.fft.fftshift(np.fft.fftn(np.fft.ifftshift(x.numpy(), axes), axes=axes, norm="ortho"), axes)
    np.testing.assert_allclose(fftc(x, axes).numpy(), expected, atol=1e-13)


@pytest.mark.parametrize("n", [64, 65, 66])
def test_gaussian_transforms_to_a_gaussian(n: int) -> None:
    # exp(-pi r^2 / s^2) <-> s exp(-pi s^2 k^2), sampled at integers r and k / n, by Poisson summation.
    r = torch.arange(n, dtype=torch.float64) - n // 2
    s = 0.9 * math.sqrt(n)
    x = torch.exp(-math.pi * r[:, None] ** 2 / s**2) * torch.exp(-math.pi * r**2 / s**2)
    expected = s**2 / n * torch.exp(-math.pi * s**2 * (r[:, None] ** 2 + r**2) / n**2)
    y = fftc(x.to(torch.complex128))
    torch.testing.assert_close(y, expected.to(torch.complex128), atol=1e-12, rtol=0)


@pytest.mark.parametrize("n", [8, 9])
def test_centre_impulse_gives_a_constant(n: int) -> None:
    x = torch.zeros(n, n, dtype=torch.complex64)
    x[n // 2, n // 2] = n
    torch.testing.assert_close(fftc(x), torch.ones(n, n, dtype=torch.complex64))


def test_input_is_left_alone_also_when_it_is_not_contiguous() -> None:
    x = torch.randn(6, 4, dtype=torch.complex128, generator=torch.Generator().manual_seed(0)).mT.conj()
    before = x.clone()
    torch.testing.assert_close(fftc(x), fftc(x.resolve_conj().contiguous()))
    assert torch.equal(x, before)


@pytest.mark.parametrize("axes", [(), (0, 0), (-1, 1), (5,), (-3,)])
def test_bad_axes(axes: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match="axes"):
        fftc(torch.zeros(4, 4, dtype=torch.complex64), axes)


def test_operator_needs_a_complex_space_of_enough_axes() -> None:
    with pytest.raises(InputError, match="complex"):
        CenteredFFT(Space((4,), torch.float32))
    with pytest.raises(ShapeError, match="ndim"):
        CenteredFFT((4, 4), ndim=3)
