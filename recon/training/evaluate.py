"""Denoising quality on held-out slices, at the engine's sigma (complex noise with E|n|^2 = 1)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from recon.images.augment import step_generator
from recon.priors.networks.blocks import from_channels, to_channels
from recon.priors.networks.unet import EDMDenoiser
from samplers.base import Denoiser

SIGMAS = (0.05, 0.1, 0.3, 1.0)
ERROR_SIGMAS = (0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.0)
FREQUENCIES = tuple(round((k + 0.5) / 28, 5) for k in range(20))  # cycles per pixel, up to the corners
SIGNAL = 0.1  # magnitude, of the .99 quantile, above which a pixel shows the head


def evaluation_noise(shape: Sequence[int], index: int, real: bool = False) -> Tensor:
    """Return fixed noise with E|n|^2 = 1: complex64, or float32."""
    if real:
        return torch.from_numpy(step_generator(8, index).standard_normal(tuple(shape), dtype=np.float32))
    parts = step_generator(8, index).standard_normal((2, *shape), dtype=np.float32) / math.sqrt(2)
    return torch.complex(torch.from_numpy(parts[0]), torch.from_numpy(parts[1]))


def with_noise(clean: Tensor, sigma: float, index: int) -> Tensor:
    """Return ``clean`` plus the noise of its number."""
    return clean + sigma * evaluation_noise(clean.shape, index, real=not clean.is_complex()).to(clean.device)


def psnr(estimate: Tensor, truth: Tensor) -> float:
    """Return 10 log10(1 / mean |estimate - truth|^2) in dB: the peak is the scale, 1."""
    return -10 * math.log10((estimate - truth).abs().square().mean().item())


@torch.no_grad()
def denoising_curve(model: EDMDenoiser, images: Sequence[Tensor]) -> dict[str, float]:
    """Return the mean PSNR in dB over ``images (y, x)`` for each engine sigma, at bfloat16."""
    totals = dict.fromkeys(map(str, SIGMAS), 0.0)
    for index, clean in enumerate(images):
        for sigma in SIGMAS:
            channels = to_channels(with_noise(clean, sigma, index)[None])
            device = channels.device
            level = sigma / math.sqrt(channels.shape[1])
            with torch.autocast(device.type, torch.bfloat16):
                output = model(channels, torch.tensor([level], device=device))
            totals[str(sigma)] += psnr(from_channels(output.float())[0], clean) / len(images)
    return {key: round(value, 3) for key, value in totals.items()}


def error_curve(
    denoiser: Denoiser, images: Sequence[Tensor], sigmas: Sequence[float] = ERROR_SIGMAS
) -> dict[str, list[float]]:
    """Return the rms error of a pixel that shows signal, by engine sigma: ``{"sigma": [...], "error": [...]}``."""
    errors = []
    for sigma in sigmas:
        total, pixels = 0.0, 0
        for k, clean in enumerate(images):
            signal = clean.abs() > SIGNAL
            difference = denoiser.denoise(with_noise(clean, sigma, k)[None], sigma)[0] - clean
            total += float(difference[signal].abs().square().sum())
            pixels += int(signal.sum())
        errors.append(round(math.sqrt(total / pixels), 5))
    return {"sigma": list(sigmas), "error": errors}


def error_spectrum(
    denoiser: Denoiser, images: Sequence[Tensor], sigmas: Sequence[float] = ERROR_SIGMAS
) -> dict[str, list[float] | list[list[float]]]:
    """Return the rms error of a Fourier coefficient over sigma, by engine sigma and distance from the centre.

    ``{"sigma": [...], "frequency": [...], "ratio": [[...], ...]}``: one row for each sigma; frequencies in cycles per
    pixel, orthonormal transform, relative to the pixels that show signal.
    """
    rows = []
    for sigma in sigmas:
        total, weight = np.zeros(len(FREQUENCIES)), np.zeros(len(FREQUENCIES))
        for k, clean in enumerate(images):
            error = denoiser.denoise(with_noise(clean, sigma, k)[None], sigma)[0] - clean
            power = torch.fft.fft2(error, norm="ortho").abs().square()
            y, x = (np.fft.fftfreq(n) for n in clean.shape)
            ring = np.minimum(np.hypot(y[:, None], x) * 28, len(FREQUENCIES) - 1).astype(int).ravel()
            total += np.bincount(ring, power.cpu().numpy().ravel(), len(FREQUENCIES))
            weight += np.bincount(ring, minlength=len(FREQUENCIES)) * float((clean.abs() > SIGNAL).float().mean())
        rows.append([round(float(value), 4) for value in np.sqrt(total / weight) / sigma])
    return {"sigma": list(sigmas), "frequency": list(FREQUENCIES), "ratio": rows}
