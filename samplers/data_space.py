"""The linear system of moment matching in data space, with a model covariance or a network's own."""

from __future__ import annotations

import torch
from torch import Tensor

from samplers.covariance import CovarianceModel, condition
from samplers.jacobian import Product
from samplers.problem import Problem


class DataSpace:
    """The system ``(1 + N^-1 A V A^H N^-1) w = N^-1 (y - A D)``, N the noise std; the image moves by V A^H N^-1 w."""

    def __init__(self, problem: Problem, model: CovarianceModel, sigma: float, model_iterations: int) -> None:
        self.problem, self.model, self.sigma, self.model_iterations = problem, model, sigma, model_iterations

    def _pull(self, w: Tensor) -> Tensor:
        return self.problem.operator.H(w / self.problem.noise_std)

    def _push(self, x: Tensor) -> Tensor:
        return self.problem.operator(x) / self.problem.noise_std

    def model_answer(self, pull: Tensor) -> tuple[Tensor, Tensor]:
        """Return how the image moves with the model covariance, pulled by ``A^H W (y - A D)``."""
        return condition(self.problem, self.model, self.sigma, pull, self.model_iterations)

    def _precondition(self, w: Tensor) -> Tensor:
        """Apply the inverse of the system with the model covariance."""
        return w - self._push(self.model_answer(self._pull(w))[0])

    def truncated(
        self, residual: Tensor, start: Tensor, product: Product, iterations: int, tolerance: float
    ) -> tuple[Tensor, Tensor]:
        """Solve with ``V = sigma^2 J`` from the model's answer; return the move and the count of bad directions.

        A sample stops at a direction p with ``p^H K p <= |p|^2 / 2``: with a covariance it would be at least ``|p|^2``.
        A start with a positive objective ``w^H K w / 2 - Re w^H b`` is worse than zero and is dropped.
        """
        dims = tuple(range(1, residual.ndim))

        def inner(a: Tensor, b: Tensor, like: Tensor = residual) -> Tensor:
            return (a.conj() * b).real.sum(dim=dims).reshape(-1, *[1] * (like.ndim - 1))

        def per_image(factor: Tensor) -> Tensor:
            return factor.reshape(-1, *[1] * (start.ndim - 1))

        def spread(w: Tensor) -> Tensor:
            return self.sigma**2 * product(self._pull(w))

        w = residual - self._push(start)
        moved = spread(w)
        image = w + self._push(moved)
        keep = (inner(w, image) / 2 <= inner(w, residual)) & (inner(w, image) > inner(w, w) / 2)
        moved = torch.where(per_image(keep), moved, 0)
        r = residual - torch.where(keep, image, 0)
        z = self._precondition(r)
        p, rz = z, inner(r, z)
        enough = tolerance**2 * inner(residual, residual)
        active, bad = (rz > 0) & (inner(r, r) > enough), torch.zeros_like(rz)
        for k in range(iterations):
            if tolerance and not bool(active.any()):
                break
            step = spread(p)
            q = p + self._push(step)
            curvature = inner(p, q)
            negative = active & (curvature <= inner(p, p) / 2)
            bad = bad + negative.to(bad.dtype)
            active = active & ~negative
            alpha = torch.where(active, rz / torch.where(active, curvature, 1), 0)
            moved = moved + per_image(alpha) * step
            if k + 1 < iterations:
                r = r - alpha * q
                z = self._precondition(r)
                rz_next = inner(r, z)
                p = z + torch.where(active, rz_next / torch.where(active, rz, 1), 0) * p
                active, rz = active & (rz_next > 0) & (inner(r, r) > enough), rz_next
        # If neither the start nor any direction could be used, the model's answer is kept.
        used = keep | (bad < 1)
        return torch.where(per_image(used), moved, start), bad.reshape(-1) + (~keep).reshape(-1).to(bad.dtype)
