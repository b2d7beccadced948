"""The centred orthonormal Fourier transform.

The image centre and the k-space centre sit at index n // 2, for odd lengths too:
``y[k] = n^(-1/2) sum_j x[j] exp(-2 pi i (j - c)(k - c) / n)``, ``c = n // 2``.
"""

from __future__ import annotations

import torch
from torch import Tensor

from operators.base import LinearOperator, Space
from operators.errors import InputError, ShapeError


def fftc(x: Tensor, axes: tuple[int, ...] = (-2, -1)) -> Tensor:
    """Centred orthonormal FFT over `axes`, image to k-space."""
    return _centred(x, axes, inverse=False)


def ifftc(x: Tensor, axes: tuple[int, ...] = (-2, -1)) -> Tensor:
    """Centred orthonormal inverse FFT over `axes`, k-space to image; the adjoint of `fftc`."""
    return _centred(x, axes, inverse=True)


def _centred(x: Tensor, axes: tuple[int, ...], inverse: bool) -> Tensor:
    transform = torch.fft.ifftn if inverse else torch.fft.fftn
    shifted = torch.fft.ifftshift(x, dim=axes)
    return torch.fft.fftshift(transform(shifted, dim=axes, norm="ortho"), dim=axes)


class CenteredFFT(LinearOperator):
    """The centred orthonormal FFT over the last one, two or three axes of an item.

    Parameters
    ----------
    space : Space or tuple of int
        The complex space it acts on; a shape means complex64.
    ndim : int, optional
        How many trailing axes to transform; by default all, at most three.
    """

    def __init__(self, space: Space | tuple[int, ...], ndim: int | None = None) -> None:
        space = space if isinstance(space, Space) else Space(space)
        ndim = min(space.ndim, 3) if ndim is None else ndim
        if not space.is_complex:
            raise InputError("CenteredFFT needs a complex space")
        if not 1 <= ndim <= min(space.ndim, 3):
            raise ShapeError(f"CenteredFFT transforms 1 to {min(space.ndim, 3)} axes of {space.shape}, got ndim={ndim}")
        super().__init__(space, space)
        self.axes = tuple(range(-ndim, 0))

    def _forward(self, x: Tensor) -> Tensor:
        return fftc(x, self.axes)

    def _adjoint(self, y: Tensor) -> Tensor:
        return ifftc(y, self.axes)

    def _normal(self, x: Tensor) -> Tensor:
        return x
