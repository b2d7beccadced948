"""Simulated ultrasound training images: complex speckle, points and interfaces on the grid of the pipeline.

Nothing is read from files. An image is that of random scatterers with an ideal probe: the base-band reflectivity
(`operators.PlaneWaveUltrasound`) within a band of wave numbers somewhat wider than that of 75 compounded waves of a
PICMUS-like probe. Speckle is fully developed or sparse; scatterers lie anywhere, not on pixels. The tissue is defined
in `recon.modalities.ultrasound.scenes`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from scipy import fft

from recon.errors import ConfigError
from recon.images.augment import LABELS, Drawn, Patch, Pool, step_generator
from recon.images.sources import Slice, SourceConfig
from recon.modalities.ultrasound.scenes import SCENES, Scene, draw_scene

#: Spacing of the rows and columns in wavelengths, as in `recon.modalities.ultrasound.grid`.
PIXEL = (1 / 4, 1 / 3)
#: Band limits along z and x, in cycles per wavelength: full up to the first number, zero from the second on.
#: A pulse of 67 % bandwidth is 17 dB down at 1.1 (both ways), and echoes from 45 degrees of a wave of 16 reach 0.98.
BAND = ((1.1, 1.7), (0.9, 1.3))
#: Margin on each side that is simulated and cropped, since the Fourier transform is periodic.
_MARGIN = 8
#: Size of a held-out image, and offset of its seeds.
HELD_OUT_SHAPE, _HELD_OUT_SEED = (256, 192), 2**40


def load_slices(root: Path, source: SourceConfig, held_out: bool = False) -> list[Slice]:
    """Return the held-out images of a source, one for each name in ``held_out`` (a number: its seed), and no others.

    ``pattern`` is a kind of scene of `recon.modalities.ultrasound.scenes.SCENES`. Training images are made when
    they are drawn.

    Raises
    ------
    ConfigError
        If there is no such kind, or a name is not a number.
    """
    if source.pattern not in SCENES:
        raise ConfigError(f"sources: pattern is {source.pattern!r}; expected a kind of scene: {', '.join(SCENES)}")
    if not all(name.isdecimal() for name in source.held_out):
        raise ConfigError(f"sources: held_out is {list(source.held_out)}; expected seeds, such as '1'")
    if not held_out:
        return []
    found = []
    for name in source.held_out:
        rng = step_generator(_HELD_OUT_SEED + int(name), list(SCENES).index(source.pattern))
        image = make_image(draw_scene(source.pattern, HELD_OUT_SHAPE, rng), rng)
        mask = np.ones(image.shape, dtype=bool)
        found.append(Slice(image, mask, PIXEL, source.planes[0], f"{source.pattern}:{name}"))
    return found


def draw_images(
    pools: Sequence[Pool], rng: np.random.Generator, batch: int, size: int, untouched: float = 0.0
) -> Drawn:
    """Return real and imaginary parts of random images, ``(batch, 2, size, size)`` float32."""
    weights = np.array([pool.source.weight for pool in pools])
    choice = rng.choice(len(pools), size=batch, p=weights / weights.sum())
    images = [make_image(draw_scene(pools[k].source.pattern, (size, size), rng), rng) for k in choice]
    parts = torch.view_as_real(torch.from_numpy(np.stack(images))).permute(0, 3, 1, 2)
    whole = Patch(parts[0, 0], (0, 0), (size, size), (0.0,) * len(LABELS))
    return Drawn(parts, [whole] * batch)


def held_out_image(item: Slice, index: int) -> torch.Tensor:
    """Return the image of a slice, complex64."""
    return torch.from_numpy(item.image)


def make_image(scene: Scene, rng: np.random.Generator) -> np.ndarray:
    """Return a random image of a scene, ``(z, x)`` complex64: developed speckle of rms 1 where its level is 0 dB.

    An isolated point of amplitude a has the magnitude a.
    """
    rows, columns = (length + 2 * _MARGIN for length in scene.level.shape)
    level = np.pad(scene.level, _MARGIN, mode="edge")
    white = rng.standard_normal((2, rows, columns), dtype=np.float32)
    speckle = (white[0] + 1j * white[1]) * (np.float32(np.sqrt(0.5)) * 10 ** (level / np.float32(20)))
    if scene.density < 1:
        speckle = speckle * (rng.random((rows, columns), dtype=np.float32) < scene.density) / np.sqrt(scene.density)
    along_z, along_x = (band(n, step, edges) for n, step, edges in zip((rows, columns), PIXEL, BAND, strict=True))
    power = float(np.sqrt(np.mean(along_z**2) * np.mean(along_x**2)))
    peak = float(np.mean(along_z) * np.mean(along_x))
    spectrum = fft.fft2(speckle.astype(np.complex64)) / power
    ramps = [-2j * np.pi * fft.fftfreq(n)[:, None] for n in (rows, columns)]
    if len(scene.points):
        z, x, amplitude = scene.points.T
        turned = amplitude * np.exp(2j * np.pi * rng.random(len(z)))
        spectrum += (np.exp(ramps[0] * (z + _MARGIN)) * turned) @ np.exp(ramps[1] * (x + _MARGIN)).T / peak
    for depth, strength in scene.interfaces:
        # An interface at z shifts the phase of the base-band image by 4 pi z / wavelength.
        depth, strength = (np.pad(values, _MARGIN, mode="edge") for values in (depth, strength))
        lines = np.exp(ramps[0] * (depth + _MARGIN) - 4j * np.pi * PIXEL[0] * depth) * strength
        spectrum += fft.fft(lines, axis=1) / np.mean(along_z)
    image = fft.ifft2(spectrum * np.outer(along_z, along_x))
    return image[_MARGIN:-_MARGIN, _MARGIN:-_MARGIN].astype(np.complex64)


def band(count: int, step: float, edges: tuple[float, float]) -> np.ndarray:
    """Return the transfer function of ``count`` pixels ``step`` wavelengths apart: 1, a cosine, 0."""
    frequency = np.abs(fft.fftfreq(count, step))
    share = np.clip((edges[1] - frequency) / (edges[1] - edges[0]), 0, 1)
    return (0.5 - 0.5 * np.cos(np.pi * share)).astype(np.float32)
