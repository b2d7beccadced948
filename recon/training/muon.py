"""Muon: momentum with orthogonalised steps, for convolution kernels.

Each kernel is a matrix M ``(out, in * ky * kx)``; the step is the nearest semi-orthogonal matrix to its momentum, found
by five Newton-Schulz iterations, so that all directions of a layer learn at the same rate. The step is scaled by
0.2 sqrt(max(rows, columns)), which makes it about as large as Adam's: both use the same learning rate.

Source: Jordan et al., "Muon: an optimizer for hidden layers in neural networks", 2024; the scale is that of Liu et al.,
"Muon is scalable for LLM training", 2025.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor


class Muon(torch.optim.Optimizer):
    """Muon for parameters of two or more dimensions.

    Parameters
    ----------
    params : iterable of Tensor or of parameter groups
        Parameters to optimise.
    lr : float
        Learning rate.
    momentum : float
        Nesterov momentum.
    weight_decay : float
        Decoupled weight decay.
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        lr: float,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """Update every parameter that has a gradient."""
        for group in self.param_groups:
            self.step_group(group)

    @torch.no_grad()
    def step_group(self, group: dict[str, Any]) -> None:
        """Update the parameters of one group."""
        by_shape: dict[tuple[int, int], list[tuple[Tensor, Tensor]]] = defaultdict(list)
        for parameter in group["params"]:
            if parameter.grad is None:
                continue
            state = self.state[parameter]
            if not state:
                state["momentum"] = torch.zeros_like(parameter)
            state["momentum"].lerp_(parameter.grad, 1 - group["momentum"])
            matrix = parameter.grad.lerp(state["momentum"], group["momentum"]).flatten(1)
            by_shape[(matrix.shape[0], matrix.shape[1])].append((parameter, matrix))
        for (rows, columns), items in by_shape.items():
            steps = orthogonalise(torch.stack([matrix for _, matrix in items]))
            size = group["lr"] * 0.2 * max(rows, columns) ** 0.5
            for (parameter, _), step in zip(items, steps, strict=True):
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                parameter.sub_(step.view(parameter.shape).to(parameter.dtype), alpha=size)


def orthogonalise(matrices: Tensor, iterations: int = 5) -> Tensor:
    """Bring the singular values of ``(batch, rows, columns)`` close to 1; bfloat16 is sufficient."""
    x = matrices.to(torch.bfloat16)
    tall = x.shape[1] > x.shape[2]
    x = x.mT if tall else x
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(iterations):
        gram = x @ x.mT
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return x.mT if tall else x
