"""How precisely a network computes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def arithmetic(precision: str, device: torch.device) -> Iterator[None]:
    """Run networks in ``precision``, whatever torch is set to, and leave torch as it was.

    Parameters
    ----------
    precision : "float32", "tf32" or "bfloat16"
        ``float32`` is that on every device: on GPUs torch itself lets convolutions round to ten bits. ``tf32`` allows
        that, in matrix products, too, and changes nothing on a CPU. ``bfloat16`` is torch's autocast.
    device : torch.device
        Where the images are.
    """
    rounding = "tf32" if precision == "tf32" else "ieee"
    with products(rounding, device), torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16"):
        yield


@contextmanager
def products(kind: str, device: torch.device) -> Iterator[None]:
    """Let a GPU compute products of float32 numbers as "ieee" or "tf32"; convolutions are such products."""
    if device.type != "cuda":
        yield
        return
    settings = (torch.backends.cudnn.conv, torch.backends.cuda.matmul)  # type: ignore[attr-defined]
    before = [setting.fp32_precision for setting in settings]
    try:
        for setting in settings:
            setting.fp32_precision = kind
        yield
    finally:
        for setting, value in zip(settings, before, strict=True):
            setting.fp32_precision = value
