"""Noise schedules: decreasing lists of sigma that end at 0.

Python floats, never tensors: a schedule is configuration, and the loop must not wait for a GPU to read it.
"""

from __future__ import annotations

import math
from typing import Literal

from operators.errors import InputError

Spacing = Literal["geometric", "karras", "vp"]
SPACINGS = ("geometric", "karras", "vp")


def levels(spacing: Spacing, sigma_max: float, sigma_min: float, n: int) -> list[float]:
    """Return ``n`` levels of a spacing from ``sigma_max`` to ``sigma_min``, then 0; for "vp" those between the two."""
    if spacing == "vp":
        return clip(vp_linear(n), sigma_max, sigma_min)
    return geometric(sigma_max, sigma_min, n) if spacing == "geometric" else karras(sigma_max, sigma_min, n)


def geometric(sigma_max: float, sigma_min: float, n: int) -> list[float]:
    """Return ``n`` log-uniform levels from ``sigma_max`` to ``sigma_min``, then 0 (Song & Ermon 2019)."""
    _check(sigma_max, sigma_min, n)
    ratio = math.log(sigma_min / sigma_max)
    return [sigma_max * math.exp(ratio * i / max(n - 1, 1)) for i in range(n)] + [0.0]


def karras(sigma_max: float, sigma_min: float, n: int, rho: float = 7.0) -> list[float]:
    """Return ``n`` levels spaced evenly in ``sigma^(1/rho)``, then 0 (Karras et al. 2022, eq. 5)."""
    _check(sigma_max, sigma_min, n)
    top, bottom = sigma_max ** (1 / rho), sigma_min ** (1 / rho)
    return [(top + (bottom - top) * i / max(n - 1, 1)) ** rho for i in range(n)] + [0.0]


def vp_linear(n: int, beta_min: float = 1e-4, beta_max: float = 0.02, timesteps: int = 1000) -> list[float]:
    """Return the sigmas of ``n`` evenly spaced steps of the linear variance-preserving chain, then 0.

    ``sigma_t = sqrt((1 - abar_t) / abar_t)``, ``abar_t = prod_s (1 - beta_s)`` (Ho et al. 2020). The steps are
    ``t = round(k timesteps / n) - 1`` for ``k = n .. 1``: the last chain step (sigma = 157 by default) comes first.
    """
    if not 1 <= n <= timesteps:
        raise InputError(f"vp_linear: expected 1 <= n <= {timesteps} steps, got {n}")
    sigmas, log_abar = [], 0.0
    for t in range(timesteps):
        log_abar += math.log1p(-(beta_min + (beta_max - beta_min) * t / max(timesteps - 1, 1)))
        sigmas.append(math.sqrt(math.expm1(-log_abar)))
    return [sigmas[round(k * timesteps / n) - 1] for k in range(n, 0, -1)] + [0.0]


def clip(sigmas: list[float], sigma_max: float, sigma_min: float) -> list[float]:
    """Keep the levels inside ``[sigma_min, sigma_max]``, with ``sigma_max`` first, and the final 0."""
    inside = [sigma for sigma in sigmas if sigma_min <= sigma < sigma_max]
    top = [sigma_max] if sigmas[0] >= sigma_max else []
    return [*top, *inside, 0.0]


def _check(sigma_max: float, sigma_min: float, n: int) -> None:
    if not (math.isfinite(sigma_max) and 0 < sigma_min < sigma_max and n >= 1):
        raise InputError(
            f"schedule: expected 0 < sigma_min < sigma_max and n >= 1, got sigma_min={sigma_min}, "
            f"sigma_max={sigma_max}, n={n}"
        )
