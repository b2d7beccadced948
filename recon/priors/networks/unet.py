"""Norm-free residual U-Net with EDM preconditioning: the engine's built-in denoising network.

The network has no normalisation layers and no attention, so its output at a pixel depends only on a bounded
neighbourhood: what it learns on patches is valid for whole images of any size.

Source: Karras et al., "Elucidating the Design Space of Diffusion-Based Generative Models", NeurIPS 2022.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from recon.options import shown
from recon.priors.networks.blocks import positions

#: Possible predictions of the network of an `EDMDenoiser`.
PARAMETRIZATIONS = ("edm", "vp", "ve")
#: Most levels and residual blocks of a network: larger numbers are mistakes, and would take minutes to build.
MOST_LEVELS, MOST_BLOCKS = 12, 1000


class NoiseEmbedding(nn.Module):
    """Embed c_noise = log(sigma) / 4 by Fourier features and a small MLP.

    Input ``(batch,)`` and, for ``n_labels > 0``, optional labels ``(batch, n_labels)``, zero by default;
    output ``(batch, features)``.
    """

    frequencies: Tensor

    def __init__(self, features: int, n_frequencies: int = 16, n_labels: int = 0) -> None:
        super().__init__()
        # From half a period over the whole range of log(sigma) / 4 (about 2.3) to several periods.
        # On the CPU even where the weights are on the device "meta": no file contains them.
        frequencies = 2 * math.pi * 0.25 * 2.0 ** torch.linspace(0, 4, n_frequencies, device="cpu")
        self.register_buffer("frequencies", frequencies, persistent=False)
        self.layers = nn.Sequential(
            nn.Linear(2 * n_frequencies, features), nn.SiLU(), nn.Linear(features, features), nn.SiLU()
        )
        self.labels = nn.Linear(n_labels, features, bias=False) if n_labels else None
        if self.labels is not None:
            _zero(self.labels)

    def forward(self, c_noise: Tensor, labels: Tensor | None = None) -> Tensor:
        """Embed ``c_noise`` and the labels."""
        phase = c_noise[:, None] * self.frequencies
        features = torch.cat([phase.cos(), phase.sin()], dim=1)
        if labels is None or self.labels is None:
            return self.layers(features)
        return self.layers[1:](self.layers[0](features) + self.labels(labels))


class ResidualBlock(nn.Module):
    """``x + conv2(silu(conv1(silu(x)) * (1 + scale) + shift))`` with scale and shift from the noise embedding.

    ``conv2`` is initialised to zero, so that the block is initially the identity.
    """

    def __init__(self, channels: int, embedding: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.modulation = nn.Linear(embedding, 2 * channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        _zero(self.modulation)
        _zero(self.conv2)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """Refine ``x (batch, channel, y, x)`` given ``embedding (batch, features)``."""
        scale, shift = self.modulation(embedding)[:, :, None, None].chunk(2, dim=1)
        # Not addcmul: its gradient needs another pass over the image.
        hidden = self.conv1(functional.silu(x)) * (1 + scale) + shift
        return x + self.conv2(functional.silu(hidden))


class UNet(nn.Module):
    """Map ``(batch, in_channels, y, x)`` and ``c_noise (batch,)`` to ``(batch, out_channels, y, x)``.

    Parameters
    ----------
    channels : sequence of int
        Width of each level; level k has 1 / 2**k of the resolution.
    encoder_blocks, decoder_blocks : sequence of int
        Residual blocks per level, finest first. The last entry of ``encoder_blocks`` is the bottom; ``decoder_blocks``
        has one entry fewer.
    in_channels, out_channels : int
        Number of channels: 2 and 2 for complex images.
    embedding : int
        Width of the noise embedding.
    position_channels : bool
        Whether two more input channels contain the coordinates of each pixel (Wang et al., "Patch Diffusion", NeurIPS
        2023): the network can then learn from patches what belongs where in the whole image.
    augmentation_labels : int
        Length of the vector that describes the augmentation of a training image, so that augmentations do not leak into
        denoised images (Karras et al., 2022, appendix F.2); 0 for none.

    Notes
    -----
    Height and width must be multiples of ``2 ** (len(channels) - 1)``.
    """

    def __init__(
        self,
        channels: Sequence[int] = (48, 96, 160, 256),
        encoder_blocks: Sequence[int] = (1, 2, 2, 3),
        decoder_blocks: Sequence[int] = (2, 2, 2),
        in_channels: int = 2,
        out_channels: int = 2,
        embedding: int = 128,
        position_channels: bool = False,
        augmentation_labels: int = 0,
    ) -> None:
        super().__init__()
        _require_moderate(channels, encoder_blocks, decoder_blocks)
        if len(encoder_blocks) != len(channels) or len(decoder_blocks) != len(channels) - 1:
            raise ValueError("expected one entry of encoder_blocks per level, and one fewer in decoder_blocks")
        self.multiple = 2 ** (len(channels) - 1)
        self.in_channels, self.position_channels = in_channels, bool(position_channels)
        self.embedding = NoiseEmbedding(embedding, n_labels=augmentation_labels)
        self.stem = nn.Conv2d(in_channels + 2 * self.position_channels, channels[0], 3, padding=1)
        sizes = zip(channels, encoder_blocks, strict=True)
        self.encoder = nn.ModuleList(_level(width, blocks, embedding) for width, blocks in sizes)
        sizes = zip(channels[:-1], decoder_blocks, strict=True)
        self.decoder = nn.ModuleList(_level(width, blocks, embedding) for width, blocks in sizes)
        pairs = list(itertools.pairwise(channels))
        self.down = nn.ModuleList(nn.Conv2d(fine, coarse, 2, stride=2) for fine, coarse in pairs)
        self.up = nn.ModuleList(nn.Conv2d(coarse, fine, 1) for fine, coarse in pairs)
        self.join = nn.ModuleList(nn.Conv2d(2 * fine, fine, 1) for fine, _ in pairs)
        self.head = nn.Conv2d(channels[0], out_channels, 3, padding=1)
        _zero(self.head)

    def forward(
        self, x: Tensor, c_noise: Tensor, position: Tensor | None = None, labels: Tensor | None = None
    ) -> Tensor:
        """Apply the network.

        ``position (batch or 1, 2, y, x)`` are coordinates, by default those of a whole image; ``labels`` describe the
        augmentation of ``x``, by default none.
        """
        embedding = self.embedding(c_noise, labels)
        if self.position_channels:
            position = positions((x.shape[-2], x.shape[-1]), device=x.device) if position is None else position
            x = torch.cat([x, position.to(x.dtype).expand(len(x), -1, -1, -1)], dim=1)
            x = x.contiguous(memory_format=torch.channels_last)
        x = self.stem(x)
        skips = []
        for level, blocks in enumerate(self.encoder):
            if level:
                skips.append(x)
                x = self.down[level - 1](x)
            x = _run(blocks, x, embedding)
        for level in reversed(range(len(self.decoder))):
            x = functional.interpolate(self.up[level](x), scale_factor=2.0, mode="nearest")
            x = self.join[level](torch.cat([x, skips[level]], dim=1))
            x = _run(self.decoder[level], x, embedding)
        return self.head(functional.silu(x))


class EDMDenoiser(nn.Module):
    """Preconditioning around a network F: ``D(x, sigma) = c_skip x + c_out F(c_in x, log(sigma) / 4)``.

    ``x`` is ``(batch, channel, y, x)`` float32 and ``sigma`` ``(batch,)`` is the noise standard deviation *per real
    channel*. ``sigma_data`` is the standard deviation of the data per real channel.

    ``parametrization`` is what F predicts (Karras et al. 2022, table 1): a mixture of image and noise with variance 1
    at all sigma ("edm"), or the noise, from an input scaled to variance 1 ("vp") or unscaled ("ve").
    """

    network: UNet

    def __init__(self, network: UNet, sigma_data: float, parametrization: str = "edm") -> None:
        super().__init__()
        if parametrization not in PARAMETRIZATIONS:
            raise ValueError(f"unknown parametrization {parametrization!r}; expected {' or '.join(PARAMETRIZATIONS)}")
        self.network = network
        self.sigma_data = float(sigma_data)
        self.parametrization = parametrization

    def forward(self, x: Tensor, sigma: Tensor, position: Tensor | None = None) -> Tensor:
        """Denoise ``x``; a network conditioned on positions treats ``x`` as a whole image if none are given."""
        c_skip, c_out, c_in, c_noise = self.coefficients(sigma)
        conditions = () if position is None else (position,)
        return c_skip * x + c_out * self.network(c_in * x, c_noise, *conditions).to(x.dtype)

    def coefficients(self, sigma: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return c_skip, c_out, c_in, each ``(batch, 1, 1, 1)``, and c_noise ``(batch,)``."""
        s = sigma.reshape(-1, 1, 1, 1)
        if self.parametrization == "ve":
            return torch.ones_like(s), s, torch.ones_like(s), sigma.log() / 4
        if self.parametrization == "vp":
            return torch.ones_like(s), -s, (s.square() + 1).rsqrt(), sigma.log() / 4
        total = s.square() + self.sigma_data**2
        c_skip = self.sigma_data**2 / total
        c_out = s * self.sigma_data / total.sqrt()
        return c_skip, c_out, total.rsqrt(), sigma.log() / 4


