"""What the published networks share: step embedding, attention between pixels, filtered resampling."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional


def sinusoid(values: Tensor, features: int, shift: float = 0.0) -> Tensor:
    """Embed numbers ``(batch,)`` as ``[cos(v w_k), sin(v w_k)]``, ``(batch, features)``.

    ``w_k = 10000 ** (-k / (half - shift))`` for ``k = 0 ... half - 1`` and ``half = features / 2``; the frequencies of
    Vaswani et al. 2017 as diffusion networks use them. Numbers need not be whole.
    """
    half = features // 2
    exponent = torch.arange(half, dtype=torch.float32, device=values.device) / (half - shift)
    phase = values[:, None].float() * torch.exp(-math.log(10000.0) * exponent)
    return torch.cat([phase.cos(), phase.sin()], dim=1)


def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Scaled dot-product attention between pixels: all arguments and the result are ``(batch, channel, pixel)``.

    Written out, because the fused kernels have no forward-mode derivative, which samplers with Jacobians need.
    """
    scale = query.shape[1] ** -0.25  # on both sides: products of large features stay in the range of half precision
    weight = torch.einsum("bcq,bck->bqk", query * scale, key * scale).float().softmax(dim=-1)
    return torch.einsum("bqk,bck->bcq", weight.to(value.dtype), value)


def fir_filter(taps: Sequence[float]) -> Tensor:
    """Return the separable low-pass filter of these taps, ``(1, 1, k, k)`` with sum 1.

    On the CPU even while a network is built on device "meta": arithmetic there takes torch seconds to prepare.
    """
    line = torch.tensor(list(taps), dtype=torch.float32, device="cpu")
    plane = torch.outer(line, line)
    return (plane / plane.sum())[None, None]


def fir_down(x: Tensor, kernel: Tensor) -> Tensor:
    """Filter and keep every second pixel; ``kernel`` is ``(1, 1, k, k)`` with even k."""
    channels = x.shape[1]
    weight = kernel.to(x.dtype).expand(channels, 1, -1, -1)
    return functional.conv2d(x, weight, stride=2, padding=(kernel.shape[-1] - 1) // 2, groups=channels)


def fir_up(x: Tensor, kernel: Tensor) -> Tensor:
    """Put zeros between pixels and filter, with gain 4 so that constants stay what they are."""
    channels = x.shape[1]
    weight = (4 * kernel).to(x.dtype).expand(channels, 1, -1, -1)
    return functional.conv_transpose2d(x, weight, stride=2, padding=(kernel.shape[-1] - 1) // 2, groups=channels)
