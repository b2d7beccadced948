"""Parts of several networks: step embedding, attention between pixels, filtering, channels and pixel positions."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional


def sinusoid(values: Tensor, features: int, shift: float = 0.0) -> Tensor:
    """Embed numbers ``(batch,)`` as ``[cos(v w_k), sin(v w_k)]``, ``(batch, features)``.

    ``w_k = 10000 ** (-k / (half - shift))`` for ``k = 0 ... half - 1`` and ``half = features / 2``; the frequencies of
    Vaswani et al. 2017 as diffusion networks use them. Numbers need not be integers.
    """
    half = features // 2
    exponent = torch.arange(half, dtype=torch.float32, device=values.device) / (half - shift)
    phase = values[:, None].float() * torch.exp(-math.log(10000.0) * exponent)
    return torch.cat([phase.cos(), phase.sin()], dim=1)


def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Scaled dot-product attention between pixels; arguments and result are ``(batch, channel, pixel)``.

    Not fused, because fused kernels have no forward-mode derivative, which samplers with Jacobians need.
    """
    scale = query.shape[1] ** -0.25  # on both sides, so that products of large features stay within half precision
    weight = torch.einsum("bcq,bck->bqk", query * scale, key * scale).float().softmax(dim=-1)
    return torch.einsum("bqk,bck->bcq", weight.to(value.dtype), value)


def fir_filter(taps: Sequence[float]) -> Tensor:
    """Return the separable low-pass filter with these taps, ``(1, 1, k, k)`` with sum 1.

    Computed on the CPU even if a network is built on device "meta", where torch takes seconds to set up arithmetic.
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
    """Insert zeros between pixels and filter, with gain 4 to preserve constants."""
    channels = x.shape[1]
    weight = (4 * kernel).to(x.dtype).expand(channels, 1, -1, -1)
    return functional.conv_transpose2d(x, weight, stride=2, padding=(kernel.shape[-1] - 1) // 2, groups=channels)


def to_channels(images: Tensor) -> Tensor:
    """Return ``(batch, channel, y, x)`` float32 of images ``(batch, y, x)``: two channels if complex, else one."""
    if not images.is_complex():
        return images.float()[:, None]
    return torch.view_as_real(images.to(torch.complex64)).permute(0, 3, 1, 2)  # already channels_last


def from_channels(channels: Tensor) -> Tensor:
    """Return images ``(batch, y, x)`` of ``(batch, channel, y, x)``: complex64 of two channels, float32 of one."""
    if channels.shape[1] == 1:
        return channels[:, 0].float()
    return torch.view_as_complex(channels.permute(0, 2, 3, 1).float().contiguous())


def coordinates(first: int, count: int, length: int, device: torch.device | str = "cpu") -> Tensor:
    """Return the centres ``(count,)`` of pixels from ``first`` on, for an axis whose ``length`` pixels span -1 to 1."""
    return (2 * torch.arange(first, first + count, dtype=torch.float32, device=device) + 1) / length - 1


def positions(
    shape: tuple[int, int],
    padded: tuple[int, int] | None = None,
    margin: tuple[int, int] = (0, 0),
    device: torch.device | str = "cpu",
) -> Tensor:
    """Return ``(1, 2, y, x)``: the y and x coordinate of every pixel of an image of ``shape``.

    Parameters
    ----------
    shape : (int, int)
        Size of the image.
    padded : (int, int), optional
        Size including padding; coordinates of padded pixels extend beyond -1 and 1.
    margin : (int, int)
        Number of padded pixels above and to the left.
    device : torch.device or str
        Device of the result.
    """
    y, x = (
        coordinates(-before, count, length, device)
        for length, count, before in zip(shape, padded or shape, margin, strict=True)
    )
    return torch.stack(torch.meshgrid(y, x, indexing="ij"))[None]
