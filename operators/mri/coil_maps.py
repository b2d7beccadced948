"""Coil maps as an operator: from an image to the coil images."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from operators.arrays import tensor
from operators.base import LinearOperator, Space
from operators.errors import InputError, ShapeError


class CoilMaps(LinearOperator):
    """Coil images of an image, x_c = S_c x; with several sets of maps, x_c = sum_m S_mc x_m.

    Parameters
    ----------
    coil_maps : array or tensor
        S, complex: (coil, y, x), or (map, coil, y, x) for several sets; with ``ndim=3`` (coil, z, y, x) or
        (map, coil, z, y, x).
    ndim : int
        Number of axes of an image, 2 or 3.

    Notes
    -----
    ``domain`` is the image, (y, x), or one image for each set of maps, (map, y, x); ``codomain`` has the coil axis in
    front of the image axes. With a Fourier transform behind it this is a model of any trajectory; the Cartesian one is
    `operators.CartesianMRI`.

    Raises
    ------
    InputError, ShapeError
        For maps that are not complex and finite, or have another number of axes.
    """

    def __init__(self, coil_maps: Tensor | np.ndarray, ndim: int = 2) -> None:
        maps = checked(coil_maps, "CoilMaps")
        if ndim not in (2, 3) or maps.ndim not in (ndim + 1, ndim + 2):
            raise ShapeError(
                f"CoilMaps expected ([map,] coil) and ndim=2 or 3 image axes, got {tuple(maps.shape)} and ndim={ndim}"
            )
        super().__init__(*spaces(maps, ndim))
        self.coil_maps = maps
        self._power = None if maps.ndim > ndim + 1 else maps.abs().square().sum(0)

    def _forward(self, x: Tensor) -> Tensor:
        return expand(x, self.coil_maps, self.codomain.ndim - 1)

    def _adjoint(self, y: Tensor) -> Tensor:
        return combine(y, self.coil_maps, self.codomain.ndim - 1)

    def _normal(self, x: Tensor) -> Tensor:
        return super()._normal(x) if self._power is None else x * self._power


def expand(image: Tensor, maps: Tensor, ndim: int) -> Tensor:
    """Return coil images, sum_m S_mc x_m, for images of `ndim` axes."""
    images = image.unsqueeze(-ndim - 1) * maps
    return images.sum(-ndim - 2) if maps.ndim > ndim + 1 else images


def combine(images: Tensor, maps: Tensor, ndim: int) -> Tensor:
    """Return sum_c conj(S_c) x_c of coil images: the adjoint of `expand`."""
    images = images.unsqueeze(-ndim - 2) if maps.ndim > ndim + 1 else images
    return (images * maps.conj()).sum(-ndim - 1)


def spaces(maps: Tensor, ndim: int) -> tuple[Space, Space]:
    """Return the spaces of the image(s) and of the coil images."""
    names, image = ("y x", "z y x")[ndim - 2], tuple(maps.shape[-ndim:])
    codomain = Space((maps.shape[-ndim - 1], *image), maps.dtype, f"coil {names}")
    if maps.ndim == ndim + 1:
        return Space(image, maps.dtype, names), codomain
    return Space((maps.shape[0], *image), maps.dtype, f"map {names}"), codomain


def checked(coil_maps: Tensor | np.ndarray, owner: str) -> Tensor:
    """Return maps as a tensor, complex and finite."""
    maps = tensor(coil_maps, f"{owner}: coil_maps")
    if not maps.is_complex():
        raise InputError(f"{owner} expected complex coil_maps (coil, y, x), got {maps.dtype}")
    if not 3 <= maps.ndim <= 5 or 0 in maps.shape:
        raise ShapeError(f"{owner} expected coil_maps (coil, y, x), got shape {tuple(maps.shape)}")
    if not bool(torch.isfinite(torch.view_as_real(maps.resolve_conj())).all()):
        raise InputError(f"{owner} got coil_maps with values that are not finite")
    return maps.resolve_conj()
