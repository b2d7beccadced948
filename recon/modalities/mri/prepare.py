"""From measured k-space to a Problem in the scale of the prior, with nothing taken from a fully sampled image."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from operators import fftc, ifftc
from operators.mri.autocalibration import calibration_region
from recon.errors import InputError
from recon.modalities.mri.calibration_scan import calibration_of
from recon.modalities.mri.coil_data import CoilData
from recon.modalities.mri.coil_maps import FULL_CALIBRATION
from recon.modalities.mri.field_shift import SHIFTED, half_shift, shifted
from recon.modalities.mri.measured import Measured
from recon.modalities.mri.noise_profile import air_noise, described
from recon.modalities.mri.prepared_slice import PreparedSlice
from recon.modalities.mri.sampling import Sampling, sampled_mask
from recon.modalities.mri.validate import normalised, require_plausible


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
    image_shape: tuple[int, int] | None = None,
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
    image_shape : (int, int), optional
        The middle (y, x) of the images that the result keeps, where phase encoding is oversampled; all by default.
    name : str, optional
        Name of the slice in its file, for diagnostics.
    device : torch.device or str

    Raises
    ------
    InputError, ShapeError
        If the data or an option are unusable; the message says what is wrong and what to do.
    """
    kspace, unit = normalised(kspace, device)
    doubts = require_plausible(kspace)
    if noise_std is not None and noise_covariance is not None:
        raise InputError("noise_std and noise_covariance both define the noise: give one of them")
    data, dead = CoilData.checked(kspace, coil_maps, noise_covariance, measured_noise, calibration).without_dead()
    mask, padding = sampled_mask(data.kspace, mask, sampling)
    data = data.sampled(mask)
    if coils is not None and coils < len(data.kspace):
        data = data.compressed(coils)
    limit = calib_size or FULL_CALIBRATION
    region = calibration_region(mask.expand(kspace.shape[-2:]), limit)
    separate = None if data.calibration is None else calibration_of(data.calibration, limit)
    shift = half_shift(data.kspace, region)
    if separate is not None:
        moved = half_shift(separate.kspace, separate.region) or (0, 0)
        shift = moved if shift is None else shift
        separate = replace(separate, kspace=shifted(separate.kspace, moved))
    shift = shift or (0, 0)
    data = data.shifted(shift)
    air = air_noise(data.kspace, mask.expand(kspace.shape[-2:]), region)
    return PreparedSlice.first(
        Measured(
            kspace=data.kspace,
            mask=mask,
            region=region,
            noise=data.noise(mask, region, noise_std, unit, air),
            unit=unit,
            maps=data.maps,
            model_error=model_error,
            name=name,
            calibration=separate,
            profile=1.0 if air is None else air.profile,
            shift=(-shift[0], -shift[1]),
            image_shape=image_shape,
            doubts=tuple(doubts),
            notes=(*dead, *padding, *([SHIFTED] if any(shift) else []), *described(air)),
        )
    )


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
    kept = max(round(n / factor), 1)
    if kept >= n:
        return kspace
    image = ifftc(kspace, (axis,))
    return fftc(image.narrow(axis, n // 2 - kept // 2, kept), (axis,))