def _require_moderate(channels: Sequence[int], encoder_blocks: Sequence[int], decoder_blocks: Sequence[int]) -> None:
    """Raise ValueError for sizes that are not whole numbers or are absurdly large."""
    given = {"channels": channels, "encoder_blocks": encoder_blocks, "decoder_blocks": decoder_blocks}
    for name, sizes in given.items():
        if not isinstance(sizes, list | tuple) or not all(type(size) is int and size >= 0 for size in sizes):
            raise ValueError(f"{name}: expected a list of whole numbers, got {shown(sizes)}")
    if not 1 <= len(channels) <= MOST_LEVELS:
        raise ValueError(f"channels: expected 1 to {MOST_LEVELS} levels, got {len(channels)}")
    blocks = sum(encoder_blocks) + sum(decoder_blocks)
    if blocks > MOST_BLOCKS:
        raise ValueError(f"expected at most {MOST_BLOCKS} blocks, got {shown(blocks)}")


def _zero(layer: nn.Module) -> None:
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)


def _level(channels: int, blocks: int, embedding: int) -> nn.ModuleList:
    return nn.ModuleList(ResidualBlock(channels, embedding) for _ in range(blocks))


def _run(blocks: nn.Module, x: Tensor, embedding: Tensor) -> Tensor:
    for block in blocks:  # type: ignore[attr-defined]
        x = block(x, embedding)
    return x
