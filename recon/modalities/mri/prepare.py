"""From measured k-space to a Problem in the scale of the prior, with nothing taken from a fully sampled image."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from operators import fftc, ifftc, make_mask
from operators.mri.autocalibration import Region, calibration_region
from recon.errors import InputError, ShapeError
from recon.modalities.mri.calibration_scan import calibration_of, compressed, on_grid
from recon.modalities.mri.coil_maps import FULL_CALIBRATION
from recon.modalities.mri.field_shift import SHIFTED, half_shift, shifted
from recon.modalities.mri.mask_checks import fitting, require_complete
from recon.modalities.mri.measured import Measured
from recon.modalities.mri.noise import CoilNoise, estimate_noise, given_covariance, given_noise, refuse_noise
from recon.modalities.mri.prepared_slice import PreparedSlice
from recon.modalities.mri.validate import known_maps, normalised, require_plausible


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
    measured_noise: np.ndarray | Tensor | None = None,
    calibration: np.ndarray | Tensor | None = None,
    model_error: float | None = None,
    coils: int | None = None,
    calib_size: int | None = None,
    name: str | None = None,
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
    measured_noise : array, shape ``(coil, coil)``, optional
        The same from the noise scan of the file; used where nothing else is given and coils are not compressed.
    calibration : array, shape ``(coil, y, x)``, optional
        Centred k-space of a separate scan of the same coils and field of view, of any matrix size, zeros where not
        sampled; its centre gives the coil maps instead of that of ``kspace``.
    model_error : float, optional
        Relative model error, as a fraction of the local signal; estimated by default, 0 for none.
    coils : int, optional
        Compress to this many virtual coils.
    calib_size : int, optional
        Longest side of the calibration region; by default the fully sampled centre, at most 24.
    name : str, optional
        Name of the slice in its file, for diagnostics.
    device : torch.device or str

    Raises
    ------
    InputError, ShapeError
        If the data or an option are unusable; the message says what is wrong and what to do.
    """
    kspace, unit = normalised(kspace, device)
    notes = require_plausible(kspace)
    if noise_std is not None and noise_covariance is not None:
        raise InputError("noise_std and noise_covariance both define the noise: give one of them")
    maps = None if coil_maps is None else known_maps(coil_maps, kspace)
    covariance = None if noise_covariance is None else given_covariance(noise_covariance, len(kspace))
    in_file = None if measured_noise is None else given_covariance(measured_noise, len(kspace))
    scan = None if calibration is None else on_grid(calibration, kspace)
    alive = kspace.flatten(1).any(dim=1)
    if not bool(alive.all()):
        dead = ", ".join(str(int(index)) for index in (~alive).nonzero()[:, 0])
        notes.append(f"coil(s) {dead} contain only zeros and are left out")
        kspace, scan = kspace[alive], None if scan is None else scan[alive]
        maps = None if maps is None else maps[..., alive, :, :]
        covariance = None if covariance is None else covariance[alive.cpu()][:, alive.cpu()]
        in_file = None if in_file is None else in_file[alive.cpu()][:, alive.cpu()]
    mask, padding = _sampled(kspace, mask, sampling)
    kspace = kspace * mask
    if coils is not None and coils < kspace.shape[0]:
        if maps is not None or covariance is not None:
            raise InputError("coils= compresses the data: omit either coils, or coil_maps and the noise of the coils")
        kspace, scan = compressed(kspace, scan, coils)
        in_file = None
    limit = calib_size or FULL_CALIBRATION
    region = calibration_region(mask.expand(kspace.shape[-2:]), limit)
    separate = None if scan is None else calibration_of(scan, limit)
    shift = half_shift(kspace, region)
    if separate is not None:
        moved = half_shift(separate.kspace, separate.region) or (0, 0)
        shift = moved if shift is None else shift
        separate = replace(separate, kspace=shifted(separate.kspace, moved))
    shift = shift or (0, 0)
    kspace, maps = shifted(kspace, shift), None if maps is None else maps.roll(shift, (-2, -1))
    return PreparedSlice.first(
        Measured(
            kspace=kspace,
            mask=mask,
            region=region,
            noise=_noise(kspace, mask, region, noise_std, covariance, unit, in_file),
            unit=unit,
            maps=maps,
            model_error=model_error,
            name=name,
            calibration=separate,
            shift=(-shift[0], -shift[1]),
            notes=(*notes, *padding, *([SHIFTED] if any(shift) else [])),
        )
    )


def _noise(
    kspace: Tensor,
    mask: Tensor,
    region: Region | None,
    level: float | None,
    covariance: Tensor | None,
    unit: float,
    in_file: Tensor | None,
) -> CoilNoise:
    """Return the noise of the coils: given, else from the noise scan of the file, else estimated."""
    if level is None and covariance is None:
        if in_file is None:
            return estimate_noise(kspace, mask, region)
        return CoilNoise((in_file / unit**2).to(kspace), "noise scan of the file")
    noise = given_noise(level, covariance, kspace.shape[0], unit)
    noise = replace(noise, covariance=noise.covariance.to(kspace))
    if noise.level == 0:
        refuse_noise(kspace, mask, region, unit)
    return noise


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
