"""NCSN++: Song et al., "Score-Based Generative Modeling through Stochastic Differential Equations", ICLR 2021.

The variant of score-MRI (Chung and Ye 2022) and DiffusionMBIR (Chung et al. 2023): BigGAN residual blocks, FIR
resampling, residual input pyramid, Fourier embedding of log sigma. Parameter names are those of the published weights,
which number the layers in order of use (``all_modules``).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from recon.priors.networks.blocks import attend, fir_down, fir_filter, fir_up


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(min(channels // 4, 32), channels, eps=1e-6)


class FourierEmbedding(nn.Module):
    """Embed log sigma by ``[sin(2 pi W v), cos(2 pi W v)]`` with random frequencies W that are not trained."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.W = nn.Parameter(torch.zeros(features), requires_grad=False)

    def forward(self, values: Tensor) -> Tensor:
        """Embed ``(batch,)`` as ``(batch, 2 * features)``."""
        phase = 2 * math.pi * values[:, None] * self.W
        return torch.cat([phase.sin(), phase.cos()], dim=1)


class NCSNppResidual(nn.Module):
    """BigGAN residual block; may halve (-1) or double (+1) the resolution by a FIR filter."""

    kernel: Tensor

    def __init__(
        self, channels: int, out: int, embedding: int, taps: Sequence[float], rescale: bool, resample: int = 0
    ) -> None:
        super().__init__()
        self.GroupNorm_0 = _norm(channels)
        self.Conv_0 = nn.Conv2d(channels, out, 3, padding=1)
        self.Dense_0 = nn.Linear(embedding, out)
        self.GroupNorm_1 = _norm(out)
        self.Conv_1 = nn.Conv2d(out, out, 3, padding=1)
        self.Conv_2 = nn.Conv2d(channels, out, 1) if resample or out != channels else nn.Identity()
        self.resample = resample
        self.gain = math.sqrt(0.5) if rescale else 1.0
        self.register_buffer("kernel", fir_filter(taps), persistent=False)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """Refine ``x (batch, channel, y, x)``."""
        hidden = self._resample(functional.silu(self.GroupNorm_0(x)))
        hidden = self.Conv_0(hidden) + self.Dense_0(functional.silu(embedding))[:, :, None, None]
        hidden = self.Conv_1(functional.silu(self.GroupNorm_1(hidden)))
        return (self.Conv_2(self._resample(x)) + hidden) * self.gain

    def _resample(self, x: Tensor) -> Tensor:
        if not self.resample:
            return x
        return fir_up(x, self.kernel) if self.resample > 0 else fir_down(x, self.kernel)


class NIN(nn.Module):
    """A matrix at every pixel (network in network)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.W = nn.Parameter(torch.zeros(channels, channels))
        self.b = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(batch, channel, pixel)``."""
        return torch.einsum("io,bip->bop", self.W, x) + self.b[:, None]


