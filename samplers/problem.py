"""What is to be solved: measurements, the operator that made them, and how noisy they are."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from operators.base import LinearOperator
from operators.errors import InputError, ShapeError
from samplers.information import Information, measure


@dataclass(frozen=True, eq=False)
class Problem:
    """Measurements, the operator that made them, and how noisy they are: ``y = A x + noise_std n``.

    Parameters
    ----------
    y : Tensor, shape ``operator.codomain.shape``
        Measured data, in the scale of the prior.
    operator : LinearOperator
        The forward model ``A``.
    noise_std : float or Tensor
        Standard deviation of the noise of each datum (complex data: of the whole complex number, ``E|e|^2 =
        noise_std^2``); a tensor must broadcast to ``y``. Values below ``1e-6`` times the rms of ``y`` are raised to
        that floor, so that noise-free data stay solvable in single precision.
    scale, offset : float
        Bring results back to physical units: ``x_physical = scale * x + offset``.

    Raises
    ------
    ShapeError
        If ``y`` is not in the operator's codomain.
    InputError
        If ``y`` holds NaN or Inf, or ``noise_std`` is negative or not finite.
    """

    y: Tensor
    operator: LinearOperator
    noise_std: float | Tensor
    scale: float = 1.0
    offset: float = 0.0

    def __post_init__(self) -> None:
        self.operator.codomain.check(self.y, "y of Problem")
        if self.y.ndim != self.operator.codomain.ndim:
            raise ShapeError(
                f"y of Problem: expected one measurement of shape {tuple(self.operator.codomain.shape)}, got "
                f"{tuple(self.y.shape)}; make one Problem for each measurement"
            )
        if not bool(torch.isfinite(self.y).all()):
            raise InputError("y of Problem holds NaN or Inf: remove or repair the bad data first")
        noise_std = torch.as_tensor(self.noise_std, dtype=self.y.real.dtype, device=self.y.device)
        if not bool(torch.isfinite(noise_std).all()) or bool((noise_std < 0).any()):
            raise InputError(f"noise_std of Problem must be finite and >= 0, got {self.noise_std!r}")
        try:
            np.broadcast_shapes(noise_std.shape, self.y.shape)  # torch's own loads a computer algebra system
        except ValueError:
            raise ShapeError(
                f"noise_std of Problem: shape {tuple(noise_std.shape)} does not broadcast to y {tuple(self.y.shape)}"
            ) from None
        floor = 1e-6 * float(self.y.abs().square().mean().sqrt()) or 1e-12
        clamped = noise_std.clamp(min=floor)
        object.__setattr__(self, "noise_std", float(clamped) if clamped.ndim == 0 else clamped)

    @cached_property
    def weighted_data(self) -> Tensor:
        """``A^H W y`` with ``W = 1 / noise_std^2``, shape ``domain``; computed once."""
        return self.operator.H(self.y / self.noise_std**2)

    def weighted_normal(self, x: Tensor) -> Tensor:
        """Return ``A^H W A x``, shape ``(batch, *domain)``."""
        if isinstance(self.noise_std, Tensor):
            return self.operator.weighted_normal(x, self._weight)
        return self.operator.normal(x) / self.noise_std**2

    @cached_property
    def _weight(self) -> Tensor:
        return 1 / torch.as_tensor(self.noise_std) ** 2

    @cached_property
    def fourier_gains(self) -> tuple[Tensor, tuple[int, ...]] | None:
        """Diagonal and axes of ``F A^H W A F^H``, see :meth:`operators.LinearOperator.fourier_gains`; computed once."""
        return self.operator.fourier_gains(1 / self.noise_std**2)

    @cached_property
    def mean_precision(self) -> float:
        """How much the data say about a pixel on average: ``trace(A^H W A) / pixels``, from one random image."""
        space = self.operator.domain
        probe = torch.randn(space.shape, dtype=space.dtype, generator=torch.Generator().manual_seed(0))
        probe = probe.to(device=self.y.device, dtype=self.weighted_data.dtype)[None]
        return float((probe.conj() * self.weighted_normal(probe)).real.sum() / probe.abs().square().sum())

    @cached_property
    def information(self) -> Information:
        """What the data say about a pixel, and whether they say the same about each; measured once."""
        return measure(self.weighted_normal, self.operator.domain, self.weighted_data)

    @cached_property
    def unweighted(self) -> Problem:
        """The same problem with ``noise_std = 1``: for methods that weight the data themselves."""
        return replace(self, noise_std=1.0)

    def misfit(self, x: Tensor) -> Tensor:
        """Return the data residual ``|(y - A x) / noise_std|^2 / m`` of each sample (about 1 for posterior draws).

        Parameters
        ----------
        x : Tensor, shape ``(batch, *domain)``

        Returns
        -------
        Tensor, shape ``(batch,)``
        """
        residual = ((self.y - self.operator(x)) / self.noise_std).abs().square()
        return residual.flatten(1).sum(dim=1) / max(self.operator.n_data, 1)

    def to(self, device: torch.device | str) -> Problem:
        """Return the problem on another device."""
        noise_std = self.noise_std.to(device) if isinstance(self.noise_std, Tensor) else self.noise_std
        return Problem(self.y.to(device), self.operator.to(device), noise_std, self.scale, self.offset)
