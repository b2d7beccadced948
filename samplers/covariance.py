"""A covariance model of a prior, and Gaussian conditioning with it, without any network call."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.nn import functional

from operators.errors import InputError, ShapeError
from operators.solve import conjugate_gradient
from samplers.problem import Problem


@dataclass(frozen=True, eq=False)
class CovarianceModel:
    """Covariance of the images of a prior: ``C = S F^H P F S``, a map of standard deviations times a spectrum.

    Parameters
    ----------
    std_map : Tensor, shape ``domain`` or ``()``
        S: the standard deviation of each pixel (complex images: of the whole complex number).
    spectrum : Tensor, shape ``domain``, optional
        P: variance of each centred, orthonormal Fourier coefficient of images divided by ``std_map``; its mean is 1.
        None for independent pixels.

    Notes
    -----
    The square root used here is ``L = S F^H P^(1/2)``, so that ``C = L L^H``: white variables live in Fourier space,
    where the spectrum costs nothing, and each product with L costs one transform.
    """

    std_map: Tensor
    spectrum: Tensor | None = None

    def __post_init__(self) -> None:
        for name, values in (("std_map", self.std_map), ("spectrum", self.spectrum)):
            if values is None or values.device.type != "cpu":
                continue  # a model is made at each noise level: a GPU's answer would have to be waited for
            if not bool((torch.isfinite(values) & (values >= 0)).all()):
                raise InputError(f"CovarianceModel: {name} must be finite and >= 0")
        if self.spectrum is not None and self.std_map.ndim and self.std_map.shape != self.spectrum.shape:
            raise ShapeError(
                f"CovarianceModel: std_map is {tuple(self.std_map.shape)}, spectrum {tuple(self.spectrum.shape)}"
            )

    @classmethod
    def isotropic(cls, std: float, like: Tensor | None = None) -> CovarianceModel:
        """Return the model of independent pixels of one standard deviation, in the precision and place of ``like``."""
        kind, device = (torch.float32, None) if like is None else (like.real.dtype, like.device)
        return cls(torch.full((), float(std), dtype=kind, device=device))

    @classmethod
    def estimate(cls, images: Tensor, item_ndim: int = 2, smooth: int = 0) -> CovarianceModel:
        """Estimate map and spectrum from images, such as samples of the prior or training data.

        Parameters
        ----------
        images : Tensor, shape ``(n, *domain)``
        item_ndim : int
            Number of axes of one image.
        smooth : int
            Average the variance map over ``2 smooth + 1`` pixels: with few images single pixels are noisy.
        """
        if images.ndim != item_ndim + 1 or len(images) < 2:
            raise ShapeError(f"CovarianceModel.estimate: expected at least 2 images, got {tuple(images.shape)}")
        centred = images - images.mean(dim=0)
        variance = centred.abs().square().sum(dim=0) / (len(images) - 1)
        if smooth and item_ndim == 2:
            width = 2 * smooth + 1
            variance = functional.avg_pool2d(variance[None, None], width, 1, smooth, count_include_pad=False)[0, 0]
        std_map = variance.sqrt().clamp(min=1e-3 * float(variance.max().sqrt()))
        axes = tuple(range(-item_ndim, 0))
        power = torch.fft.fftn(centred / std_map, dim=axes, norm="ortho").abs().square().sum(dim=0)
        spectrum = torch.fft.fftshift(power / (len(images) - 1), dim=axes)
        return cls(std_map, spectrum / spectrum.mean())

    def to(self, like: Tensor) -> CovarianceModel:
        """Return the model in the precision and on the device of ``like``."""
        spectrum = None if self.spectrum is None else self.spectrum.to(like.device, like.real.dtype)
        return CovarianceModel(self.std_map.to(like.device, like.real.dtype), spectrum)

    def resized(self, shape: tuple[int, ...]) -> CovarianceModel:
        """Return the model for images of another matrix size with the same field of view."""
        if self.spectrum is None and not self.std_map.ndim:
            return self
        std_map = _interpolate(self.std_map, shape) if self.std_map.ndim else self.std_map
        if self.spectrum is None:
            return CovarianceModel(std_map)
        # Frequencies are in cycles per pixel: a power law has the same form on every grid.
        spectrum = _interpolate(self.spectrum.clamp(min=1e-12).log(), shape).exp()
        return CovarianceModel(std_map, spectrum / spectrum.mean())

    @cached_property
    def mean_variance(self) -> Tensor:
        """The mean variance of a pixel, shape ``()``."""
        return self.std_map.square().mean()

    @cached_property
    def _power(self) -> Tensor | None:
        return None if self.spectrum is None else torch.fft.ifftshift(self.spectrum)

    def root(self, z: Tensor) -> Tensor:
        """Return ``L z``, shape ``(batch, *domain)``; complex for a spectrum, even where the images are real."""
        if self._power is None:
            return self.std_map * z
        return self.std_map * torch.fft.ifftn(self._power.sqrt() * z, dim=self._axes, norm="ortho")

    def root_adjoint(self, x: Tensor) -> Tensor:
        """Return ``L^H x``: a spectrum, if the model has one."""
        if self._power is None:
            return self.std_map * x
        return self._power.sqrt() * torch.fft.fftn(self.std_map * x, dim=self._axes, norm="ortho")

    def flatten(self, z: Tensor, precision: float) -> Tensor:
        """Return ``(1 + precision mean(S^2) P)^-1 z``: close to the inverse of ``1 + precision L^H L``."""
        return z / (1 + precision * self.mean_variance * (1.0 if self._power is None else self._power))

    @property
    def _axes(self) -> tuple[int, ...]:
        return () if self.spectrum is None else tuple(range(-self.spectrum.ndim, 0))


def condition(
    problem: Problem,
    model: CovarianceModel,
    sigma: float,
    pull: Tensor,
    iterations: int,
    tolerance: float = 1e-3,
) -> tuple[Tensor, Tensor]:
    """Condition a denoised image on the data with the covariance model.

    With ``V = (C^-1 + sigma^-2)^-1``, the model of ``Cov[x0 | x_sigma]``, this is ``(V^-1 + A^H W A)^-1 pull``, which
    for ``pull = A^H W (y - A D)`` is ``E[x0 | x_sigma, y] - D``. Solved for ``delta = L z``, where the prior is white::

        (1 + L^H (A^H W A + sigma^-2) L) z = L^H pull

    Parameters
    ----------
    problem : Problem
    model : CovarianceModel
    sigma : float
    pull : Tensor, shape ``(batch, *domain)``
    iterations, tolerance
        Settings of the conjugate gradients; no network call is made.

    Returns
    -------
    delta : Tensor, shape ``(batch, *domain)``
    residual : Tensor, shape ``(batch,)``
        Relative residual of the linear system.
    """

    def image(z: Tensor) -> Tensor:
        x = model.root(z)
        return x if pull.is_complex() else x.real

    def system(z: Tensor) -> Tensor:
        x = image(z)
        return z + model.root_adjoint(problem.weighted_normal(x) + x / sigma**2)

    precision = 1 / sigma**2 + problem.mean_precision
    z, residual = conjugate_gradient(
        system,
        model.root_adjoint(pull),
        iterations=iterations,
        tolerance=tolerance,
        item_ndim=problem.operator.domain.ndim,
        preconditioner=lambda z: model.flatten(z, precision),
    )
    return image(z), residual


def _interpolate(values: Tensor, shape: tuple[int, ...]) -> Tensor:
    mode = {1: "linear", 2: "bilinear", 3: "trilinear"}[values.ndim]
    return functional.interpolate(values[None, None], shape, mode=mode, align_corners=False)[0, 0]
