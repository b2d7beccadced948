"""Products with the Jacobian of a denoiser: ``Cov[x0 | x_sigma] = sigma^2 dD/dx`` (Tweedie, second order)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from samplers.denoiser import Denoiser

Product = Callable[[Tensor], Tensor]
JacobianKind = Literal["finite-difference", "vjp"]


def differences(denoiser: Denoiser, x: Tensor, sigma: float, denoised: Tensor, step: float = 0.1) -> Product:
    """Return ``v -> J v``, by one more call of the denoiser: ``[D(x + h v) - D(x)] / h``.

    For an exact denoiser J is symmetric and this is also ``J^T v``.

    Parameters
    ----------
    denoiser : Denoiser
    x, denoised : Tensor, shape ``(batch, *domain)``
        State and ``D(x, sigma)``.
    sigma : float
    step : float
        rms of ``h v`` in units of ``sigma``: large compared with rounding, small compared with the noise.
    """
    dims = tuple(range(1, x.ndim))

    def product(v: Tensor) -> Tensor:
        rms = v.abs().square().mean(dim=dims, keepdim=True).sqrt()
        h = step * sigma / torch.where(rms > 0, rms, 1)
        return (denoiser.denoise(x + h * v, sigma) - denoised) / h

    return product


def vjp(denoiser: Denoiser, x: Tensor, sigma: float) -> tuple[Tensor, Product]:
    """Return ``D(x, sigma)`` and ``v -> J^T v`` by back-propagation; the graph is kept until the product is dropped."""
    with torch.enable_grad():
        tracked = x.detach().requires_grad_()
        output = denoiser.denoise(tracked, sigma)

    def product(v: Tensor) -> Tensor:
        return torch.autograd.grad(output, tracked, v, retain_graph=True)[0]

    return output.detach(), product
