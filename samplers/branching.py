"""Samples that share a path at high noise levels and part where they begin to differ, like the branches of a tree.

At a high noise level the denoised images of all samples are nearly the same, and so are their calls of the network. So
eight samples at a time share two paths, then four, and go on alone, each time from a draw of the clean image as it is
known there. Which path a sample follows does not depend on how many samples there are, and neither does its image.
Averages over many samples lose nothing, as the paths of each eight are independent of the others.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

#: Number of samples of a tree.
TREE = 8
#: Number of paths of a tree, and the fraction of the variance of samples that their denoised images may have while they
#: are shared. Of the pairs of eight samples 3/7 share one of two paths and 1/7 one of four, so they lose a tenth of the
#: variance at most, and their mean misses the truth by 1.21 instead of 1.125 times the variance.
_SHARED = {2: 0.15, 4: 0.4}
#: Number of noise levels at which the variance is measured.
_MEASURED = 8


class Fork(NamedTuple):
    """Where paths part: above noise level ``sigma`` there are ``paths`` of them for each tree of samples."""

    sigma: float
    paths: int


@dataclass(frozen=True)
class Stretch:
    """The steps ``begin`` to ``end`` of a schedule, with ``paths`` paths for each tree; None: each sample alone."""

    begin: int
    end: int
    paths: int | None = None

    def path_of(self, sample: int) -> int:
        """Return the number of the path that a sample follows."""
        return sample if self.paths is None else self.paths * (sample // TREE) + sample % self.paths


def stretches(sigmas: Sequence[float], forks: Sequence[Fork]) -> list[Stretch]:
    """Return the parts of a schedule between the forks, from the highest noise level on; the last one is never shared.

    Parameters
    ----------
    sigmas : sequence of float
        Noise levels in decreasing order; the last one is 0.
    forks : sequence of Fork
        In decreasing order of their levels, each with a multiple of the number of paths of the one before.
    """
    parts: list[Stretch] = []
    begin, total = 0, len(sigmas) - 1
    for fork in forks:
        end = min(sum(sigma >= fork.sigma for sigma in sigmas), total - 1)
        if end > begin:
            parts.append(Stretch(begin, end, fork.paths))
            begin = end
    return [*parts, Stretch(begin, total)]


def forks_by_variance(unknown: Callable[[float], float], sigma_max: float, sigma_min: float) -> tuple[Fork, ...]:
    """Return where paths part so that samples lose a small fraction of their variance.

    The variance of a sample is that of the clean image around its denoised one, which is drawn for each sample, plus
    that of the denoised images, in which samples that share a path are alike.

    Parameters
    ----------
    unknown : callable
        Takes a noise level, and returns the variance of the clean image around a denoised one that is fitted to the
        data.
    sigma_max, sigma_min : float
        Range of the noise levels.
    """
    levels = np.geomspace(sigma_max, sigma_min, _MEASURED)
    variance = np.array([unknown(float(sigma)) for sigma in levels])
    known = 1 - variance / variance.max()
    # From the lowest level on up, what is known falls; noise may disturb it at the top, where it is next to nothing.
    known = np.maximum.accumulate(known)
    where = np.interp(list(_SHARED.values()), known, np.log(levels))
    return tuple(Fork(math.exp(level), paths) for level, paths in zip(where, _SHARED, strict=True))
