"""Cartesian MRI: A = P F S, coil maps, centred orthonormal FFT and a sampling mask, in 2D and 3D."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from operators.base import LinearOperator, Space
from operators.errors import InputError, ShapeError
from operators.fourier import fftc, ifftc, shift_signs
from operators.mri import gram
from operators.mri.coil_maps import checked, combine, expand, spaces
from operators.mri.sampling import boolean, fits

# Complex values transformed at once. On a CPU a few coil images at a time stay in the cache; a GPU wants large batches.
_CPU_CHUNK, _GPU_CHUNK = 1 << 19, 1 << 26


class CartesianMRI(LinearOperator):
    """Sampled multi-coil k-space of an image, y_c = P F (S_c x).

    F is the centred orthonormal FFT (centre at n // 2) over the image axes, P keeps the sampled points and writes
    zeros elsewhere. With several maps, y_c = P F sum_m S_mc x_m.

    Parameters
    ----------
    mask : array or tensor
        True at the sampled points; broadcastable to the image shape, so (1, x) samples whole columns. An empty mask
        gives the zero operator.
    coil_maps : array or tensor, optional
        S, complex: (coil, y, x), or (map, coil, y, x) for several ESPIRiT maps; in 3D (coil, z, y, x) or
        (map, coil, z, y, x). Without maps there is one coil with S = 1 and no coil axis.
    shape : tuple of int, optional
        The image shape, (y, x) or (z, y, x). It is needed if the mask does not define it: without coil maps when the
        mask has an axis of length 1, and in 3D when the mask has fewer than three axes.

    Notes
    -----
    ``domain`` is (y, x), (z, y, x) or, with several maps, (map, y, x) or (map, z, y, x); ``codomain`` puts the coil
    axis in front of the image axes. ``normal`` transforms only along the axes on which the mask varies: along a fully
    sampled axis FFT and inverse FFT cancel. It needs no centring either, since the mask is stored shifted. For one set
    of coil maps, a mask that varies along one axis and enough images at once it is a product with one small matrix for
    each line (`operators.mri.gram`), whatever the number of coils.

    It is the fast form of ``Sampling(mask, space) @ CenteredFFT(space, ndim) @ CoilMaps(coil_maps, ndim)``, with
    ``space`` the codomain and ``ndim`` the number of image axes.

    Raises
    ------
    InputError, ShapeError
        For a mask that is not 0 or 1, maps that are not complex and finite, or shapes that do not fit.
    """

    def __init__(
        self,
        mask: Tensor | np.ndarray,
        coil_maps: Tensor | np.ndarray | None = None,
        shape: tuple[int, ...] | None = None,
    ) -> None:
        mask = boolean(mask, "CartesianMRI")
        maps = None if coil_maps is None else checked(coil_maps, "CartesianMRI")
        image = _image_shape(mask, maps, shape)
        dtype = torch.complex64 if maps is None else maps.dtype
        single = Space(image, dtype, "z y x" if len(image) == 3 else "y x")
        super().__init__(*((single, single) if maps is None else spaces(maps, len(image))))
        self.mask = mask.reshape((1,) * (len(image) - mask.ndim) + tuple(mask.shape))
        self.coil_maps = maps
        device = None if maps is None else maps.device
        self.mask = self.mask.to(device)
        self.axes = tuple(range(-len(image), 0))
        self._sampled = int(self.mask.expand(image).sum())
        real = torch.float64 if dtype == torch.complex128 else torch.float32
        self._signs = shift_signs(image, real, self.mask.device) if all(n % 2 == 0 for n in image) else None
        flip = (-1.0) ** (sum(n // 2 for n in image) % 2)
        self._weight = self.mask.to(real) if self._signs is None else self.mask * self._signs * flip
        self._normal_axes, self._normal_weight = _normal_weight(self.mask.expand(image), real)
        along_one = len(self._normal_axes) == 1 and maps is not None and maps.ndim == 3
        self._may_use_lines = along_one and maps is not None and gram.fits(maps, self._normal_axes[0])

    @property
    def n_data(self) -> int:
        """Sampled points times coils."""
        coils = 1 if self.coil_maps is None else self.codomain.shape[0]
        return coils * self._sampled

    def _forward(self, x: Tensor) -> Tensor:
        if self.coil_maps is None:
            return self._to_kspace(x)
        batch = self.domain.batch_shape(x)
        out = x.new_empty((*batch, *self.codomain.shape), dtype=torch.promote_types(x.dtype, self.coil_maps.dtype))
        flat = out.reshape(-1, *self.codomain.shape)
        for i, coils in self._chunks(x):
            image = x.reshape(-1, *self.domain.shape)[i]
            flat[i, coils] = self._to_kspace(self._expand(image, coils))
        return out

    def _adjoint(self, y: Tensor) -> Tensor:
        if self.coil_maps is None:
            return self._to_image(y)
        batch = self.codomain.batch_shape(y)
        flat = y.reshape(-1, *self.codomain.shape)
        out = self._zeros(y, len(flat))
        for i, coils in self._chunks(out):
            self._combine(out, i, self._to_image(flat[i, coils]), coils)
        return out.reshape(*batch, *self.domain.shape)

    def _normal(self, x: Tensor) -> Tensor:
        if self.coil_maps is None:
            return self._filter(x, self._normal_axes, self._normal_weight)
        flat = x.reshape(-1, *self.domain.shape)
        if self._may_use_lines and x.dtype == self.coil_maps.dtype:
            axis = self._normal_axes[0]
            if gram.pays(self.coil_maps, axis, len(flat)):
                return gram.apply_lines(self._lines, flat, axis).reshape(x.shape)
        out = self._zeros(x, len(flat))
        for i, coils in self._chunks(out):
            images = self._filter(self._expand(flat[i], coils), self._normal_axes, self._normal_weight)
            self._combine(out, i, images, coils)
        return out.reshape(x.shape)

    def free(self) -> None:
        """Free the matrices of the lines, and do without them from now on."""
        self._may_use_lines = False
        vars(self).pop("_lines", None)

    def weighted_normal(self, x: Tensor, weight: Tensor) -> Tensor:
        """Apply A^H W A; a weight that is the same for all coils is one filter for all of them."""
        rank = len(self.axes)
        if x.requires_grad or (self.coil_maps is not None and weight.ndim > rank and weight.shape[-rank - 1] > 1):
            return super().weighted_normal(x, weight)
        self.domain.check(x, f"{self._name}.weighted_normal(x)")
        image = self.codomain.shape[-rank:]
        plane = (weight.reshape(weight.shape[weight.ndim - rank :]) if weight.ndim > rank else weight) * self.mask
        weights, axes = torch.fft.ifftshift(plane.expand(image), dim=self.axes), self.axes
        if self.coil_maps is None:
            return self._filter(x, axes, weights)
        flat = x.reshape(-1, *self.domain.shape)
        out = self._zeros(x, len(flat))
        for i, coils in self._chunks(out):
            self._combine(out, i, self._filter(self._expand(flat[i], coils), axes, weights), coils)
        return out.reshape(x.shape)

    def fourier_gains(self, weight: float | Tensor) -> tuple[Tensor, tuple[int, ...]]:
        """Return the diagonal of F A^H W A F^H, and the axes: power spectra of the maps, correlated with the mask."""
        real = self._normal_weight.dtype
        image, device = self.codomain.shape[-len(self.axes) :], self.mask.device
        weights = torch.as_tensor(weight, dtype=real, device=device) * self.mask
        if self.coil_maps is None:
            return torch.fft.ifftshift(weights.expand(image), dim=self.axes), self.axes
        weights = weights if weights.ndim > len(image) else weights[None]
        weights = torch.fft.ifftshift(weights.expand(*weights.shape[:1], *image), dim=self.axes)
        power = torch.fft.fftn(self.coil_maps, dim=self.axes, norm="forward").abs().square()
        power = power.sum(dim=-len(image) - 1, keepdim=True) if len(weights) == 1 else power
        product = torch.fft.fftn(weights, dim=self.axes) * torch.fft.fftn(power, dim=self.axes).conj()
        gains = torch.fft.ifftn(product.sum(dim=-len(image) - 1), dim=self.axes).real
        return gains.clamp_min(0), self.axes

    @cached_property
    def _lines(self) -> Tensor:
        """Normal matrices of the lines."""
        assert self.coil_maps is not None
        return gram.line_matrices(self.coil_maps, self._normal_weight.flatten(), self._normal_axes[0])

    def _to_kspace(self, image: Tensor) -> Tensor:
        """P F of coil images, with the centring folded into signs where all lengths are even."""
        if self._signs is None:
            return fftc(image, self.axes) * self._weight
        return torch.fft.fftn(image * self._signs, dim=self.axes, norm="ortho").mul_(self._weight)

    def _to_image(self, kspace: Tensor) -> Tensor:
        if self._signs is None:
            return ifftc(kspace * self._weight, self.axes)
        return torch.fft.ifftn(kspace * self._weight, dim=self.axes, norm="ortho").mul_(self._signs)

    @staticmethod
    def _filter(image: Tensor, axes: tuple[int, ...], weight: Tensor) -> Tensor:
        """F^H P F of coil images, P a mask or weights along the axes on which it varies."""
        if not axes:
            return image * weight
        return torch.fft.ifftn(torch.fft.fftn(image, dim=axes).mul_(weight), dim=axes)

    def _expand(self, image: Tensor, coils: slice) -> Tensor:
        """Coil images of a few items: sum_m S_mc x_m."""
        assert self.coil_maps is not None
        return expand(image, self._maps_of(coils), len(self.axes))

    def _combine(self, out: Tensor, items: slice, images: Tensor, coils: slice) -> None:
        """Add sum_c conj(S_c) images_c to the items of `out`."""
        rank, maps = len(self.axes), self._maps_of(coils)
        if images.shape[-rank - 1] == 1:  # one coil at a time: no sum, and no temporary array
            images = images if self.domain.ndim > rank else images.squeeze(-rank - 1)
            out[items].addcmul_(images, maps.conj().squeeze(-rank - 1))
        else:
            out[items] += combine(images, maps, rank)

    def _maps_of(self, coils: slice) -> Tensor:
        """Maps of a few coils."""
        assert self.coil_maps is not None
        return self.coil_maps[coils] if self.domain.ndim == len(self.axes) else self.coil_maps[:, coils]

    def _zeros(self, like: Tensor, items: int) -> Tensor:
        dtype = torch.promote_types(like.dtype, self.domain.dtype)
        return like.new_zeros((items, *self.domain.shape), dtype=dtype)

    def _chunks(self, x: Tensor) -> Iterator[tuple[slice, slice]]:
        """Slices of items and of coils whose coil images fit the cache (CPU) or bound the memory (GPU)."""
        coils = self.codomain.shape[0]
        pixels = self.codomain.shape[1:]
        size = int(np.prod(pixels))
        items = x.numel() // int(np.prod(self.domain.shape))
        room = max((_CPU_CHUNK if x.device.type == "cpu" else _GPU_CHUNK) // size, 1)
        some = min(room, coils)
        many = max(room // coils, 1)
        for i in range(0, items, many):
            for c in range(0, coils, some):
                yield slice(i, min(i + many, items)), slice(c, min(c + some, coils))


def _image_shape(mask: Tensor, maps: Tensor | None, shape: tuple[int, ...] | None) -> tuple[int, ...]:
    """Return the image shape from mask, maps and `shape`, which must agree."""
    if shape is not None:
        image = tuple(int(n) for n in shape)
    elif maps is not None:
        image = tuple(maps.shape[-(3 if mask.ndim == 3 or maps.ndim == 5 else 2) :])
    elif 1 in mask.shape:
        raise InputError(
            f"CartesianMRI cannot infer the image shape from a mask of shape {tuple(mask.shape)}; give shape="
        )
    else:
        image = tuple(mask.shape)
    if len(image) not in (2, 3):
        raise ShapeError(f"CartesianMRI images have 2 or 3 axes, got shape {image}")
    if maps is not None and (maps.ndim not in (len(image) + 1, len(image) + 2) or maps.shape[-len(image) :] != image):
        raise ShapeError(f"CartesianMRI expected coil_maps (coil, *{image}) or (map, coil, *{image}), got {maps.shape}")
    if not fits(mask, image):
        raise ShapeError(f"CartesianMRI expected a mask that broadcasts to {image}, got {tuple(mask.shape)}")
    return image


def _normal_weight(mask: Tensor, real: torch.dtype) -> tuple[tuple[int, ...], Tensor]:
    """Axes along which the mask varies, and the mask of these axes with its centre moved to index 0."""
    axes = []
    for axis in range(-mask.ndim, 0):
        first = mask.narrow(axis, 0, 1)
        if bool((mask == first).all()):
            mask = first
        else:
            axes.append(axis)
    shifted = torch.fft.ifftshift(mask, dim=tuple(axes)) if axes else mask
    return tuple(axes), shifted.to(real)
