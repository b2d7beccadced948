"""ADM as rewritten for EDM by Karras et al. (``DhariwalUNet``): the network of InverseBench.

Karras et al., "Elucidating the Design Space of Diffusion-Based Generative Models", NeurIPS 2022, appendix F.
Parameter names are those of the published weights, which name a block after the resolution it was trained at
(``enc.64x64_block0``). The networks are fully convolutional: these names do not limit the image size.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional

from recon.priors.networks.blocks import sinusoid
from recon.priors.networks.edm_blocks import Conv, EDMBlock, group_norm, join, level_name


class DhariwalUNet(nn.Module):
    """ADM in EDM's layout: ``F(c_in x, c_noise)``, both ``(batch, channels, y, x)`` and ``(batch,)``.

    Parameters
    ----------
    resolution : int
        Image size in the names of the blocks.
    channels, out_channels : int
        Number of input and output channels.
    features : int
        Width of the finest level.
    multipliers : sequence of int
        Width of each level relative to the finest.
    res_blocks : int
        Residual blocks per level of the encoder; the decoder has one more.
    attention_levels : sequence of int
        Levels with attention in every block; the middle always has it (if it is at least ``head_channels`` wide).
    head_channels : int
        Channels per attention head.
    """

    def __init__(
        self,
        resolution: int,
        channels: int,
        out_channels: int,
        features: int,
        multipliers: Sequence[int],
        res_blocks: int,
        attention_levels: Sequence[int] = (),
        head_channels: int = 64,
    ) -> None:
        super().__init__()
        self.in_channels = channels
        self.multiple = 2 ** (len(multipliers) - 1)
        self.features = features
        width = 4 * features
        self.map_layer0 = nn.Linear(features, width)
        self.map_layer1 = nn.Linear(width, width)

        def block(inner: int, out: int, attention: bool = False, resample: int = 0) -> EDMBlock:
            heads = out // head_channels if attention else 0
            return EDMBlock(inner, out, width, heads=heads, resample=resample)

        self.enc = nn.ModuleDict()
        self.dec = nn.ModuleDict()
        current, skips = features * multipliers[0], []
        for level, factor in enumerate(multipliers):
            name = level_name(resolution, level)
            if level == 0:
                self.enc[f"{name}_conv"] = Conv(channels, current, 3)
            else:
                self.enc[f"{name}_down"] = block(current, current, resample=-1)
            skips.append(current)
            for number in range(res_blocks):
                self.enc[f"{name}_block{number}"] = block(current, factor * features, level in attention_levels)
                current = factor * features
                skips.append(current)
        for level, factor in reversed(list(enumerate(multipliers))):
            name = level_name(resolution, level)
            if level == len(multipliers) - 1:
                self.dec[f"{name}_in0"] = block(current, current, True)
                self.dec[f"{name}_in1"] = block(current, current)
            else:
                self.dec[f"{name}_up"] = block(current, current, resample=1)
            for number in range(res_blocks + 1):
                inner, current_out = current + skips.pop(), factor * features
                self.dec[f"{name}_block{number}"] = block(inner, current_out, level in attention_levels)
                current = current_out
        self.out_norm = group_norm(current)
        self.out_conv = Conv(current, out_channels, 3)

    def forward(self, x: Tensor, noise: Tensor) -> Tensor:
        """Apply the network."""
        embedding = functional.silu(self.map_layer0(sinusoid(noise, self.features)))
        embedding = functional.silu(self.map_layer1(embedding))
        skips = []
        for block in self.enc.values():
            x = block(x, embedding) if isinstance(block, EDMBlock) else block(x)
            skips.append(x)
        for block in self.dec.values():
            x = join(block, x, skips)
            x = block(x, embedding)
        return self.out_conv(functional.silu(self.out_norm(x)))
