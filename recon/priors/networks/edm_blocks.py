"""Residual block and resampling convolution of the EDM networks.

Karras et al., "Elucidating the Design Space of Diffusion-Based Generative Models", NeurIPS 2022, appendix F.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from recon.priors.networks.blocks import attend, fir_down, fir_filter, fir_up


def group_norm(channels: int, eps: float = 1e-5) -> nn.GroupNorm:
    """Return the group normalisation of the EDM networks: at most 32 groups of at least 4 channels."""
    return nn.GroupNorm(min(32, channels // 4), channels, eps=eps)


class Conv(nn.Module):
    """Convolution after halving (-1) or doubling (+1) the resolution; ``size=0`` only resamples.

    A ``fused`` convolution with stride pads once for filter and kernel together, so its border differs.
    """

    weight: nn.Parameter | None
    bias: nn.Parameter | None
    resample_filter: Tensor

    def __init__(
        self,
        channels: int,
        out: int,
        size: int,
        resample: int = 0,
        taps: Sequence[float] = (1, 1),
        fused: bool = False,
    ) -> None:
        super().__init__()
        self.resample = resample
        self.fused = fused
        self.register_parameter("weight", nn.Parameter(torch.zeros(out, channels, size, size)) if size else None)
        self.register_parameter("bias", nn.Parameter(torch.zeros(out)) if size else None)
        if resample:
            self.register_buffer("resample_filter", fir_filter(taps))

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(batch, channel, y, x)``."""
        if self.resample < 0 and self.fused and self.weight is not None:
            kernel = self.resample_filter.expand(x.shape[1], 1, -1, -1)
            margin = (kernel.shape[-1] - 1) // 2 + self.weight.shape[-1] // 2
            filtered = functional.conv2d(x, kernel.to(x.dtype), padding=margin, groups=x.shape[1])
            return functional.conv2d(filtered, self.weight, self.bias, stride=2)
        if self.resample:
            x = fir_up(x, self.resample_filter) if self.resample > 0 else fir_down(x, self.resample_filter)
        if self.weight is None:
            return x
        return functional.conv2d(x, self.weight, self.bias, padding=self.weight.shape[-1] // 2)


class EDMBlock(nn.Module):
    """Residual block with optional attention.

    Parameters
    ----------
    channels, out : int
        Number of input and output channels.
    embedding : int
        Width of the noise embedding.
    resample : int
        -1 halves, +1 doubles the resolution.
    heads : int
        Number of attention heads; 0 for no attention.
    adaptive_scale : bool
        Whether the embedding scales and shifts (ADM), or only shifts (DDPM++ and NCSN++).
    gain : float
        Factor of each sum of two branches.
    eps : float
        Epsilon of the normalisation.
    taps : sequence of float
        Taps of the resampling filter.
    project_resampled : bool
        Whether the shortcut of a resampling block has a 1 x 1 convolution.
    """

    def __init__(
        self,
        channels: int,
        out: int,
        embedding: int,
        *,
        resample: int = 0,
        heads: int = 0,
        adaptive_scale: bool = True,
        gain: float = 1.0,
        eps: float = 1e-5,
        taps: Sequence[float] = (1, 1),
        project_resampled: bool = False,
    ) -> None:
        super().__init__()
        self.in_channels, self.out_channels = channels, out
        self.heads, self.adaptive_scale, self.gain = heads, adaptive_scale, gain
        self.norm0 = group_norm(channels, eps)
        self.conv0 = Conv(channels, out, 3, resample, taps)
        self.affine = nn.Linear(embedding, 2 * out if adaptive_scale else out)
        self.norm1 = group_norm(out, eps)
        self.conv1 = Conv(out, out, 3)
        self.skip: nn.Module = nn.Identity()
        if resample or out != channels:
            self.skip = Conv(channels, out, 1 if project_resampled or out != channels else 0, resample, taps)
        if heads:
            self.norm2 = group_norm(out, eps)
            self.qkv = Conv(out, 3 * out, 1)
            self.proj = Conv(out, out, 1)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """Refine ``x`` given the noise embedding ``(batch, features)``."""
        hidden = self.conv0(functional.silu(self.norm0(x)))
        modulation = self.affine(embedding)[:, :, None, None]
        if self.adaptive_scale:
            scale, shift = modulation.chunk(2, dim=1)
            hidden = self.norm1(hidden) * (1 + scale) + shift
        else:
            hidden = self.norm1(hidden + modulation)
        x = (self.conv1(functional.silu(hidden)) + self.skip(x)) * self.gain
        return x if not self.heads else (x + self.proj(self._gather(x))) * self.gain

    def _gather(self, x: Tensor) -> Tensor:
        batch, channels = x.shape[:2]
        qkv = self.qkv(self.norm2(x)).reshape(batch * self.heads, channels // self.heads, 3, -1)
        return attend(qkv[:, :, 0], qkv[:, :, 1], qkv[:, :, 2]).reshape(x.shape)


def level_name(resolution: int, level: int) -> str:
    """Return the prefix of the blocks of a level, such as ``64x64``."""
    return f"{resolution >> level}x{resolution >> level}"


def join(block: nn.Module, x: Tensor, skips: list[Tensor]) -> Tensor:
    """Append the skip connection if the block expects more channels."""
    return x if block.in_channels == x.shape[1] else torch.cat([x, skips.pop()], dim=1)
