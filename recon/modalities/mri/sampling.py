"""Which samples of k-space are measured: as the data show or a mask says, and retrospective undersampling."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from operators import make_mask
from operators.arrays import tensor
from recon.errors import InputError, ShapeError
from recon.modalities.mri.mask_checks import fitting, require_complete


@dataclass(frozen=True)
class Sampling:
    """Retrospective undersampling of a fully sampled acquisition; without a pattern the data are used unchanged.

    Parameters
    ----------
    pattern : str, optional
        A pattern of `operators.make_mask`.
    acceleration : float
        Acceleration factor R: grid points per sampled point.
    center_fraction : float, optional
        Fraction of the columns (or of each axis) that is fully sampled; see `operators.make_mask`.
    seed : int
    """

    pattern: str | None = None
    acceleration: float = 4.0
    center_fraction: float | None = None
    seed: int = 0


def infer_mask(kspace: Tensor) -> Tensor:
    """Return where any coil is not zero; as columns ``(1, x)`` or rows ``(y, 1)`` where the pattern is that simple."""
    mask = (kspace != 0).any(dim=0)
    columns, rows = mask.any(dim=0, keepdim=True), mask.any(dim=1, keepdim=True)
    if bool((mask == columns).all()):
        return columns
    return rows if bool((mask == rows).all()) else mask


def sampled_mask(
    kspace: Tensor, mask: np.ndarray | Tensor | None, sampling: Sampling | None
) -> tuple[Tensor, list[str]]:
    """Return the sampling mask: that of the data, undersampled by the retrospective pattern; and notes about it."""
    shape = (kspace.shape[-2], kspace.shape[-1])
    if mask is None:
        known = infer_mask(kspace)
    else:
        known = tensor(mask, "mask").to(kspace.device).bool()
        known = known[None] if known.ndim == 1 else known
        try:
            fits = torch.broadcast_shapes(known.shape, shape) == shape and known.ndim == 2
        except RuntimeError:
            fits = False
        if not fits:
            raise ShapeError(f"mask: expected a shape that broadcasts to {shape} (y, x), got {tuple(known.shape)}")
    if not bool(known.any()):
        raise InputError("mask is empty: expected at least the centre of k-space")
    known, notes = fitting(kspace, known)
    if sampling is not None and sampling.pattern is not None:
        require_complete(known, shape, sampling.acceleration)
        pattern = make_mask(
            shape, sampling.pattern, sampling.acceleration, sampling.center_fraction, seed=sampling.seed
        )
        known = known & torch.as_tensor(pattern).to(kspace.device).bool()
    if not bool((kspace * known).any()):
        raise InputError("kspace is zero wherever the mask samples: the mask does not belong to these data")
    return known, notes
