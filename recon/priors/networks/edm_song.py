"""DDPM++ and NCSN++ as rewritten for EDM by Karras et al. (``SongUNet``).

Karras et al., "Elucidating the Design Space of Diffusion-Based Generative Models", NeurIPS 2022, appendix F.
Parameter names are those of the published weights, as in `recon.priors.networks.edm`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from recon.priors.networks.blocks import sinusoid
from recon.priors.networks.edm_blocks import Conv, EDMBlock, group_norm, join, level_name


class FourierFeatures(nn.Module):
    """``[cos(2 pi f v), sin(2 pi f v)]`` with stored random frequencies."""

    freqs: Tensor

    def __init__(self, features: int) -> None:
        super().__init__()
        self.register_buffer("freqs", torch.zeros(features // 2))

    def forward(self, values: Tensor) -> Tensor:
        """Embed ``(batch,)`` as ``(batch, features)``."""
        phase = 2 * math.pi * values[:, None] * self.freqs
        return torch.cat([phase.cos(), phase.sin()], dim=1)


class SongUNet(nn.Module):
    """DDPM++ (plain encoder, sinusoids) or NCSN++ (residual encoder, Fourier features) in EDM's layout.

    Parameters
    ----------
    resolution, channels, out_channels, features, multipliers, res_blocks
        As in `recon.priors.networks.edm.DhariwalUNet`.
    attention_levels : sequence of int
        Levels with attention: in every encoder block and in the last decoder block.
    encoder : "standard", "skip" or "residual"
        Type of the encoder.
    decoder : "standard" or "skip"
        Type of the decoder.
    fourier : bool
        Whether the noise level is embedded by stored random frequencies instead of sinusoids.
    noise_features : int
        Width of that embedding.
    taps : sequence of float
        Taps of the resampling filter.
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
        encoder: str = "standard",
        decoder: str = "standard",
        fourier: bool = False,
        noise_features: int | None = None,
        taps: Sequence[float] = (1, 1),
    ) -> None:
        super().__init__()
        if encoder not in ("standard", "skip", "residual") or decoder not in ("standard", "skip"):
            raise ValueError(f"unknown combination: {encoder} encoder with {decoder} decoder")
        self.in_channels = channels
        self.multiple = 2 ** (len(multipliers) - 1)
        self.noise_features = noise_features or features
        width = 4 * features
        if fourier:
            self.map_noise = FourierFeatures(self.noise_features)
        self.fourier = fourier
        self.map_layer0 = nn.Linear(self.noise_features, width)
        self.map_layer1 = nn.Linear(width, width)
        self.enc = nn.ModuleDict()
        self.dec = nn.ModuleDict()
        settings: dict[str, Any] = {"adaptive_scale": False, "gain": math.sqrt(0.5), "eps": 1e-6, "taps": taps}

        def block(inner: int, out: int, attention: bool = False, resample: int = 0) -> EDMBlock:
            return EDMBlock(
                inner, out, width, heads=int(attention), resample=resample, project_resampled=True, **settings
            )

        current, aux, skips = features, channels, []
        for level, factor in enumerate(multipliers):
            name = level_name(resolution, level)
            if level == 0:
                self.enc[f"{name}_conv"] = Conv(channels, features, 3)
            else:
                self.enc[f"{name}_down"] = block(current, current, resample=-1)
                if encoder == "skip":
                    self.enc[f"{name}_aux_down"] = Conv(aux, aux, 0, -1, taps)
                    self.enc[f"{name}_aux_skip"] = Conv(aux, current, 1)
                if encoder == "residual":
                    self.enc[f"{name}_aux_residual"] = Conv(aux, current, 3, -1, taps, fused=True)
                    aux = current
            skips.append(current)
            for number in range(res_blocks):
                self.enc[f"{name}_block{number}"] = block(current, factor * features, level in attention_levels)
                current = factor * features
                skips.append(current)
        last = len(multipliers) - 1
        for level, factor in reversed(list(enumerate(multipliers))):
            name = level_name(resolution, level)
            if level == last:
                self.dec[f"{name}_in0"] = block(current, current, True)
                self.dec[f"{name}_in1"] = block(current, current)
            else:
                self.dec[f"{name}_up"] = block(current, current, resample=1)
            for number in range(res_blocks + 1):
                attention = number == res_blocks and level in attention_levels
                self.dec[f"{name}_block{number}"] = block(current + skips.pop(), factor * features, attention)
                current = factor * features
            if decoder == "skip" or level == 0:
                if decoder == "skip" and level < last:
                    self.dec[f"{name}_aux_up"] = Conv(out_channels, out_channels, 0, 1, taps)
                self.dec[f"{name}_aux_norm"] = group_norm(current, 1e-6)
                self.dec[f"{name}_aux_conv"] = Conv(current, out_channels, 3)

    def forward(self, x: Tensor, noise: Tensor) -> Tensor:
        """Apply the network."""
        return self._decode(*self._encode(x, embedding := self._embed(noise)), embedding)

    def _embed(self, noise: Tensor) -> Tensor:
        if self.fourier:
            cos, sin = self.map_noise(noise).chunk(2, dim=1)
        else:
            half = self.noise_features // 2  # the last frequency is exactly 1 / 10000
            cos, sin = sinusoid(noise, self.noise_features, shift=1.0 if half > 1 else 0.0).chunk(2, dim=1)
        embedding = functional.silu(self.map_layer0(torch.cat([sin, cos], dim=1)))
        return functional.silu(self.map_layer1(embedding))

    def _encode(self, x: Tensor, embedding: Tensor) -> tuple[Tensor, list[Tensor]]:
        aux = x
        skips: list[Tensor] = []
        for name, block in self.enc.items():
            if name.endswith("aux_down"):
                aux = block(aux)
            elif name.endswith("aux_skip"):
                x = skips[-1] = x + block(aux)
            elif name.endswith("aux_residual"):
                x = skips[-1] = aux = (x + block(aux)) * math.sqrt(0.5)
            else:
                x = block(x, embedding) if isinstance(block, EDMBlock) else block(x)
                skips.append(x)
        return x, skips

    def _decode(self, x: Tensor, skips: list[Tensor], embedding: Tensor) -> Tensor:
        image: Tensor | None = None
        normal = x
        for name, block in self.dec.items():
            if name.endswith("aux_up"):
                image = block(image)
            elif name.endswith("aux_norm"):
                normal = block(x)
            elif name.endswith("aux_conv"):
                drawn = block(functional.silu(normal))
                image = drawn if image is None else image + drawn
            else:
                x = block(join(block, x, skips), embedding)
        return x if image is None else image
