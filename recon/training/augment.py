"""Random training images from slices: complex ones from magnitudes, or real ones.

Every random number of a batch comes from one counter-based generator keyed by (seed, step): a batch depends on nothing
but those two numbers, so a resumed run sees exactly the images that an uninterrupted one would have seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy import fft
from torch import Tensor
from torch.nn import functional

from recon.training.volumes import Slice, SourceConfig


def step_generator(seed: int, step: int) -> np.random.Generator:
    """Return the generator of all randomness of training step ``step``."""
    return np.random.Generator(np.random.Philox(key=np.array([seed, step], dtype=np.uint64)))


@dataclass(frozen=True)
class Pool:
    """Slices of one source, grouped by plane."""

    source: SourceConfig
    slices: dict[str, list[Slice]]

    @classmethod
    def build(cls, source: SourceConfig, slices: Sequence[Slice]) -> Pool:
        """Group ``slices``."""
        return cls(source, {plane: [s for s in slices if s.plane == plane] for plane in source.planes})

    def draw(self, rng: np.random.Generator) -> Slice:
        """Return a random slice; the first plane has half of the draws."""
        planes = list(self.source.planes)
        first = len(planes) == 1 or rng.random() < 0.5
        group = self.slices[planes[0] if first else planes[rng.integers(1, len(planes))]]
        return group[rng.integers(len(group))]


def draw_images(pools: Sequence[Pool], rng: np.random.Generator, batch: int, size: int) -> Tensor:
    """Return ``(batch, 2, size, size)`` float32: real and imaginary parts of random complex images."""
    weights = np.array([pool.source.weight for pool in pools])
    choice = rng.choice(len(pools), size=batch, p=weights / weights.sum())
    patches = [_patch(pools[k].draw(rng), pools[k].source, rng, size) for k in choice]
    magnitude = torch.stack(patches) * _intensity(rng, batch, size)
    phase = _phase(rng, batch, size)
    return torch.stack([magnitude * phase.cos(), magnitude * phase.sin()], dim=1)


def draw_real_images(pools: Sequence[Pool], rng: np.random.Generator, batch: int, size: int) -> Tensor:
    """Return ``(batch, 1, size, size)`` float32: random CT images, whose values are physical and stay as they are."""
    weights = np.array([pool.source.weight for pool in pools])
    choice = rng.choice(len(pools), size=batch, p=weights / weights.sum())
    return torch.stack([_real_patch(pools[k].draw(rng), pools[k].source, rng, size) for k in choice])[:, None]


def _real_patch(item: Slice, source: SourceConfig, rng: np.random.Generator, size: int) -> Tensor:
    """Resample, cut, mirror and turn one patch; a few are scaled by some percent, as scanners and energies differ."""
    image = torch.from_numpy(item.image.astype(np.float32))
    if rng.random() >= source.native:
        target = np.exp(rng.uniform(*np.log(source.spacing)))
        zoom = [min(pixel / target, source.max_zoom) for pixel in item.spacing]
        shape = [max(8, round(length * z)) for length, z in zip(image.shape, zoom, strict=True)]
        image = functional.interpolate(image[None, None], shape, mode="bilinear", antialias=True)[0, 0]
    for attempt in range(4):
        patch = _window(image.numpy(), (size, size), rng)
        if (patch > 0.3).mean() > 0.25 or attempt == 3:
            break
    scale = np.float32(rng.uniform(0.95, 1.05)) if rng.random() < 0.3 else np.float32(1)
    return _turn(torch.from_numpy(patch * scale), rng)


def _turn(patch: Tensor, rng: np.random.Generator) -> Tensor:
    """Mirror each axis and swap the two, each with probability one half."""
    flips = [axis for axis in (0, 1) if rng.random() < 0.5]
    patch = patch.flip(flips) if flips else patch
    return patch.T if rng.random() < 0.5 else patch


def _patch(item: Slice, source: SourceConfig, rng: np.random.Generator, size: int) -> Tensor:
    """Cut, resample, mirror and turn one patch ``(size, size)`` of the magnitude."""
    image = item.image.astype(np.float32)
    if rng.random() < 0.35:
        image = image * item.mask
    if rng.random() < 0.5:
        image = image ** np.float32(rng.uniform(0.8, 1.25))
    if rng.random() >= source.native:
        target = np.exp(rng.uniform(*np.log(source.spacing)))
        stretch = np.exp(rng.uniform(-0.06, 0.06))
        zoom = [min(pixel / target, source.max_zoom) for pixel in item.spacing]
        image = fourier_resample(
            image, round(image.shape[0] * zoom[0] * stretch), round(image.shape[1] * zoom[1] / stretch)
        )
    for attempt in range(4):
        patch = _window(image, (size, size), rng)
        if (patch > 0.1).mean() > 0.15 or attempt == 3:
            break
    return _turn(torch.from_numpy(patch), rng)


def fourier_resample(image: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """Resample a real image ``(y, x)`` by cropping or zero-filling its spectrum, as a scanner does.

    Interpolation in image space would damp the frequencies near the edge of k-space, where measured images are not
    damped. A sharp edge rings, also below zero: so does the real part of a measured image.
    """
    spectrum = fft.rfft2(image)
    low = min(rows, image.shape[0])
    width = min(columns, image.shape[1]) // 2 + 1
    out = np.zeros((rows, columns // 2 + 1), dtype=spectrum.dtype)
    out[: (low + 1) // 2, :width] = spectrum[: (low + 1) // 2, :width]
    out[rows - low // 2 :, :width] = spectrum[image.shape[0] - low // 2 :, :width]
    return fft.irfft2(out, (rows, columns)) * np.float32(rows * columns / image.size)


def _window(image: np.ndarray, window: Sequence[int], rng: np.random.Generator) -> np.ndarray:
    """Cut a random window; where it is larger than the image, the image lies in it at random on zeros."""
    out = np.zeros(window, dtype=image.dtype)
    source, target = [], []
    for length, wanted in zip(image.shape, window, strict=True):
        slack = abs(length - wanted)
        start = int(rng.integers(slack + 1))
        count = min(length, wanted)
        source.append(slice(start, start + count) if length > wanted else slice(0, count))
        target.append(slice(0, count) if length > wanted else slice(start, start + count))
    out[tuple(target)] = image[tuple(source)]
    return out


def _intensity(rng: np.random.Generator, batch: int, size: int) -> Tensor:
    """Return a random scale (the run-time estimate of the scale is not exact) times a mild shading."""
    scale = np.exp(rng.uniform(-np.log(1.25), np.log(1.25), (batch, 1, 1))).astype(np.float32)
    return torch.from_numpy(scale) * (0.1 * _smooth_field(rng, batch, size, 3)).exp()


def _phase(rng: np.random.Generator, batch: int, size: int) -> Tensor:
    """Return a random smooth phase in rad: constant + low-order polynomial + smooth random field."""
    grid = (np.arange(size, dtype=np.float32) - size / 2) / 100  # about one per quarter of a head
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


def _smooth_field(rng: np.random.Generator, batch: int, size: int, knots: int) -> Tensor:
    """Return ``(batch, size, size)`` smooth random fields of about unit variance."""
    coarse = torch.from_numpy(rng.standard_normal((batch, 1, knots, knots), dtype=np.float32))
    return functional.interpolate(coarse, (size, size), mode="bicubic", align_corners=True)[:, 0]
