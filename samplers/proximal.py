"""Fitting a denoised image to the data: the mean of, or a draw from, a Gaussian around it times the likelihood."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from operators.solve import conjugate_gradient
from samplers.noise import Noise
from samplers.problem import Problem


def proximal_move(problem: Problem, pull: Tensor, variance: Tensor) -> Tensor:
    """Approximate how `proximal` would move an image without weights: one step, without a product with A."""
    return _filter(pull, variance / (1 + variance / problem.information.variance))


def proximal(
    problem: Problem,
    anchor: Tensor,
    variance: float | Tensor,
    iterations: int,
    weights: Tensor | None = None,
    *,
    pull: Tensor | None = None,
    without: Tensor | None = None,
    draw: Noise | None = None,
    preconditioned: bool = False,
) -> tuple[Tensor, Tensor]:
    """Find the mean of ``N(anchor, variance I)`` times the likelihood by conjugate gradients.

    Solves ``(I + variance A^H W A) x = anchor + variance A^H W y`` with ``W = 1 / noise_std^2``, started at the anchor;
    with ``weights`` the standard deviation of each pixel is multiplied by them.

    Parameters
    ----------
    problem : Problem
    anchor : Tensor, shape ``(batch, *domain)``
    variance : float or Tensor
        Variance of the image around the anchor (r^2 in the papers); a tensor: of each Fourier coefficient, not
        centred, over as many of the last axes.
    iterations : int
        Conjugate-gradient iterations; a fixed number, so that nothing waits for a GPU.
    weights : Tensor, shape ``(batch, *domain)``, optional
    pull : Tensor, shape ``(batch, *domain)``, optional
        ``A^H W (y - A anchor)``, if it is already known or replaced by another gradient.
    without : Tensor, shape ``domain``, optional
        The part of ``A^H W A`` already used in the anchor, as a number for each pixel; it is subtracted.
    draw : Noise, optional
        Draw from that product of Gaussians, by noise on the right-hand side, instead of taking its mean; for the whole
        likelihood, that is, not with ``without``.
    preconditioned : bool
        Converge faster, if the operator has Fourier gains. If the variance is a rough guess, few plain iterations
        regularise and are better.

    Returns
    -------
    x : Tensor, shape ``(batch, *domain)``
    residual : Tensor, shape ``(batch,)``
        Relative residual of the linear system.
    """
    # Solved for z in x = anchor + L z, for which the prior is white: the system stays Hermitian with weights.
    if not isinstance(variance, Tensor):  # filled on the device; a copy of a number would wait for a GPU
        variance = anchor.real.new_full((), variance)
    root = variance.to(anchor.real.dtype).sqrt()
    local: Tensor | float = 1.0 if weights is None else weights

    def spread(z: Tensor) -> Tensor:
        return local * _from_fourier(root * z, root.ndim, anchor.is_complex())

    def gather(x: Tensor) -> Tensor:
        return root * _to_fourier(local * x, root.ndim)

    def system(z: Tensor) -> Tensor:
        x = spread(z)
        image = problem.weighted_normal(x)
        return z + gather(image if without is None else image - without * x)

    if pull is None:
        pull = problem.weighted_data - problem.weighted_normal(anchor)
    rhs = gather(pull)
    if draw is not None:
        noise = problem.operator.H(draw.normal(problem.operator.codomain) / problem.noise_std)
        rhs = rhs + _to_fourier(draw.normal(problem.operator.domain), root.ndim) + gather(noise)
    z, residual = conjugate_gradient(
        system,
        rhs,
        iterations=iterations,
        item_ndim=problem.operator.domain.ndim,
        preconditioner=_preconditioner(problem, root, local, without) if preconditioned else None,
    )
    return anchor + spread(z), residual


def _preconditioner(
    problem: Problem, root: Tensor, local: Tensor | float, without: Tensor | None
) -> Callable[[Tensor], Tensor] | None:
    """Return the inverse of the system of `proximal` with ``A^H W A`` as a filter; None without Fourier gains."""
    if problem.fourier_gains is None:
        return None
    gains, axes = problem.fourier_gains
    known = 0.0 if without is None else without.mean()
    size = local**2 if isinstance(local, float) else local.square().mean(dim=axes, keepdim=True)
    inverse = 1 / (1 + size * root.square() * (gains - known).clamp_min(0))

    def apply(z: Tensor) -> Tensor:
        return inverse * z if root.ndim else _filtered(z, inverse, axes)

    return apply


def _filtered(x: Tensor, gain: Tensor, axes: tuple[int, ...]) -> Tensor:
    filtered = torch.fft.ifftn(gain * torch.fft.fftn(x, dim=axes), dim=axes)
    return filtered if x.is_complex() else filtered.real


def _filter(x: Tensor, gain: Tensor) -> Tensor:
    """Multiply each Fourier coefficient over the last axes by its gain; without axes, everything by one."""
    return _from_fourier(gain * _to_fourier(x, gain.ndim), gain.ndim, x.is_complex())


def _to_fourier(x: Tensor, ndim: int) -> Tensor:
    return torch.fft.fftn(x, dim=tuple(range(-ndim, 0)), norm="ortho") if ndim else x


def _from_fourier(z: Tensor, ndim: int, keep_complex: bool) -> Tensor:
    x = torch.fft.ifftn(z, dim=tuple(range(-ndim, 0)), norm="ortho") if ndim else z
    return x if keep_complex or not ndim else x.real
