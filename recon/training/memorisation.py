"""Test whether a prior copies its training images, by the distances of its samples to their nearest neighbours.

A memorised sample is closer to a training image than new images of the same kind are. The distances of samples are
therefore divided by those of held-out slices: a prior that generalises has a ratio near 1 or above.

Distances are between patches with zero mean and unit norm, d = sqrt(2 - 2 correlation), from 0 (equal up to brightness
and contrast) to sqrt(2) (unrelated), to the nearest of all windows of all training images, in all eight orientations
(flips and rotations, as in augmentation). Magnitudes are compared; the phase is ignored.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from recon.errors import InputError

#: A patch with a standard deviation below this fraction of the image's is background and is not compared.
STRUCTURE = 0.25


@dataclass(frozen=True)
class Neighbours:
    """Distance of each patch to its nearest training window, and the index of the training image that contains it."""

    distance: Tensor
    image: Tensor


def orientations(patches: Tensor) -> Tensor:
    """Return ``(8, n, size, size)``: the patches in all flips and rotations."""
    turned = [patches.rot90(k, (1, 2)) for k in range(4)]
    return torch.stack([*turned, *(patch.flip(2) for patch in turned)])


def cut_patches(images: Sequence[Tensor], size: int, count: int, seed: int) -> Tensor:
    """Return ``(count, size, size)`` random patches with structure, cut evenly from the magnitudes ``(y, x)``.

    Raises
    ------
    InputError
        If the images are smaller than a patch, or empty.
    """
    rng = np.random.default_rng(seed)
    found: list[Tensor] = []
    for k in range(200 * count):
        image = images[k % len(images)] if images else torch.zeros(0, 0)
        if min(image.shape) < size:
            raise InputError(
                f"memorisation: patches of {size} x {size} pixels do not fit into an image of {tuple(image.shape)}"
            )
        top, left = (int(rng.integers(n - size + 1)) for n in image.shape)
        patch = image[top : top + size, left : left + size]
        if patch.std() > STRUCTURE * image.std():
            found.append(patch)
        if len(found) == count:
            return torch.stack(found)
    raise InputError("memorisation: the images contain too little structure to cut patches from")


def whole(images: Iterable[Tensor], size: int, level: float = 0.1) -> Tensor:
    """Return ``(n, size, size)``: the part of each image above ``level``, resampled to one size."""
    framed = []
    for image in images:
        rows, columns = (torch.nonzero((image > level).any(dim=axis)).flatten() for axis in (1, 0))
        if len(rows) < 2 or len(columns) < 2:
            continue
        inside = image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        framed.append(functional.interpolate(inside[None, None], (size, size), mode="bilinear", antialias=True)[0, 0])
    if not framed:
        raise InputError(f"memorisation: no image has values above {level}")
    return torch.stack(framed)


def nearest(patches: Tensor, training: Iterable[Tensor], stride: int = 1) -> Neighbours:
    """Find the nearest training neighbour of each patch.

    Parameters
    ----------
    patches : Tensor ``(n, size, size)``
    training : iterable of Tensor ``(y, x)``
        Magnitudes; every window of the patch size is compared. Images smaller than a patch are skipped.
    stride : int
        Compare every N-th window in both directions.
    """
    size, n = patches.shape[-1], len(patches)
    queries = _standardised(orientations(patches).reshape(8 * n, -1))
    best, at = torch.full((n,), -1.0), torch.full((n,), -1)
    for number, image in enumerate(training):
        if min(image.shape) < size:
            continue
        windows = functional.unfold(image[None, None].float(), size, stride=stride)[0].T
        windows = windows[windows.std(dim=1) > 1e-3 * image.std()]
        if not len(windows):
            continue
        match = (_standardised(windows) @ queries.T).amax(dim=0).view(8, n).amax(dim=0)
        at[match > best] = number
        best = torch.maximum(best, match)
    return Neighbours((2 - 2 * best).clamp(min=0).sqrt(), at)


def _standardised(rows: Tensor) -> Tensor:
    rows = rows - rows.mean(dim=1, keepdim=True)
    return rows / rows.norm(dim=1, keepdim=True).clamp(min=1e-12)


def compare(samples: Tensor, held_out: Tensor, training: Sequence[Tensor], stride: int = 1) -> dict[str, float]:
    """Compare patches of samples with patches of held-out slices, by their distances to the training images.

    Returns
    -------
    dict
        ``ratio``: median distance of samples over that of held-out slices; ``ratio_5``: the same for the 5 % quantiles,
        which are more sensitive to single copies; ``copies``: fraction of samples closer than half the smallest
        held-out distance; and the two medians.
    """
    ours, theirs = (nearest(patches, training, stride).distance for patches in (samples, held_out))
    low = [float(distance.quantile(0.05)) for distance in (ours, theirs)]
    return {
        "samples": float(ours.median()),
        "held_out": float(theirs.median()),
        "ratio": float(ours.median() / theirs.median()),
        "ratio_5": low[0] / max(low[1], 1e-12),
        "copies": float((ours < theirs.min() / 2).float().mean()),
    }
