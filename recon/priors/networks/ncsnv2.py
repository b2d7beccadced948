"""NCSNv2: Song and Ermon, "Improved Techniques for Training Score-Based Generative Models", NeurIPS 2020.

The deepest variant, a RefineNet with InstanceNorm++ and dilated residual blocks, as trained on multi-coil MRI by
Jalal et al. 2021 (csgm-mri-langevin). Parameter names are those of the published weights.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional


class InstanceNormPlus(nn.Module):
    """Instance normalisation that keeps the (normalised) channel means: gamma * (norm(x) + alpha * means) + beta."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.ones(channels))
        self.gamma = nn.Parameter(torch.ones(channels))
        self.beta = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise ``(batch, channel, y, x)``."""
        means = x.mean(dim=(2, 3))
        variance, mean = torch.var_mean(means, dim=1, keepdim=True)
        means = (means - mean) * (variance + 1e-5).rsqrt()
        variance, mean = torch.var_mean(x, dim=(2, 3), keepdim=True, correction=0)
        normal = (x - mean) * (variance + 1e-5).rsqrt()
        shift = (self.gamma * self.alpha * means + self.beta)[:, :, None, None]
        return self.gamma[:, None, None] * normal + shift


class ConvMeanPool(nn.Module):
    """Convolve, then average 2 x 2 pixels."""

    def __init__(self, channels: int, out: int, size: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, out, size, padding=size // 2)

    def forward(self, x: Tensor) -> Tensor:
        """Halve the resolution."""
        return functional.avg_pool2d(self.conv(x), 2)


class NCSNv2Residual(nn.Module):
    """Pre-activation residual block; a ``transition`` widens and either halves the resolution or dilates instead."""

    def __init__(self, channels: int, out: int, transition: bool = False, dilation: int = 1) -> None:
        super().__init__()

        def conv(inner: int, outer: int) -> nn.Module:
            return nn.Conv2d(inner, outer, 3, padding=dilation, dilation=dilation)

        self.normalize1 = InstanceNormPlus(channels)
        middle = channels if transition else out
        self.conv1 = conv(channels, middle)
        self.normalize2 = InstanceNormPlus(middle)
        self.shortcut: nn.Module = nn.Identity()
        if transition and dilation == 1:
            self.conv2: nn.Module = ConvMeanPool(channels, out, 3)
            self.shortcut = ConvMeanPool(channels, out, 1)
        else:
            self.conv2 = conv(middle, out)
            if transition:
                self.shortcut = conv(channels, out)

    def forward(self, x: Tensor) -> Tensor:
        """Refine ``x``."""
        hidden = self.conv1(functional.elu(self.normalize1(x)))
        return self.shortcut(x) + self.conv2(functional.elu(self.normalize2(hidden)))


class ResidualConvs(nn.Module):
    """Chains of two activated convolutions without bias, each chain with a shortcut (RefineNet's RCU)."""

    def __init__(self, channels: int, chains: int) -> None:
        super().__init__()
        self.chains = chains
        for chain in range(chains):
            for stage in range(2):
                conv = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
                self.add_module(f"{chain + 1}_{stage + 1}_conv", conv)

    def forward(self, x: Tensor) -> Tensor:
        """Refine ``x``."""
        for chain in range(self.chains):
            hidden = x
            for stage in range(2):
                hidden = self.get_submodule(f"{chain + 1}_{stage + 1}_conv")(functional.elu(hidden))
            x = x + hidden
        return x


class Fusion(nn.Module):
    """Resample several resolutions to one size and add them (RefineNet's MSF)."""

    def __init__(self, inputs: Sequence[int], out: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(channels, out, 3, padding=1) for channels in inputs)

    def forward(self, images: Sequence[Tensor], size: Sequence[int]) -> Tensor:
        """Return the sum at ``size``."""
        resized = [
            functional.interpolate(conv(image), size=tuple(size), mode="bilinear", align_corners=True)
            for conv, image in zip(self.convs, images, strict=True)
        ]
        return torch.stack(resized).sum(dim=0)


class ChainedPool(nn.Module):
    """Pool repeatedly with wide windows, and add the result of each stage (RefineNet's CRP)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1, bias=False) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        """Refine ``x``."""
        x = path = functional.elu(x)
        for conv in self.convs:
            path = conv(functional.max_pool2d(path, 5, stride=1, padding=2))
            x = x + path
        return x


class Refine(nn.Module):
    """Fuse the features of a level with the coarser ones."""

    def __init__(self, inputs: Sequence[int], out: int, chains: int = 1) -> None:
        super().__init__()
        self.adapt_convs = nn.ModuleList(ResidualConvs(channels, 2) for channels in inputs)
        self.msf = Fusion(inputs, out) if len(inputs) > 1 else None
        self.crp = ChainedPool(out)
        self.output_convs = ResidualConvs(out, chains)

    def forward(self, *images: Tensor) -> Tensor:
        """Return features in the resolution of the first image."""
        adapted = [conv(image) for conv, image in zip(self.adapt_convs, images, strict=True)]
        hidden = adapted[0] if self.msf is None else self.msf(adapted, images[0].shape[2:])
        return self.output_convs(self.crp(hidden))


class NCSNv2Deepest(nn.Module):
    """``sigma`` times the score ``(batch, channels, y, x)``: the network is not conditioned on the noise level.

    Parameters
    ----------
    channels : int
        Number of image channels.
    features : int
        Width of the finest level (ngf).
    rescaled : bool
        Whether the input is used unchanged; otherwise the network maps ``x`` to ``2 x - 1``.
    """

    multiple = 8

    def __init__(self, channels: int, features: int, rescaled: bool = False) -> None:
        super().__init__()
        one, two, four = features, 2 * features, 4 * features
        self.in_channels = channels
        self.rescaled = rescaled
        self.begin_conv = nn.Conv2d(channels, one, 3, padding=1)
        self.normalizer = InstanceNormPlus(one)
        self.end_conv = nn.Conv2d(one, channels, 3, padding=1)

        def stage(inner: int, out: int, transition: bool = True, dilation: int = 1) -> nn.Module:
            first = NCSNv2Residual(inner, out, transition, dilation)
            return nn.Sequential(first, NCSNv2Residual(out, out, dilation=dilation))

        self.res1 = stage(one, one, transition=False)
        self.res2 = stage(one, two)
        self.res3 = stage(two, two)
        self.res31 = stage(two, two)
        self.res4 = stage(two, four, dilation=2)
        self.res5 = stage(four, four, dilation=4)
        self.refine1 = Refine([four], four)
        self.refine2 = Refine([four, four], two)
        self.refine31 = Refine([two, two], two)
        self.refine3 = Refine([two, two], two)
        self.refine4 = Refine([two, two], one)
        self.refine5 = Refine([one, one], one, chains=3)

    def forward(self, x: Tensor) -> Tensor:
        """Return sigma times the score."""
        x = x if self.rescaled else 2 * x - 1
        level1 = self.res1(self.begin_conv(x))
        level2 = self.res2(level1)
        level3 = self.res3(level2)
        level31 = self.res31(level3)
        level4 = self.res4(level31)
        hidden = self.refine1(self.res5(level4))
        hidden = self.refine2(level4, hidden)
        for refine, level in (
            (self.refine31, level31),
            (self.refine3, level3),
            (self.refine4, level2),
            (self.refine5, level1),
        ):
            hidden = refine(level, hidden)
        return self.end_conv(functional.elu(self.normalizer(hidden)))
