"""The likelihood of the data as a function of the prediction ``A x``.

`Gaussian` is the only one implemented, and every sampler of this package needs it. Another one, such as for counts,
needs the methods of `Likelihood` and a sampler that uses nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from operators.arrays import tensor
from operators.errors import InputError, ShapeError


@runtime_checkable
class Likelihood(Protocol):
    """``p(y | A x)``, datum by datum: all arrays have the shape of ``y``, or one that broadcasts to it."""

    def fitted(self, y: Tensor) -> Likelihood:
        """Return the likelihood for these data, in their precision and on their device; raise if it does not fit."""

    def score(self, y: Tensor, predicted: Tensor) -> Tensor:
        """Return the derivative of ``log p`` in the prediction, in the engine's convention: ``W (y - A x)``."""

    def weight(self, y: Tensor, predicted: Tensor) -> float | Tensor:
        """Return the precision of each datum, W: minus the (expected) second derivative of ``log p``."""

    def misfit(self, y: Tensor, predicted: Tensor) -> Tensor:
        """Return the squared deviation of each datum over its variance: 1 on average for posterior samples."""


@dataclass(frozen=True, eq=False)
class Gaussian:
    """Independent Gaussian noise: ``y = A x + noise_std n``.

    Parameters
    ----------
    noise_std : float or Tensor
        See `samplers.Problem`.
    """

    noise_std: float | Tensor

    def fitted(self, y: Tensor) -> Gaussian:
        """Return a copy with ``noise_std`` as a float, or a tensor like the data, at least ``1e-6`` of their rms."""
        given = tensor(self.noise_std, "noise_std of Problem")
        if given.is_complex():
            raise InputError(f"noise_std of Problem: expected real values, got {given.dtype}")
        noise_std = given.to(y.device, y.real.dtype)
        if not bool(torch.isfinite(noise_std).all()) or bool((noise_std < 0).any()):
            raise InputError(f"noise_std of Problem: expected finite values >= 0, got {self.noise_std!r}")
        try:
            np.broadcast_shapes(noise_std.shape, y.shape)  # torch's own loads a computer algebra system
        except ValueError:
            raise ShapeError(
                f"noise_std of Problem: expected a shape that broadcasts to y {tuple(y.shape)}, got "
                f"{tuple(noise_std.shape)}"
            ) from None
        floor = 1e-6 * float(y.abs().square().mean().sqrt()) or 1e-12
        clamped = noise_std.clamp(min=floor)
        return Gaussian(float(clamped) if clamped.ndim == 0 else clamped)

    def score(self, y: Tensor, predicted: Tensor) -> Tensor:
        """Return ``(y - A x) / noise_std^2``."""
        return (y - predicted) / self.noise_std**2

    def weight(self, y: Tensor, predicted: Tensor) -> float | Tensor:
        """Return ``1 / noise_std^2``, whatever the prediction."""
        return 1 / self.noise_std**2

    def misfit(self, y: Tensor, predicted: Tensor) -> Tensor:
        """Return ``|(y - A x) / noise_std|^2``."""
        return ((y - predicted) / self.noise_std).abs().square()
