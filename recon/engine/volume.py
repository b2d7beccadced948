"""Slices that are drawn together: the problem of a volume from those of its slices, and the prior of slices for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from operators.elementary import Slices
from recon.errors import InputError
from recon.modalities.base import Prepared
from samplers import Denoiser, Problem


@dataclass(frozen=True, eq=False)
class Volume:
    """The slices of a volume, ready to be sampled together; see `recon.modalities.base.Prepared`.

    Attributes
    ----------
    problem : Problem
        Data ``(z, *data)``, images ``(z, y, x)``.
    slices : sequence of Prepared
        In order along z.
    """

    problem: Problem
    slices: Sequence[Prepared]

    @property
    def companions(self) -> dict[str, Tensor]:
        """Images that go with the result, ``(z, y, x)``."""
        return {name: torch.stack([one.companions[name] for one in self.slices]) for name in self.slices[0].companions}

    @property
    def facts(self) -> dict[str, Any]:
        """What was found in the first slice, and how many there are."""
        return {**self.slices[0].facts, "slices_together": len(self.slices)}

    @property
    def notes(self) -> list[str]:
        """What the user should know of any slice."""
        return list(dict.fromkeys(note for one in self.slices for note in one.notes))

    def combine(self, images: Tensor) -> Tensor:
        """Return the images as they are."""
        return images


def join(slices: Sequence[Prepared]) -> Volume:
    """Make one problem of those of neighbouring slices.

    Parameters
    ----------
    slices : sequence of Prepared
        Real images with one operator, as the slices of a CT scan.

    Raises
    ------
    InputError
        If they have different operators or scales, as the slices of MRI (coil maps) and frames of ultrasound.
    """
    first = slices[0].problem
    for one in slices:
        same = one.problem.operator is first.operator and (one.problem.scale, one.problem.offset) == (
            first.scale,
            first.offset,
        )
        if not same or first.operator.domain.dtype.is_complex:
            raise InputError(
                "slices can be drawn together (dds-volume) where all have one operator and scale, as those of a CT scan"
            )
    noise = [torch.as_tensor(one.problem.noise_std).to(first.y).expand_as(first.y) for one in slices]
    problem = Problem(
        torch.stack([one.problem.y for one in slices]),
        Slices(first.operator, len(slices)),
        torch.stack(noise),
        first.scale,
        first.offset,
    )
    return Volume(problem, slices)


@dataclass(frozen=True, eq=False)
class BySlice:
    """A denoiser of images ``(batch, y, x)`` for volumes ``(batch, z, y, x)``, with what it knows of its error."""

    denoiser: Denoiser

    def __getattr__(self, name: str) -> Any:
        return getattr(self.denoiser, name)

    @property
    def space(self) -> None:
        """Any number of slices is accepted."""

    def denoise(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        """Denoise all slices as items of one batch; the network takes as many at once as it has room for."""
        if isinstance(sigma, Tensor) and sigma.ndim == 1 and len(sigma) == len(x):
            sigma = sigma.repeat_interleave(x.shape[1])
        return self.denoiser.denoise(x.reshape(-1, *x.shape[2:]), sigma).reshape(x.shape)
