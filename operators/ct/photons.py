"""Photon counts, their logarithm with a standard deviation for each ray, and Hounsfield units."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from operators.arrays import tensor
from operators.errors import InputError, ShapeError

MU_WATER = 0.0192  # 1/mm, at about 70 keV


class Measurement(NamedTuple):
    """Noisy measurement of a scan.

    Attributes
    ----------
    counts : Tensor
        Detected photons, including electronic noise, (..., angle, detector).
    sinogram : Tensor
        Line integrals after the logarithm.
    noise_std : Tensor
        Standard deviation of each line integral.
    """

    counts: Tensor
    sinogram: Tensor
    noise_std: Tensor


def simulate_counts(
    sinogram: Tensor, photons: float | Tensor, electronic_std: float = 0.0, *, seed: int = 0
) -> Measurement:
    """Simulate the photon counts of a scan and take their logarithm.

    ``counts ~ Poisson(I0 exp(-A x)) + N(0, sigma_e^2)``, followed by `log_counts`.

    Parameters
    ----------
    sinogram : Tensor
        Noise-free line integrals A x, (..., angle, detector), dimensionless.
    photons : float or Tensor
        I0, incident photons per ray, broadcastable to `sinogram`.
    electronic_std : float
        sigma_e, standard deviation of the electronic noise in photons.
    seed : int
        Seed of this call's own generator; the draw is made on the CPU, so it is the same on every device.

    Raises
    ------
    InputError, ShapeError
        If I0 <= 0 or sigma_e < 0, or the sinogram is not real and finite.
    """
    if not sinogram.is_floating_point():
        raise ShapeError(f"simulate_counts expected a real floating-point sinogram, got {sinogram.dtype}")
    if not bool(torch.isfinite(sinogram).all()):
        raise InputError("simulate_counts got a sinogram with values that are not finite")
    open_beam, electronic_std = _dose(photons, electronic_std, sinogram)
    generator = torch.Generator().manual_seed(seed)
    rate = (open_beam.to("cpu", torch.float64) * torch.exp(-sinogram.detach().to("cpu", torch.float64))).contiguous()
    counts = torch.poisson(rate, generator=generator)
    if electronic_std:
        counts += electronic_std * torch.randn(counts.shape, dtype=torch.float64, generator=generator)
    return log_counts(counts.to(sinogram), photons, electronic_std)


def log_counts(
    counts: Tensor, photons: float | Tensor, electronic_std: float = 0.0, *, min_counts: float = 1.0
) -> Measurement:
    """Convert photon counts to line integrals and the standard deviation of each.

    ``sinogram = log(I0 / c)`` and ``noise_std = 1 / sqrt(w)`` with ``w = c^2 / (c + sigma_e^2)``, where
    ``c = max(counts, min_counts)``. A starved ray (no photon, or a negative reading) thus gets the finite line
    integral log(I0 / min_counts) with a standard deviation of sqrt(min_counts + sigma_e^2) / min_counts, which is 1 or
    more: it has hardly any weight compared with rays that detect photons.

    Parameters
    ----------
    counts : Tensor
        Detected photons, including electronic noise, (..., angle, detector).
    photons : float or Tensor
        I0, incident photons per ray, broadcastable to `counts`.
    electronic_std : float
        sigma_e, standard deviation of the electronic noise in photons.
    min_counts : float
        Smaller counts are raised to this value.

    Raises
    ------
    InputError, ShapeError
        If I0 <= 0, sigma_e < 0 or min_counts <= 0, or the counts are not real and finite.

    References
    ----------
    Thibault et al., "A recursive filter for noise reduction in statistical iterative tomographic imaging", 2006.
    """
    if not counts.is_floating_point():
        raise ShapeError(f"log_counts expected real floating-point counts, got {counts.dtype}")
    if not bool(torch.isfinite(counts).all()):
        raise InputError("log_counts got counts that are not finite")
    if not (min_counts > 0 and math.isfinite(min_counts)):
        raise InputError(f"log_counts needs min_counts > 0, got {min_counts}")
    open_beam, electronic_std = _dose(photons, electronic_std, counts)
    safe = counts.clamp_min(min_counts)
    return Measurement(counts, torch.log(open_beam / safe), torch.sqrt(safe + electronic_std**2) / safe)


def hu_to_mu(hu: Tensor, mu_water: float = MU_WATER, mu_air: float = 0.0) -> Tensor:
    """Convert Hounsfield units to attenuation in 1/mm, ``mu = mu_w + HU (mu_w - mu_a) / 1000``."""
    return mu_water + hu * (_contrast(mu_water, mu_air) / 1000)


def mu_to_hu(mu: Tensor, mu_water: float = MU_WATER, mu_air: float = 0.0) -> Tensor:
    """Convert attenuation in 1/mm to Hounsfield units, ``HU = 1000 (mu - mu_w) / (mu_w - mu_a)``."""
    return (mu - mu_water) * (1000 / _contrast(mu_water, mu_air))


def _contrast(mu_water: float, mu_air: float) -> float:
    if not (0 <= mu_air < mu_water < math.inf):
        raise InputError(f"Hounsfield units need 0 <= mu_air < mu_water in 1/mm, got {mu_air} and {mu_water}")
    return mu_water - mu_air


def _dose(photons: float | Tensor, electronic_std: float, like: Tensor) -> tuple[Tensor, float]:
    open_beam = tensor(photons, "photons").to(dtype=like.dtype, device=like.device)
    if not bool(((open_beam > 0) & torch.isfinite(open_beam)).all()):
        raise InputError("the photons of the open beam (I0) must be positive and finite")
    try:
        fits = torch.broadcast_shapes(open_beam.shape, like.shape) == like.shape
    except RuntimeError:
        fits = False
    if not fits:
        raise ShapeError(f"photons of shape {tuple(open_beam.shape)} do not broadcast to {tuple(like.shape)}")
    if not 0 <= electronic_std < math.inf:
        raise InputError(f"electronic_std must be >= 0 and finite, got {electronic_std}")
    return open_beam, float(electronic_std)
