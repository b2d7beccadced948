"""A slice of k-space as a Problem: whitened coils, coil maps, scale and model error, and its refinement."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from operators import CartesianMRI
from operators.mri.autocalibration import Region
from operators.solve import conjugate_gradient
from recon.modalities.model_error import quiet_power
from recon.modalities.mri.coil_maps import FULL_CALIBRATION, GOOD_CALIBRATION, CoilMaps, complete, maps_from
from recon.modalities.mri.data import middle
from recon.modalities.mri.kspace_error import Unexplained, doubts, kspace_error
from recon.modalities.mri.measured import Measured
from recon.modalities.mri.scale import quantile, scale_of
from recon.modalities.mri.whitening import Whitening, with_model_error
from recon.modalities.prepared import Prepared
from recon.verdict import Finding
from samplers import Problem
from samplers.noise import Noise
from samplers.proximal import proximal

#: Freedom of the pixels when a first image is fitted to the data, as a fraction of the brightest pixels, and when they
#: follow the data freely.
_FREEDOM, _FREE, _FIT_ITERATIONS = 0.05, 1.0, 10
_NOISE_SEED = 20261130


@dataclass(frozen=True, eq=False, kw_only=True)
class PreparedSlice(Prepared):
    """A slice of k-space, ready to be sampled; two coil maps have two images, ``(map, y, x)``.

    Attributes
    ----------
    coil_maps : Tensor, shape ``(coil, y, x)`` or ``(map, coil, y, x)``
    mask : Tensor, bool, broadcastable to ``(y, x)``
    gram : Tensor, shape ``(map, map, y, x)``
        Products of the maps of the original coils, which turn images into root sums of squares.
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
        """Prepare a slice from its data only."""
        coils = measured.kspace.shape[0]
        whitening = Whitening.none(measured.kspace)
        if measured.maps is not None:
            return _assembled(measured, whitening, measured.maps, None)
        if coils == 1:
            return _assembled(measured, whitening, torch.ones_like(measured.kspace), None)
        if measured.noise.level > 0 and not measured.noise.white:
            whitening = Whitening.of(measured.noise.covariance)
        scan = measured.calibration or measured
        found = maps_from(whitening(scan.kspace), scan.region, whitening.level(scan.noise))
        left = whitening.coloured(found.left)
        better = with_model_error(measured.noise, left, _signal_ratio(measured, found), scan.noise.level)
        if better is not None:
            whitening = better
            found = maps_from(whitening(scan.kspace), scan.region, whitening.level(scan.noise))
        if measured.calibration is not None:
            found = replace(found, method=found.method + ", separate calibration scan")
        return _assembled(measured, whitening, found.maps, found)

    def with_doubts(self, doubts: Sequence[str | Finding]) -> PreparedSlice:
        """Return the slice with further reasons to doubt the data."""
        measured = replace(self.measured, doubts=(*doubts, *self.measured.doubts))
        return replace(self, measured=measured, doubts=[*doubts, *self.doubts])

    @property
    def intensity(self) -> Tensor:
        """Factor from the image of the first map to the root sum of squares of the original coils, ``(y, x)``."""
        return self.gram[0, 0].real.sqrt()

    def combine(self, images: Tensor) -> Tensor:
        """Return root-sum-of-squares images ``(..., y, x)``: magnitudes for two maps, with phase for one."""
        if self.problem.operator.domain.ndim == 2:
            combined = images * self.intensity
        else:
            weighted = torch.einsum("mnyx,...nyx->...myx", self.gram, images)
            combined = (images.conj() * weighted).sum(dim=-3).real.clamp_min(0).sqrt()
        combined = combined.roll(self.measured.shift, (-2, -1)) if any(self.measured.shift) else combined
        return middle(combined, self.measured.image_shape)

    def refined(self, image: Tensor) -> PreparedSlice:
        """Prepare the slice again, with a first image that completes k-space.

        For a small calibration region of the data, coil maps are estimated from the completed k-space (self-consistent
        maps); those of a separate calibration scan are kept. The residual of an image fitted to the data bounds the
        noise, and shows the model error and its covariance over the coils: the coils are whitened by it, and it is
        added to the noise of the data by rings of k-space. The image also gives the scale.

        Parameters
        ----------
        image : Tensor, shape ``domain``
            A posterior sample of `problem`, computed in a few steps.
        """
        measured, maps, found = self.measured, self.coil_maps, self.found
        image = image * (self.problem.scale / measured.unit)
        white = self.whitening(measured.kspace)
        if found is not None and measured.calibration is None and min(found.size) < GOOD_CALIBRATION:
            full = complete(white, measured.mask, maps, image)
            again = maps_from(full, _centre(full), self.whitening.level(measured.noise))
            found = replace(again, region=found.region, method=again.method + ", self-consistent")
            maps = found.maps
            image = _adjoint(full, maps)
        left = _unexplained(self, white, maps, image).mixed(self.whitening.coloured)
        noise = measured.noise.at_most(quiet_power(left.most / measured.profile, measured.rings))
        whitening = self.whitening
        if found is not None:  # one coil, and given maps, stay as they are
            whitening = whitening if noise is measured.noise else Whitening.of(noise.covariance)
            even = (left.least / measured.profile)[:, measured.sampled]
            whitening = with_model_error(noise, even, 1.0) or whitening
            maps, image = whitening.moved(maps, image, self.whitening)
        measured = measured.with_noise(noise)
        return _assembled(measured, whitening, maps, found, left, image)


