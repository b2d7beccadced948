"""ADM: the U-Net of Dhariwal and Nichol, "Diffusion Models Beat GANs on Image Synthesis", NeurIPS 2021.

Parameter names are those of the published weights, also used by DDS (Chung et al. 2024) and DPS (Chung et al. 2023).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from recon.priors.networks.blocks import attend, sinusoid


class ADMResidual(nn.Module):
    """Residual block, conditioned by the step embedding; may halve (-1) or double (+1) the resolution."""

    def __init__(self, channels: int, out: int, embedding: int, scale_shift: bool, resample: int = 0) -> None:
        super().__init__()
        self.scale_shift = scale_shift
        self.resample = resample
        self.in_layers = nn.Sequential(nn.GroupNorm(32, channels), nn.SiLU(), nn.Conv2d(channels, out, 3, padding=1))
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(embedding, 2 * out if scale_shift else out))
        # Identity takes the place of the dropout, so that the convolution has its published index.
        self.out_layers = nn.Sequential(
            nn.GroupNorm(32, out), nn.SiLU(), nn.Identity(), nn.Conv2d(out, out, 3, padding=1)
        )
        self.skip_connection = nn.Identity() if out == channels else nn.Conv2d(channels, out, 1)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """Refine ``x (batch, channel, y, x)``."""
        hidden = self.in_layers[2](_resample(self.in_layers[:2](x), self.resample))
        modulation = self.emb_layers(embedding)[:, :, None, None]
        if self.scale_shift:
            scale, shift = modulation.chunk(2, dim=1)
            hidden = self.out_layers[1:](self.out_layers[0](hidden) * (1 + scale) + shift)
        else:
            hidden = self.out_layers(hidden + modulation)
        return self.skip_connection(_resample(x, self.resample)) + hidden


class ADMAttention(nn.Module):
    """Self-attention between pixels. With ``grouped`` heads (the default), q, k, v of a head are adjacent."""

    def __init__(self, channels: int, heads: int, grouped: bool = True) -> None:
        super().__init__()
        self.heads = heads
        self.grouped = grouped
        self.norm = nn.GroupNorm(32, channels)
        self.qkv = nn.Conv1d(channels, 3 * channels, 1)
        self.proj_out = nn.Conv1d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x`` plus the attention of each pixel to all others."""
        batch, channels = x.shape[:2]
        flat = x.reshape(batch, channels, -1)
        qkv = self.qkv(self.norm(flat))
        if self.grouped:
            parts = qkv.reshape(batch * self.heads, 3 * channels // self.heads, -1).chunk(3, dim=1)
        else:
            parts = tuple(p.reshape(batch * self.heads, channels // self.heads, -1) for p in qkv.chunk(3, dim=1))
        gathered = attend(*parts).reshape(batch, channels, -1)
        return (flat + self.proj_out(gathered)).reshape(x.shape)


class _Down(nn.Module):
    def __init__(self, channels: int, learned: bool) -> None:
        super().__init__()
        self.op = nn.Conv2d(channels, channels, 3, stride=2, padding=1) if learned else nn.AvgPool2d(2)

    def forward(self, x: Tensor) -> Tensor:
        return self.op(x)


class _Up(nn.Module):
    def __init__(self, channels: int, learned: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1) if learned else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(functional.interpolate(x, scale_factor=2.0, mode="nearest"))


class ADMUNet(nn.Module):
    """Map ``(batch, in_channels, y, x)`` and steps ``(batch,)`` to ``(batch, out_channels, y, x)``.

    Parameters
    ----------
    in_channels, out_channels : int
        Number of channels; twice as many outputs as inputs for a learned variance (the noise estimate comes first).
    model_channels : int
        Width of the finest level; level k has ``channel_mult[k]`` times as many.
    res_blocks : int
        Residual blocks per level of the encoder; the decoder has one more.
    attention_levels : sequence of int
        Levels with attention in every block; the middle always has attention.
    head_channels : int
        Channels per attention head; cannot be inferred from the shapes of the weights.
    scale_shift, resblock_updown, conv_resample : bool
        How steps modulate features, and how the resolution changes: in residual blocks, or by (learned) resampling.
    grouped_heads : bool
        Order of the attention weights, see `ADMAttention`.

    Notes
    -----
    Height and width must be multiples of ``multiple``.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        model_channels: int,
        res_blocks: int,
        channel_mult: Sequence[int],
        attention_levels: Sequence[int] = (),
        head_channels: int = 64,
        scale_shift: bool = True,
        resblock_updown: bool = True,
        conv_resample: bool = True,
        grouped_heads: bool = True,
    ) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.multiple = 2 ** (len(channel_mult) - 1)
        self.model_channels = model_channels
        width = 4 * model_channels
        self.time_embed = nn.Sequential(nn.Linear(model_channels, width), nn.SiLU(), nn.Linear(width, width))

        def residual(channels: int, out: int, resample: int = 0) -> nn.Module:
            return ADMResidual(channels, out, width, scale_shift, resample)

        def attention(channels: int) -> nn.Module:
            if channels % head_channels:
                raise ValueError(f"head_channels = {head_channels} does not divide {channels} channels")
            return ADMAttention(channels, channels // head_channels, grouped_heads)

        def coarser(channels: int) -> nn.Module:
            return residual(channels, channels, -1) if resblock_updown else _Down(channels, conv_resample)

        def finer(channels: int) -> nn.Module:
            return residual(channels, channels, 1) if resblock_updown else _Up(channels, conv_resample)

        channels = channel_mult[0] * model_channels
        self.input_blocks = nn.ModuleList([nn.ModuleList([nn.Conv2d(in_channels, channels, 3, padding=1)])])
        skips = [channels]
        for level, factor in enumerate(channel_mult):
            for _ in range(res_blocks):
                block = [residual(channels, factor * model_channels)]
                channels = factor * model_channels
                if level in attention_levels:
                    block.append(attention(channels))
                self.input_blocks.append(nn.ModuleList(block))
                skips.append(channels)
            if level < len(channel_mult) - 1:
                self.input_blocks.append(nn.ModuleList([coarser(channels)]))
                skips.append(channels)
        self.middle_block = nn.ModuleList(
            [residual(channels, channels), attention(channels), residual(channels, channels)]
        )
        self.output_blocks = nn.ModuleList()
        for level, factor in reversed(list(enumerate(channel_mult))):
            for number in range(res_blocks + 1):
                block = [residual(channels + skips.pop(), factor * model_channels)]
                channels = factor * model_channels
                if level in attention_levels:
                    block.append(attention(channels))
                if level and number == res_blocks:
                    block.append(finer(channels))
                self.output_blocks.append(nn.ModuleList(block))
        self.out = nn.Sequential(nn.GroupNorm(32, channels), nn.SiLU(), nn.Conv2d(channels, out_channels, 3, padding=1))

    def forward(self, x: Tensor, steps: Tensor) -> Tensor:
        """Apply the network; steps may lie between the integers it was trained on."""
        embedding = self.time_embed(sinusoid(steps, self.model_channels))
        skips = []
        for block in self.input_blocks:
            x = _run(block, x, embedding)
            skips.append(x)
        x = _run(self.middle_block, x, embedding)
        for block in self.output_blocks:
            x = _run(block, torch.cat([x, skips.pop()], dim=1), embedding)
        return self.out(x)


def _run(block: nn.Module, x: Tensor, embedding: Tensor) -> Tensor:
    for layer in block:  # type: ignore[attr-defined]
        x = layer(x, embedding) if isinstance(layer, ADMResidual) else layer(x)
    return x


def _resample(x: Tensor, direction: int) -> Tensor:
    if direction > 0:
        return functional.interpolate(x, scale_factor=2.0, mode="nearest")
    return functional.avg_pool2d(x, 2) if direction < 0 else x
