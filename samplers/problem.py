"""The inverse problem: measurements, the forward operator, and the noise."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from torch import Tensor

from operators.base import LinearOperator
from operators.errors import InputError, ShapeError
from samplers.information import Information, measure
from samplers.likelihood import Gaussian, Likelihood

_UNSAID = Gaussian(math.nan)


@dataclass(frozen=True, eq=False)
class Problem:
    """Measurements, the forward operator, and the noise level: ``y = A x + noise_std n``.

    ``Problem(y, operator, noise_std)`` is short for ``Problem(y, operator, likelihood=Gaussian(noise_std))``.

    Parameters
    ----------
    y : Tensor, shape ``operator.codomain.shape``
        Measured data, in the scale of the prior.
    operator : LinearOperator
        The forward model ``A``.
    noise_std : float or Tensor, optional
        Standard deviation of the noise of each datum (complex data: of the whole complex number, ``E|e|^2 =
        noise_std^2``); a tensor must broadcast to ``y``. Values below ``1e-6`` times the rms of ``y`` are raised to
        that floor, so that noise-free data stay solvable in single precision.
    scale, offset : float
        Bring results back to physical units: ``x_physical = scale * x + offset``.
    likelihood : Likelihood, optional
        Likelihood of data with other than Gaussian noise; it replaces ``noise_std``, which is then NaN. All samplers of
        this package need `samplers.Gaussian`.

    Raises
    ------
    ShapeError
        If ``y`` is not in the operator's codomain.
    InputError
        If ``y`` holds NaN or Inf, ``noise_std`` is negative or not finite, or both it and a likelihood are given.
    """

    y: Tensor
    operator: LinearOperator
    noise_std: float | Tensor = None  # type: ignore[assignment]  # never None once constructed
    scale: float = 1.0
    offset: float = 0.0
    likelihood: Likelihood = field(default=_UNSAID, kw_only=True)

    def __post_init__(self) -> None:
        self.operator.codomain.check(self.y, "y of Problem")
        if self.y.ndim != self.operator.codomain.ndim:
            raise ShapeError(
                f"y of Problem: expected one measurement of shape {tuple(self.operator.codomain.shape)}, got "
                f"{tuple(self.y.shape)}; make one Problem for each measurement"
            )
        if not bool(torch.isfinite(self.y).all()):
            raise InputError("y of Problem holds NaN or Inf: remove or repair the bad data first")
        likelihood = self._said().fitted(self.y)
        object.__setattr__(self, "likelihood", likelihood)
        object.__setattr__(self, "noise_std", likelihood.noise_std if isinstance(likelihood, Gaussian) else math.nan)

    def _said(self) -> Likelihood:
        """Return the given likelihood, in either form."""
        said, likelihood = self.noise_std is not None, self.likelihood
        if isinstance(likelihood, Gaussian):
            # replace(problem, noise_std=...) also passes the old likelihood on: the number takes precedence.
            return Gaussian(self.noise_std) if said else likelihood
        if not isinstance(likelihood, Likelihood):
            raise InputError(f"likelihood of Problem: expected a samplers.Likelihood, got {likelihood!r}")
        if said and not (isinstance(self.noise_std, float) and math.isnan(self.noise_std)):
            kind = type(likelihood).__name__
            raise InputError(
                f"Problem: expected noise_std or a likelihood, got noise_std={self.noise_std!r} and {kind}"
            )
        return likelihood

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
        """Diagonal and axes of ``F A^H W A F^H``, see `operators.LinearOperator.fourier_gains`; computed once."""
        return self.operator.fourier_gains(1 / self.noise_std**2)

    @cached_property
    def mean_precision(self) -> float:
        """Average information of the data about a pixel: ``trace(A^H W A) / pixels``, from one random image."""
        space = self.operator.domain
        probe = torch.randn(space.shape, dtype=space.dtype, generator=torch.Generator().manual_seed(0))
        probe = probe.to(device=self.y.device, dtype=self.weighted_data.dtype)[None]
        return float((probe.conj() * self.weighted_normal(probe)).real.sum() / probe.abs().square().sum())

    @cached_property
    def information(self) -> Information:
        """Information of the data about the pixels, and how uniform it is; measured once."""
        return measure(self.weighted_normal, self.operator.domain, self.weighted_data)

    @cached_property
    def mean_noise_variance(self) -> float:
        """The noise variance in the measured directions, averaged over the data.

        In ``information.variance`` the data with little noise count most; the two are equal for one noise level.
        """
        if not isinstance(self.noise_std, Tensor):
            return self.information.variance
        # Relative to the least noise, so that no power overflows.
        noise = (self.noise_std / self.noise_std.min()).square()
        return self.information.variance * float(noise.mean() * (noise**-2).mean() / (1 / noise).mean())

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
        misfit = self.likelihood.misfit(self.y, self.operator(x))
        return misfit.flatten(1).sum(dim=1) / max(self.operator.n_data, 1)

    def to(self, device: torch.device | str) -> Problem:
        """Return the problem on another device."""
        return replace(self, y=self.y.to(device), operator=self.operator.to(device))
