"""Sampling that starts from an image instead of noise, at the noise level where it joins the schedule (CCDF).

Chung, Sim & Ye, "Come-Closer-Diffuse-Faster", CVPR 2022. All samples share the start, so that they spread too little
where the noise level is not well above its errors.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from operators.arrays import native
from recon import baselines
from recon.errors import InputError, ShapeError
from recon.files import npy
from recon.run_options import STARTS
from samplers import Denoiser, Noise, Problem, Uniform
from samplers.proximal import proximal

#: The noise level relative to the rms error of the start, and its range in the scale of the prior.
_ABOVE, _LEAST, _MOST = 2.0, 0.15, 1.5
#: Iterations of least squares, which regularise; weight of total variation over one by the noise level, and its
#: iterations.
_ITERATIONS, _WEIGHT, _TV_ITERATIONS = 10, 0.8, 20


@dataclass(frozen=True, eq=False)
class Start:
    """What sampling starts from.

    Attributes
    ----------
    image : str or array
        A name of `recon.run_options.STARTS`, or images ``(y, x)`` or ``(slice, y, x)`` in physical units.
    sigma : float or None
        The noise level in the scale of the prior; None: by the likely error of the image.
    """

    image: Any
    sigma: float | None = None

    @classmethod
    def given(cls, image: Any, sigma: float | None) -> Start | None:
        """Return the start that a user has asked for; None if there is none.

        Raises
        ------
        InputError
            If a file does not hold an array of images, or a noise level is given without an image.
        """
        if image is None:
            if sigma is not None:
                raise InputError("start_sigma is the noise level of a start: give start as well")
            return None
        if isinstance(image, str) and image not in STARTS:
            image = _read(Path(image))
        if not isinstance(image, str):
            image = native(np.asarray(image))
            if image.ndim not in (2, 3) or image.dtype.kind not in "fciu":
                raise InputError(
                    f"start: expected one of {', '.join(STARTS)}, a file, or images (y, x) or (slice, y, x), got "
                    f"{image.dtype} of shape {image.shape}"
                )
        return cls(image, sigma)

    def at(self, problem: Problem, index: int, denoiser: Denoiser) -> tuple[Tensor, float]:
        """Return the image of a slice, and the noise level at which it joins the schedule."""
        image = self.image_of(problem, index)
        return image, self._level(problem, image, denoiser)

    def image_of(self, problem: Problem, index: int) -> Tensor:
        """Return the image of a slice in the scale of its problem, shape ``domain``."""
        if not isinstance(self.image, str):
            return self._physical(problem, index)
        if self.image == "least-squares":
            return baselines.least_squares(problem, _ITERATIONS)
        if self.image == "tv":
            weight = _WEIGHT / math.sqrt(problem.information.variance)
            return baselines.total_variation(problem, weight, _TV_ITERATIONS)
        return _matched(problem, problem.weighted_data)

    def _level(self, problem: Problem, image: Tensor, denoiser: Denoiser) -> float:
        """Return the noise level: as given, or twice the rms error that the image is likely to have.

        That is what is unknown of the image given the data, and how far the start is from their most likely image.
        """
        if self.sigma is not None:
            return self.sigma
        nothing = torch.zeros_like(image)[None]
        variance = Uniform().error(denoiser.sigma_max, denoiser, nothing)
        likely, _ = proximal(problem, nothing, variance, _ITERATIONS, preconditioned=True)
        unknown, _ = proximal(
            problem,
            nothing,
            variance,
            _ITERATIONS,
            pull=nothing,
            draw=Noise(0, [0], problem.y),
            preconditioned=True,
        )
        error = float((unknown.abs().square() + (image - likely).abs().square()).mean())
        return min(max(_ABOVE * math.sqrt(error), _LEAST), _MOST)

    def _physical(self, problem: Problem, index: int) -> Tensor:
        """Return the image of a slice from those in physical units."""
        stack, space = self.image.reshape(-1, *self.image.shape[-2:]), problem.operator.domain
        if space.ndim > 2 and not space.axes.startswith("map "):
            raise InputError(f"start: images can be given for slices, not for a volume; choose {', '.join(STARTS)}")
        if len(stack) > 1 and index >= len(stack):
            raise ShapeError(f"start: there is no image of slice {index} among {len(stack)}")
        image = stack[index if len(stack) > 1 else 0]
        if tuple(image.shape) != tuple(space.shape[-2:]):
            raise ShapeError(f"start: expected images of {tuple(space.shape[-2:])} pixels, got {tuple(image.shape)}")
        if not np.isfinite(image).all():
            raise InputError("start: the image has values that are not finite")
        if np.iscomplexobj(image) and not space.dtype.is_complex:
            raise InputError("start: expected a real image, got a complex one")
        given = torch.as_tensor(image).to(device=problem.y.device)
        scaled = (given - problem.offset) / problem.scale
        if space.dtype.is_complex and not given.is_complex():  # a magnitude: the phase is that of the data
            phase = _matched(problem, problem.weighted_data)
            phase = phase if phase.ndim == 2 else phase[0]
            scaled = scaled * phase / phase.abs().clamp(min=1e-12)
        whole = torch.zeros(space.shape, dtype=problem.weighted_data.dtype, device=scaled.device)
        whole.view(-1, *space.shape[-2:])[0] = scaled.to(whole.dtype)  # of several maps the first
        return whole


def _matched(problem: Problem, image: Tensor) -> Tensor:
    """Return the multiple of an image that fits the data best."""
    product = problem.weighted_normal(image[None])[0]
    size = torch.vdot(image.flatten(), problem.weighted_data.flatten()).real
    return image * (size / torch.vdot(image.flatten(), product.flatten()).real.clamp(min=1e-30))


def _read(path: Path) -> np.ndarray:
    """Read the images of a `.npy` file."""
    if not path.is_file():
        raise InputError(f"start: expected one of {', '.join(STARTS)}, or a .npy file of images, got {path}")
    if not npy.sniff(path) or npy.is_archive(path):
        raise InputError(f"start: {path}: expected a NumPy .npy file of images (y, x) or (slice, y, x)")
    return np.array(npy.map_array(path, npy.array_header(path)))
