"""Reconstructions without a learned prior that are usual for MRI."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from recon.estimators import Estimator, LeastSquares, Regularised
from samplers import Problem

#: Iterations of the power method.
_POWER = 10


@dataclass(frozen=True)
class L1Wavelet(Regularised):
    """Sparse wavelets: ``argmin_x |(A x - y) / noise_std|^2 / 2 + weight |W x|_1`` by FISTA with random shifts.

    Parameters
    ----------
    weight, iterations
        See `recon.estimators.Regularised`.
    wavelet : str
        A name of PyWavelets.

    References
    ----------
    Lustig, Donoho & Pauly, "Sparse MRI", Magn. Reson. Med. 58 (2007); Beck & Teboulle, "A fast iterative
    shrinkage-thresholding algorithm for linear inverse problems", SIAM J. Imaging Sci. 2 (2009).
    """

    citations: ClassVar[tuple[str, ...]] = ("lustig2007sparse",)

    iterations: int = 40
    wavelet: str = "db4"

    def solve(self, problem: Problem, weight: float) -> Tensor:
        """Return the image of least cost."""
        data = problem.weighted_data
        step = 1 / _largest_eigenvalue(problem)
        threshold = step * weight
        shifts = np.random.default_rng(0)
        x = ahead = torch.zeros_like(data)
        momentum = 1.0
        for _ in range(self.iterations):
            moved = ahead + step * (data - problem.weighted_normal(ahead[None])[0])
            shift = shifts.integers(0, 16, 2).tolist()
            rolled = torch.roll(moved, shift, (-2, -1))
            found = torch.roll(self._shrunk(rolled, threshold), [-n for n in shift], (-2, -1))
            following = (1 + (1 + 4 * momentum**2) ** 0.5) / 2
            ahead = found + (momentum - 1) / following * (found - x)
            x, momentum = found, following
        return x

    def _shrunk(self, x: Tensor, threshold: float) -> Tensor:
        """Shrink the wavelet coefficients of each image of the last two axes, but for the coarsest."""
        images = x.reshape(-1, *x.shape[-2:]).cpu().numpy()
        return torch.from_numpy(np.stack([self._shrink(image, threshold) for image in images])).to(x).reshape(x.shape)

    def _shrink(self, image: np.ndarray, threshold: float) -> np.ndarray:
        from sigpy import wavelet  # which loads a compiler

        _, places = wavelet.get_wavelet_shape(image.shape, self.wavelet)
        coefficients = wavelet.fwt(image, self.wavelet)
        gain = np.maximum(1 - threshold / np.maximum(np.abs(coefficients), 1e-30), 0)
        gain[places[0]] = 1
        return np.asarray(wavelet.iwt(coefficients * gain, image.shape, places, self.wavelet), dtype=image.dtype)


def _largest_eigenvalue(problem: Problem) -> float:
    """Return the largest eigenvalue of ``A^H W A`` by the power method, with a margin."""
    x = problem.weighted_data
    size = 1.0
    for _ in range(_POWER):
        x = problem.weighted_normal((x / x.norm().clamp(min=1e-30))[None])[0]
        size = float(x.norm())
    return 1.05 * size


ESTIMATORS: dict[str, Estimator] = {"sense": LeastSquares(), "l1-wavelet": L1Wavelet()}
