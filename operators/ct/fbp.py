"""Filtered backprojection for parallel rays and for flat and curved fans, for full and short scans."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from operators.base import Space
from operators.ct.geometry import Beam, FanBeam
from operators.ct.projection import check_grid
from operators.errors import InputError

FILTERS = ("ram-lak", "shepp-logan", "cosine", "hamming", "hann")
_HOLE = 4.0  # a gap this many times the usual spacing of the angles marks the end of the scan


def fbp(
    sinogram: Tensor, geometry: Beam, image_shape: tuple[int, int], pixel_size: float, filter: str = "ram-lak"
) -> Tensor:
    """Reconstruct an image by filtered backprojection.

    Each projection is weighted, convolved with the band-limited ramp, and smeared back along its rays by linear
    interpolation between detector elements. Angles may be any list: each one represents the angular range nearest to
    it. A fan that covers less than a full rotation gets Parker's weights; a range too short for a complete
    reconstruction (below 180 degrees plus the fan angle) gets none.

    Parameters
    ----------
    sinogram : Tensor
        Line integrals, (..., angle, detector).
    geometry : ParallelBeam or FanBeam
        Scanner geometry. A flying focal spot is taken into account in the backprojection.
    image_shape : (int, int)
        (y, x).
    pixel_size : float
        Side of the square pixels in mm.
    filter : str
        Window on the ramp filter: "ram-lak" (none), "shepp-logan", "cosine", "hamming" or "hann".

    Returns
    -------
    Tensor, shape (..., y, x)
        Attenuation in 1/mm.

    Raises
    ------
    InputError, ShapeError
        If the filter is unknown, or the sinogram or the image shape does not fit.

    References
    ----------
    Kak and Slaney, "Principles of computerized tomographic imaging", chapter 3, 1988. Parker, "Optimal short scan
    convolution reconstruction for fan beam CT", Medical Physics 1982.
    """
    shape, pixel_size = check_grid(geometry, image_shape, pixel_size, "fbp")
    space = Space(geometry.shape, torch.float32, "angle detector")
    space.check(sinogram, "fbp(sinogram)")
    if filter not in FILTERS:
        raise InputError(f"unknown filter {filter!r}; choose one of {', '.join(FILTERS)}")
    data = sinogram.reshape(-1, *geometry.shape)
    if isinstance(geometry, FanBeam):
        angular = _fan_weights(geometry)
        data = data * (angular * _ray_weights(geometry)).to(data)
        unit = geometry.det_spacing / geometry.source_to_detector
        spacing = unit if geometry.curved else unit * geometry.source_to_iso
        arc = geometry.curved
    else:
        gaps, _ = _gaps(np.asarray(geometry.angles), math.pi)
        data = data * torch.from_numpy(gaps)[:, None].to(data)
        spacing, arc = geometry.det_spacing, False
    filtered = _ramp(data, spacing, filter, arc)
    image = _backproject(filtered, geometry, shape, pixel_size)
    return image.reshape(*space.batch_shape(sinogram), *shape)


def _ramp(data: Tensor, spacing: float, window: str, arc: bool) -> Tensor:
    """Convolve with the band-limited ramp, sampled in space, so that its mean is right (Kak and Slaney, eq. 61)."""
    n = data.shape[-1]
    length = 1 << (2 * n - 1).bit_length()
    lag = torch.arange(length, dtype=torch.float64)
    lag = torch.minimum(lag, length - lag)
    distance = lag * spacing
    if arc:  # (g / sin g)^2 for an equiangular fan; lags beyond the detector are not used
        distance = torch.sin(distance.clamp_max(math.pi / 2))
    odd = lag % 2 == 1
    kernel = torch.where(odd, -1 / (math.pi * torch.where(odd, distance, 1)) ** 2, 0)
    kernel[0] = 1 / (4 * spacing**2)
    frequency = torch.arange(length // 2 + 1, dtype=torch.float64) / length  # cycles per element, up to 1/2
    shapes = {
        "ram-lak": torch.ones_like(frequency),
        "shepp-logan": torch.sinc(frequency),
        "cosine": torch.cos(math.pi * frequency),
        "hamming": 0.54 + 0.46 * torch.cos(2 * math.pi * frequency),
        "hann": 0.5 + 0.5 * torch.cos(2 * math.pi * frequency),
    }
    response = (torch.fft.rfft(kernel).real * spacing * shapes[window]).to(data)
    return torch.fft.irfft(torch.fft.rfft(data, length) * response, length)[..., :n]


def _backproject(data: Tensor, geometry: Beam, shape: tuple[int, int], pixel_size: float) -> Tensor:
    """Sum the filtered projections at each pixel over the angles, times the fan's distance weight."""
    ny, nx = shape
    sy, sx = geometry.image_shift
    row, column = torch.meshgrid(
        torch.arange(ny, dtype=torch.float64, device=data.device),
        torch.arange(nx, dtype=torch.float64, device=data.device),
        indexing="ij",
    )
    x = ((column - (nx - 1) / 2 - sx) * pixel_size).reshape(-1)
    y = (((ny - 1) / 2 + sy - row) * pixel_size).reshape(-1)
    last = geometry.det_count - 1
    out = data.new_zeros(len(data), ny * nx)
    padded = torch.nn.functional.pad(data, (0, 1))
    for angle in range(len(geometry.angles)):
        index = geometry.detector_index(angle, x, y)
        seen = (index >= -1e-6) & (index <= last + 1e-6)
        index = index.clamp(0, last)
        left = index.to(torch.int64)
        weight = seen * _distance_weight(geometry, angle, x, y)
        upper = ((index - left) * weight).to(data)
        projection = padded[:, angle]
        out += projection[:, left] * (weight.to(data) - upper) + projection[:, left + 1] * upper
    return out


