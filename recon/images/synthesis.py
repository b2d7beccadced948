"""Synthetic parts of training images: resampling of spectra, smooth intensity, and phase."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from scipy import fft
from torch import Tensor
from torch.nn import functional


def fourier_resample(image: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """Resample an image ``(y, x)``, real or complex, by cropping or zero-filling its spectrum, as a scanner does.

    Interpolation in image space would damp frequencies near the edge of the spectrum, which measured images are not.
    Sharp edges ring, also below zero, like the real part of a measured image.
    """
    if np.iscomplexobj(image):
        return _resample_complex(image, (rows, columns))
    spectrum = fft.rfft2(image)
    low = min(rows, image.shape[0])
    width = min(columns, image.shape[1]) // 2 + 1
    out = np.zeros((rows, columns // 2 + 1), dtype=spectrum.dtype)
    out[: (low + 1) // 2, :width] = spectrum[: (low + 1) // 2, :width]
    out[rows - low // 2 :, :width] = spectrum[image.shape[0] - low // 2 :, :width]
    return fft.irfft2(out, (rows, columns)) * np.float32(rows * columns / image.size)


def _resample_complex(image: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    spectrum = fft.fftshift(fft.fft2(image))
    for axis, wanted in enumerate(shape):
        length = spectrum.shape[axis]
        first = length // 2 - wanted // 2
        if wanted <= length:
            spectrum = spectrum.take(range(first, first + wanted), axis)
        else:
            width = [(0, 0), (0, 0)]
            width[axis] = (-first, wanted - length + first)
            spectrum = np.pad(spectrum, width)
    return fft.ifft2(fft.ifftshift(spectrum)) * np.float32(shape[0] * shape[1] / image.size)


def change_contrast(image: np.ndarray, exponent: float) -> np.ndarray:
    """Raise the magnitude of an image (about 1 where it is bright) to a power; keep the phase."""
    if np.iscomplexobj(image):
        return image * np.maximum(np.abs(image), np.float32(1e-3)) ** np.float32(exponent - 1)
    return image ** np.float32(exponent)


def random_intensity(rng: np.random.Generator, batch: int, size: int) -> Tensor:
    """Return a random scale (the scale estimated at run time is not exact) times a mild shading."""
    scale = np.exp(rng.uniform(-np.log(1.25), np.log(1.25), (batch, 1, 1))).astype(np.float32)
    return torch.from_numpy(scale) * (0.1 * _smooth_field(rng, batch, size, 3)).exp()


def random_phase(rng: np.random.Generator, batch: int, size: int) -> Tensor:
    """Return a random smooth phase in rad: constant + low-order polynomial + smooth random field."""
    grid = (np.arange(size, dtype=np.float32) - size / 2) / 100  # about one unit per quarter of a head
    y, x = np.meshgrid(grid, grid, indexing="ij")
    basis = np.stack([y, x, y * x, y**2, x**2])
    amplitude = np.array([1.0, 1.0, 0.5, 0.5, 0.5], dtype=np.float32)
    strength = np.where(rng.random(batch) < 0.15, 2.5, 1.0) * (rng.random(batch) > 0.08)
    weights = rng.standard_normal((batch, 5), dtype=np.float32) * amplitude * strength[:, None].astype(np.float32)
    constant = rng.uniform(0, 2 * np.pi, (batch, 1, 1)).astype(np.float32)
    polynomial = torch.from_numpy(constant + np.tensordot(weights, basis, axes=1).astype(np.float32))
    knots = int(rng.integers(3, 5)) + size // 64
    amount = torch.from_numpy((strength * rng.uniform(0, 0.8, batch)).astype(np.float32))
    return polynomial + amount[:, None, None] * _smooth_field(rng, batch, size, knots)


def phase_jumps(rng: np.random.Generator, magnitude: Tensor) -> Tensor:
    """Return complex factors ``(batch, y, x)`` with a phase that is not smooth.

    Fat is out of phase with water (one random angle where the magnitude is above a random level; a pixel of both loses
    magnitude), the phase rotates around small structures, and dark pixels next to bright ones have a random phase.
    Each of the three is applied to an image with probability two thirds.
    """
    batch, size = len(magnitude), magnitude.shape[-1]
    uniform = torch.from_numpy(rng.random((6, batch), dtype=np.float32))[..., None, None]
    used = uniform[:3] < 2 / 3
    bright = torch.quantile(magnitude.flatten(1), 0.98, dim=1)[:, None, None].clamp(min=1e-3)
    relative = magnitude / bright
    local = functional.avg_pool2d(relative[:, None], 3, 1, 1, count_include_pad=False)[:, 0]
    level = 0.3 + 0.65 * uniform[3]
    fat = functional.avg_pool2d((relative > level).float()[:, None], 3, 1, 1)[:, 0] * used[0]
    angle = np.pi * (2 * uniform[4] - 1)
    around = functional.avg_pool2d(relative[:, None], 7, 1, 3, count_include_pad=False)[:, 0]
    turn = torch.from_numpy(rng.normal(0, 3, (batch, 1, 1)).astype(np.float32)) * (local - around) * used[1]
    dark = torch.exp(-((relative / (0.05 + 0.25 * uniform[5])) ** 2)) * used[2]
    turn = turn + 2 * dark * _smooth_field(rng, batch, size, max(2, size // 2))
    return (1 - fat + torch.polar(fat, angle.expand_as(fat))) * torch.polar(torch.ones_like(turn), turn)


def _smooth_field(rng: np.random.Generator, batch: int, size: int, knots: int) -> Tensor:
    """Return ``(batch, size, size)`` smooth random fields of about unit variance."""
    coarse = torch.from_numpy(rng.standard_normal((batch, 1, knots, knots), dtype=np.float32))
    return functional.interpolate(coarse, (size, size), mode="bicubic", align_corners=True)[:, 0]
