"""The centred orthonormal Fourier transform.

The centres of image and spectrum are at index n // 2, also for odd lengths:
``y[k] = n^(-1/2) sum_j x[j] exp(-2 pi i (j - c)(k - c) / n)``, ``c = n // 2``.
"""

from __future__ import annotations

import torch
from torch import Tensor

from operators.base import LinearOperator, Space
from operators.errors import InputError, ShapeError


def fftc(x: Tensor, axes: tuple[int, ...] = (-2, -1)) -> Tensor:
    """Centred orthonormal FFT over `axes`, image to spectrum."""
    return _centred(x, axes, inverse=False)


def ifftc(x: Tensor, axes: tuple[int, ...] = (-2, -1)) -> Tensor:
    """Centred orthonormal inverse FFT over `axes`, spectrum to image; the adjoint of `fftc`."""
    return _centred(x, axes, inverse=True)


def shift_signs(lengths: tuple[int, ...], dtype: torch.dtype, device: torch.device | None = None) -> Tensor:
    """Signs (-1)^(j_1 + j_2 + ...) over the given axes: a shift by half an even length, on the other side of an FFT."""
    signs = torch.ones((), dtype=dtype, device=device)
    for n in lengths:
        line = torch.ones(n, dtype=dtype, device=device)
        line[1::2] = -1
        signs = signs.unsqueeze(-1) * line
    return signs


def _centred(x: Tensor, axes: tuple[int, ...], inverse: bool) -> Tensor:
    """Centre even axes by signs, which is exact and saves two copies, and odd axes by shifts."""
    axes = tuple(sorted(axis - x.ndim if axis >= 0 else axis for axis in axes))
    if not axes or len(set(axes)) < len(axes) or axes[0] < -x.ndim or axes[-1] >= 0:
        raise ShapeError(f"the centred FFT needs distinct axes of an array of shape {tuple(x.shape)}, got {axes}")
    even = [axis for axis in axes if x.shape[axis] % 2 == 0]
    odd = [axis for axis in axes if x.shape[axis] % 2]
    signs = None
    if even:
        lengths = tuple(x.shape[axis] for axis in even)
        signs = shift_signs(lengths, x.real.dtype, x.device)
        signs = signs.reshape([x.shape[axis] if axis in even else 1 for axis in range(even[0], 0)])
    transform = torch.fft.ifftn if inverse else torch.fft.fftn
    y = torch.fft.ifftshift(x, dim=odd) if odd else x
    y = transform(y if signs is None else y * signs, dim=axes, norm="ortho")
    if signs is not None:
        flip = sum(x.shape[axis] // 2 for axis in even) % 2
        y = y * (-signs if flip else signs)
    return torch.fft.fftshift(y, dim=odd) if odd else y


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
