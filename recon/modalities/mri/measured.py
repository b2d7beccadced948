"""A slice of k-space as a Problem: coils whitened, maps, scale and the error of the model; and the same, refined."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from operators import CartesianMRI
from operators.mri.autocalibration import Region
from operators.solve import conjugate_gradient
from recon.modalities.model_error import ModelError, from_residual, of_share
from recon.modalities.mri.coil_maps import FULL_CALIBRATION, GOOD_CALIBRATION, CoilMaps, complete, maps_from
from recon.modalities.mri.noise import CoilNoise
from recon.modalities.mri.scale import quantile, scale_of
from recon.modalities.mri.whitening import Whitening, with_model_error
from recon.modalities.prepared import Prepared
from samplers import Problem
from samplers.proximal import proximal

#: A first image is fitted to the data with pixels free to move by so much of the brightest ones.
_FREEDOM, _FIT_ITERATIONS = 0.05, 10
#: Rings of k-space in which the error of the model counts as one, from the centre to the corners.
_RINGS = 24
#: With each alias errors of the model grow by twice their level, but no more than by this in all. Measured on a scan
#: of 16 coils at 2 and 4-fold acceleration.
_MOST_GROWTH = 3.0
#: From an error of the model of so many times the noise, and so much of the signal, on it is worth a note.
_NOTABLE, _NOTABLE_SHARE = 4.0, 0.05


@dataclass(frozen=True, eq=False)
class Measured:
    """What was measured, and what is known beforehand.

    Attributes
    ----------
    kspace : Tensor, shape ``(coil, y, x)``
        The coils as they came, brought near 1 by ``unit``; zeros where not sampled.
    mask : Tensor, bool, broadcastable to ``(y, x)``
    region : (slice, slice) or None
        Calibration region.
    noise : CoilNoise
    unit : float
    maps : Tensor or None
        Coil maps that were given.
    model_error : float or None
        Error of the model that was given, as a share of the local signal.
    """

    kspace: Tensor
    mask: Tensor
    region: Region | None
    noise: CoilNoise
    unit: float
    maps: Tensor | None
    model_error: float | None

    @property
    def sampled(self) -> Tensor:
        """Return the mask of full shape ``(y, x)``."""
        return self.mask.expand(self.kspace.shape[-2:])

    @property
    def rings(self) -> Tensor:
        """Return the number of the ring of each sample, -1 where nothing was measured."""
        y, x = ((torch.arange(n, device=self.mask.device) - n // 2).abs() / max(n / 2, 1) for n in self.sampled.shape)
        # The edges of a sampled rectangle are alike, so rings are rectangles, too.
        radius = torch.maximum(y[:, None], x[None])
        ring = (radius * _RINGS).long().clamp_max(_RINGS - 1)
        return torch.where(self.sampled, ring, -1)


@dataclass(frozen=True, eq=False, kw_only=True)
class PreparedSlice(Prepared):
    """A slice of k-space, ready to be sampled; two coil maps have two images, ``(map, y, x)``.

    Attributes
    ----------
    coil_maps : Tensor, shape ``(coil, y, x)`` or ``(map, coil, y, x)``
    mask : Tensor, bool, broadcastable to ``(y, x)``
    gram : Tensor, shape ``(map, map, y, x)``
        Products of the maps in the coils as they came: they turn images into root sums of squares.
    measured : Measured
    whitening : Whitening
    found : CoilMaps or None
    """

    refinable: ClassVar[bool] = True

    coil_maps: Tensor
    mask: Tensor
    gram: Tensor
    measured: Measured
    whitening: Whitening
    found: CoilMaps | None

    @classmethod
    def first(cls, measured: Measured) -> PreparedSlice:
        """Prepare a slice from its data alone."""
        coils = measured.kspace.shape[0]
        whitening = Whitening.none(measured.kspace)
        if measured.maps is not None:
            return _assembled(measured, whitening, measured.maps, None)
        if coils == 1:
            return _assembled(measured, whitening, torch.ones_like(measured.kspace), None)
        if measured.noise.level > 0 and not measured.noise.white:
            whitening = Whitening.of(measured.noise.covariance)
        found = maps_from(whitening(measured.kspace), measured.region, whitening.level(measured.noise))
        left = whitening.coloured(found.left)
        better = with_model_error(measured.noise, left, _signal_ratio(measured, found))
        if better is not None:
            whitening = better
            found = maps_from(whitening(measured.kspace), measured.region, whitening.level(measured.noise))
        return _assembled(measured, whitening, found.maps, found)

    @property
    def intensity(self) -> Tensor:
        """Turns the image of the first map into the root sum of squares of the coils as they came, ``(y, x)``."""
        return self.gram[0, 0].real.sqrt()

    def combine(self, images: Tensor) -> Tensor:
        """Return root-sum-of-squares images ``(..., y, x)``; of two maps their magnitude, of one with its phase."""
        if self.problem.operator.domain.ndim == 2:
            return images * self.intensity
        weighted = torch.einsum("mnyx,...nyx->...myx", self.gram, images)
        return (images.conj() * weighted).sum(dim=-3).real.clamp_min(0).sqrt()

    def refined(self, image: Tensor) -> PreparedSlice:
        """Prepare the slice once more, with a first image that completes k-space.

        Where the calibration region is short, coil maps come from the completed k-space (self-consistent maps). What
        an image, fitted to the data, leaves unexplained tells the error of the model and how the coils share it: the
        coils are whitened by it, and it is added to the noise of the data by rings of k-space. The image also gives
        the scale.

        Parameters
        ----------
        image : Tensor, shape ``domain``
            A draw of the posterior of `problem`, of a few steps.
        """
        measured, maps, found = self.measured, self.coil_maps, self.found
        image = image * (self.problem.scale / measured.unit)
        white = self.whitening(measured.kspace)
        if found is not None and min(found.size) < GOOD_CALIBRATION:
            full = complete(white, measured.mask, maps, image)
            again = maps_from(full, _centre(full), self.whitening.level(measured.noise))
            found = replace(again, region=found.region, method=again.method + ", self-consistent")
            maps = found.maps
            image = _adjoint(full, maps)
        left = self.whitening.coloured(_left(self, white, maps, image))
        whitening = self.whitening
        if found is not None:
            sampled = left[:, measured.sampled]
            whitening = with_model_error(measured.noise, sampled, 1.0) or whitening
            maps, image = whitening.moved(maps, image, self.whitening)
        return _assembled(measured, whitening, maps, found, left, image)


def _assembled(
    measured: Measured,
    whitening: Whitening,
    maps: Tensor,
    found: CoilMaps | None,
    left: Tensor | None = None,
    image: Tensor | None = None,
) -> PreparedSlice:
    """Put a Problem together; with what a fit left of the coils as they came, and the image of it, where known."""
    data = whitening(measured.kspace)
    noise = whitening.level(measured.noise)
    operator = CartesianMRI(measured.mask, maps)
    error = _model_error(measured, data, noise, None if left is None else whitening(left))
    level: float | Tensor = noise if error is None else error.noise_std[None]
    gram = _gram(whitening.coloured_maps(maps))
    scale = scale_of(operator, data, measured.region, noise, image)
    facts: dict[str, Any] = {
        "acceleration": measured.sampled.numel() / int(measured.sampled.sum()),
        "coils": int(data.shape[0]),
        "noise_std": measured.noise.level * (1.0 if error is None else error.noise_level / noise) * measured.unit,
        "noise_from": measured.noise.source,
        # Of the root sum of squares of the coils as they came, whatever whitening made of them.
        "scale": scale * measured.unit * _brightening(operator.H(data), gram),
        "calibration": [] if found is None else list(found.size),
        "maps": 1 if maps.ndim == 3 else int(maps.shape[0]),
    }
    if found is not None:
        facts["maps_from"] = found.method
    notes: list[str] = []
    if error is not None:
        facts["model_error"] = error.share
        notes += _doubts(error)
    problem = Problem(data / scale, operator, level / scale, scale=scale * measured.unit)
    ready = PreparedSlice(
        problem=problem,
        images={"mask": measured.sampled},
        diagnostics=facts,
        notes=notes,
        coil_maps=maps,
        mask=measured.mask,
        gram=gram,
        measured=measured,
        whitening=whitening,
        found=found,
    )
    zero_filled = ready.combine(operator.H(problem.y) * problem.scale)
    return replace(ready, images={"zero_filled": zero_filled, **ready.images})


def _model_error(measured: Measured, data: Tensor, noise: float, left: Tensor | None) -> ModelError | None:
    """Return the noise with the error of the model: as given, or from a fit; None before there is one."""
    if measured.model_error is not None:
        return of_share(data, noise, measured.rings, measured.model_error) if measured.model_error > 0 else None
    if left is None:
        return None
    acceleration = measured.sampled.numel() / int(measured.sampled.sum())
    # Errors of the maps are alike in all lines, so those of the aliases add up in a pixel.
    growth = min(1 + 2 * (acceleration - 1), _MOST_GROWTH)
    return from_residual(left, data, noise, measured.rings, acceleration / len(left), growth)


def _doubts(error: ModelError) -> list[str]:
    """Say where the model is far off."""
    level = float(error.noise_std.square().mean().sqrt()) / max(error.noise_level, 1e-30)
    if error.share < _NOTABLE_SHARE or level < _NOTABLE:
        return []
    return [
        f"the model misses {error.share:.0%} of the signal, {level:.2g} times the noise: the intervals allow for it, "
        "but coil maps, mask or geometry may not belong to these data"
    ]


def _left(ready: PreparedSlice, white: Tensor, maps: Tensor, image: Tensor) -> Tensor:
    """Return what an image that is fitted to the whitened data leaves of them."""
    measured = ready.measured
    scale = quantile(image) or 1.0
    operator = CartesianMRI(measured.mask, maps)
    problem = Problem(white / scale, operator, ready.whitening.level(measured.noise) / scale)
    fitted = proximal(problem, (image / scale)[None], _FREEDOM**2, _FIT_ITERATIONS, preconditioned=True)[0][0]
    return (problem.y - operator(fitted)) * scale


def _signal_ratio(measured: Measured, found: CoilMaps) -> float:
    """Return how strong the signal is in all sampled data, relative to the calibration region."""
    noise = measured.noise.level**2 * measured.kspace.shape[0]
    power = measured.kspace.abs().square().sum(0)
    inside = float(power[found.region].mean()) - noise
    overall = float(power[measured.sampled].mean()) - noise
    return min(max(overall, 0.0) / inside, 1.0) if inside > 0 else 0.0


def _adjoint(kspace: Tensor, maps: Tensor) -> Tensor:
    """Return the image of complete k-space through the maps."""
    everywhere = torch.ones((1, 1), dtype=torch.bool, device=kspace.device)
    operator = CartesianMRI(everywhere, maps, shape=tuple(kspace.shape[-2:]))
    image = operator.H(kspace)
    return conjugate_gradient(operator.normal, image[None], iterations=5, item_ndim=operator.domain.ndim).x[0]


def _brightening(image: Tensor, gram: Tensor) -> float:
    """Return by how much, in the mean over the image, the coils as they came are brighter than whitened ones."""
    first = image.abs() if image.ndim == 2 else image[0].abs()
    return float((first * gram[0, 0].real.sqrt()).sum() / first.sum().clamp_min(1e-30))


def _gram(maps: Tensor) -> Tensor:
    maps = maps if maps.ndim == 4 else maps[None]
    return torch.einsum("mcyx,ncyx->mnyx", maps.conj(), maps)


def _centre(kspace: Tensor) -> Region:
    first, second = (
        slice(n // 2 - min(FULL_CALIBRATION, n) // 2, n // 2 - min(FULL_CALIBRATION, n) // 2 + min(FULL_CALIBRATION, n))
        for n in kspace.shape[-2:]
    )
    return first, second
