"""Slices that are sampled together: the problem of a volume, and a prior for images applied slice by slice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from operators.elementary import Slices
from recon.errors import InputError
from recon.modalities.prepared import Prepared
from samplers import Denoiser, Problem


def join(slices: Sequence[Prepared]) -> Prepared:
    """Combine the problems of neighbouring slices into one.

    Parameters
    ----------
    slices : sequence of Prepared
        Real images that share one operator, in order along z.

    Returns
    -------
    Prepared
        Data ``(z, *data)``, images ``(z, y, x)``; diagnostics are those of the first slice.

    Raises
    ------
    InputError
        If they have different operators or scales.
    """
    first = slices[0].problem
    for one in slices:
        same = one.problem.operator is first.operator and (one.problem.scale, one.problem.offset) == (
            first.scale,
            first.offset,
        )
        if not same or first.operator.domain.dtype.is_complex:
            raise InputError(
                "slices can be reconstructed together (dds-volume) only if they share one operator and scale and "
                "their images are real"
            )
    noise = [torch.as_tensor(one.problem.noise_std).to(first.y).expand_as(first.y) for one in slices]
    problem = Problem(
        torch.stack([one.problem.y for one in slices]),
        Slices(first.operator, len(slices)),
        torch.stack(noise),
        first.scale,
        first.offset,
    )
    return replace(
        slices[0],
        problem=problem,
        images={name: torch.stack([one.images[name] for one in slices]) for name in slices[0].images},
        diagnostics={**slices[0].diagnostics, "slices_together": len(slices)},
        notes=list(dict.fromkeys(note for one in slices for note in one.notes)),
        doubts=list(dict.fromkeys(doubt for one in slices for doubt in one.doubts)),
    )


@dataclass(frozen=True, eq=False)
class BySlice:
    """A denoiser of images ``(batch, y, x)`` applied to volumes ``(batch, z, y, x)``, with its known error."""

    denoiser: Denoiser

    def __getattr__(self, name: str) -> Any:
        return getattr(self.denoiser, name)

    @property
    def space(self) -> None:
        """None: any number of slices is accepted."""

    def denoise(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        """Denoise all slices as items of one batch; the network takes as many at once as fit in memory."""
        if isinstance(sigma, Tensor) and sigma.ndim == 1 and len(sigma) == len(x):
            sigma = sigma.repeat_interleave(x.shape[1])
        return self.denoiser.denoise(x.reshape(-1, *x.shape[2:]), sigma).reshape(x.shape)
