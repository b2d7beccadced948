"""The U-Net of a diffusers folder (``UNet2DModel``), after DDPM: Ho et al., NeurIPS 2020.

Parameter names are those of the folder's safetensors file; the configuration is its ``config.json``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from recon.priors.networks.blocks import attend, sinusoid


class UNet2DResidual(nn.Module):
    """Residual block, shifted by the step embedding."""

    def __init__(self, channels: int, out: int, embedding: int, groups: int, eps: float) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, channels, eps=eps)
        self.conv1 = nn.Conv2d(channels, out, 3, padding=1)
        self.time_emb_proj = nn.Linear(embedding, out)
        self.norm2 = nn.GroupNorm(groups, out, eps=eps)
        self.conv2 = nn.Conv2d(out, out, 3, padding=1)
        self.conv_shortcut = nn.Conv2d(channels, out, 1) if out != channels else nn.Identity()

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """Refine ``x (batch, channel, y, x)``."""
        shift = self.time_emb_proj(functional.silu(embedding))[:, :, None, None]
        hidden = self.conv1(functional.silu(self.norm1(x))) + shift
        return self.conv_shortcut(x) + self.conv2(functional.silu(self.norm2(hidden)))


class UNet2DAttention(nn.Module):
    """Self-attention between pixels."""

    def __init__(self, channels: int, heads: int, groups: int, eps: float) -> None:
        super().__init__()
        self.heads = heads
        self.group_norm = nn.GroupNorm(groups, channels, eps=eps)
        self.to_q, self.to_k, self.to_v = (nn.Linear(channels, channels) for _ in range(3))
        self.to_out = nn.ModuleList([nn.Linear(channels, channels)])

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x`` plus the attention of each pixel to all others."""
        batch, channels = x.shape[:2]
        pixels = self.group_norm(x).flatten(2).transpose(1, 2)

        def heads(projected: Tensor) -> Tensor:
            return projected.transpose(1, 2).reshape(batch * self.heads, channels // self.heads, -1)

        gathered = attend(heads(self.to_q(pixels)), heads(self.to_k(pixels)), heads(self.to_v(pixels)))
        gathered = gathered.reshape(batch, channels, -1).transpose(1, 2)
        return x + self.to_out[0](gathered).transpose(1, 2).reshape(x.shape)


class _Resample(nn.Module):
    def __init__(self, channels: int, up: bool, padding: int = 1) -> None:
        super().__init__()
        self.up, self.padding = up, padding
        self.conv = nn.Conv2d(channels, channels, 3, stride=1 if up else 2, padding=1 if up else padding)

    def forward(self, x: Tensor) -> Tensor:
        if self.up:
            x = functional.interpolate(x, scale_factor=2.0, mode="nearest")
        elif not self.padding:
            x = functional.pad(x, (0, 1, 0, 1))
        return self.conv(x)


class _Stage(nn.Module):
    """Residual blocks of a level, each followed by attention if there is one, then resampling."""

    def __init__(
        self, residuals: Sequence[nn.Module], attentions: Sequence[nn.Module], sampler: nn.Module | None, up: bool
    ) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(residuals)
        if attentions:
            self.attentions = nn.ModuleList(attentions)
        if sampler is not None:
            self.add_module("upsamplers" if up else "downsamplers", nn.ModuleList([sampler]))
        self.attends, self.sampler = bool(attentions), ("upsamplers" if up else "downsamplers") if sampler else ""

    def refine(self, number: int, x: Tensor, embedding: Tensor) -> Tensor:
        x = self.resnets[number](x, embedding)
        return self.attentions[number](x) if self.attends else x

    def resample(self, x: Tensor) -> Tensor:
        return self.get_submodule(self.sampler)[0](x)  # type: ignore[index]


class UNet2D(nn.Module):
    """Map ``(batch, in_channels, y, x)`` and steps ``(batch,)`` to ``(batch, out_channels, y, x)``.

    Parameters
    ----------
    in_channels, out_channels : int
        Number of channels.
    features : sequence of int
        Width of each level (``block_out_channels``).
    res_blocks : int
        Residual blocks per level of the encoder (``layers_per_block``); the decoder has one more.
    attention_down, attention_up : sequence of int
        Indices of the blocks with attention, in the order of the configuration.
    middle_attention : bool
        Whether the middle has attention.
    head_channels : int or None
        Channels per attention head; None for one head.
    groups, eps
        Number of groups and epsilon of the normalisation.
    flip, shift
        Order (cos first?) and offset of the step embedding (``flip_sin_to_cos``, ``freq_shift``).
    down_padding : int
        Padding of convolutions that halve the resolution (``downsample_padding``).
    center : bool
        Whether the network maps images to ``2 x - 1`` first.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        features: Sequence[int],
        res_blocks: int = 2,
        attention_down: Sequence[int] = (),
        attention_up: Sequence[int] = (),
        middle_attention: bool = True,
        head_channels: int | None = 8,
        groups: int = 32,
        eps: float = 1e-5,
        flip: bool = True,
        shift: float = 0.0,
        down_padding: int = 1,
        center: bool = False,
    ) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.multiple = 2 ** (len(features) - 1)
        self.first, self.flip, self.shift, self.center = features[0], flip, shift, center
        width = 4 * features[0]
        layers = {"linear_1": nn.Linear(features[0], width), "linear_2": nn.Linear(width, width)}
        self.time_embedding = nn.ModuleDict(layers)
        self.conv_in = nn.Conv2d(in_channels, features[0], 3, padding=1)

        def residual(channels: int, out: int) -> nn.Module:
            return UNet2DResidual(channels, out, width, groups, eps)

        def attention(channels: int) -> nn.Module:
            if head_channels and channels % head_channels:
                raise ValueError(f"head_channels = {head_channels} does not divide {channels} channels")
            return UNet2DAttention(channels, channels // (head_channels or channels), groups, eps)

        last = len(features) - 1
        self.down_blocks, self.up_blocks = nn.ModuleList(), nn.ModuleList()
        current, skips = features[0], [features[0]]
        for number, out in enumerate(features):
            blocks = [residual(current if k == 0 else out, out) for k in range(res_blocks)]
            attentions = [attention(out) for _ in blocks] if number in attention_down else []
            sampler = _Resample(out, up=False, padding=down_padding) if number < last else None
            self.down_blocks.append(_Stage(blocks, attentions, sampler, up=False))
            skips += [out] * (res_blocks + (number < last))
            current = out
        middle = [attention(current)] if middle_attention else []
        self.mid_block = _Stage([residual(current, current) for _ in range(2)], middle, None, up=False)
        for number, out in enumerate(reversed(features)):
            blocks = [residual((current if k == 0 else out) + skips.pop(), out) for k in range(res_blocks + 1)]
            attentions = [attention(out) for _ in blocks] if number in attention_up else []
            sampler = _Resample(out, up=True) if number < last else None
            self.up_blocks.append(_Stage(blocks, attentions, sampler, up=True))
            current = out
        self.conv_norm_out = nn.GroupNorm(groups, current, eps=eps)
        self.conv_out = nn.Conv2d(current, out_channels, 3, padding=1)

    def forward(self, x: Tensor, steps: Tensor) -> Tensor:
        """Apply the network; steps may lie between the integers it was trained on."""
        wave = sinusoid(steps, self.first, self.shift)
        wave = wave if self.flip else wave.roll(self.first // 2, dims=1)
        embedding = self.time_embedding["linear_2"](functional.silu(self.time_embedding["linear_1"](wave)))
        skips = [x := self.conv_in(2 * x - 1 if self.center else x)]
        for stage in cast(Iterable[_Stage], self.down_blocks):
            for number in range(len(stage.resnets)):
                skips.append(x := stage.refine(number, x, embedding))
            if stage.sampler:
                skips.append(x := stage.resample(x))
        x = self.mid_block.resnets[0](x, embedding)
        x = self.mid_block.attentions[0](x) if self.mid_block.attends else x
        x = self.mid_block.resnets[1](x, embedding)
        for stage in cast(Iterable[_Stage], self.up_blocks):
            for number in range(len(stage.resnets)):
                x = stage.refine(number, torch.cat([x, skips.pop()], dim=1), embedding)
            x = stage.resample(x) if stage.sampler else x
        return self.conv_out(functional.silu(self.conv_norm_out(x)))
