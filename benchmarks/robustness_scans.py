"""Scans with a truth that nobody tuned on, for ``robustness_mri.py``: each as k-space, options and truth.

`scans(folder)` lists them by name; nothing is read or computed before one is asked for. FOLDER is the one of the real
data, with mri_kspace/ and mri_images/. Noise is complex and white, ``E|e|^2 = noise^2`` for each sample; its level is
given in *white*, the .99 quantile of the noise-free root sum of squares.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from operators import fftc, ifftc
from recon.io import open_kspace

#: What is brighter than this share of the maximum of the reference is the head.
HEAD = 0.1
#: k-space samples of brain_16ch_96 in its units: the air beside the head says 6 to 7.
SENSE96_NOISE = 6.5
PATTERNS = ("random", "equispaced", "poisson", "gaussian1d", "gaussian2d")
#: Images at 3 T, and the low-field scans whose grid and noise they get.
STAND_INS = (("F6B_T1w", "F6B_GRE"), ("F6B_T2w", "F6B_FSE"))
#: Slices at 3 T of people who are in no training data.
UNSEEN = (("F6A_T1w", 0), ("F6A_T2w", 1), ("S6B_T1w", 1), ("S6B_T2w", 3))


@dataclass(frozen=True, eq=False)
class Scan:
    """k-space, the options of `recon.reconstruct` beside the defaults, and the truth.

    Attributes
    ----------
    kspace : array, shape ``(coil, y, x)``
        Zero where not sampled, or complete and undersampled by the options.
    reference : array, shape ``(y, x)``
        Magnitude without noise; of `noisy_truth` complex, with noise.
    options : dict
    noise : float or None
        Of a k-space sample, where it is known.
    folded : array of bool, shape ``(y, x)``, optional
        Pixels on which more than one pixel of the head lands.
    noisy_truth : bool
        The reference is the fully sampled image itself, whose noise is `noise`.
    total_variation : bool
        Compare with total variation at its best weight.
    """

    kspace: np.ndarray
    reference: np.ndarray
    options: dict[str, Any] = field(default_factory=dict)
    noise: float | None = None
    folded: np.ndarray | None = None
    noisy_truth: bool = False
    total_variation: bool = False

    @property
    def head(self) -> np.ndarray:
        shown = np.abs(self.reference)
        return shown > HEAD * shown.max()


def scans(folder: Path) -> dict[str, Callable[[], Scan]]:
    """Return a function for each name, which reads or simulates the scan."""
    found: dict[str, Callable[[], Scan]] = {}
    for name in (
        "full",
        "equispaced x2",
        "equispaced x4",
        "random x4",
        "poisson x4",
        "gaussian2d x4",
        "centre only x4",
    ):
        found[f"sense96 {name}"] = partial(_sense96, folder, name)
    for noise, patterns, rates in (
        (0.02, PATTERNS, (2, 4, 8)),
        (0.005, PATTERNS[:3], (4,)),
        (0.08, PATTERNS[:3], (4,)),
    ):
        for pattern in patterns:
            for rate in rates:
                found[f"brain {noise:.1%} {pattern} x{rate}"] = partial(_brain, folder, noise, pattern, rate)
    for noise in (0.1, 0.2, 0.4, 1.0):
        for rate in (1, 2, 4):
            found[f"brain {noise:.0%} random x{rate}"] = partial(_brain, folder, noise, "random", rate)
    for lines in (0, 6, 8, 10, 16):
        found[f"phantom {lines} lines{'' if lines else ', maps given'}"] = partial(few_lines, lines)
    for axis, share in ((-2, None), (-2, 0.8), (-1, 0.6), (-1, 0.8)):
        name = f"folded {'yx'[axis]} {'half the grid' if share is None else f'{share:g} of the head'} equispaced x2"
        found[name] = partial(_folded, folder, axis, share)
    for contrast in ("GRE", "FSE", "FLAIR"):
        for rate in (1, 2):
            found[f"low field {contrast} x{rate}"] = partial(_low_field, folder, f"F6B_{contrast}", rate)
    for image, like in STAND_INS:
        for rate in (1, 2):
            found[f"low field like {image[4:]} x{rate}"] = partial(_stand_in, folder, image, like, rate)
    for name, index in UNSEEN:
        for pattern, rate in (("random", 4), ("poisson", 4), ("equispaced", 2), ("equispaced", 8)):
            scan = partial(_unseen, folder, name, index, pattern, rate)
            found[f"unseen {name} {pattern} x{rate}"] = scan
    return found


def rss(images: np.ndarray) -> np.ndarray:
    """Return the root sum of squares over the coils."""
    return np.sqrt((np.abs(images) ** 2).sum(axis=0))


def to_images(kspace: np.ndarray) -> np.ndarray:
    return ifftc(torch.from_numpy(np.ascontiguousarray(kspace))).numpy()


def to_kspace(images: np.ndarray) -> np.ndarray:
    return fftc(torch.from_numpy(np.ascontiguousarray(images))).numpy().astype(np.complex64)


def with_noise(kspace: np.ndarray, noise: float, seed: int = 0) -> np.ndarray:
    """Add complex white noise, ``E|e|^2 = noise^2``."""
    rng = np.random.default_rng(seed)
    white = (rng.standard_normal(kspace.shape) + 1j * rng.standard_normal(kspace.shape)) / np.sqrt(2)
    return (kspace + noise * white).astype(np.complex64)


def fold(images: np.ndarray, length: int, axis: int) -> np.ndarray:
    """Return what a field of view of `length` pixels along the axis shows: the sum of all that falls on each pixel.

    With a divisor of the full length it is what every n-th line of k-space shows, but for the scale.
    """
    n = images.shape[axis]
    moved = np.moveaxis(images, axis, -1)
    places = (np.arange(n) - n // 2 + length // 2) % length
    folded = np.zeros((*moved.shape[:-1], length), np.int64 if images.dtype == bool else images.dtype)
    for i, place in enumerate(places):
        folded[..., place] += moved[..., i]
    return np.moveaxis(folded, -1, axis)


def _undersampled(pattern: str, rate: float) -> dict[str, Any]:
    return {} if rate == 1 else {"mask": pattern, "acceleration": float(rate)}


@cache
def _brain_images(folder: Path) -> np.ndarray:
    """Return the coil images of the 8-coil brain, which its authors denoised."""
    return to_images(open_kspace(folder / "mri_kspace" / "brain_8ch_full.cfl")[0])


def _brain(folder: Path, noise: float, pattern: str, rate: int) -> Scan:
    images = _brain_images(folder)
    level = noise * float(np.quantile(rss(images), 0.99))
    return Scan(with_noise(to_kspace(images), level), rss(images), _undersampled(pattern, rate), level)


def _sense96(folder: Path, name: str) -> Scan:
    kspace = np.load(folder / "mri_kspace" / "brain_16ch_96.npy")
    if name == "centre only x4":  # a quarter of the columns
        options: dict[str, Any] = {"mask": (np.abs(np.arange(96) - 47.5) < 12)[None]}
    elif name == "full":
        options = {}
    else:
        options = _undersampled(name.split()[0], int(name[-1]))
    return Scan(kspace, rss(to_images(kspace)), options, SENSE96_NOISE)


def few_lines(lines: int, size: int = 96, coils: int = 4, noise: float = 0.004) -> Scan:
    """Return a phantom seen by every third line and a few in the centre; without those, with its coil maps."""
    y, x = np.meshgrid(*[(np.arange(size) - size // 2) / (size / 2)] * 2, indexing="ij")
    discs = [  # value, centre (y, x), radius, stretch (y, x)
        (0.55, (0.0, 0.0), 1.0, (0.80, 0.66)),
        (0.35, (-0.35, 0.25), 0.20, (1.0, 1.0)),
        (-0.30, (0.25, -0.28), 0.14, (1.0, 1.25)),
        (0.40, (0.40, 0.30), 0.07, (1.0, 1.0)),
    ]
    image = np.zeros((size, size))
    for value, (cy, cx), radius, (sy, sx) in discs:
        image += value / (1 + np.exp((np.hypot((y - cy) / sy, (x - cx) / sx) - radius) / 0.04))
    angles = 2 * np.pi * np.arange(coils)[:, None, None] / coils
    distance = (y - 1.1 * np.sin(angles)) ** 2 + (x - 1.1 * np.cos(angles)) ** 2
    seen = np.exp(-distance / 1.8 + 1j * (angles + 0.7 * x - 0.5 * y))
    sampled = np.zeros(size, bool)
    sampled[::3] = True
    sampled[size // 2 - lines // 2 : size // 2 + lines // 2] = True
    kspace = with_noise(to_kspace(image * seen), noise) * sampled
    options = {} if lines else {"coil_maps": (seen / rss(seen)).astype(np.complex64)}
    return Scan(kspace, image * rss(seen), options, noise)


def _folded(folder: Path, axis: int, share: float | None, noise: float = 0.01) -> Scan:
    """Return the brain in a field of view of this share of the head along an axis (None: of half the grid)."""
    images = _brain_images(folder)
    head = rss(images) > HEAD * rss(images).max()
    extent = np.ptp(np.flatnonzero(head.any(axis=-1 if axis == -2 else -2))) + 1
    length = images.shape[axis] // 2 if share is None else 2 * round(share * extent / 2)
    seen = fold(images, length, axis)
    level = noise * float(np.quantile(rss(seen), 0.99))
    several = fold(head, length, axis) > 1
    kspace = with_noise(to_kspace(seen), level)
    return Scan(kspace, rss(seen), _undersampled("equispaced", 2), level, folded=several)


def _low_field(folder: Path, name: str, rate: int, index: int = 2) -> Scan:
    """Return a slice at 0.055 T, of one coil: the only reference is its own noisy image."""
    kspace = np.load(folder / "mri_kspace" / "brain_0.055T_1ch.npz")[name][None, :, :, index]
    image = to_images(kspace)[0]
    return Scan(kspace, image, _undersampled("random", rate), air_noise(image), noisy_truth=True)


def air_noise(image: np.ndarray) -> float:
    """Return the noise level of a complex image by the median of its first and last dozen columns, which hold air."""
    power = np.abs(np.concatenate([image[:, :12], image[:, -12:]], axis=1)) ** 2
    return float(np.sqrt(np.median(power) / np.log(2)))


def _stand_in(folder: Path, name: str, like: str, rate: int, index: int = 2) -> Scan:
    """Return a sharp slice of the same patient at 3 T with grid and noise of a low-field scan and a smooth phase."""
    scan = _low_field(folder, like, 1)
    ny, nx = scan.reference.shape
    with np.load(folder / "mri_images" / "brain_3T_6patients_T1_T2.npz") as images:
        sharp = images[name][index].astype(np.float32)
    side = max(sharp.shape)
    square = np.zeros((side, side), np.float32)
    top, left = ((side - n) // 2 for n in sharp.shape)
    square[top : top + sharp.shape[0], left : left + sharp.shape[1]] = sharp / sharp.max()
    y, x = np.meshgrid(*[np.linspace(-1, 1, side)] * 2, indexing="ij")
    phase = np.exp(1j * (0.4 + 0.8 * x - 0.6 * y + 0.5 * x * y + 0.4 * y**2))
    top, left = side // 2 - ny // 2, side // 2 - nx // 2
    kspace = to_kspace(square * phase)[None, top : top + ny, left : left + nx]
    reference = np.abs(to_images(kspace)[0])
    assert scan.noise is not None
    level = scan.noise * float(np.quantile(reference, 0.99) / np.quantile(np.abs(scan.reference), 0.99))
    return Scan(with_noise(kspace, level), reference, _undersampled("random", rate), level, total_variation=True)


def _unseen(folder: Path, name: str, index: int, pattern: str, rate: int, coils: int = 6, noise: float = 0.015) -> Scan:
    """Return a slice at 3 T on a grid of a third of its pixels, seen by smooth coils, with a smooth phase."""
    with np.load(folder / "mri_images" / "brain_3T_6patients_T1_T2.npz") as images:
        sharp = images[name][index].astype(np.float32)
    ny, nx = (n // 3 for n in sharp.shape)
    image = sharp[: 3 * ny, : 3 * nx].reshape(ny, 3, nx, 3).mean(axis=(1, 3))
    image /= np.quantile(image, 0.99)
    y, x = np.mgrid[-1 : 1 : ny * 1j, -1 : 1 : nx * 1j]
    turns = (2 * np.pi * np.arange(coils) / coils + 0.3)[:, None, None]
    away = (y - 1.2 * np.sin(turns)) ** 2 + (x - 1.2 * np.cos(turns)) ** 2
    maps = np.exp(-away / 1.6 + 1j * (0.8 * np.sin(turns) * y + 0.8 * np.cos(turns) * x + turns))
    kspace = to_kspace(maps / rss(maps) * image * np.exp(1j * (0.5 * y - 0.4 * x * y + 0.3)))
    return Scan(with_noise(kspace, noise), image, _undersampled(pattern, rate), noise)