class NCSNppAttention(nn.Module):
    """Self-attention between pixels, one head."""

    def __init__(self, channels: int, rescale: bool) -> None:
        super().__init__()
        self.GroupNorm_0 = _norm(channels)
        self.NIN_0, self.NIN_1, self.NIN_2, self.NIN_3 = (NIN(channels) for _ in range(4))
        self.gain = math.sqrt(0.5) if rescale else 1.0

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x`` plus the attention of each pixel to all others."""
        flat = self.GroupNorm_0(x).flatten(2)
        gathered = self.NIN_3(attend(self.NIN_0(flat), self.NIN_1(flat), self.NIN_2(flat)))
        return (x + gathered.reshape(x.shape)) * self.gain


class PyramidDown(nn.Module):
    """One step down the input pyramid: filter, then convolve with stride 2."""

    kernel: Tensor

    def __init__(self, channels: int, out: int, taps: Sequence[float]) -> None:
        super().__init__()
        self.Conv2d_0 = nn.Conv2d(channels, out, 3, stride=2)
        self.register_buffer("kernel", fir_filter(taps), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Halve the resolution."""
        channels = x.shape[1]
        kernel = self.kernel.to(x.dtype).expand(channels, 1, -1, -1)
        # The margins of filter and convolution together: (k - 2) + (3 - 1), half on each side.
        return self.Conv2d_0(functional.conv2d(x, kernel, padding=self.kernel.shape[-1] // 2, groups=channels))


class NCSNpp(nn.Module):
    """Score ``(batch, channels, y, x)`` of images noised with ``sigma (batch,)`` (per channel).

    Parameters
    ----------
    channels : int
        Number of image channels.
    features : int
        Width of the finest level.
    multipliers : sequence of int
        Width of each level relative to the finest.
    res_blocks : int
        Residual blocks per level of the encoder; the decoder has one more.
    attention_levels : sequence of int
        Levels with attention, whatever the size of the image.
    taps : sequence of float
        Taps of the resampling filter.
    rescale : bool
        Divide sums of two branches by sqrt(2).
    centered : bool
        Whether the input is used unchanged; otherwise the network maps ``x`` to ``2 x - 1``.
    scale_by_sigma : bool
        Whether the output is divided by sigma.
    """

    def __init__(
        self,
        channels: int,
        features: int,
        multipliers: Sequence[int],
        res_blocks: int,
        attention_levels: Sequence[int] = (),
        taps: Sequence[float] = (1, 3, 3, 1),
        rescale: bool = True,
        centered: bool = False,
        scale_by_sigma: bool = True,
    ) -> None:
        super().__init__()
        self.in_channels = channels
        self.multiple = 2 ** (len(multipliers) - 1)
        self.levels, self.res_blocks, self.attention_levels = len(multipliers), res_blocks, tuple(attention_levels)
        self.centered = centered
        self.scale_by_sigma = scale_by_sigma
        self.gain = math.sqrt(0.5) if rescale else 1.0
        width = 4 * features

        def residual(channels: int, out: int, resample: int = 0) -> nn.Module:
            return NCSNppResidual(channels, out, width, taps, rescale, resample)

        layers: list[nn.Module] = [FourierEmbedding(features), nn.Linear(2 * features, width), nn.Linear(width, width)]
        layers.append(nn.Conv2d(channels, features, 3, padding=1))
        current, pyramid, skips = features, channels, [features]
        for level, factor in enumerate(multipliers):
            for _ in range(res_blocks):
                layers.append(residual(current, factor * features))
                current = factor * features
                if level in attention_levels:
                    layers.append(NCSNppAttention(current, rescale))
                skips.append(current)
            if level < len(multipliers) - 1:
                layers += [residual(current, current, -1), PyramidDown(pyramid, current, taps)]
                pyramid = current
                skips.append(current)
        layers += [residual(current, current), NCSNppAttention(current, rescale), residual(current, current)]
        for level, factor in reversed(list(enumerate(multipliers))):
            for _ in range(res_blocks + 1):
                layers.append(residual(current + skips.pop(), factor * features))
                current = factor * features
            if level in attention_levels:
                layers.append(NCSNppAttention(current, rescale))
            if level:
                layers.append(residual(current, current, 1))
        layers += [_norm(current), nn.Conv2d(current, channels, 3, padding=1)]
        self.all_modules = nn.ModuleList(layers)

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        """Return the score."""
        layers = iter(self.all_modules)
        embedding = next(layers)(sigma.log())
        embedding = next(layers)(embedding)
        embedding = next(layers)(functional.silu(embedding))
        x = x if self.centered else 2 * x - 1
        hidden = self._up(layers, *self._down(layers, x, embedding), embedding)
        hidden = next(layers)(hidden)
        hidden = next(layers)(functional.silu(hidden))
        return hidden / sigma[:, None, None, None] if self.scale_by_sigma else hidden

    def _down(self, layers: Iterator[nn.Module], x: Tensor, embedding: Tensor) -> tuple[Tensor, list[Tensor]]:
        pyramid = x
        skips = [next(layers)(x)]
        for level in range(self.levels):
            for _ in range(self.res_blocks):
                hidden = next(layers)(skips[-1], embedding)
                skips.append(next(layers)(hidden) if level in self.attention_levels else hidden)
            if level < self.levels - 1:
                hidden = next(layers)(skips[-1], embedding)
                pyramid = (next(layers)(pyramid) + hidden) * self.gain
                skips.append(pyramid)
        return skips[-1], skips

    def _up(self, layers: Iterator[nn.Module], hidden: Tensor, skips: list[Tensor], embedding: Tensor) -> Tensor:
        hidden = next(layers)(hidden, embedding)
        hidden = next(layers)(hidden)
        hidden = next(layers)(hidden, embedding)
        for level in reversed(range(self.levels)):
            for _ in range(self.res_blocks + 1):
                hidden = next(layers)(torch.cat([hidden, skips.pop()], dim=1), embedding)
            if level in self.attention_levels:
                hidden = next(layers)(hidden)
            if level:
                hidden = next(layers)(hidden, embedding)
        return hidden
