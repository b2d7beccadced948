"""Whether a sampling mask belongs to the data, and whether data are complete enough to be undersampled further."""

from __future__ import annotations

import torch
from torch import Tensor

from recon.errors import InputError

#: A mask may mark this fraction of its samples where all coils are exactly zero.
_ZEROS = 0.03
#: From this fraction of the encoded rectangle on, k-space counts as fully sampled: without its corners it has .79.
_COMPLETE = 0.7


def fitting(kspace: Tensor, mask: Tensor) -> tuple[Tensor, list[str]]:
    """Return a mask without padding that it marks as sampled, and a note about that.

    Raises
    ------
    InputError
        If it marks many samples that are exactly zero.
    """
    known = mask.expand(kspace.shape[-2:])
    measured = kspace.any(dim=0)
    if _zeros(known, measured) <= _ZEROS:
        return mask, []
    inside = known & _rectangle(measured)
    if bool(inside.any()) and _zeros(inside, measured) <= _ZEROS:
        left = int((known & ~inside).sum())
        return inside, [f"the mask marks {left} samples in the zero padding of k-space; they count as not sampled"]
    turned = known.T
    fits = turned.shape == measured.shape and bool(turned.any()) and _zeros(turned, measured) <= _ZEROS
    raise InputError(
        f"mask: {_zeros(known, measured):.0%} of the samples it marks are exactly zero in all coils, so it does not "
        "belong to these data" + ("; its transpose does: give mask.T" if fits else "")
    )


def require_complete(mask: Tensor, shape: tuple[int, int], acceleration: float) -> None:
    """Refuse to undersample data that are undersampled already; zero padding and partial Fourier count as complete.

    Raises
    ------
    InputError
    """
    known = mask.expand(shape)
    rectangle = _rectangle(known)
    if acceleration == 1 or float(known[rectangle].float().mean()) >= _COMPLETE:
        return
    raise InputError(
        f"the data are undersampled already (R = {known.numel() / int(known.sum()):.3g}), so retrospective "
        "undersampling would lose central lines: omit acceleration and mask, or give a fully sampled file"
    )


def _zeros(marked: Tensor, measured: Tensor) -> float:
    """Return the fraction of the marked samples that are zero."""
    return float((marked & ~measured).sum() / marked.sum().clamp_min(1))


def _rectangle(measured: Tensor) -> Tensor:
    """Return the smallest rectangle that contains all samples, as a mask."""
    inside = torch.ones_like(measured)
    for axis in (0, 1):
        line = measured.any(dim=1 - axis)
        index = line.nonzero()[:, 0]
        within = torch.zeros_like(line)
        if len(index):
            within[int(index[0]) : int(index[-1]) + 1] = True
        inside &= within[:, None] if axis == 0 else within[None]
    return inside
