"""Denoising quality on held-out slices, at the engine's sigma (complex noise with E|n|^2 = 1)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from recon.priors.networks.unet import EDMDenoiser
from recon.training.augment import step_generator
from recon.training.volumes import Slice
from samplers.base import Denoiser

SIGMAS = (0.05, 0.1, 0.3, 1.0)
ERROR_SIGMAS = (0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.0)
SIGNAL = 0.1  # magnitude, of the .99 quantile, above which a pixel shows the head


def evaluation_image(item: Slice, index: int) -> Tensor:
    """Return the slice ``(y, x)`` complex64, cropped to multiples of 8, with a fixed smooth phase."""
    rows, columns = (length - length % 8 for length in item.image.shape)
    magnitude = torch.from_numpy(item.image[:rows, :columns].astype(np.float32))
    rng = step_generator(7, index)
    y = torch.linspace(-1, 1, rows)[:, None]
    x = torch.linspace(-1, 1, columns)[None, :]
    a = rng.normal(0, 1, 6).astype(np.float32)
    phase = 3 * a[0] + a[1] * y + a[2] * x + 0.7 * (a[3] * y * x + a[4] * y.square() + a[5] * x.square())
    return torch.polar(magnitude, phase)


def evaluation_noise(shape: Sequence[int], index: int) -> Tensor:
    """Return fixed complex64 noise with E|n|^2 = 1."""
    parts = step_generator(8, index).standard_normal((2, *shape), dtype=np.float32) / math.sqrt(2)
    return torch.complex(torch.from_numpy(parts[0]), torch.from_numpy(parts[1]))


def psnr(estimate: Tensor, truth: Tensor) -> float:
    """Return 10 log10(1 / mean |estimate - truth|^2) in dB: the peak is the scale, 1."""
    return -10 * math.log10((estimate - truth).abs().square().mean().item())


@torch.no_grad()
def denoising_curve(model: EDMDenoiser, slices: Sequence[Slice]) -> dict[str, float]:
    """Return the mean PSNR in dB over ``slices`` for each engine sigma, at bfloat16."""
    totals = dict.fromkeys(map(str, SIGMAS), 0.0)
    for index, item in enumerate(slices):
        clean = evaluation_image(item, index)
        noise = evaluation_noise(clean.shape, index)
        for sigma in SIGMAS:
            noisy = torch.view_as_real(clean + sigma * noise).permute(2, 0, 1)[None]
            with torch.autocast("cpu", torch.bfloat16):
                output = model(noisy, torch.tensor([sigma / math.sqrt(2)]))
            estimate = torch.view_as_complex(output[0].permute(1, 2, 0).float().contiguous())
            totals[str(sigma)] += psnr(estimate, clean) / len(slices)
    return {key: round(value, 3) for key, value in totals.items()}


def error_curve(
    denoiser: Denoiser, slices: Sequence[Slice], sigmas: Sequence[float] = ERROR_SIGMAS
) -> dict[str, list[float]]:
    """Return the rms error of a pixel that shows signal, by engine sigma: ``{"sigma": [...], "error": [...]}``."""
    images = [evaluation_image(item, k) for k, item in enumerate(slices)]
    errors = []
    for sigma in sigmas:
        total, pixels = 0.0, 0
        for k, clean in enumerate(images):
            noisy = clean + sigma * evaluation_noise(clean.shape, k)
            signal = clean.abs() > SIGNAL
            difference = denoiser.denoise(noisy[None], sigma)[0] - clean
            total += float(difference[signal].abs().square().sum())
            pixels += int(signal.sum())
        errors.append(round(math.sqrt(total / pixels), 5))
    return {"sigma": list(sigmas), "error": errors}
