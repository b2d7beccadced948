"""Complex images as two real channels, real images as one: the one place where that is decided."""

from __future__ import annotations

import torch
from torch import Tensor


def to_channels(images: Tensor) -> Tensor:
    """Return ``(batch, channel, y, x)`` float32 of images ``(batch, y, x)``: two channels if complex, else one."""
    if not images.is_complex():
        return images.float()[:, None]
    return torch.view_as_real(images.to(torch.complex64)).permute(0, 3, 1, 2)  # is channels_last already


def from_channels(channels: Tensor) -> Tensor:
    """Return images ``(batch, y, x)`` of ``(batch, channel, y, x)``: complex64 of two channels, float32 of one."""
    if channels.shape[1] == 1:
        return channels[:, 0].float()
    return torch.view_as_complex(channels.permute(0, 2, 3, 1).float().contiguous())
