"""Fits whose pixels are independent, as in developed speckle: a first image, what it misses, and a Gaussian prior."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from operators.solve import conjugate_gradient
from operators.ultrasound.geometry import Grid, PlaneWaveGeometry
from recon.priors.analytic import GaussianPrior
from samplers import Problem

#: Number of iterations of a fit.
_ITERATIONS = 25
#: Of this many elements one is withheld to test the noise.
_WITHHELD = 8
#: Noise of withheld data, relative to their own.
_DEAF = 1e4
#: The Gaussian prior: smoothing in wavelengths (z, x), and smallest variance relative to the largest.
_SMOOTH, _FLOOR = (1.0, 2.0), 1e-5


@dataclass(frozen=True)
class _Simulated:
    """Random pixels of standard deviation ``std``, as strong as the data, and data simulated from them with noise."""

    std: Tensor
    image: Tensor
    y: Tensor

    @classmethod
    def like(cls, problem: Problem, scene: Grid) -> _Simulated:
        """Follow the noise level with depth (it grows with the echoes)."""
        operator: Any = problem.operator
        geometry: PlaneWaveGeometry = operator.geometry
        level = problem.noise_std.mean(dim=(0, 1)).cpu().numpy()  # type: ignore[union-attr]
        times = geometry.initial_times.mean() + np.arange(len(level)) / geometry.sampling_frequency
        rows = np.interp(2 * np.asarray(scene.z) / geometry.sound_speed, times, level)
        std = torch.as_tensor(rows / rows.max(), dtype=torch.float32)[:, None] * row_gain(geometry, scene)
        generator = torch.Generator().manual_seed(0)
        white = torch.randn(scene.shape, dtype=torch.complex64, generator=generator)
        noise = torch.randn(problem.y.shape, dtype=problem.y.dtype, generator=generator)
        device = problem.y.device
        std, white, noise = std.to(device), white.to(device), noise.to(device)
        echoes = operator(std * white)
        size = (problem.y / problem.noise_std).norm() / (echoes / problem.noise_std).norm().clamp(min=1e-30)
        return cls(size * std, size * std * white, size * echoes + problem.noise_std * noise)

    def fits(self, problem: Problem) -> Tensor:
        """Return the most likely image of such pixels given the data of a problem, and given the simulated data.

        ``x = D z`` with ``(1 + D A^H W A D) z = D A^H W y``, D the standard deviation.
        """
        simulated = replace(problem, y=self.y)
        solved = conjugate_gradient(
            lambda z: z + self.std * problem.weighted_normal(self.std * z),
            self.std * torch.stack([problem.weighted_data, simulated.weighted_data]),
            iterations=_ITERATIONS,
            item_ndim=2,
        )
        return self.std * solved.x


def wiener(problem: Problem, scene: Grid) -> tuple[Tensor, Tensor]:
    """Return the most likely image of independent pixels given the data, and the typical error of such a fit.

    The latter is a random image of such pixels minus the fit to data simulated from it.
    """
    simulated = _Simulated.like(problem, scene)
    fit, other = simulated.fits(problem)
    return fit, simulated.image - other


def unexplained(problem: Problem, scene: Grid) -> float:
    """Return the squared error of predictions of withheld elements, relative to that of simulated data.

    The latter have the noise of the problem, so 1 is returned where it is right, and less where it is too high. 1 is
    also returned where there are too few elements to withhold any.
    """
    elements = problem.y.shape[1]
    if elements < 2 * _WITHHELD:
        return 1.0
    simulated = _Simulated.like(problem, scene)
    known = torch.as_tensor(problem.noise_std).expand(problem.y.shape)
    withheld = torch.zeros(elements, dtype=torch.bool, device=known.device)
    withheld[_WITHHELD // 2 :: _WITHHELD] = True
    withheld = withheld[:, None].expand(problem.y.shape)
    fits = simulated.fits(replace(problem, noise_std=torch.where(withheld, _DEAF * known, known)))
    missed = (torch.stack([problem.y, simulated.y]) - problem.operator(fits)) / known
    found, expected = missed[:, withheld].abs().square().mean(dim=1, dtype=torch.float64).tolist()
    return float(found / max(expected, 1e-30))


def speckle_prior(problem: Problem, grid: Grid, das: Tensor) -> GaussianPrior:
    """Return what stands in for a trained prior: independent complex Gaussian pixels, as in developed speckle.

    Their standard deviation follows the delay-and-sum image, smoothed over 1 x 2 wavelengths (z, x), so the data are
    used twice. It is scaled so that samples give echoes as strong as the data.
    """
    step = grid.spacing
    operator: Any = problem.operator
    width = [length * operator.geometry.wavelength / each for length, each in zip(_SMOOTH, step, strict=True)]
    power = ndimage.gaussian_filter(das.abs().square().cpu().numpy().astype(np.float64), width)
    std = torch.as_tensor(np.sqrt(np.maximum(power, _FLOOR * power.max())), dtype=torch.float32)
    std = std.to(problem.y.device)
    size = _match(problem, std)
    return GaussianPrior(torch.zeros_like(problem.weighted_data), std_map=size * std)


def _match(problem: Problem, std: Tensor) -> Tensor:
    """Return the factor by which independent pixels of this spread give echoes as strong as the data."""
    white = torch.randn(std.shape, dtype=torch.complex64, generator=torch.Generator().manual_seed(0))
    echoes = problem.operator(std * white.to(std.device)) / problem.noise_std
    return (problem.y / problem.noise_std).norm() / echoes.norm().clamp(min=1e-30)


def row_gain(geometry: PlaneWaveGeometry, grid: Grid) -> Tensor:
    """Return the gain of each row that compensates the two-way attenuation, ``(z, 1)``."""
    decibels = geometry.attenuation * geometry.center_frequency * 1e-6 * 2e2 * np.asarray(grid.z)
    return torch.as_tensor(10 ** (decibels[:, None] / 20), dtype=torch.float32)