def _assembled(
    measured: Measured,
    whitening: Whitening,
    maps: Tensor,
    found: CoilMaps | None,
    left: Unexplained | None = None,
    image: Tensor | None = None,
) -> PreparedSlice:
    """Assemble a Problem, with the residual of a fit to the original coils and the fitted image, where known."""
    data = whitening(measured.kspace)
    noise = whitening.level(measured.noise)
    operator = CartesianMRI(measured.mask, maps)
    error = kspace_error(measured, data, noise, None if left is None else left.mixed(whitening))
    level: float | Tensor = (noise if error is None else error.noise_std[None]) * measured.profile
    gram = _gram(whitening.coloured_maps(maps))
    scale = scale_of(operator, data, measured.region, noise, image)
    facts: dict[str, Any] = {
        "acceleration": measured.sampled.numel() / int(measured.sampled.sum()),
        "coils": int(data.shape[0]),
        "noise_std": measured.noise.level * measured.unit,
        "noise_from": measured.noise.source,
        # The scale of the root sum of squares of the original coils, independent of the whitening.
        "scale": scale * measured.unit * _brightening(operator.H(data), gram),
        "calibration": [] if found is None else list(found.size),
        "maps": 1 if maps.ndim == 3 else int(maps.shape[0]),
    }
    if measured.name is not None:
        facts["name"] = measured.name
    if found is not None:
        facts["maps_from"] = found.method
    if error is not None:
        facts["model_error"] = error.share
    problem = Problem(data / scale, operator, level / scale, scale=scale * measured.unit)
    ready = PreparedSlice(
        problem=problem,
        images={"mask": measured.sampled},
        diagnostics=facts,
        notes=list(measured.notes),
        doubts=[*measured.doubts, *([] if error is None else doubts(error))],
        data_std=None if error is None else error.single[None] * measured.profile / scale,
        coil_maps=maps,
        mask=measured.mask,
        gram=gram,
        measured=measured,
        whitening=whitening,
        found=found,
    )
    zero_filled = ready.combine(operator.H(problem.y) * problem.scale)
    return replace(ready, images={"zero_filled": zero_filled, **ready.images})


def _unexplained(ready: PreparedSlice, white: Tensor, maps: Tensor, image: Tensor) -> Unexplained:
    """Fit an image to the whitened data, and return what it does not explain of them."""
    measured = ready.measured
    scale = quantile(image) or 1.0
    operator = CartesianMRI(measured.mask, maps)
    problem = Problem(white / scale, operator, ready.whitening.level(measured.noise) * measured.profile / scale)
    # What fits of noise alone leave shows how much they absorb: the same fit, and one that follows the data freely.
    noise = Noise(_NOISE_SEED, [0], white).normal(operator.codomain)[0] * measured.sampled * problem.noise_std
    alone, nothing = replace(problem, y=noise), torch.zeros_like(image)
    kept, always = (_residual(alone, nothing, freedom) for freedom in (_FREEDOM, _FREE))
    left = _residual(problem, image / scale, _FREEDOM) * scale
    return Unexplained.of(left, noise, kept, always, measured.rings)


def _residual(problem: Problem, image: Tensor, freedom: float) -> Tensor:
    """Return what remains of the data when an image is fitted to them."""
    fitted = proximal(problem, image[None], freedom**2, _FIT_ITERATIONS, preconditioned=True)[0][0]
    return problem.y - problem.operator(fitted)


def _signal_ratio(measured: Measured, found: CoilMaps) -> float:
    """Return the signal strength of all sampled data, relative to the calibration region."""
    scan = measured.calibration or measured
    coils = measured.kspace.shape[0]
    inside = float(scan.kspace.abs().square().sum(0)[found.region].mean()) - coils * scan.noise.level**2
    overall = float(measured.kspace.abs().square().sum(0)[measured.sampled].mean()) - coils * measured.noise.level**2
    ratio = max(overall, 0.0) / inside if inside > 0 else 0.0
    return ratio if measured.calibration is not None else min(ratio, 1.0)


def _adjoint(kspace: Tensor, maps: Tensor) -> Tensor:
    """Return the image of complete k-space, combined with the maps."""
    everywhere = torch.ones((1, 1), dtype=torch.bool, device=kspace.device)
    operator = CartesianMRI(everywhere, maps, shape=tuple(kspace.shape[-2:]))
    image = operator.H(kspace)
    return conjugate_gradient(operator.normal, image[None], iterations=5, item_ndim=operator.domain.ndim).x[0]


def _brightening(image: Tensor, gram: Tensor) -> float:
    """Return the mean ratio over the image of the brightness of the original coils to that of the whitened ones."""
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
