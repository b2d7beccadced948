"""Parametrizations of networks, each converted to E[x0 | x0 + sigma n]; only this module knows DDPM steps.

All modules map ``x (batch, channel, y, x)`` and ``sigma (batch,)``, the standard deviation **per channel**, to the
denoised image. Each has the attribute ``network`` and is built from a JSON-compatible description.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from recon.errors import CheckpointError
from recon.priors.networks.unet import EDMDenoiser


class VEScore(nn.Module):
    """Score network conditioned on sigma: ``D = x + sigma^2 s(x, sigma)`` (Tweedie's formula)."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        """Denoise ``x``."""
        return x + _per_image(sigma).square() * self.network(x, sigma).to(x.dtype)


class ScaledScore(nn.Module):
    """Network with output ``sigma s(x, sigma)`` that is not conditioned on sigma (NCSNv2): ``D = x + sigma F(x)``.

    Any sigma works as well as the trained levels: the only conditioning is this factor.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        """Denoise ``x``."""
        return x + _per_image(sigma) * self.network(x).to(x.dtype)


class VPSteps(nn.Module):
    """Network of the DDPM family: its input is ``sqrt(a) x`` and a step, where ``a = 1 / (1 + sigma^2)``.

    Steps between the trained ones are interpolated in log sigma. The network predicts the noise ("epsilon"), the image
    ("sample"), or "v_prediction" (Salimans and Ho 2022). Further output channels (a learned variance) are ignored.

    Parameters
    ----------
    network : nn.Module
        The network.
    alphas_bar : array, shape ``(steps,)``
        Remaining signal power at each step, decreasing.
    prediction : str
        "epsilon", "sample" or "v_prediction".
    """

    log_sigmas: Tensor

    def __init__(self, network: nn.Module, alphas_bar: np.ndarray, prediction: str = "epsilon") -> None:
        super().__init__()
        if prediction not in ("epsilon", "sample", "v_prediction"):
            raise CheckpointError(f"unknown prediction {prediction!r}; expected epsilon, sample or v_prediction")
        self.network = network
        self.prediction = prediction
        sigmas = np.sqrt((1 - alphas_bar) / alphas_bar)
        self.register_buffer("log_sigmas", torch.from_numpy(np.log(sigmas)).float(), persistent=False)

    def steps(self, sigma: Tensor) -> Tensor:
        """Return the (fractional) steps ``(batch,)`` of noise levels ``(batch,)``."""
        table = self.log_sigmas
        wanted = sigma.log().clamp(table[0], table[-1])
        above = torch.searchsorted(table, wanted).clamp(1, len(table) - 1)
        low, high = table[above - 1], table[above]
        return above - 1 + (wanted - low) / (high - low)

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        """Denoise ``x``."""
        s = _per_image(sigma)
        signal = (1 + s.square()).rsqrt()
        output = self.network(signal * x, self.steps(sigma))[:, : x.shape[1]].to(x.dtype)
        if self.prediction == "epsilon":
            return x - s * output
        return output if self.prediction == "sample" else signal.square() * x - signal * s * output


def parametrize(network: nn.Module, description: Mapping[str, Any]) -> nn.Module:
    """Return the denoising module of a network.

    Parameters
    ----------
    network : nn.Module
        The network.
    description : mapping
        ``kind`` ("ve", "scaled", "edm", "vp") and its arguments: ``sigma_data``, or ``schedule``,
        ``beta_start``, ``beta_end``, ``steps`` and ``prediction``.
    """
    kind = description.get("kind")
    if kind == "ve":
        return VEScore(network)
    if kind == "scaled":
        return ScaledScore(network)
    if kind == "edm":
        return EDMDenoiser(network, description.get("sigma_data", 0.5))  # type: ignore[arg-type]
    if kind == "vp":
        return VPSteps(network, vp_alphas(description), description.get("prediction", "epsilon"))
    raise CheckpointError(f"unknown parametrization {kind!r} in the card; expected ve, scaled, edm or vp")


def vp_alphas(description: Mapping[str, Any]) -> np.ndarray:
    """Return the remaining signal power of each step: the product of 1 - beta up to it.

    ``schedule`` is "linear" (Ho et al. 2020), "scaled_linear" (linear in sqrt(beta)) or "cosine" (Nichol and Dhariwal
    2021). If no betas are given, linear ones are scaled as in guided-diffusion, so that the final noise does not
    depend on the number of steps.
    """
    schedule, steps = description.get("schedule", "linear"), int(description.get("steps", 1000))
    scale = 1000 / steps if schedule == "linear" and steps > 0 else 1.0
    first, last = (
        float(description.get(name, scale * beta)) for name, beta in (("beta_start", 1e-4), ("beta_end", 0.02))
    )
    if not (2 <= steps <= 1_000_000 and 0 < first < last < 1):
        raise CheckpointError(f"invalid noise schedule: {steps} steps, beta from {first:g} to {last:g}")
    if schedule == "linear":
        betas = np.linspace(first, last, steps)
    elif schedule == "scaled_linear":
        betas = np.linspace(math.sqrt(first), math.sqrt(last), steps) ** 2
    elif schedule == "cosine":
        power = np.cos((np.arange(steps + 1) / steps + 0.008) / 1.008 * math.pi / 2) ** 2
        betas = np.minimum(1 - power[1:] / power[:-1], 0.999)
    else:
        raise CheckpointError(f"unknown noise schedule {schedule!r}; expected linear, scaled_linear or cosine")
    return np.cumprod(1 - betas)


def sigma_range(description: Mapping[str, Any]) -> tuple[float, float]:
    """Return the range of noise levels (per channel, in network units) that the network was trained for."""
    if description.get("kind") == "vp" and "sigma_min" not in description:
        alphas = vp_alphas(description)
        sigmas = np.sqrt((1 - alphas) / alphas)
        return float(sigmas[0]), float(sigmas[-1])
    low, high = float(description["sigma_min"]), float(description["sigma_max"])
    if not 0 < low < high < math.inf:
        raise CheckpointError(f"expected 0 < sigma_min < sigma_max, got {low:g} and {high:g}")
    return low, high


def _per_image(sigma: Tensor) -> Tensor:
    return sigma.reshape(-1, 1, 1, 1)