def _distance_weight(geometry: Beam, angle: int, x: Tensor, y: Tensor) -> Tensor:
    """Return 1 / U^2 for a flat fan, 1 / L^2 for a curved one, and 1 for parallel rays."""
    if not isinstance(geometry, FanBeam):
        return torch.ones_like(x)
    t, distance = float(geometry.angles[angle]), geometry.source_to_iso
    along = distance - x * math.sin(t) + y * math.cos(t)
    if geometry.curved:
        across = x * math.cos(t) + y * math.sin(t)
        return 1 / (across**2 + along**2)
    return (distance / along) ** 2


def _ray_weights(geometry: FanBeam) -> Tensor:
    """Return the weight of each element before filtering."""
    cos = torch.cos(geometry.fan_angles())
    return cos * geometry.source_to_iso if geometry.curved else cos


def _fan_weights(geometry: FanBeam) -> Tensor:
    """Return the angular range of each projection times Parker's weight of each ray, (angle, detector)."""
    angles = np.asarray(geometry.angles)
    gaps, start = _gaps(angles, 2 * math.pi)
    width = torch.from_numpy(gaps)[:, None]
    if start is None:
        return (width / 2).expand(geometry.shape)
    extra = (float(gaps.sum()) - math.pi) / 2
    gamma = -geometry.fan_angles()  # here a ray is measured again at t + pi - 2 gamma; Parker's sign is the opposite
    if extra < float(gamma.abs().max()):
        return width.expand(geometry.shape)
    turned = torch.from_numpy((angles - start) % (2 * math.pi))[:, None]
    rise = torch.sin(math.pi / 4 * (turned / (extra - gamma).clamp_min(1e-9)).clamp(0, 2)) ** 2
    fall = torch.sin(math.pi / 4 * ((math.pi + 2 * extra - turned) / (extra + gamma).clamp_min(1e-9)).clamp(0, 2)) ** 2
    share = torch.where(turned < 2 * (extra - gamma), rise, torch.ones_like(rise))
    share = torch.where(turned > math.pi - 2 * gamma, fall, share)
    return width * share


def _gaps(angles: np.ndarray, period: float) -> tuple[np.ndarray, float | None]:
    """Return the range that each angle represents, and where the scan starts (None: it covers the whole period)."""
    if len(angles) == 1:
        return np.array([period]), None
    order = np.argsort(angles % period, kind="stable")
    ordered = (angles % period)[order]
    after = np.diff(ordered, append=ordered[0] + period)
    usual = float(np.median(after[after > 1e-9])) if (after > 1e-9).any() else period
    holes = after > _HOLE * usual
    after = np.where(holes, usual, after)
    gaps = np.empty(len(angles))
    gaps[order] = (after + np.roll(after, 1)) / 2
    if not holes.any():
        return gaps, None
    first = (int(np.flatnonzero(holes)[-1]) + 1) % len(angles)
    return gaps, float(ordered[first] - usual / 2)
