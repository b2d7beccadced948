"""Random training images from slices: complex (measured, or made from magnitudes) or real.

Every random number of a batch comes from one counter-based generator keyed by (seed, step): a batch depends on these
two numbers only, so a resumed run sees exactly the images that an uninterrupted one would have seen.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from recon.images.sources import Slice, SourceConfig
from recon.images.synthesis import change_contrast, fourier_resample, phase_jumps, random_intensity, random_phase
from recon.priors.networks.blocks import coordinates

#: Augmentations that a network may be conditioned on; all zero for an unchanged slice.
LABELS = ("flip y", "flip x", "swap", "log zoom", "log stretch", "log contrast", "masked")


def step_generator(seed: int, step: int, piece: int = 0) -> np.random.Generator:
    """Return the random generator of training step ``step``, or of one piece of it."""
    key = np.array([seed, step], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=np.array([0, 0, 0, piece], dtype=np.uint64)))


@dataclass(frozen=True)
class Pool:
    """Slices of one source, grouped by plane."""

    source: SourceConfig
    slices: dict[str, list[Slice]]

    @classmethod
    def build(cls, source: SourceConfig, slices: Sequence[Slice]) -> Pool:
        """Group ``slices`` by plane."""
        return cls(source, {plane: [s for s in slices if s.plane == plane] for plane in source.planes})

    def draw(self, rng: np.random.Generator) -> Slice:
        """Return a random slice; the first plane gets half of the draws."""
        planes = list(self.source.planes)
        first = len(planes) == 1 or rng.random() < 0.5
        group = self.slices[planes[0] if first else planes[rng.integers(1, len(planes))]]
        return group[rng.integers(len(group))]


@dataclass(frozen=True)
class Patch:
    """Pixels ``(size, size)``, their position in the image ``(y, x)``, and the augmentation of that image.

    ``jumps`` requests a synthetic phase that is not smooth.
    """

    pixels: Tensor
    first: tuple[int, int]
    length: tuple[int, int]
    labels: tuple[float, ...]
    jumps: bool = False


@dataclass(frozen=True)
class Drawn:
    """Images ``(batch, channels, size, size)`` of one step, and what a network may be conditioned on."""

    images: Tensor
    patches: Sequence[Patch]

    def position(self) -> Tensor:
        """Return ``(batch, 2, size, size)``: y and x of each pixel in the whole image, from -1 to 1."""
        size = self.images.shape[-1]
        grids = []
        for patch in self.patches:
            y, x = (coordinates(first, size, n) for first, n in zip(patch.first, patch.length, strict=True))
            grids.append(torch.stack(torch.meshgrid(y, x, indexing="ij")))
        return torch.stack(grids)

    def labels(self) -> Tensor:
        """Return ``(batch, len(LABELS))``."""
        return torch.tensor([patch.labels for patch in self.patches], dtype=torch.float32)


def draw_images(
    pools: Sequence[Pool], rng: np.random.Generator, batch: int, size: int, untouched: float = 0.0
) -> Drawn:
    """Return real and imaginary parts of random complex images, ``(batch, 2, size, size)`` float32.

    Magnitudes get a random smooth phase, a fraction of them (``phase_jumps`` of their source) with jumps on top;
    complex images keep their phase, up to a random constant. A fraction ``untouched`` is only cropped, not augmented.
    """
    patches = _draw(_patch, pools, rng, batch, size, untouched)
    intensity, phase = random_intensity(rng, batch, size), random_phase(rng, batch, size)
    measured = torch.tensor([patch.pixels.is_complex() for patch in patches])
    if jumping := [k for k, patch in enumerate(patches) if patch.jumps and not measured[k]]:
        factors = phase_jumps(rng, torch.stack([patches[k].pixels for k in jumping]))
        for k, factor in zip(jumping, factors, strict=True):
            patches[k] = replace(patches[k], pixels=patches[k].pixels * factor)
    elif not measured.any():
        magnitude = torch.stack([patch.pixels for patch in patches]) * intensity
        return Drawn(torch.stack([magnitude * phase.cos(), magnitude * phase.sin()], dim=1), patches)
    phase[measured] = phase[measured][:, :1, :1]
    images = torch.stack([patch.pixels.to(torch.complex64) for patch in patches]) * torch.polar(intensity, phase)
    return Drawn(torch.view_as_real(images).permute(0, 3, 1, 2), patches)


def draw_real_images(
    pools: Sequence[Pool], rng: np.random.Generator, batch: int, size: int, untouched: float = 0.0
) -> Drawn:
    """Return random real images ``(batch, 1, size, size)`` float32; their values are physical and are not rescaled."""
    patches = _draw(_real_patch, pools, rng, batch, size, untouched)
    return Drawn(torch.stack([patch.pixels for patch in patches])[:, None], patches)


def _draw(
    cut: Callable[[Slice, SourceConfig, np.random.Generator, int, bool], Patch],
    pools: Sequence[Pool],
    rng: np.random.Generator,
    batch: int,
    size: int,
    untouched: float,
) -> list[Patch]:
    """Cut ``batch`` patches from random slices of random pools."""
    weights = np.array([pool.source.weight for pool in pools])
    choice = rng.choice(len(pools), size=batch, p=weights / weights.sum())
    return [
        cut(pools[k].draw(rng), pools[k].source, rng, size, untouched > 0 and rng.random() < untouched) for k in choice
    ]


def _real_patch(item: Slice, source: SourceConfig, rng: np.random.Generator, size: int, untouched: bool) -> Patch:
    """Resample, crop and flip one patch; a few are scaled by some percent, as scanners and energies differ."""
    image = torch.from_numpy(item.image.astype(np.float32))
    zoom = [1.0, 1.0]
    if not untouched and rng.random() >= source.native:
        target = np.exp(rng.uniform(*np.log(source.spacing)))
        zoom = [min(pixel / target, source.max_zoom) for pixel in item.spacing]
        shape = [max(8, round(length * z)) for length, z in zip(image.shape, zoom, strict=True)]
        image = functional.interpolate(image[None, None], shape, mode="bilinear", antialias=True)[0, 0]
    patch = _cut(image.numpy(), size, rng, 0.3, 0.25)
    if untouched:
        return patch
    scale = np.float32(rng.uniform(0.95, 1.05)) if rng.random() < 0.3 else np.float32(1)
    labels = (0.0, 0.0, 0.0, float(np.log(zoom).mean()), 0.0, float(np.log(scale)), 0.0)
    return _turn(replace(patch, pixels=patch.pixels * scale, labels=labels), rng)


def _patch(item: Slice, source: SourceConfig, rng: np.random.Generator, size: int, untouched: bool) -> Patch:
    """Resample, crop and flip one patch of a magnitude or complex image."""
    image = item.image if np.iscomplexobj(item.image) else item.image.astype(np.float32)
    if untouched:
        return _cut(image, size, rng, 0.1, 0.15)
    exponent, zoom, stretch = 1.0, [1.0, 1.0], 1.0
    masked = rng.random() < 0.35
    if masked:
        image = image * item.mask
    if rng.random() < 0.5:
        exponent = rng.uniform(0.8, 1.25)
        image = change_contrast(image, exponent)
    if rng.random() >= source.native:
        target = np.exp(rng.uniform(*np.log(source.spacing)))
        stretch = np.exp(rng.uniform(-0.06, 0.06))
        zoom = [min(pixel / target, source.max_zoom) for pixel in item.spacing]
        image = fourier_resample(
            image, round(image.shape[0] * zoom[0] * stretch), round(image.shape[1] * zoom[1] / stretch)
        )
    patch = _cut(image, size, rng, 0.1, 0.15)
    labels = (0.0, 0.0, 0.0, *(float(v) for v in (np.log(zoom).mean(), np.log(stretch), np.log(exponent), masked)))
    jumps = source.phase_jumps > 0 and rng.random() < source.phase_jumps
    return _turn(replace(patch, labels=labels, jumps=jumps), rng)


def _turn(patch: Patch, rng: np.random.Generator) -> Patch:
    """Flip each axis and swap the two, each with probability one half, as if the whole image were flipped."""
    flipped = [rng.random() < 0.5 for _ in range(2)]
    flips = [axis for axis in (0, 1) if flipped[axis]]
    pixels = patch.pixels.flip(flips) if flips else patch.pixels
    swap = rng.random() < 0.5
    size = len(pixels)
    first = [n - size - k if f else k for k, n, f in zip(patch.first, patch.length, flipped, strict=True)]
    order = (1, 0) if swap else (0, 1)
    return replace(
        patch,
        pixels=pixels.T if swap else pixels,
        first=(first[order[0]], first[order[1]]),
        length=(patch.length[order[0]], patch.length[order[1]]),
        labels=(float(flipped[0]), float(flipped[1]), float(swap), *patch.labels[3:]),
    )


def _cut(image: np.ndarray, size: int, rng: np.random.Generator, level: float, fraction: float) -> Patch:
    """Cut a random window; try up to four times to find one with more than ``fraction`` of it above ``level``."""
    for attempt in range(4):
        pixels, first, length = _window(image, (size, size), rng)
        if (np.abs(pixels) > level).mean() > fraction or attempt == 3:
            break
    return Patch(torch.from_numpy(pixels), (first[0], first[1]), (length[0], length[1]), (0.0,) * len(LABELS))


def _window(
    image: np.ndarray, window: Sequence[int], rng: np.random.Generator
) -> tuple[np.ndarray, list[int], list[int]]:
    """Cut a random window; an image that is smaller is zero-padded at random positions.

    Returns the pixels, the first pixel in the image, and the size of the padded image.
    """
    out = np.zeros(window, dtype=image.dtype)
    source, target, firsts, lengths = [], [], [], []
    for length, wanted in zip(image.shape, window, strict=True):
        slack = abs(length - wanted)
        start = int(rng.integers(slack + 1))
        count = min(length, wanted)
        source.append(slice(start, start + count) if length > wanted else slice(0, count))
        target.append(slice(0, count) if length > wanted else slice(start, start + count))
        firsts.append(start if length > wanted else 0)
        lengths.append(max(length, wanted))
    out[tuple(target)] = image[tuple(source)]
    return out, firsts, lengths
