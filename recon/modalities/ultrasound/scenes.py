"""Random tissue for ultrasound training images: speckle level, cysts, layers, points and interfaces.

Lengths are in pixels of `recon.modalities.ultrasound.training.PIXEL`; levels in dB, 0 being speckle of rms 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

#: Kinds of scene: cysts, lesions and layers in speckle; fine structure with interfaces, as in muscle; points in speckle
#: or water.
SCENES = ("cysts", "layers", "points")
#: Mean level of tissue. The scale of the pipeline is the .99 quantile of a first fit, which misses frequencies outside
#: the band of the data: simulated speckle has its .99 quantile at about 1.5 of that scale, so an rms of 0.7.
_LEVEL = -3.5
#: Upper limits: speckle in dB; points and interfaces as an amplitude (a wire of the PICMUS phantoms has 30).
_MOST, _BRIGHTEST = 6.0, 30.0
#: Width of a column in rows.
_ASPECT = 4 / 3
#: Level of pixels without scatterers.
_EMPTY = -90.0


@dataclass(frozen=True)
class Scene:
    """The components of an image.

    Parameters
    ----------
    level : array, shape ``(z, x)``, float32
        Level of the speckle in dB.
    density : float
        Fraction of the pixels that hold a scatterer; 1 for developed speckle.
    points : array, shape ``(point, 3)``
        Row, column and amplitude of single scatterers.
    interfaces : list of (array, array), each of shape ``(x,)``
        Row and amplitude of smooth reflectors in every column.
    """

    level: np.ndarray
    density: float
    points: np.ndarray
    interfaces: list[tuple[np.ndarray, np.ndarray]]


def draw_scene(kind: str, shape: tuple[int, int], rng: np.random.Generator) -> Scene:
    """Return a random scene of a kind of `SCENES`."""
    level, base = _background(shape, rng)
    density = 1.0
    points = np.zeros((0, 3))
    interfaces = []
    if kind == "layers":
        level = level + _layers(shape, rng) + _texture(shape, rng)
        interfaces = [_interface(shape, base, rng) for _ in range(rng.integers(0, 9))]
        if rng.random() < 0.5:
            level = _with_lesions(level, rng, 2)
    else:
        if rng.random() < 0.3:
            level = level + _layers(shape, rng)
        level = _with_lesions(level, rng, 7 if kind == "cysts" else 2)
    if rng.random() < 0.15:
        density = float(np.exp(rng.uniform(np.log(0.03), np.log(0.5))))
    if kind == "points" or rng.random() < 0.15:
        if rng.random() < 0.35:  # in water
            level = level - np.float32(rng.uniform(15, 60))
        points = _points(shape, base, rng)
    return Scene(np.minimum(level, np.float32(_MOST)), density, points, interfaces)


def _background(shape: tuple[int, int], rng: np.random.Generator) -> tuple[np.ndarray, float]:
    """Return smooth tissue and its mean level, near the scale or darker, since a patch may be any part of an image."""
    base = _LEVEL + (rng.normal(0, 2.5) if rng.random() < 0.6 else rng.uniform(-32, 2))
    depth = np.linspace(-0.5, 0.5, shape[0], dtype=np.float32)[:, None]
    slope = rng.normal(0, 4) * shape[0] / 96
    smooth = abs(rng.normal(0, 2.5)) * field(shape, rng, 48.0)
    return (base + slope * depth + smooth).astype(np.float32), base


def _layers(shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Return the offsets of bent, tilted layers in dB."""
    rows, columns = _axes(shape)
    depth = rows + rng.normal(0, 0.2) * columns + rng.uniform(0, 12) * field(shape, rng, 40.0)
    edges = np.sort(rng.uniform(depth.min(), depth.max(), rng.integers(1, 6)))
    offsets = rng.normal(0, rng.choice([3.0, 8.0]), len(edges) + 1).astype(np.float32)
    return offsets[np.searchsorted(edges, depth)]


