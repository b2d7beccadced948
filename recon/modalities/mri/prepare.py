"""From measured k-space to a Problem in the scale of the prior, with nothing taken from a fully sampled image."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from operators import fftc, ifftc, make_mask
from operators.mri.autocalibration import calibration_region
from recon.errors import InputError, ShapeError
from recon.modalities.mri.calibration_scan import calibration_of, compressed, on_grid
from recon.modalities.mri.coil_maps import FULL_CALIBRATION
from recon.modalities.mri.mask_checks import fitting, require_complete
from recon.modalities.mri.measured import Measured
from recon.modalities.mri.noise import estimate_noise, given_covariance, given_noise, refuse_noise
from recon.modalities.mri.plausible import SHIFTED, doubts, half_shift, shifted
from recon.modalities.mri.prepared_slice import PreparedSlice


@dataclass(frozen=True)
class Sampling:
    """Retrospective undersampling of a fully sampled acquisition; without a pattern the data are used unchanged.

    Parameters
    ----------
    pattern : str, optional
        A pattern of `operators.make_mask`.
    acceleration : float
        Acceleration factor R: grid points per sampled point.
    center_fraction : float, optional
        Fraction of the columns (or of each axis) that is fully sampled; see `operators.make_mask`.
    seed : int
    """

    pattern: str | None = None
    acceleration: float = 4.0
    center_fraction: float | None = None
    seed: int = 0


def prepare(
    kspace: np.ndarray | Tensor,
    mask: np.ndarray | Tensor | None = None,
    *,
    sampling: Sampling | None = None,
    coil_maps: np.ndarray | Tensor | None = None,
    noise_std: float | None = None,
    noise_covariance: np.ndarray | Tensor | None = None,
    calibration: np.ndarray | Tensor | None = None,
    model_error: float | None = None,
    coils: int | None = None,
    calib_size: int | None = None,
    device: torch.device | str = "cpu",
) -> PreparedSlice:
    """Turn the k-space of one slice into a Problem.

    Noise is estimated from the air, outer k-space or the calibration region, and coil maps by ESPIRiT from the measured
    centre; coils are whitened by the noise and by the errors of the maps. `PreparedSlice.refined` improves all of these
    with a first image.

    Parameters
    ----------
    kspace : array, shape ``(coil, y, x)`` or ``(y, x)``
        Centred k-space; zeros where not sampled.
    mask : array, broadcastable to ``(y, x)``, optional
        True where sampled; by default wherever any coil is not zero.
    sampling : Sampling, optional
        Undersample further, retrospectively.
    coil_maps : array, shape ``(coil, y, x)`` or ``(map, coil, y, x)``, optional
        Known coil maps; estimated by default. Given maps are assumed to belong to the unwhitened data, so the data are
        not prewhitened.
    noise_std : float, optional
        Noise level of each k-space sample (``E|e|^2 = noise_std^2``), in the units of ``kspace``, the same and
        independent in all coils; estimated by default.
    noise_covariance : array, shape ``(coil, coil)``, optional
        ``E[e e^H]`` of the coils, as `operators.noise_covariance` gives it from a noise scan.
    calibration : array, shape ``(coil, y, x)``, optional
        Centred k-space of a separate scan of the same coils and field of view, of any matrix size, zeros where not
        sampled; its centre gives the coil maps instead of that of ``kspace``.
    model_error : float, optional
        Relative model error, as a fraction of the local signal; estimated by default, 0 for none.
    coils : int, optional
        Compress to this many virtual coils.
    calib_size : int, optional
        Longest side of the calibration region; by default the fully sampled centre, at most 24.
    device : torch.device or str

    Raises
    ------
    InputError, ShapeError
        If the data or an option are unusable; the message says what is wrong and what to do.
    """
    kspace, unit = _normalised(kspace, device)
    notes = _plausible(kspace)
    if noise_std is not None and noise_covariance is not None:
        raise InputError("noise_std and noise_covariance both define the noise: give one of them")
    maps = None if coil_maps is None else _maps(coil_maps, kspace)
    covariance = None if noise_covariance is None else given_covariance(noise_covariance, len(kspace))
    scan = None if calibration is None else on_grid(calibration, kspace)
    alive = kspace.flatten(1).any(dim=1)
    if not bool(alive.all()):
        notes.append(_dead_coils(alive))
        kspace, scan = kspace[alive], None if scan is None else scan[alive]
        maps = None if maps is None else maps[..., alive, :, :]
        covariance = None if covariance is None else covariance[alive.cpu()][:, alive.cpu()]
    mask, padding = _sampled(kspace, mask, sampling)
    notes += padding
    kspace = kspace * mask
    if coils is not None and coils < kspace.shape[0]:
        if maps is not None or covariance is not None:
            raise InputError("coils= compresses the data: omit either coils, or coil_maps and the noise of the coils")
        kspace, scan = compressed(kspace, scan, coils)
    region = calibration_region(mask.expand(kspace.shape[-2:]), calib_size or FULL_CALIBRATION)
    separate = None if scan is None else calibration_of(scan, calib_size or FULL_CALIBRATION)
    shift = half_shift(kspace, region)
    if separate is not None:
        moved = half_shift(separate.kspace, separate.region)
        shift = moved if region is None else shift
        separate = replace(separate, kspace=shifted(separate.kspace, moved))
    if any(shift):
        notes.append(SHIFTED)
        kspace = shifted(kspace, shift)
        maps = None if maps is None else maps.roll(shift, (-2, -1))
    if noise_std is None and covariance is None:
        noise = estimate_noise(kspace, mask, region)
    else:
        noise = given_noise(noise_std, covariance, kspace.shape[0], unit)
        if noise.level == 0:
            refuse_noise(kspace, mask, region, unit)
    back = (-shift[0], -shift[1])
    return PreparedSlice.first(
        Measured(kspace, mask, region, noise, unit, maps, model_error, separate, back, tuple(notes))
    )


def _plausible(kspace: Tensor) -> list[str]:
    """Return notes about suspicious data; refuse data that cannot be centred Cartesian k-space."""
    found = doubts(kspace)
    for doubt in found:
        if doubt.fatal:
            raise InputError(doubt.text)
    return [doubt.text for doubt in found]


def _dead_coils(alive: Tensor) -> str:
    dead = ", ".join(str(int(index)) for index in (~alive).nonzero()[:, 0])
    return f"coil(s) {dead} contain only zeros and are left out"


def crop_oversampling(kspace: Tensor, axis: int, factor: float) -> Tensor:
    """Crop the outer field of view along a fully sampled readout axis that was oversampled by ``factor``.

    Parameters
    ----------
    kspace : Tensor, shape ``(..., y, x)``
    axis : int
        The readout, -2 or -1.
    factor : float
        Oversampling factor, 2 for most scanners.

    Returns
    -------
    Tensor
        k-space of the central part of the field of view; white noise keeps its level.
    """
    n = kspace.shape[axis]
    kept = round(n / factor)
    if kept >= n:
        return kspace
    image = ifftc(kspace, (axis,))
    return fftc(image.narrow(axis, n // 2 - kept // 2, kept), (axis,))


def infer_mask(kspace: Tensor) -> Tensor:
    """Return where any coil is not zero; as columns ``(1, x)`` or rows ``(y, 1)`` where the pattern is that simple."""
    mask = (kspace != 0).any(dim=0)
    columns, rows = mask.any(dim=0, keepdim=True), mask.any(dim=1, keepdim=True)
    if bool((mask == columns).all()):
        return columns
    return rows if bool((mask == rows).all()) else mask


def _normalised(kspace: np.ndarray | Tensor, device: torch.device | str) -> tuple[Tensor, float]:
    """Check k-space and scale its largest value to about 1 (by an exact power of two), so that nothing overflows."""
    array = torch.as_tensor(kspace)
    if not array.is_complex():
        raise InputError(f"kspace must be complex, got {array.dtype}; join real and imaginary parts first")
    if array.ndim == 2:
        array = array[None]
    if array.ndim != 3 or 0 in array.shape:
        raise ShapeError(f"kspace: expected (coil, y, x) or (y, x) without empty axes, got {tuple(array.shape)}")
    bad = int((~torch.isfinite(array)).sum())
    if bad:
        raise InputError(f"kspace: {bad} of {array.numel()} values are NaN or Inf: repair or mask them first")
    largest = float(torch.view_as_real(array.resolve_conj()).abs().max())
    if largest == 0:
        raise InputError("kspace is zero everywhere: there is nothing to reconstruct")
    unit = 2.0 ** math.floor(math.log2(largest))
    return (array / unit).to(device=device, dtype=torch.complex64).contiguous(), unit


def _sampled(kspace: Tensor, mask: np.ndarray | Tensor | None, sampling: Sampling | None) -> tuple[Tensor, list[str]]:
    """Return the sampling mask: that of the data, undersampled by the retrospective pattern; and notes about it."""
    shape = (kspace.shape[-2], kspace.shape[-1])
    if mask is None:
        known = infer_mask(kspace)
    else:
        known = torch.as_tensor(mask).to(kspace.device).bool()
        known = known[None] if known.ndim == 1 else known
        try:
            fits = torch.broadcast_shapes(known.shape, shape) == shape and known.ndim == 2
        except RuntimeError:
            fits = False
        if not fits:
            raise ShapeError(f"mask: expected a shape that broadcasts to {shape} (y, x), got {tuple(known.shape)}")
    if not bool(known.any()):
        raise InputError("mask is empty: expected at least the centre of k-space")
    known, notes = fitting(kspace, known)
    if sampling is not None and sampling.pattern is not None:
        require_complete(known, shape, sampling.acceleration)
        pattern = make_mask(
            shape, sampling.pattern, sampling.acceleration, sampling.center_fraction, seed=sampling.seed
        )
        known = known & torch.as_tensor(pattern).to(kspace.device).bool()
    if not bool((kspace * known).any()):
        raise InputError("kspace is zero wherever the mask samples: the mask does not belong to these data")
    return known, notes


def _maps(given: np.ndarray | Tensor, kspace: Tensor) -> Tensor:
    """Check coil maps given by the user."""
    maps = torch.as_tensor(given).to(device=kspace.device, dtype=kspace.dtype)
    if maps.ndim not in (3, 4) or maps.shape[-3:] != kspace.shape:
        raise ShapeError(
            f"coil_maps: expected {tuple(kspace.shape)} (coil, y, x) like kspace, or (map, coil, y, x), got "
            f"{tuple(maps.shape)}"
        )
    if not bool(torch.isfinite(torch.view_as_real(maps)).all()):
        raise InputError("coil_maps hold NaN or Inf")
    if not bool(maps.any()):
        raise InputError("coil_maps are zero everywhere")
    return maps
