"""What is watched along the paths of a batch: which of them fail, at which step, and diagnostics of the steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NoReturn

import torch
from torch import Tensor

from operators.errors import DivergenceError

#: A path that grows beyond this multiple of the largest noise level counts as diverged.
_GROWTH = 10.0


class Watch:
    """Notes failures and diagnostics of a batch of paths.

    A path fails where it is not finite or has grown to more than ``_GROWTH`` times the largest noise of the prior,
    which swamps its images (or times its initial size). Failures stay on the device until the end, so that nothing
    waits for a GPU.

    Parameters
    ----------
    x : Tensor, shape ``(batch, *domain)``
        The first states.
    sigma_max : float
        Largest noise level of the prior.
    steps : int
        Number of steps of the whole schedule.
    bad_step : Tensor, shape ``(batch,)``, optional
        Where these paths have already failed.

    Attributes
    ----------
    bad_step : Tensor of int, shape ``(batch,)``
        Step at which each path failed, counted from 0, or ``steps``.
    facts : dict of Tensor, each ``(batch,)``
        Diagnostics of the last step; ``cg_residual_worst`` is the largest of all steps, which shows if a solve got
        stuck.
    """

    def __init__(self, x: Tensor, sigma_max: float, steps: int, bad_step: Tensor | None = None) -> None:
        self._limit = _GROWTH**2 * _mean_square(x).clamp(min=sigma_max**2)
        self.bad_step = torch.full((len(x),), steps, device=x.device) if bad_step is None else bad_step
        self.facts: dict[str, Tensor] = {}

    def add(self, step: int, x: Tensor, found: Mapping[str, Tensor]) -> None:
        """Take note of the states and the diagnostics after a step."""
        facts = dict(found)
        if "cg_residual" in facts:
            worst = self.facts.get("cg_residual_worst", facts["cg_residual"])
            facts["cg_residual_worst"] = torch.maximum(worst, facts["cg_residual"])
        self.facts = facts
        good = _mean_square(x) <= self._limit  # false for what is not finite
        self.bad_step = torch.where(good, self.bad_step, self.bad_step.clamp(max=step))


def raise_divergence(bad_step: Tensor, sigmas: Sequence[float]) -> NoReturn:
    """Raise the error for a run without any valid sample."""
    worst = int(bad_step.max())
    raise DivergenceError(
        f"every sample became non-finite or grew without bound: first at step {int(bad_step.min()) + 1} of "
        f"{len(sigmas) - 1} (last at sigma = {sigmas[worst]:.3g}); likely causes: the network returns NaN at this "
        "sigma, or the data are scaled far from what the prior was trained on, or noise_std is much too small"
    )


def _mean_square(x: Tensor) -> Tensor:
    """Return the mean of ``|x|^2`` of each path, shape ``(batch,)``."""
    flat = torch.view_as_real(x.resolve_conj()) if x.is_complex() else x
    return flat.square().flatten(1).sum(dim=1) / max(x[0].numel(), 1)