def _texture(shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Return fine structure in dB, often elongated along one direction like fibres."""
    rows, columns = _axes(shape)
    short = rng.uniform(3, 10)
    structure = field(shape, rng, short, short * np.exp(rng.uniform(0, np.log(8))))
    if rng.random() < 0.7:  # sheared: fibres at an angle
        shift = np.rint(rng.normal(0, 0.25) * columns).astype(int) + np.zeros_like(rows, dtype=int)
        structure = structure[(np.arange(shape[0])[:, None] + shift) % shape[0], np.arange(shape[1])[None]]
    return rng.uniform(0, 6) * structure


def _with_lesions(level: np.ndarray, rng: np.random.Generator, most: int) -> np.ndarray:
    """Add ellipses to a map: empty, darker or brighter, with sharp or soft edges."""
    rows, columns = _axes(level.shape)
    for _ in range(rng.integers(0, most + 1)):
        radius = np.exp(rng.uniform(np.log(6), np.log(0.45 * level.shape[0])))
        ratio, turn = np.exp(rng.normal(0, 0.25)), rng.uniform(0, np.pi) * (rng.random() < 0.7)
        z, x = rows - rng.uniform(0, level.shape[0]), columns - rng.uniform(0, level.shape[1]) * _ASPECT
        along, across = z * np.cos(turn) + x * np.sin(turn), x * np.cos(turn) - z * np.sin(turn)
        inside = 1 - np.hypot(along / ratio, across * ratio) / radius  # 1 in the centre, 0 on the edge
        soft = rng.choice([0.5, 0.5, 8.0])
        share = np.clip(inside * radius / soft + 0.5, 0, 1).astype(np.float32)
        kind = rng.random()
        if kind < 0.45:
            value = np.full_like(level, _EMPTY) if rng.random() < 0.6 else level - np.float32(rng.uniform(18, 50))
        elif kind < 0.75:
            value = level - np.float32(rng.uniform(2, 18))
        else:
            value = level + np.float32(rng.uniform(2, 14))
        level = level + share * (value - level)
    return level


def _points(shape: tuple[int, int], base: float, rng: np.random.Generator) -> np.ndarray:
    """Return single scatterers, from the level of speckle to 32 dB above it."""
    count = int(rng.integers(1, 13))
    amplitude = np.minimum(10 ** ((base + rng.uniform(0, 32, count)) / 20), _BRIGHTEST)
    return np.stack([rng.uniform(0, shape[0], count), rng.uniform(0, shape[1], count), amplitude], axis=1)


def _interface(shape: tuple[int, int], base: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return a curved line that reflects along a part of its length."""
    columns = np.arange(shape[1])
    bend = rng.uniform(0, 6) * _curve(shape[1], rng, 40)
    row = rng.uniform(0, shape[0]) + rng.normal(0, 0.15) * _ASPECT * (columns - rng.uniform(0, shape[1])) + bend
    strength = 10 ** ((base + rng.uniform(0, 20) + rng.uniform(0, 4) * _curve(shape[1], rng, 12)) / 20)
    middle, length = rng.uniform(0, shape[1]), np.exp(rng.uniform(np.log(8), np.log(2.0 * shape[1])))
    window = np.clip((length / 2 - np.abs(columns - middle)) / 4 + 0.5, 0, 1)
    return row, np.minimum(strength, _BRIGHTEST) * window


def field(shape: tuple[int, int], rng: np.random.Generator, rows: float, columns: float | None = None) -> np.ndarray:
    """Return a smooth random field ``(z, x)`` of about unit variance, with features of a given size in rows."""
    knots = [max(2, int(n / each) + 2) for n, each in zip(shape, (rows, (columns or rows) / _ASPECT), strict=True)]
    coarse = torch.from_numpy(rng.standard_normal((1, 1, *knots), dtype=np.float32))
    return functional.interpolate(coarse, shape, mode="bicubic", align_corners=True)[0, 0].numpy()


def _curve(length: int, rng: np.random.Generator, feature: float) -> np.ndarray:
    """Return a smooth random line ``(x,)``."""
    return field((4, length), rng, 4.0, feature * _ASPECT)[0]


def _axes(shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Return the z and x coordinates of the pixels, both in rows."""
    rows, columns = np.arange(shape[0], dtype=np.float32)[:, None], np.arange(shape[1], dtype=np.float32)[None]
    return rows, columns * np.float32(_ASPECT)
