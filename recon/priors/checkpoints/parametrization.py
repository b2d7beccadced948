"""What the outputs of networks mean, each brought to E[x0 | x0 + sigma n]; the only place that knows about steps.

All modules map ``x (batch, channel, y, x)`` and ``sigma (batch,)``, the standard deviation **per channel**, to the
denoised image. They carry the network as ``network`` and are built from a JSON-able description.
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
    """Score network that is told sigma: ``D = x + sigma^2 s(x, sigma)`` (Tweedie's formula)."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        """Denoise ``x``."""
        return x + _per_image(sigma).square() * self.network(x, sigma).to(x.dtype)


class ScaledScore(nn.Module):
    """Network whose output is ``sigma s(x, sigma)`` and that does not see sigma (NCSNv2): ``D = x + sigma F(x)``.

    Any sigma is as good as the trained levels: conditioning is this factor alone.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        """Denoise ``x``."""
        return x + _per_image(sigma) * self.network(x).to(x.dtype)


class VPSteps(nn.Module):
    """Network of the DDPM family: sees ``sqrt(a) x`` and a step, where ``a = 1 / (1 + sigma^2)``.

    The step between the trained ones comes from interpolation in log sigma. Predictions: the noise ("epsilon"), the
    image ("sample"), or "v_prediction" (Salimans and Ho 2022). Further output channels (a learned variance) are unused.

    Parameters
    ----------
    network : nn.Module
    alphas_bar : array, shape ``(steps,)``
        Remaining signal power at each step, decreasing.
    prediction : str
    """

    log_sigmas: Tensor

    def __init__(self, network: nn.Module, alphas_bar: np.ndarray, prediction: str = "epsilon") -> None:
        super().__init__()
        if prediction not in ("epsilon", "sample", "v_prediction"):
            raise CheckpointError(f"prediction is {prediction!r}; expected epsilon, sample or v_prediction")
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
    description : mapping
        ``kind`` ("ve", "scaled", "edm", "vp") and what that kind needs: ``sigma_data``, or ``schedule``,
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
    raise CheckpointError(f"the card asks for parametrization {kind!r}; expected ve, scaled, edm or vp")


def vp_alphas(description: Mapping[str, Any]) -> np.ndarray:
    """Return the remaining signal power of each step: the product of 1 - beta up to it.

    ``schedule`` is "linear" (Ho et al. 2020), "scaled_linear" (linear in sqrt(beta)) or "cosine" (Nichol and Dhariwal
    2021). Where no betas are given, linear ones are scaled as in guided-diffusion: the noise that is reached does not
    depend on the number of steps.
    """
    schedule, steps = description.get("schedule", "linear"), int(description.get("steps", 1000))
    scale = 1000 / steps if schedule == "linear" and steps > 0 else 1.0
    first, last = (
        float(description.get(name, scale * beta)) for name, beta in (("beta_start", 1e-4), ("beta_end", 0.02))
    )
    if not (2 <= steps <= 1_000_000 and 0 < first < last < 1):
        raise CheckpointError(f"the noise schedule makes no sense: {steps} steps, beta from {first:g} to {last:g}")
    if schedule == "linear":
        betas = np.linspace(first, last, steps)
    elif schedule == "scaled_linear":
        betas = np.linspace(math.sqrt(first), math.sqrt(last), steps) ** 2
    elif schedule == "cosine":
        power = np.cos((np.arange(steps + 1) / steps + 0.008) / 1.008 * math.pi / 2) ** 2
        betas = np.minimum(1 - power[1:] / power[:-1], 0.999)
    else:
        raise CheckpointError(f"noise schedule {schedule!r} is not known; expected linear, scaled_linear or cosine")
    return np.cumprod(1 - betas)


def sigma_range(description: Mapping[str, Any]) -> tuple[float, float]:
    """Return the noise levels (per channel, in network units) between which the network was trained."""
    if description.get("kind") == "vp" and "sigma_min" not in description:
        alphas = vp_alphas(description)
        sigmas = np.sqrt((1 - alphas) / alphas)
        return float(sigmas[0]), float(sigmas[-1])
    low, high = float(description["sigma_min"]), float(description["sigma_max"])
    if not 0 < low < high < math.inf:
        raise CheckpointError(f"sigma_min {low:g} and sigma_max {high:g}: expected 0 < sigma_min < sigma_max")
    return low, high


def _per_image(sigma: Tensor) -> Tensor:
    return sigma.reshape(-1, 1, 1, 1)
