"""Coil maps from the calibration region, by a method that suits its size, and how well they explain it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

from operators import CartesianMRI, espirit_eigenmaps, fftc, ifftc
from operators.mri.autocalibration import Region, kernel_size, noise_threshold
from operators.solve import conjugate_gradient
from recon.errors import InputError

#: Longest side of the calibration region, and the shortest from which maps are made.
FULL_CALIBRATION, LEAST_CALIBRATION = 24, 4
#: Below this shortest side the region is completed by a first reconstruction, and the maps are estimated again.
GOOD_CALIBRATION = 20
#: Limits of the ESPIRiT threshold. The lower one is the relative error of a perfect model of measured scans.
_THRESHOLDS = (5e-4, 0.3)
#: Maps that explain less than this fraction of the energy of the centre do not belong to the scan.
_EXPLAINED = 0.9
#: Residual power up to this multiple of the noise power counts as noise.
_LIKE_NOISE = 2.0
#: A second map is needed where its eigenvalue, at a threshold that ignores small model errors, is above
#: ``_SECOND`` in more than ``_SECOND_SHARE`` of the object. Heads inside the field of view have 0 to .7 %, larger ones
#: 30 to 75 % (8 and 16 coils, noise of 0 to 10 %, calibration of 8 to 24 lines).
_SECOND, _SECOND_SHARE, _SECOND_THRESHOLD = 0.95, 0.02, 0.01
_SECOND_GRID = 48  # size in pixels of the coarse grid for this test
#: Eigenvalues between these become weights between 0 and 1: of the first map (only in the air), and of the second.
_SOFT, _SOFT_SECOND = (0.6, 0.9), (0.8, 0.95)
#: The object is where the blurred image of the centre exceeds this fraction of its maximum, or this multiple of the
#: noise, whichever is less: the ringing of a bright object in the air is also signal.
_OBJECT, _OBJECT_NOISE = 0.05, 4.0
_FIT_ITERATIONS = 20


@dataclass(frozen=True, eq=False)
class CoilMaps:
    """Coil maps and how they were estimated.

    Attributes
    ----------
    maps : Tensor, shape ``(coil, y, x)`` or ``(map, coil, y, x)``
        Maps of unit norm over the coils, times a weight that falls towards 0 only in the air.
    method : str
    region : (slice, slice)
        Calibration region.
    left : Tensor, shape ``(coil, sample)``
        Residual of the maps in the calibration region.
    explained : float
        Fraction of the energy of the region, without its noise, that the maps explain.
    """

    maps: Tensor
    method: str
    region: Region
    left: Tensor
    explained: float

    @property
    def size(self) -> tuple[int, int]:
        """Return the size (y, x) of the calibration region."""
        return _size(self.region)


def maps_from(kspace: Tensor, region: Region | None, noise_std: float) -> CoilMaps:
    """Estimate coil maps from a fully sampled region of k-space.

    ESPIRiT with a kernel of a third of the region, and a threshold at the noise level. Eigenvalues become weights only
    in the air: maps are nonzero wherever the image of the region shows an object. If they explain less than 90 % of the
    region, low-resolution images serve as maps.

    Parameters
    ----------
    kspace : Tensor, shape ``(coil, y, x)``
    region : (slice, slice), optional
        See `operators.mri.autocalibration.calibration_region`.
    noise_std : float

    Raises
    ------
    InputError
        If the region is too small, or no method explains it; the message says what to do.
    """
    size = (0, 0) if region is None else _size(region)
    if region is None or min(size) < LEAST_CALIBRATION:
        raise InputError(
            f"the fully sampled centre of k-space is {size[0]} x {size[1]} (y x); coil maps need at least "
            f"{LEAST_CALIBRATION} x {LEAST_CALIBRATION}: give coil_maps or a calibration scan, or sample a "
            "larger centre (center_fraction)"
        )
    best: CoilMaps | None = None
    for method in (_espirit, partial(_espirit, several=True), _low_resolution):
        maps, name = method(kspace, region, noise_std)
        left, explained = _unexplained(kspace, region, maps, noise_std)
        found = CoilMaps(maps, name, region, left, explained)
        best = found if best is None or explained > best.explained else best
        # Strong noise dominates the residual of the maps and hides whether they are right.
        if explained >= _EXPLAINED or float(left.abs().square().mean()) <= _LIKE_NOISE * noise_std**2:
            return found
    assert best is not None
    raise InputError(
        f"coil maps explain only {best.explained:.0%} of the energy of the centre of k-space ({size[0]} x {size[1]}): "
        "it may not be centred, or not belong to one image; give coil_maps, or check the data (recon check)"
    )


def _espirit(kspace: Tensor, region: Region, noise_std: float, several: bool = False) -> tuple[Tensor, str]:
    """Return ESPIRiT maps: two if the object is larger than the field of view or if requested."""
    calibration = kspace[:, region[0], region[1]]
    kernel = kernel_size(_size(region))
    threshold = min(max(noise_threshold(calibration, kernel, noise_std), _THRESHOLDS[0]), _THRESHOLDS[1])
    image = blurred(kspace, region)
    object_ = object_of(image, noise_std * math.sqrt(calibration.numel() / kspace[0].numel()))
    several = several or needs_second(kspace, region, object_, threshold)
    if several:
        threshold = max(threshold, _SECOND_THRESHOLD)
    maps, values = espirit_eigenmaps(
        kspace, kernel_size=kernel, threshold=threshold, crop=0.0, n_maps=2 if several else 1, region=region
    )
    first = values[0] if several else values
    weight = torch.maximum(_soft(first, *_SOFT), object_)
    if several:
        weight = torch.stack([weight, _soft(values[1], *_SOFT_SECOND)])
    name = f"ESPIRiT, kernel {kernel[0]} x {kernel[1]}" + (", 2 maps" if several else "")
    return (maps * weight.unsqueeze(-3)).to(kspace.dtype), name


def needs_second(kspace: Tensor, region: Region, object_: Tensor, threshold: float) -> bool:
    """Tell whether the object is larger than the field of view, so that pixels show two places at once."""
    calibration = kspace[:, region[0], region[1]]
    shape = tuple(max(min(_SECOND_GRID, n), c) for n, c in zip(kspace.shape[-2:], calibration.shape[-2:], strict=True))
    coarse = calibration.new_zeros((kspace.shape[0], *shape))
    coarse[:, : calibration.shape[1], : calibration.shape[2]] = calibration  # its position changes only phases
    _, values = espirit_eigenmaps(
        coarse,
        kernel_size=kernel_size(_size(region)),
        threshold=max(threshold, _SECOND_THRESHOLD),
        crop=0.0,
        n_maps=2,
        region=(slice(0, calibration.shape[1]), slice(0, calibration.shape[2])),
    )
    inside = functional.interpolate(object_[None, None], shape, mode="area")[0, 0] > 0.5
    share = float((values[1][inside] > _SECOND).float().mean()) if bool(inside.any()) else 0.0
    return share > _SECOND_SHARE


def _low_resolution(kspace: Tensor, region: Region, noise_std: float) -> tuple[Tensor, str]:
    """Return the images of the windowed region over their root sum of squares."""
    images = _windowed(kspace, region)
    return (images / images.abs().square().sum(0).sqrt().clamp_min(1e-30)).to(kspace.dtype), "low-resolution images"


def blurred(kspace: Tensor, region: Region) -> Tensor:
    """Return the root-sum-of-squares image of the windowed region, shape ``(y, x)``."""
    return _windowed(kspace, region).abs().square().sum(0).sqrt()


def object_of(image: Tensor, noise_std: float) -> Tensor:
    """Return 1 where a blurred image of this noise shows signal, 0 in the air, with soft edges, ``(y, x)``."""
    level = min(_OBJECT * float(image.max()), _OBJECT_NOISE * noise_std)
    return _soft(image, level / 2, level)


def _windowed(kspace: Tensor, region: Region) -> Tensor:
    window = torch.zeros(kspace.shape[-2:], device=kspace.device)
    rows, columns = (
        torch.hann_window(side.stop - side.start + 2, periodic=False, device=kspace.device)[1:-1] for side in region
    )
    window[region[0], region[1]] = torch.outer(rows, columns)
    return ifftc(kspace * window)


def _unexplained(kspace: Tensor, region: Region, maps: Tensor, noise_std: float) -> tuple[Tensor, float]:
    """Fit an image to the region through the maps; return the residual and the explained fraction of the energy."""
    mask = torch.zeros(kspace.shape[-2:], dtype=torch.bool, device=kspace.device)
    mask[region[0], region[1]] = True
    operator = CartesianMRI(mask, maps)
    data = kspace * mask
    image = conjugate_gradient(
        operator.normal, operator.H(data)[None], iterations=_FIT_ITERATIONS, item_ndim=operator.domain.ndim
    ).x[0]
    left = (data - operator(image))[:, mask]
    noise = noise_std**2 * left.numel()
    # An image absorbs the noise of one coil.
    power = max(float(data.abs().square().sum()) - noise, 1e-30)
    missing = max(float(left.abs().square().sum()) - noise * (1 - 1 / kspace.shape[0]), 0.0)
    return left, 1 - missing / power


def complete(kspace: Tensor, mask: Tensor, maps: Tensor, image: Tensor) -> Tensor:
    """Return k-space as measured where sampled, and elsewhere as predicted from an image through the maps."""
    image = image if maps.ndim == 4 else image[None]
    coils = (image[:, None] * (maps if maps.ndim == 4 else maps[None])).sum(0)
    return torch.where(mask.expand(kspace.shape[-2:]), kspace, fftc(coils))


def _soft(values: Tensor, low: float, high: float) -> Tensor:
    """Rise smoothly from 0 at `low` to 1 at `high`."""
    t = ((values - low) / max(high - low, 1e-30)).clamp(0, 1)
    return t * t * (3 - 2 * t)


def _size(region: Region) -> tuple[int, int]:
    return region[0].stop - region[0].start, region[1].stop - region[1].start
